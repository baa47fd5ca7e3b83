"""The operator's commands: their requests, and the printing of answers."""

from registry_sync.cli.app import main as main
