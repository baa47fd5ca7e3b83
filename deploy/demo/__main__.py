"""Plays the demonstration and ends with a status that says whether every step held.

Statuses: 0 every step held; 1 a step or its preparation failed; 2 wrong use; 130 interrupted before
the end (Ctrl-C); 143 and 129 ended by SIGTERM and SIGHUP.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make demo",
        description="Both planes on a real MLflow server, and a story with five steps.",
        epilog="DEMO_SABOTAGE=<step> breaks a step on purpose; DEMO_SABOTAGE=list names them.",
    )
    parser.add_argument(
        "--once",
        action="store_true",
        help="end after the last step, with status 0 only if every step held",
    )
    parser.add_argument(
        "--state",
        type=Path,
        default=ROOT / ".demo",
        help="folder for everything the demonstration writes; emptied at the start",
    )
    return parser.parse_args()


def main() -> int:
    """Run, and return the exit status."""
    from deploy.demo.run import list_sabotages, run
    from deploy.demo.story import SABOTAGES

    arguments = _arguments()
    sabotage = os.environ.get("DEMO_SABOTAGE") or None
    if sabotage == "list":
        list_sabotages()
        return 0
    if sabotage is not None and sabotage not in SABOTAGES:
        known = ", ".join(SABOTAGES)
        print(f"DEMO_SABOTAGE={sabotage}: no such step; there are {known}", file=sys.stderr)
        return 2
    return run(state=arguments.state.resolve(), once=arguments.once, sabotage=sabotage)


if __name__ == "__main__":
    if not __package__:  # started as a script: `python deploy/demo`
        sys.path[0] = str(ROOT)
    sys.exit(main())
