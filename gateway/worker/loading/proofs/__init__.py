"""Proofs that a shortcut changes no answer: joining requests, and calling a model directly."""
