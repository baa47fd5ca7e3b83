"""The data plane: serves every model of a registry from a bounded set of worker processes.

No import stands here: every worker passes through this file before it loads anything.
"""
