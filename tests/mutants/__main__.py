"""Sabotage the spines, and see which sabotages the tests notice.

``python -m tests.mutants [WORD …] [--jobs N] [--list] [--json]``. A word chooses the sabotages
whose key contains it, such as ``gateway.routing``, a function or an operator. Each is tried in a
copy of the tree. The exit status is 1 if less than 95 % are noticed, if one that is not goes
without a reason in ``harmless.toml``, or if a reason there is for nothing.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue

from tests.mutants.baseline import Baseline, baseline, test_files
from tests.mutants.named import named
from tests.mutants.operators import Mutant, mutants
from tests.mutants.spines import SPINES, Spine, spine_of
from tests.mutants.workshop import ROOT, Outcome, Workshop, module_file

LEAST_KILLED = 0.95
HARMLESS = Path(__file__).with_name("harmless.toml")


@dataclass(frozen=True)
class Tried:
    """A mutant, the package it counts for, and what became of it."""

    mutant: Mutant
    package: str
    outcome: Outcome

    @property
    def is_killed(self) -> bool:
        """Whether a test noticed it."""
        return self.outcome.killer is not None


def main() -> int:
    """Try what the command line chooses; return the exit status."""
    parser = argparse.ArgumentParser(prog="tests.mutants", description=__doc__)
    parser.add_argument("words", nargs="*", help="only sabotages whose key contains one of these")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many at once")
    parser.add_argument("--list", action="store_true", help="show what would be tried")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    arguments = parser.parse_args()
    everything = list(_all())
    reasons = _reasons()
    chosen = [
        (mutant, spine)
        for mutant, spine in _sampled(everything)
        if not arguments.words or any(word in mutant.key for word in arguments.words)
    ]
    if arguments.list:
        print(*(mutant.key for mutant, _ in chosen), sep="\n")
        return 0
    tried = _try(chosen, arguments.jobs)
    known = {mutant.key for mutant, _ in everything}
    noticed = {one.mutant.key for one in tried if one.is_killed}
    wrong = [f"is for nothing that there is: {key}" for key in reasons.keys() - known]
    wrong += [f"is for what a test notices: {key}" for key in reasons.keys() & noticed]
    if arguments.json:
        print(json.dumps([_as_json(one, reasons) for one in tried], indent=1))
    else:
        _report(tried, reasons, wrong)
    unexcused = [one for one in tried if not one.is_killed and one.mutant.key not in reasons]
    return int(bool(unexcused or wrong) or _killed_share(tried) < LEAST_KILLED)


def _all() -> Iterator[tuple[Mutant, Spine]]:
    """Yield every sabotage that the operators make of the spines, and those with names."""
    for package in dict.fromkeys(spine.package.partition(".")[0] for spine in SPINES):
        for path in sorted((ROOT / package).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            if spine := spine_of(module):
                yield from ((mutant, spine) for mutant in mutants(module, path.read_bytes()))
    yield from ((mutant, spine_of(mutant.module) or SPINES[0]) for mutant in named(ROOT))


def _sampled(everything: list[tuple[Mutant, Spine]]) -> Iterator[tuple[Mutant, Spine]]:
    """Yield those with names, then of each spine the same ones in each run."""
    by_name = {mutant.key for mutant in named(ROOT)}
    yield from (one for one in everything if one[0].key in by_name)
    for spine in SPINES:
        own = [mutant for mutant, of in everything if of == spine and mutant.key not in by_name]
        yield from ((one, spine) for one in sorted(own, key=lambda one: one.order)[: spine.sample])


def _try(chosen: list[tuple[Mutant, Spine]], jobs: int) -> list[Tried]:
    watching = [name for _, spine in chosen for name in spine.watched_by]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        workshops = [Workshop(Path(folder, str(number))) for number in range(jobs)]
        started = time.monotonic()
        watched = baseline(test_files(watching), workshops)
        _progress(f"what the tests run is known after {time.monotonic() - started:.0f} s")
        free: SimpleQueue[Workshop] = SimpleQueue()
        for workshop in workshops:
            free.put(workshop)

        def one(numbered: tuple[int, tuple[Mutant, Spine]]) -> Tried:
            number, (mutant, spine) = numbered
            tried = _tried(mutant, spine, watched, free)
            outcome = tried.outcome
            _progress(
                f"{number}/{len(chosen)} {outcome.seconds:5.1f} s of {outcome.tests} tests: "
                f"{mutant.key[:110]} {'killed' if outcome.killer else 'SURVIVED'}"
            )
            return tried

        with ThreadPoolExecutor(jobs) as threads:
            tried = list(threads.map(one, enumerate(chosen, 1)))
        _progress(f"all is done after {time.monotonic() - started:.0f} s")
        return tried


def _tried(mutant: Mutant, spine: Spine, watched: Baseline, free: SimpleQueue[Workshop]) -> Tried:
    workshop = free.get()
    try:
        outcome = workshop.run(mutant, watched.watchers(mutant, spine))
    finally:
        free.put(workshop)
    return Tried(mutant, spine.package, outcome)


def _reasons() -> dict[str, str]:
    """Return why a sabotage does no harm, by its key."""
    entries = tomllib.loads(HARMLESS.read_text()).get("harmless", [])
    return {entry["sabotage"]: entry["reason"] for entry in entries}


def _killed_share(tried: list[Tried]) -> float:
    return sum(one.is_killed for one in tried) / max(len(tried), 1)


def _report(tried: list[Tried], reasons: dict[str, str], wrong: Iterable[str]) -> None:
    for one in tried:
        if not one.is_killed:
            print(f"\nSURVIVED {one.outcome.tests} tests: {one.mutant.key}")
            print(f"harmless: {reasons.get(one.mutant.key, 'NO REASON IS GIVEN')}")
            print(_difference(one.mutant))
    total, killed = Counter(one.package for one in tried), Counter[str]()
    killed.update(one.package for one in tried if one.is_killed)
    print(f"\n{'package':34} sabotages  killed")
    for package, count in total.items():
        print(f"{package:34} {count:9} {killed[package]:7}")
    print(f"{'all':34} {len(tried):9} {killed.total():7}  {_killed_share(tried):.1%}")
    for line in wrong:
        print(f"harmless.toml: an entry {line}")


def _difference(mutant: Mutant) -> str:
    file = module_file(mutant.module)
    before, after = mutant.code.decode().splitlines(), mutant.applied.decode().splitlines()
    return "\n".join(difflib.unified_diff(before, after, str(file), "sabotaged", n=2, lineterm=""))


def _as_json(tried: Tried, reasons: dict[str, str]) -> dict[str, object]:
    return {
        "sabotage": tried.mutant.key,
        "package": tried.package,
        **asdict(tried.outcome),
        "harmless": reasons.get(tried.mutant.key),
        "diff": None if tried.is_killed else _difference(tried.mutant),
    }


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
