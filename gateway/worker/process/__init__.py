"""The worker's own process: confinement, memory, priority, preloading."""
