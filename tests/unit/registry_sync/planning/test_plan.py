"""The plan as a table: a snapshot, and the actions that are due, most urgent first."""

from collections.abc import Iterator

import pytest

from registry_sync.planning.actions import (
    Action,
    Activate,
    AllowDigest,
    BuildEnvironment,
    EndHold,
    Fetch,
    RetireAlias,
    RetireStandby,
    Stage,
    Urgency,
)
from registry_sync.planning.plan import plan
from tests.fakes.snapshots import given

TABLE = """
# what the gateway refuses after an automatic rollback
not recorded yet: the refused digest keeps the alias
    champion@2, active 1, here 1 2, left 2 -> nothing
recorded: the hold keeps the alias, and the digest stays refused
    champion@2, active 1, here 1 2, left 2, held 1 at=2 by=gateway, recorded -> nothing
the registry moves on: the hold ends, and the next version is staged
    champion@3, active 1, here 1 2 3, left 2, held 1 at=2 by=gateway, recorded -> release
        champion, stage 3 keep over 1 by poll
hold ended: the digest is allowed first, and nothing is staged before
    champion@2, active 1, here 1 2, left 2, recorded -> release digest 2 of champion
an operator's hold waits until the digest is allowed
    champion@2, active 1, here 1 2, left 2, held 2 at=2, recorded -> release digest 2 of
        champion
an operator may hold a version that failed on live traffic
    champion@2, active 1, here 1 2, held 2 at=2, rejected 2 live -> stage 2 keep over 1 by
        operator
an operator may not hold a version that failed to load
    champion@2, active 1, here 1 2, held 2 at=2, rejected 2 -> nothing
table lost after an automatic rollback: its target is recovered
    champion@2, here 1 2, held 1 at=2 by=gateway, recorded -> stage 1 cold by gateway
an alias that is not active may not take a refused digest
    champion@2, here 2, left 2 -> nothing
another alias may take a refused digest
    champion@2, active 1, here 1 2, left 2 canary -> stage 2 keep over 1 by poll
# the ordinary way up
a new alias: fetch its target ahead
    champion@1 -> fetch 1
bytes are here: stage cold
    champion@1, here 1 -> stage 1 cold by poll
staged: activate
    champion@1, here 1, proved 1 -> activate champion 1 s1 by poll
a standby of a dead control plane counts too
    champion@1, here 1, standby 1 -> activate champion 1 s1 by poll
active as aspired: nothing
    champion@1, active 1, here 1 -> nothing
# standbys that no alias is going to
alias moved on: the standby is retired before the next stage
    champion@3, active 1, here 1 2 3, standby 2 -> retire standby 2, stage 3 keep over 1 by poll
two standbys of two control planes: both stay until one is activated
    champion@2, active 1, here 1 2, standby 2 2 -> activate champion 2 s2 by poll
the other standby is retired after that
    champion@2, active 2, here 1 2, standby 2 -> retire standby 2
not listed since the start: the standby may be the next target
    champion@1, active 1, here 1 2, standby 2, listings 0 -> nothing
# an own environment, between fetch and stage
own: bytes first
    champion@1, tag environment=own -> fetch 1
own: build it
    champion@1, here 1, tag environment=own -> build 1 by poll
own and built: stage
    champion@1, here 1, built 1, tag environment=own -> stage 1 cold by poll
own and promoted: build while the old one serves
    champion@2, active 1, here 1 2, tag environment=own -> build 2 by poll
own and not to be built: nothing, the old one serves
    champion@2, active 1, here 1 2, tag environment=own, rejected 2 environment own=1 -> nothing
own environment failed, and is no longer requested: stage
    champion@2, active 1, here 1 2, rejected 2 environment own=1 -> stage 2 keep over 1 by poll
own and called by number: build it
    champion@1, active 1, here 1 2, wanted 2, built 1, tag environment=own -> build 2 by poll
own and active: nothing
    champion@1, active 1, here 1, tag environment=own -> nothing
failed in the shared environment, and requests its own: build
    champion@2, active 1, here 1 2, tag environment=own, rejected 2 load_failed -> build 2 by
        poll
failed in its own environment: nothing
    champion@2, active 1, here 1 2, built 2, tag environment=own, rejected 2 own=1 ->
        nothing
# on demand: what is not here is not fetched ahead
on demand: nothing until a call
    champion@1, tag load=on_demand -> nothing
on demand and called: fetched at once
    champion@1, wanted 1, tag load=on_demand -> fetch 1
on demand, bytes here: stage
    champion@1, here 1, tag load=on_demand -> stage 1 cold by poll
on demand and staged: activate
    champion@1, here 1, proved 1, tag load=on_demand -> activate champion 1 s1 by poll
on demand and promoted over an active version: fetched
    champion@2, active 1, here 1, tag load=on_demand -> fetch 2
on demand, promoted, bytes here: stage
    champion@2, active 1, here 1 2, tag load=on_demand -> stage 2 keep over 1 by poll
on demand by the tag of the version
    champion@1, tag_of_1 load=on_demand -> nothing
on demand, overridden by the tag of the version
    champion@1, tag load=on_demand, tag_of_1 load=lazy -> fetch 1
on demand by the tag of another version
    champion@2, tag_of_1 load=on_demand -> fetch 2
on demand and own: no environment is built ahead
    champion@1, here 1, tag load=on_demand environment=own -> nothing
on demand, own, and called: build it
    champion@1, here 1, wanted 1, tag load=on_demand environment=own -> build 1 by poll
on demand and pinned: fetched
    champion@2, tag load=on_demand, pinned 3 at=2 -> fetch 3
on demand, table lost: the last version is recovered, and nothing else
    champion@2, here 1, tag load=on_demand, last 1 -> stage 1 cold by recovery
on demand, table and environment lost: built for the last version
    champion@1, here 1, tag load=on_demand environment=own, last 1 -> build 1 by recovery
on demand, quarantined and called: not fetched
    champion@1, wanted 1, tag load=on_demand, quarantined 1 -> nothing
# preload: resident from the start
preload: fetched
    champion@1, tag load=preload -> fetch 1
preload: staged to stay
    champion@1, here 1, tag load=preload -> stage 1 keep over None by poll
preload: activate the warm standby
    champion@1, here 1, standby 1, proved 1, tag load=preload -> activate champion 1 s1 by poll
preload: an old stage is no warm standby
    champion@1, here 1, proved 1, tag load=preload -> stage 1 keep over None by poll
preload: a second alias of an active version needs no stage
    champion@1, b@1, active 1 b, here 1, proved 1, tag load=preload -> activate champion 1 s1 by
        poll
preload, table lost: recovered to stay
    champion@1, here 1, tag load=preload, last 1 -> stage 1 keep over None by recovery
preload and own: build it
    champion@1, here 1, tag load=preload environment=own -> build 1 by poll
preload and frozen: fetched, not loaded
    champion@1, here 1, tag load=preload, frozen -> nothing
preload and active: nothing
    champion@1, active 1, here 1, tag load=preload -> nothing
# requirements that are not met here
refused: not staged
    champion@1, here 1, refused 1 -> nothing
refused, but own
    champion@1, here 1, refused 1, tag environment=own -> build 1 by poll
refused: the old one serves
    champion@2, active 1, here 1 2, refused 2 -> nothing
# promotion
promoted: fetch first
    champion@2, active 1, here 1 -> fetch 2
promoted: stage over the old one
    champion@2, active 1, here 1 2 -> stage 2 keep over 1 by poll
promoted: an old stage is no warm standby
    champion@2, active 1, here 1 2, proved 2 -> stage 2 keep over 1 by poll
promoted: activate the standby
    champion@2, active 1, here 1 2, standby 2 -> activate champion 2 s2 by poll
bytes of the active version are not stored: fetched again
    champion@1, active 1, here 1, stored -> fetch 1
bytes of the previous version are not stored: fetched again
    champion@2, active 2 previous=1, here 1 2, stored 2 -> fetch 1
bytes of the active version are not stored, its successor is rejected: fetched again
    champion@2, active 1, here 1 2, rejected 2, stored 2 -> fetch 1
previous version not stored, retention over: nothing
    champion@2, active 2 previous=1, here 1 2, stored 2, retention_over -> nothing
previous version not stored, stamped otherwise since: nothing
    champion@2, active 2 previous=1, here 1 2, stored 2, stamped 1 digest=9, stamped 2 ->
        nothing
previous version not stored, quarantined: nothing
    champion@2, active 2 previous=1, here 1 2, stored 2, quarantined 1 expected=1 -> nothing
# order of work: wanted, promotions, first activations, prefetch
wanted goes before everything, oldest first
    champion@2, b@3, active 1, wanted 3 1 -> fetch 3, fetch 1, fetch 2
a promotion goes before a first activation
    champion@2, a@3, active 1, here 1 2 3 -> stage 2 keep over 1 by poll, stage 3 cold by poll
a promotion's bytes go before a preload's, and those before the others'
    champion@2, a@3, b@1, active 3, tag_of_1 load=preload -> fetch 2, fetch 1, fetch 3
a preload is staged before other first activations
    a@3, b@1, here 1 3, tag_of_1 load=preload -> stage 1 keep over None by poll, stage 3 cold by
        poll
wanted and here already: nothing
    here 1, wanted 1 -> nothing
# what is wrong stays out, what serves stays
quarantined: the old one keeps serving
    champion@2, active 1, here 1, quarantined 2 -> nothing
quarantined under another expectation: tried again
    champion@2, active 1, here 1, stamped 2, quarantined 2 -> fetch 2
quarantined and wanted: not fetched
    wanted 2, quarantined 2 -> nothing
rejected: the old one keeps serving
    champion@2, active 1, here 1 2, rejected 2 -> nothing
stamped otherwise since: fetched and checked again
    champion@1, active 1, here 1, stamped 1 digest=9 -> fetch 1
a digest is required, no stamp: nothing
    champion@2, active 1, here 1, require_digest -> nothing
a digest is required, stamped: fetched
    champion@2, active 1, here 1, stamped 2, require_digest -> fetch 2
# holds
held: go to the hold's target, whatever the registry says
    champion@2, active 2, here 1 2, held 1 at=2 -> stage 1 keep over 2 by operator
held and there: nothing
    champion@2, active 1, here 1 2, held 1 at=2 -> nothing
held, and the registry has moved on: hold ends, next version is staged
    champion@3, active 1, here 1 2 3, held 1 at=2 -> release champion, stage 3 keep over 1 by
        poll
a hold made while the registry's target was unknown does not end
    champion@2, active 1, here 1 2, held 1 -> nothing
a hold counts with the registry down too
    unlisted, active 2, here 1 2, held 1 at=2, listings 0 -> stage 1 keep over 2 by operator
# pins
pinned: go there, whatever the registry says
    champion@2, active 2, here 1 2, pinned 1 at=2 -> stage 1 keep over 2 by operator
pinned to bytes that are not here: fetched for the operator
    champion@2, active 2, here 2, pinned 3 at=2 -> fetch 3
pinned, and the registry has moved on: it stays
    champion@3, active 1, here 1 2 3, pinned 1 at=2 -> nothing
pinned, and gone from the registry: it stays
    active 1, here 1, pinned 1 at=2 -> nothing
pinned, gone from the registry, and lost here: recovered
    here 1, pinned 1 at=2 -> stage 1 cold by operator
# frozen
frozen: a promotion is only fetched
    champion@2, active 1, here 1, frozen -> fetch 2
frozen, bytes here: nothing
    champion@2, active 1, here 1 2, frozen -> nothing
frozen, asked by a webhook: its standby is not kept for later
    champion@2, active 1, here 1 2, standby 2, frozen, asked_by webhook -> retire standby 2
frozen, a new alias: not activated
    champion@1, here 1, proved 1, frozen -> nothing
frozen: a hold acts
    champion@2, active 2, here 1 2, held 1 at=2, frozen -> stage 1 keep over 2 by operator
frozen: a hold does not end by the registry
    champion@3, active 1, here 1 3, held 1 at=2, frozen -> nothing
frozen, and gone from the registry: it stays
    active 1, here 1, frozen -> nothing
frozen, table lost: the last version is recovered
    champion@1, here 1, last 1, frozen, asked_by webhook -> stage 1 cold by recovery
frozen, table lost, promoted since: the last version is recovered
    champion@2, here 1 2, last 1, frozen -> stage 1 cold by recovery
# no promotion window is open
closed: a promotion waits, asked by poll
    champion@2, active 1, here 1 2, closed -> nothing
closed: a promotion waits, asked by poll unload first
    champion@2, active 1, here 1 2, tag swap=unload_first, closed -> nothing
closed: a promotion waits, asked by webhook
    champion@2, active 1, here 1 2, closed, asked_by webhook -> nothing
closed: a promotion waits, asked by webhook unload first
    champion@2, active 1, here 1 2, tag swap=unload_first, closed, asked_by webhook -> nothing
closed: a promotion waits, asked by sync
    champion@2, active 1, here 1 2, closed, asked_by sync -> nothing
closed: a promotion waits, asked by sync unload first
    champion@2, active 1, here 1 2, tag swap=unload_first, closed, asked_by sync -> nothing
closed: bytes are fetched ahead
    champion@2, active 1, here 1, closed -> fetch 2
closed: an environment is built ahead
    champion@2, active 1, here 1 2, tag environment=own, closed -> build 2 by poll
closed meanwhile: its standby is not kept for the next window
    champion@2, active 1, here 1 2, standby 2, closed -> retire standby 2
closed: a first activation acts
    champion@1, here 1, proved 1, closed -> activate champion 1 s1 by poll
closed: a version made anew replaces its predecessor
    champion@2, active 2 digest=9, here 2, predecessor 2, closed -> stage 2 keep over 2 by poll
closed: a rollback acts
    champion@2, active 2, here 1 2, held 1 at=2, closed -> stage 1 keep over 2 by operator
closed: a pin acts
    champion@2, active 2, here 1 2, pinned 1 at=2, closed -> stage 1 keep over 2 by operator
closed: a hold ends by the registry, and the promotion waits
    champion@3, active 1, here 1 3, held 1 at=2, closed -> release champion
closed: an alias that is gone from the registry is retired
    active 1, here 1, closed -> retire champion
closed, table lost: the last version is recovered
    champion@1, here 1, last 1, closed -> stage 1 cold by recovery
closed, table lost, promoted since: the last version is recovered
    champion@2, here 1 2, last 1, closed -> stage 1 cold by recovery
closed, table lost, the last version is rejected: the registry's acts
    champion@2, here 1 2, last 1, rejected 1, closed -> stage 2 cold by poll
# the table is lost
table lost: the last version is recovered, as a recovery
    champion@1, here 1, last 1 -> stage 1 cold by recovery
table lost while held: the hold's target
    champion@2, here 1 2, held 1 at=2, last 1 -> stage 1 cold by operator
table lost, aspired is quarantined: the last version
    champion@2, here 1, last 1, quarantined 2 -> stage 1 cold by recovery
table lost, aspired is rejected: the last version
    champion@2, here 1 2, last 1, rejected 2 -> stage 1 cold by recovery
table lost, aspired not fetched yet: the last one serves meanwhile
    champion@2, here 1, last 1 -> stage 1 cold by recovery, fetch 2
table lost, nothing ever listed: the last version
    unlisted, here 1, last 1, listings 0 -> stage 1 cold by recovery
table lost, a remembered listing without the alias: nothing
    here 1, last 1, listings 0 -> nothing
# absence
nothing listed yet: nothing
    unlisted, active 1, here 1, listings 0 -> nothing
gone from one listing: nothing
    active 1, here 1, listings 1 -> nothing
gone from two listings: retired
    active 1, here 1 -> retire champion
gone and held: released and retired
    active 1, here 1, held 1 at=2 -> release champion, retire champion
retired, nothing listed: not recovered
    unlisted, here 1, last 1 retired_at=1, listings 0 -> nothing
gone from two listings, table lost: retired for the record
    here 1, last 1 -> retire champion
gone from one listing, table lost: nothing
    here 1, last 1, listings 1 -> nothing
pinned, gone, table lost: recovered for the operator
    here 1, pinned 1 at=1, last 1 -> stage 1 cold by operator
retired, and now at quarantined bytes: not recovered
    champion@2, here 1, last 1 retired_at=5, quarantined 2 -> nothing
table lost, last bytes known to be wrong: not recovered
    champion@1, here 1, stamped 1 digest=9, last 1, quarantined 1 expected=9 -> nothing
table lost, other bytes in the registry: the accepted bytes are recovered
    champion@1, here 1, last 1, quarantined 1 expected=1 -> stage 1 cold by recovery
an alias at a version that is not listed: nothing
    champion@9, active 1 -> nothing
"""
"""A case is a name and, below it, a snapshot as in `tests.fakes.snapshots`, and its actions."""


