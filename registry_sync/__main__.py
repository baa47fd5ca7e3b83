"""Starts the control plane: ``python -m registry_sync``; with arguments: ``registry-gateway``."""

from __future__ import annotations

import sys

from registry_sync.cli import app

if __name__ == "__main__":
    app(args=sys.argv[1:] or ["run"], prog_name="python -m registry_sync")
