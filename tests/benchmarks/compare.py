"""The benchmarks of two checkouts, in turn: did a change make anything slower?

``python -m tests.benchmarks.compare OTHER [--pairs N] [--seconds S] [--json]``. OTHER is a checkout
of another revision, whose code must run with this environment. Both are measured once in each pair,
so that a machine that drifts drifts for both. A figure's ratio is the median of its pairs', this
checkout's over the other's, or the other's over this one's where more is better: above 1 is worse.
The exit status is 1 if a ratio is above what ``--most`` allows.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[2]
PAIRS = 7
MOST = 1.03
_MORE_IS_BETTER = "per_second"
Figures = dict[str, float]


def main() -> int:
    """Measure and report; return 1 if a figure of this checkout is too much worse."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.compare")
    parser.add_argument("other", type=Path, help="a checkout of the revision to compare with")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--most", type=float, default=MOST, help="the ratio that a figure may have")
    parser.add_argument("--seconds", default="8", help="of each of the loads")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    given = parser.parse_args()
    trees = {"this": HERE, "other": given.other.resolve()}
    pairs: list[dict[str, Figures]] = []
    for number in range(1, given.pairs + 1):
        order = list(trees) if number % 2 else list(reversed(trees))
        pairs.append({name: dict(_figures(trees[name], given.seconds)) for name in order})
        print(f"measured pair {number} of {given.pairs}", file=sys.stderr)
    rows = [_row(name, pairs) for name in pairs[0]["this"]]
    print(json.dumps(rows, indent=1) if given.json else _table(rows, given.most))
    return int(any(row["ratio"] > given.most for row in rows))


def _figures(tree: Path, seconds: str) -> Iterator[tuple[str, float]]:
    """Yield each figure of both benchmarks of a checkout."""
    once = ("--only", "gateway", "--rounds", "1", "--seconds", seconds)
    for row in _run(tree, "tests.benchmarks", *once)["medians"]:
        for figure in ("per_second", "p50_ms", "p99_ms"):
            yield f"{figure}, {row['connections']} connections", row[figure]
    for row in _run(tree, "tests.benchmarks.polling"):
        for figure in ("calls", "bytes", "seconds"):
            yield f"{figure} of a poll: {row['poll']}", row[figure]


def _run(tree: Path, module: str, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", module, "--json", *arguments],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        stdout=subprocess.PIPE,
        check=False,  # a ratio that is not met is not the question here
    )
    return json.loads(done.stdout)


def _row(name: str, pairs: list[dict[str, Figures]]) -> dict[str, Any]:
    up, down = ("other", "this") if _MORE_IS_BETTER in name else ("this", "other")
    return {
        "figure": name,
        "this": statistics.median(pair["this"][name] for pair in pairs),
        "other": statistics.median(pair["other"][name] for pair in pairs),
        "ratio": statistics.median(pair[up][name] / pair[down][name] for pair in pairs),
    }


def _table(rows: list[dict[str, Any]], most: float) -> str:
    lines = [f"{'':40}{'this':>12}{'other':>12}{'ratio':>8}"]
    lines += [
        f"{row['figure']:40}{row['this']:12.3f}{row['other']:12.3f}{row['ratio']:8.3f}"
        f"{'' if row['ratio'] <= most else '  WORSE'}"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
