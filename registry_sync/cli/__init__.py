"""The operator's commands: what each asks, and how its answer is said on a terminal."""

from registry_sync.cli.app import main as main
