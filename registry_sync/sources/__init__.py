"""Registries that say what is aspired, and the places where their bytes are."""
