"""The commands, in the order in which `--help` lists them."""

from registry_sync.cli.commands.listed import add_commands as add_commands