def rows() -> Iterator[tuple[str, str, str]]:
    name, text = "", ""
    for line in (*TABLE.splitlines(), "# end"):
        if line.startswith("    "):
            text = f"{text} {line.strip()}".strip()
            continue
        if text:
            snapshot, _, actions = text.rpartition("-> ")
            yield name, snapshot.strip(), "" if actions == "nothing" else actions
        name, text = line, ""


ROWS = list(rows())


def spell(action: Action) -> str:
    match action:
        case Fetch():
            return f"fetch {action.version}"
        case BuildEnvironment():
            return f"build {action.version} by {action.asked_by}"
        case Stage():
            how = f"keep over {action.replaces}" if action.keep else "cold"
            return f"stage {action.version} {how} by {action.asked_by}"
        case Activate():
            return (
                f"activate {action.alias} {action.version} {action.stage_id} by {action.asked_by}"
            )
        case RetireAlias():
            return f"retire {action.alias}"
        case RetireStandby():
            return f"retire standby {action.version}"
        case EndHold():
            return f"release {action.alias}"
        case AllowDigest():
            return f"release digest {action.version} of {action.alias}"


@pytest.mark.parametrize(
    ("snapshot", "actions"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_actions_that_are_due(snapshot: str, actions: str) -> None:
    assert ", ".join(spell(action) for action in plan(given(snapshot))) == actions


@pytest.mark.parametrize(
    ("snapshot", "waiting", "actions"),
    [
        ("champion@1", "wanted 1 alias=champion", "fetch 1"),
        ("champion@1, here 1", "wanted 1 alias=champion", "stage 1 cold by poll"),
        (
            "champion@1, here 1, proved 1",
            "wanted 1 alias=champion",
            "activate champion 1 s1 by poll",
        ),
        ("champion@1", "wanted 1", "fetch 1"),
        (
            "champion@2, here 1 2, held 1 at=2",
            "wanted 2 alias=champion",
            "stage 1 cold by operator",
        ),
        (
            "champion@2, here 1, last 1",
            "wanted 2 alias=champion",
            "fetch 2, stage 1 cold by recovery",
        ),
    ],
)
def test_waiting_caller_raises_every_step(snapshot: str, waiting: str, actions: str) -> None:
    due = plan(given(f"{snapshot}, {waiting}"))
    assert ", ".join(map(spell, due)) == actions
    assert {one.urgency for one in due} == {Urgency.WANTED}
    assert all(one.urgency > Urgency.WANTED for one in plan(given(snapshot)))


def test_caller_by_number_raises_the_fetch_alone() -> None:
    assert plan(given("champion@1, here 1, wanted 1")) == plan(given("champion@1, here 1"))
