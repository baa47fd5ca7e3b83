"""Programs of ours that other processes run: scripts, and commands that end with their parent."""

from gateway.system.processes.scripts import (
    bound_command as bound_command,
    importable as importable,
    script_command as script_command,
)
