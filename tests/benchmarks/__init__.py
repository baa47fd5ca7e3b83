"""Benchmarks: ratios within one run, never absolute figures. ``make bench``."""
