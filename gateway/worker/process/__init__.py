"""What a worker does to its own process: confinement, memory, priority, preloading."""
