"""The decision, as tables: what is, and what ought to be done, most urgent first."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest

from gateway.contract.changes import StageRequest
from gateway.contract.node_state import ActiveAlias, NodeState, RefusedDigest, Wanted
from registry_sync.domain import (
    AcceptedDigest,
    Activation,
    Freeze,
    Hold,
    LedgerView,
    Quarantine,
    Rejection,
)
from registry_sync.domain.applied_listing import AppliedListing, apply_listing
from registry_sync.domain.aspired import Aspired, AspiredModel, AspiredVersion
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
)
from registry_sync.planning.explain import explain
from registry_sync.planning.plan import plan
from registry_sync.planning.snapshot import World

M = "m"
D = {n: f"sha256:{n:064x}" for n in range(10)}
OTHER = "sha256:" + "f" * 64
OWN = {"gateway.environment": "own"}
PRELOAD, ON_DEMAND = {"gateway.load": "preload"}, {"gateway.load": "on_demand"}


def listing(aliases: dict[str, int], *, stamps: dict[int, str] | None = None, model: str = M):
    versions = {
        n: AspiredVersion(model, n, location="", expected_digest=(stamps or {}).get(n))
        for n in (1, 2, 3)
    }
    return Aspired({model: AspiredModel(model, versions, aliases)}, listed_at=1.0)


def active(version: int, alias: str = "champion", digest: str | None = None) -> ActiveAlias:
    return ActiveAlias(
        model=M, alias=alias, version=version, digest=digest or D[version], since=0.0
    )


def active_after(version: int, previous: int) -> ActiveAlias:
    before = {"previous_version": previous, "previous_digest": D[previous]}
    return active(version).model_copy(update=before)


def pins(*versions: int) -> dict[tuple[str, int], AcceptedDigest]:
    return {(M, n): AcceptedDigest(M, n, D[n], None, False, "l") for n in versions}


def last(
    version: int, alias: str = "champion", retired_at: float | None = None
) -> dict[tuple[str, str], Activation]:
    one = Activation(M, alias, version, D[version], None, None, "poll", 0.0, 1)
    return {(M, alias): replace(one, retired_at=retired_at)}


def predecessor(version: int) -> dict[tuple[str, str], Activation]:
    """An alias whose bytes belong to an earlier creation of the version that is listed."""
    found = last(version)[M, "champion"]
    return {(M, "champion"): replace(found, digest=OTHER, creation="an earlier one")}


def hold(
    *, at: int | None, target: int, alias: str = "champion", lasting: bool = False
) -> dict[tuple[str, str], Hold]:
    return {(M, alias): Hold(M, alias, at, target, D[target], "operator", 0.0, lasting)}


def left(version: int, since: float = 5.0, alias: str = "champion") -> RefusedDigest:
    """What the gateway went back from, to version 1."""
    return RefusedDigest(
        model=M,
        alias=alias,
        digest=D[version],
        reason="it fails",
        version=version,
        since=since,
        to_version=1,
        to_digest=D[1],
    )


def by_gateway(*, at: int, target: int) -> dict[tuple[str, str], Hold]:
    return {(M, "champion"): Hold(M, "champion", at, target, D[target], "gateway", 5.0)}


RECORDED = frozenset({(M, "champion", 5.0)})
FROZEN = Freeze("operator", 0.0)
NINE = datetime(2026, 11, 25, 9, tzinfo=UTC)


def quarantine(version: int, expected: str | None) -> dict[tuple[str, int], Quarantine]:
    return {(M, version): Quarantine(M, version, expected, "l", OTHER, "wrong bytes", 0.0)}


def rejection(
    version: int, failure: str = "warm_up_failed"
) -> dict[tuple[str, int, str], Rejection]:
    return {(M, version, D[version]): Rejection(M, version, D[version], failure, "", 0.0)}


def standby(version: int) -> StageRequest:
    return StageRequest(stage_id=f"s{version}", model=M, version=version, digest=D[version])


@dataclass
class Case:
    """``aspired`` by alias; what is active, pinned and stored by version; what is expected."""

    why: str
    expected: list[str]
    aspired: dict[str, int] | None = None
    active: tuple[ActiveAlias, ...] = ()
    here: tuple[int, ...] = ()
    stored: tuple[int, ...] | None = None
    standbys: tuple[int, ...] = ()
    proved: tuple[int, ...] = ()
    wanted: tuple[int, ...] = ()
    stamps: dict[int, str] | None = None
    ledger: LedgerView = field(default_factory=LedgerView)
    listings: int = 2
    require_digest: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    tags_of_1: dict[str, str] = field(default_factory=dict)
    built: tuple[int, ...] = ()
    refused: tuple[int, ...] = ()
    asked_by: str = "poll"
    left: tuple[RefusedDigest, ...] = ()
    rollback_since: float = -1.0
    opens_at: datetime | None = None


def world(case: Case) -> World:
    stored = case.here if case.stored is None else case.stored
    node = NodeState(
        node_id="n",
        boot_id="b",
        seq=1,
        generation=7,
        active=list(case.active),
        standbys=[standby(n) for n in case.standbys],
        wanted=[Wanted(model=M, version=n, since=float(i)) for i, n in enumerate(case.wanted)],
        refused_digests=list(case.left),
    )
    return World(
        aspired=tagged(listing(case.aspired, stamps=case.stamps), case.tags, case.tags_of_1)
        if case.aspired is not None
        else Aspired({}, 0.0),
        listings=case.listings,
        node=node,
        ledger=replace(case.ledger, accepted=pins(*case.here)),
        stored={D[n] for n in stored},
        proved={(M, n, D[n]): f"s{n}" for n in case.proved},
        require_digest=case.require_digest,
        environments={D[n] for n in case.built},
        refused={D[n]: "it needs other libraries" for n in case.refused},
        wished_by={(M, "champion"): case.asked_by},
        rollback_since=case.rollback_since,
        promotions_act_at=case.opens_at,
    )


def tagged(aspired: Aspired, tags: dict[str, str], tags_of_1: dict[str, str]) -> Aspired:
    model = aspired.models[M]
    versions = {**model.versions, 1: replace(model.versions[1], tags=tags_of_1)}
    return replace(aspired, models={M: replace(model, tags=tags, versions=versions)})


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


CASES = [
    # --- what the gateway refuses after an automatic rollback
    Case(
        "nobody has recorded it: the gateway's word counts",
        [],
        {"champion": 2},
        (active(1),),
        here=(1, 2),
        left=(left(2),),
    ),
    Case(
        "recorded: the hold keeps it, and the gateway goes on refusing",
        [],
        {"champion": 2},
        (active(1),),
        here=(1, 2),
        left=(left(2),),
        ledger=LedgerView(holds=by_gateway(at=2, target=1), automatic_rollbacks=RECORDED),
    ),
    Case(
        "the registry moves on: the hold ends, and the next version is staged",
        ["release champion", "stage 3 keep over 1 by poll"],
        {"champion": 3},
        (active(1),),
        here=(1, 2, 3),
        left=(left(2),),
        ledger=LedgerView(holds=by_gateway(at=2, target=1), automatic_rollbacks=RECORDED),
    ),
    Case(
        "it is over: the gateway is told, and before that nothing is staged that it refuses",
        ["release digest 2 of champion"],
        {"champion": 2},
        (active(1),),
        here=(1, 2),
        left=(left(2),),
        ledger=LedgerView(automatic_rollbacks=RECORDED),
    ),
    Case(
        "an operator's hold ends it, and waits for that too",
        ["release digest 2 of champion"],
        {"champion": 2},
        (active(1),),
        here=(1, 2),
        left=(left(2),),
        ledger=LedgerView(holds=hold(at=2, target=2), automatic_rollbacks=RECORDED),
    ),
    Case(
        "an operator may have what failed on live traffic",
        ["stage 2 keep over 1 by operator"],
        {"champion": 2},
        (active(1),),
        here=(1, 2),
        ledger=LedgerView(holds=hold(at=2, target=2), rejections=rejection(2, "live")),
    ),
    Case(
        "and not what does not load",
        [],
        {"champion": 2},
        (active(1),),
        here=(1, 2),
        ledger=LedgerView(holds=hold(at=2, target=2), rejections=rejection(2)),
    ),
    Case(
        "a lost table comes back where the rule left it",
        ["stage 1 cold by gateway"],
        {"champion": 2},
        here=(1, 2),
        ledger=LedgerView(holds=by_gateway(at=2, target=1), automatic_rollbacks=RECORDED),
    ),
    Case(
        "an alias that has gone may not take it either",
        [],
        {"champion": 2},
        here=(2,),
        left=(left(2),),
    ),
    Case(
        "another alias may",
        ["stage 2 keep over 1 by poll"],
        {"champion": 2},
        (active(1),),
        here=(1, 2),
        left=(left(2, alias="canary"),),
    ),
    # --- the ordinary way up
    Case("a new alias: fetch its target ahead", ["fetch 1"], {"champion": 1}),
    Case("bytes are here: stage cold", ["stage 1 cold by poll"], {"champion": 1}, here=(1,)),
    Case(
        "staged: activate",
        ["activate champion 1 s1 by poll"],
        {"champion": 1},
        here=(1,),
        proved=(1,),
    ),
    Case(
        "a standby of a dead control plane counts too",
        ["activate champion 1 s1 by poll"],
        {"champion": 1},
        here=(1,),
        standbys=(1,),
    ),
    Case("it is as wished: nothing", [], {"champion": 1}, (active(1),), here=(1,)),
    # --- standbys that no alias is going to
    Case(
        "the wish has moved on: the standby goes first, and leaves its room",
        ["retire standby 2", "stage 3 keep over 1 by poll"],
        {"champion": 3},
        (active(1),),
        here=(1, 2, 3),
        standbys=(2,),
    ),
    Case(
        "two standbys, left by two control planes: both stay until one is taken",
        ["activate champion 2 s2 by poll"],
        {"champion": 2},
        (active(1),),
        here=(1, 2),
        standbys=(2, 2),
    ),
    Case(
        "what was left over after that goes",
        ["retire standby 2"],
        {"champion": 2},
        (active(2),),
        here=(1, 2),
        standbys=(2,),
    ),
    Case(
        "not listed since the start: a standby may be for what the listing will say",
        [],
        {"champion": 1},
        (active(1),),
        here=(1, 2),
        standbys=(2,),
        listings=0,
    ),
    # --- an own environment, between fetch and stage
    Case("own: bytes first", ["fetch 1"], {"champion": 1}, tags=OWN),
    Case("own: build it", ["build 1 by poll"], {"champion": 1}, here=(1,), tags=OWN),
    Case(
        "own and built: stage",
        ["stage 1 cold by poll"],
        {"champion": 1},
        here=(1,),
        tags=OWN,
        built=(1,),
    ),
    Case(
        "own and promoted: build while the old one serves",
        ["build 2 by poll"],
        {"champion": 2},
        (active(1),),
        here=(1, 2),
        tags=OWN,
    ),
    Case(
        "own and not to be built: nothing, the old one serves",
        [],
        {"champion": 2},
        (active(1),),
        here=(1, 2),
        tags=OWN,
        ledger=LedgerView(rejections=rejection(2, "own_environment")),
    ),
    Case(
        "its environment failed, and it is to have none any more: stage",
        ["stage 2 keep over 1 by poll"],
        {"champion": 2},
        (active(1),),
        here=(1, 2),
        ledger=LedgerView(rejections=rejection(2, "own_environment")),
    ),
    Case(
        "own and called by number: build it",
        ["build 2 by poll"],
        {"champion": 1},
        (active(1),),
        here=(1, 2),
        wanted=(2,),
        tags=OWN,
        built=(1,),
    ),
    Case(
        "own and active: what serves is left alone",
        [],
        {"champion": 1},
        (active(1),),
        here=(1,),
        tags=OWN,
    ),
    Case(
        "it failed beside our libraries, and asks for its own: build",
        ["build 2 by poll"],
        {"champion": 2},
        (active(1),),
        here=(1, 2),
        tags=OWN,
        ledger=LedgerView(rejections=rejection(2, "load_failed")),
    ),
    Case(
        "it failed in its own too: nothing",
        [],
        {"champion": 2},
        (active(1),),
        here=(1, 2),
        tags=OWN,
        built=(2,),
        ledger=LedgerView(rejections=rejection(2, "own_load_failed")),
    ),
    # --- on demand: what is not here is not fetched ahead
    Case("on demand: nothing until somebody calls", [], {"champion": 1}, tags=ON_DEMAND),
    Case(
        "on demand and called: fetched at once",
        ["fetch 1"],
        {"champion": 1},
        wanted=(1,),
        tags=ON_DEMAND,
    ),
    Case(
        "on demand, and the bytes are here: up as ever",
        ["stage 1 cold by poll"],
        {"champion": 1},
        here=(1,),
        tags=ON_DEMAND,
    ),
    Case(
        "on demand and staged: activate",
        ["activate champion 1 s1 by poll"],
        {"champion": 1},
        here=(1,),
        proved=(1,),
        tags=ON_DEMAND,
    ),
    Case(
        "on demand and promoted over what serves: as ever",
        ["fetch 2"],
        {"champion": 2},
        (active(1),),
        here=(1,),
        tags=ON_DEMAND,
    ),
    Case(
        "on demand, promoted, and here",
        ["stage 2 keep over 1 by poll"],
        {"champion": 2},
        (active(1),),
        here=(1, 2),
        tags=ON_DEMAND,
    ),
    Case("on demand is the version's own wish", [], {"champion": 1}, tags_of_1=ON_DEMAND),
    Case(
        "on demand but for this version",
        ["fetch 1"],
        {"champion": 1},
        tags=ON_DEMAND,
        tags_of_1={"gateway.load": "lazy"},
    ),
    Case(
        "on demand of another version",
        ["fetch 2"],
        {"champion": 2},
        tags_of_1=ON_DEMAND,
    ),
    Case(
        "on demand and own: no environment is built ahead",
        [],
        {"champion": 1},
        here=(1,),
        tags=ON_DEMAND | OWN,
    ),
    Case(
        "on demand, own, and called: build it",
        ["build 1 by poll"],
        {"champion": 1},
        here=(1,),
        wanted=(1,),
        tags=ON_DEMAND | OWN,
    ),
    Case(
        "on demand, and an operator's wish: fetched",
        ["fetch 3"],
        {"champion": 2},
        tags=ON_DEMAND,
        ledger=LedgerView(holds=hold(at=2, target=3, lasting=True)),
    ),
    Case(
        "on demand, the table lost: what was active comes back, and nothing else",
        ["stage 1 cold by recovery"],
        {"champion": 2},
        here=(1,),
        tags=ON_DEMAND,
        ledger=LedgerView(last_active=last(1)),
    ),
    Case(
        "on demand, table and environment lost: built for what was active",
        ["build 1 by recovery"],
        {"champion": 1},
        here=(1,),
        tags=ON_DEMAND | OWN,
        ledger=LedgerView(last_active=last(1)),
    ),
    Case(
        "on demand and quarantined: not even called is it fetched",
        [],
        {"champion": 1},
        wanted=(1,),
        tags=ON_DEMAND,
        ledger=LedgerView(quarantines=quarantine(1, None)),
    ),
    # --- preload: resident from the start
    Case("preload: fetched", ["fetch 1"], {"champion": 1}, tags=PRELOAD),
    Case(
        "preload: staged to stay",
        ["stage 1 keep over None by poll"],
        {"champion": 1},
        here=(1,),
        tags=PRELOAD,
    ),
    Case(
        "preload: activate what is warm",
        ["activate champion 1 s1 by poll"],
        {"champion": 1},
        here=(1,),
        standbys=(1,),
        proved=(1,),
        tags=PRELOAD,
    ),
    Case(
        "preload: an old proof is no warm standby",
        ["stage 1 keep over None by poll"],
        {"champion": 1},
        here=(1,),
        proved=(1,),
        tags=PRELOAD,
    ),
    Case(
        "preload: a second alias of what serves needs no second worker",
        ["activate champion 1 s1 by poll"],
        {"champion": 1, "b": 1},
        (active(1, "b"),),
        here=(1,),
        proved=(1,),
        tags=PRELOAD,
    ),
    Case(
        "preload, the table lost: it comes back to stay",
        ["stage 1 keep over None by recovery"],
        {"champion": 1},
        here=(1,),
        tags=PRELOAD,
        ledger=LedgerView(last_active=last(1)),
    ),
    Case(
        "preload and own: build it",
        ["build 1 by poll"],
        {"champion": 1},
        here=(1,),
        tags=PRELOAD | OWN,
    ),
    Case(
        "preload and frozen: fetched, not loaded",
        [],
        {"champion": 1},
        here=(1,),
        tags=PRELOAD,
        ledger=LedgerView(freeze=FROZEN),
    ),
    Case(
        "preload: what is active is left alone",
        [],
        {"champion": 1},
        (active(1),),
        here=(1,),
        tags=PRELOAD,
    ),
    # --- requirements that are not met here
    Case("refused: not staged", [], {"champion": 1}, here=(1,), refused=(1,)),
    Case(
        "refused, but own", ["build 1 by poll"], {"champion": 1}, here=(1,), refused=(1,), tags=OWN
    ),
    Case(
        "refused: the old one serves",
        [],
        {"champion": 2},
        (active(1),),
        here=(1, 2),
        refused=(2,),
    ),
    # --- promotion
    Case("promoted: fetch first", ["fetch 2"], {"champion": 2}, (active(1),), here=(1,)),
    Case(
        "promoted: stage over the old one",
        ["stage 2 keep over 1 by poll"],
        {"champion": 2},
        (active(1),),
        here=(1, 2),
    ),
    Case(
        "an old proof is no warm standby: stage again",
        ["stage 2 keep over 1 by poll"],
        {"champion": 2},
        (active(1),),
        here=(1, 2),
        proved=(2,),
    ),
    Case(
        "promoted: activate the standby",
        ["activate champion 2 s2 by poll"],
        {"champion": 2},
        (active(1),),
        here=(1, 2),
        standbys=(2,),
    ),
    Case(
        "bytes of the active version are lost from the store: fetch them again",
        ["fetch 1"],
        {"champion": 1},
        (active(1),),
        here=(1,),
        stored=(),
    ),
    Case(
        "the copy of what an alias may go back to was dropped, too",
        ["fetch 1"],
        {"champion": 2},
        (active_after(2, 1),),
        here=(1, 2),
        stored=(2,),
    ),
    Case(
        "but not for ever: after the rollback window its bytes may make room",
        [],
        {"champion": 2},
        (active_after(2, 1),),
        here=(1, 2),
        stored=(2,),
        rollback_since=0.0,
    ),
    Case(
        "nor if it was stamped otherwise since: these bytes would not come again",
        [],
        {"champion": 2},
        (active_after(2, 1),),
        here=(1, 2),
        stored=(2,),
        stamps={1: OTHER, 2: D[2]},
    ),
    Case(
        "nor if it is quarantined",
        [],
        {"champion": 2},
        (active_after(2, 1),),
        here=(1, 2),
        stored=(2,),
        ledger=LedgerView(quarantines=quarantine(1, D[1])),
    ),
    # --- order of work: wanted, promotions, first activations, prefetch
    Case(
        "wanted goes before everything, oldest first",
        ["fetch 3", "fetch 1", "fetch 2"],
        {"champion": 2, "b": 3},
        (active(1),),
        wanted=(3, 1),
    ),
    Case(
        "a promotion goes before a first activation",
        ["stage 2 keep over 1 by poll", "stage 3 cold by poll"],
        {"champion": 2, "a": 3},
        (active(1),),
        here=(1, 2, 3),
    ),
    Case(
        "a promotion's bytes go before a preload's, and those before the others'",
        ["fetch 2", "fetch 1", "fetch 3"],
        {"champion": 2, "a": 3, "b": 1},
        (active(3),),
        tags_of_1=PRELOAD,
    ),
    Case(
        "a preload is staged before other first activations",
        ["stage 1 keep over None by poll", "stage 3 cold by poll"],
        {"a": 3, "b": 1},
        here=(1, 3),
        tags_of_1=PRELOAD,
    ),
    Case("wanted and here already: nothing", [], {}, here=(1,), wanted=(1,)),
    # --- what is wrong stays out, what serves stays
    Case(
        "quarantined: the old one keeps serving",
        [],
        {"champion": 2},
        (active(1),),
        here=(1,),
        ledger=LedgerView(quarantines=quarantine(2, None)),
    ),
    Case(
        "quarantined under another expectation: tried again",
        ["fetch 2"],
        {"champion": 2},
        (active(1),),
        here=(1,),
        stamps={2: D[2]},
        ledger=LedgerView(quarantines=quarantine(2, None)),
    ),
    Case(
        "quarantined and wanted: not fetched",
        [],
        {},
        wanted=(2,),
        ledger=LedgerView(quarantines=quarantine(2, None)),
    ),
    Case(
        "rejected: the old one keeps serving",
        [],
        {"champion": 2},
        (active(1),),
        here=(1, 2),
        ledger=LedgerView(rejections=rejection(2)),
    ),
    Case(
        "stamped otherwise since: fetched and checked again",
        ["fetch 1"],
        {"champion": 1},
        (active(1),),
        here=(1,),
        stamps={1: OTHER},
    ),
    Case(
        "a digest is required and nobody stamped",
        [],
        {"champion": 2},
        (active(1),),
        here=(1,),
        require_digest=True,
    ),
    Case(
        "a digest is required, and this is it",
        ["fetch 2"],
        {"champion": 2},
        (active(1),),
        here=(1,),
        stamps={2: D[2]},
        require_digest=True,
    ),
    # --- holds
    Case(
        "held: go to the hold's target, whatever the registry says",
        ["stage 1 keep over 2 by operator"],
        {"champion": 2},
        (active(2),),
        here=(1, 2),
        ledger=LedgerView(holds=hold(at=2, target=1)),
    ),
    Case(
        "held and there: nothing",
        [],
        {"champion": 2},
        (active(1),),
        here=(1, 2),
        ledger=LedgerView(holds=hold(at=2, target=1)),
    ),
    Case(
        "the registry has moved on: release, and follow it",
        ["release champion", "stage 3 keep over 1 by poll"],
        {"champion": 3},
        (active(1),),
        here=(1, 2, 3),
        ledger=LedgerView(holds=hold(at=2, target=1)),
    ),
    Case(
        "a hold that was made while nobody knew where the alias pointed is not ended by knowing",
        [],
        {"champion": 2},
        (active(1),),
        here=(1, 2),
        ledger=LedgerView(holds=hold(at=None, target=1)),
    ),
    Case(
        "a hold counts with the registry down too",
        ["stage 1 keep over 2 by operator"],
        None,
        (active(2),),
        here=(1, 2),
        listings=0,
        ledger=LedgerView(holds=hold(at=2, target=1)),
    ),
    # --- pins
    Case(
        "pinned: go there, whatever the registry says",
        ["stage 1 keep over 2 by operator"],
        {"champion": 2},
        (active(2),),
        here=(1, 2),
        ledger=LedgerView(holds=hold(at=2, target=1, lasting=True)),
    ),
    Case(
        "pinned to bytes that are not here: fetched for the operator",
        ["fetch 3"],
        {"champion": 2},
        (active(2),),
        here=(2,),
        ledger=LedgerView(holds=hold(at=2, target=3, lasting=True)),
    ),
    Case(
        "pinned, and the registry has moved on: it stays",
        [],
        {"champion": 3},
        (active(1),),
        here=(1, 2, 3),
        ledger=LedgerView(holds=hold(at=2, target=1, lasting=True)),
    ),
    Case(
        "pinned, and gone from the registry: it stays",
        [],
        {},
        (active(1),),
        here=(1,),
        ledger=LedgerView(holds=hold(at=2, target=1, lasting=True)),
    ),
    Case(
        "pinned, gone from the registry, and lost here: it comes back",
        ["stage 1 cold by operator"],
        {},
        here=(1,),
        ledger=LedgerView(holds=hold(at=2, target=1, lasting=True)),
    ),
    # --- frozen
    Case(
        "frozen: a promotion is fetched and checked, and that is all",
        ["fetch 2"],
        {"champion": 2},
        (active(1),),
        here=(1,),
        ledger=LedgerView(freeze=FROZEN),
    ),
    Case(
        "frozen, bytes here: nothing",
        [],
        {"champion": 2},
        (active(1),),
        here=(1, 2),
        ledger=LedgerView(freeze=FROZEN),
    ),
    Case(
        "frozen, asked by a webhook: its standby is not kept for later",
        ["retire standby 2"],
        {"champion": 2},
        (active(1),),
        here=(1, 2),
        standbys=(2,),
        asked_by="webhook",
        ledger=LedgerView(freeze=FROZEN),
    ),
    Case(
        "frozen, a new alias: not activated",
        [],
        {"champion": 1},
        here=(1,),
        proved=(1,),
        ledger=LedgerView(freeze=FROZEN),
    ),
    Case(
        "frozen, an operator's hold: done",
        ["stage 1 keep over 2 by operator"],
        {"champion": 2},
        (active(2),),
        here=(1, 2),
        ledger=LedgerView(holds=hold(at=2, target=1), freeze=FROZEN),
    ),
    Case(
        "frozen: a hold does not end by the registry",
        [],
        {"champion": 3},
        (active(1),),
        here=(1, 3),
        ledger=LedgerView(holds=hold(at=2, target=1), freeze=FROZEN),
    ),
    Case(
        "frozen, and gone from the registry: it stays",
        [],
        {},
        (active(1),),
        here=(1,),
        ledger=LedgerView(freeze=FROZEN),
    ),
    Case(
        "frozen, the table lost: what was active comes back",
        ["stage 1 cold by recovery"],
        {"champion": 1},
        here=(1,),
        asked_by="webhook",
        ledger=LedgerView(last_active=last(1), freeze=FROZEN),
    ),
    Case(
        "frozen, the table lost, promoted since: what was active comes back",
        ["stage 1 cold by recovery"],
        {"champion": 2},
        here=(1, 2),
        ledger=LedgerView(last_active=last(1), freeze=FROZEN),
    ),
    # --- no promotion window is open
    *(
        Case(
            f"closed: what the registry promotes waits, {asked_by} or not",
            [],
            {"champion": 2},
            (active(1),),
            here=(1, 2),
            asked_by=asked_by,
            tags=tags,
            opens_at=NINE,
        )
        for asked_by in ("poll", "webhook", "sync")
        for tags in ({}, {"gateway.swap": "unload_first"})
    ),
    Case(
        "closed: bytes come ahead",
        ["fetch 2"],
        {"champion": 2},
        (active(1),),
        here=(1,),
        opens_at=NINE,
    ),
    Case(
        "closed: an environment is built ahead",
        ["build 2 by poll"],
        {"champion": 2},
        (active(1),),
        here=(1, 2),
        tags=OWN,
        opens_at=NINE,
    ),
    Case(
        "closed meanwhile: its standby is not kept for the next window",
        ["retire standby 2"],
        {"champion": 2},
        (active(1),),
        here=(1, 2),
        standbys=(2,),
        opens_at=NINE,
    ),
    Case(
        "closed: a first activation acts",
        ["activate champion 1 s1 by poll"],
        {"champion": 1},
        here=(1,),
        proved=(1,),
        opens_at=NINE,
    ),
    Case(
        "closed: a version made anew replaces its predecessor",
        ["stage 2 keep over 2 by poll"],
        {"champion": 2},
        (active(2, digest=OTHER),),
        here=(2,),
        ledger=LedgerView(last_active=predecessor(2)),
        opens_at=NINE,
    ),
    Case(
        "closed: a rollback acts",
        ["stage 1 keep over 2 by operator"],
        {"champion": 2},
        (active(2),),
        here=(1, 2),
        ledger=LedgerView(holds=hold(at=2, target=1)),
        opens_at=NINE,
    ),
    Case(
        "closed: a pin acts",
        ["stage 1 keep over 2 by operator"],
        {"champion": 2},
        (active(2),),
        here=(1, 2),
        ledger=LedgerView(holds=hold(at=2, target=1, lasting=True)),
        opens_at=NINE,
    ),
    Case(
        "closed: a hold ends by the registry, and what follows waits",
        ["release champion"],
        {"champion": 3},
        (active(1),),
        here=(1, 3),
        ledger=LedgerView(holds=hold(at=2, target=1)),
        opens_at=NINE,
    ),
    Case(
        "closed: an alias that is gone from the registry is taken away",
        ["retire champion"],
        {},
        (active(1),),
        here=(1,),
        opens_at=NINE,
    ),
    Case(
        "closed, the table lost: what was active comes back",
        ["stage 1 cold by recovery"],
        {"champion": 1},
        here=(1,),
        ledger=LedgerView(last_active=last(1)),
        opens_at=NINE,
    ),
    Case(
        "closed, the table lost, promoted since: what was active comes back",
        ["stage 1 cold by recovery"],
        {"champion": 2},
        here=(1, 2),
        ledger=LedgerView(last_active=last(1)),
        opens_at=NINE,
    ),
    Case(
        "closed, the table lost, and what was active cannot: the registry's version acts",
        ["stage 2 cold by poll"],
        {"champion": 2},
        here=(1, 2),
        ledger=LedgerView(last_active=last(1), rejections=rejection(1)),
        opens_at=NINE,
    ),
    # --- the table is lost
    Case(
        "table lost: what was active comes back, as a recovery",
        ["stage 1 cold by recovery"],
        {"champion": 1},
        here=(1,),
        ledger=LedgerView(last_active=last(1)),
    ),
    Case(
        "table lost while held: the hold's target",
        ["stage 1 cold by operator"],
        {"champion": 2},
        here=(1, 2),
        ledger=LedgerView(holds=hold(at=2, target=1), last_active=last(1)),
    ),
    Case(
        "table lost, aspired is quarantined: what was active last",
        ["stage 1 cold by recovery"],
        {"champion": 2},
        here=(1,),
        ledger=LedgerView(quarantines=quarantine(2, None), last_active=last(1)),
    ),
    Case(
        "table lost, aspired is rejected: what was active last",
        ["stage 1 cold by recovery"],
        {"champion": 2},
        here=(1, 2),
        ledger=LedgerView(rejections=rejection(2), last_active=last(1)),
    ),
    Case(
        "table lost, aspired not fetched yet: the last one serves meanwhile",
        ["stage 1 cold by recovery", "fetch 2"],
        {"champion": 2},
        here=(1,),
        ledger=LedgerView(last_active=last(1)),
    ),
    Case(
        "table lost, nothing ever listed: what was active last",
        ["stage 1 cold by recovery"],
        None,
        here=(1,),
        listings=0,
        ledger=LedgerView(last_active=last(1)),
    ),
    # --- absence
    Case("nothing listed yet: nothing", [], None, (active(1),), here=(1,), listings=0),
    Case("gone from one listing: nothing", [], {}, (active(1),), here=(1,), listings=1),
    Case("gone from two listings: retired", ["retire champion"], {}, (active(1),), here=(1,)),
    Case(
        "gone and held: released and retired",
        ["release champion", "retire champion"],
        {},
        (active(1),),
        here=(1,),
        ledger=LedgerView(holds=hold(at=2, target=1)),
    ),
    Case(
        "retired once: not even with nothing listed does it come back",
        [],
        None,
        here=(1,),
        listings=0,
        ledger=LedgerView(
            last_active={key: replace(one, retired_at=1.0) for key, one in last(1).items()}
        ),
    ),
    Case(
        "gone from two listings, and lost here: that it was taken away is to be remembered",
        ["retire champion"],
        {},
        here=(1,),
        ledger=LedgerView(last_active=last(1)),
    ),
    Case(
        "gone from one listing: nothing is known for sure",
        [],
        {},
        here=(1,),
        ledger=LedgerView(last_active=last(1)),
        listings=1,
    ),
    Case(
        "pinned although it is gone: what an operator keeps is not taken away",
        ["stage 1 cold by operator"],
        {},
        here=(1,),
        ledger=LedgerView(last_active=last(1), holds=hold(at=1, target=1, lasting=True)),
    ),
    Case(
        "taken away, and now at quarantined bytes: it does not come back",
        [],
        {"champion": 2},
        here=(1,),
        ledger=LedgerView(last_active=last(1, retired_at=5.0), quarantines=quarantine(2, None)),
    ),
    Case(
        "lost, and known to be wrong by now: it stays away",
        [],
        {"champion": 1},
        here=(1,),
        stamps={1: D[9]},
        ledger=LedgerView(last_active=last(1), quarantines=quarantine(1, D[9])),
    ),
    Case(
        "lost, and other bytes lie where the accepted ones did: these come back",
        ["stage 1 cold by recovery"],
        {"champion": 1},
        here=(1,),
        ledger=LedgerView(last_active=last(1), quarantines=quarantine(1, D[1])),
    ),
    Case("an alias at a version that is not listed: nothing", [], {"champion": 9}, (active(1),)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.why)
def test_what_ought_to_be_done(case: Case) -> None:
    assert [spell(action) for action in plan(world(case))] == case.expected


def test_two_aliases_of_one_version_are_both_activated() -> None:
    case = Case("", [], {"a": 1, "b": 1}, here=(1,), proved=(1,))
    assert [spell(one) for one in plan(world(case))] == [
        "activate a 1 s1 by poll",
        "activate b 1 s1 by poll",
    ]


# --- why ------------------------------------------------------------------------------------------

PINNED = hold(at=2, target=1, lasting=True)


@pytest.mark.parametrize(
    ("case", "why", "says"),
    [
        (Case("", [], {"champion": 1}, (active(1),), here=(1,)), "follows", "where the registry"),
        (Case("", [], {"champion": 2}, (active(1),), here=(1,)), "under_way", "to be fetched"),
        (Case("", [], {"champion": 2}, (active(1),), here=(1, 2)), "under_way", "loaded and"),
        (
            Case("", [], {"champion": 2}, (active(1),), here=(1, 2), standbys=(2,)),
            "under_way",
            "about to be activated",
        ),
        (
            Case("", [], {"champion": 1}, (active(1),), here=(1,), stamps={1: OTHER}),
            "under_way",
            "to be fetched",
        ),
        (
            Case(
                "",
                [],
                {"champion": 2},
                (active(1),),
                ledger=LedgerView(quarantines=quarantine(2, None)),
            ),
            "quarantined",
            "wrong bytes",
        ),
        (
            Case(
                "",
                [],
                {"champion": 2},
                (active(1),),
                here=(1, 2),
                ledger=LedgerView(rejections=rejection(2)),
            ),
            "rejected",
            "tried again when",
        ),
        (
            Case("", [], {"champion": 2}, (active(1),), require_digest=True),
            "unstamped",
            "registry-gateway stamp models:/m/2",
        ),
        (
            Case(
                "",
                [],
                {"champion": 2},
                (active(1),),
                here=(1, 2),
                ledger=LedgerView(holds=hold(at=2, target=1)),
            ),
            "held",
            "another version than 2",
        ),
        (
            Case("", [], {"champion": 3}, (active(1),), here=(1,), ledger=LedgerView(holds=PINNED)),
            "pinned",
            "until `unpin`",
        ),
        (
            Case("", [], {"champion": 3}, (active(2),), here=(1,), ledger=LedgerView(holds=PINNED)),
            "under_way",
            "until `unpin`; version 1 is here",
        ),
        (
            Case(
                "",
                [],
                {"champion": 2},
                (active(1),),
                here=(1, 2),
                ledger=LedgerView(freeze=FROZEN),
            ),
            "frozen",
            "until `unfreeze`",
        ),
        (
            Case("", [], {}, (active(1),), here=(1,), ledger=LedgerView(freeze=FROZEN)),
            "frozen",
            "no longer has it",
        ),
        (
            Case("", [], {"champion": 2}, (active(1),), here=(1, 2), opens_at=NINE),
            "awaits_window",
            "waits for the promotion window that opens at 2026-11-25T09:00:00Z",
        ),
        (
            Case("", [], {"champion": 2}, (active(1),), here=(1,), opens_at=NINE),
            "under_way",
            "to be fetched",
        ),
        (
            Case("", [], {"champion": 2}, (active(1),), here=(1, 2), tags=OWN, opens_at=NINE),
            "under_way",
            "version 2 is here",
        ),
        (
            Case("", [], {"champion": 1}, here=(1,), opens_at=NINE),
            "under_way",
            "loaded and warmed",
        ),
        (
            Case(
                "",
                [],
                {"champion": 2},
                (active(1),),
                here=(1, 2),
                ledger=LedgerView(freeze=FROZEN),
                opens_at=NINE,
            ),
            "frozen",
            "until `unfreeze`",
        ),
        (
            Case(
                "",
                [],
                {"champion": 1},
                here=(1,),
                ledger=LedgerView(last_active=last(1), freeze=FROZEN),
            ),
            "under_way",
            "loaded and warmed",
        ),
        (Case("", [], {}, (active(1),), here=(1,)), "under_way", "two listings"),
        (
            Case("", [], {"champion": 1}, tags=ON_DEMAND),
            "on_demand",
            "is fetched when it is called",
        ),
        (Case("", [], {"champion": 1}, wanted=(1,), tags=ON_DEMAND), "under_way", "to be fetched"),
        (
            Case("", [], {"champion": 1}, here=(1,), tags=ON_DEMAND | OWN),
            "on_demand",
            "has its environment built when",
        ),
        (
            Case(
                "",
                [],
                {"champion": 2},
                here=(1,),
                tags=ON_DEMAND,
                ledger=LedgerView(last_active=last(1)),
            ),
            "under_way",
            "to be fetched",
        ),
        (Case("", [], None, (active(1),), listings=0), "gone", "not been listed"),
        (Case("", [], {}), "unknown", "neither"),
        (Case("", [], {"champion": 9}, (active(1),)), "unfollowed", "version 9"),
    ],
)
def test_why_an_alias_is_where_it_is(case: Case, why: str, says: str) -> None:
    found = explain(world(case), M, "champion", next(iter(case.active), None))
    assert found.why == why
    assert says in found.reason
    # What is said to move is what the plan moves, and the other way round.
    moves = [one for one in plan(world(case)) if getattr(one, "version", None)]
    assert bool(moves) <= (why in ("under_way", "frozen"))


@pytest.mark.parametrize(
    ("here", "subject", "goal", "says"),
    [
        ((1,), ("fetch", M, 2), None, "could not be fetched, and that is tried again: why"),
        ((1,), ("fetch", M, 2), "another creation", None),
        ((1, 2), ("fetch", M, 2), None, None),
        ((1, 2), ("environment", M, 2, D[2]), None, "has no environment yet"),
        ((1, 2), ("stage", M, 2, D[2]), None, "could not be loaded"),
        ((1, 2), ("stage", M, 2, D[3]), None, None),
        ((1, 2), ("activate", M, "champion"), (2, D[2]), "could not be activated"),
        ((1, 2), ("activate", M, "champion"), (3, D[3]), None),
    ],
)
@pytest.mark.parametrize("aspired", [{"champion": 2}, {"champion": 3}])
def test_why_of_an_alias_that_does_not_get_there_is_what_failed(
    here: tuple[int, ...],
    subject: tuple[str | int, ...],
    goal: object,
    says: str | None,
    aspired: dict[str, int],
) -> None:
    held = hold(at=3, target=2) if aspired == {"champion": 3} else {}
    case = Case("", [], aspired, (active(1),), here=here, ledger=LedgerView(holds=held))
    failures = {subject: (goal, "why")}
    what_is = world(case)
    ledger = replace(what_is.ledger, accepted=pins(1, 2), holds=held)
    found = explain(replace(what_is, failure=failures.get, ledger=ledger), M, "champion", active(1))
    assert found.why == ("failing" if says else "under_way")
    assert (says or "") in found.reason


# --- listings -------------------------------------------------------------------------------------


def after(*listings: Aspired) -> AppliedListing:
    applied = AppliedListing(Aspired({}, 0.0))
    for one in listings:
        applied = apply_listing(applied, one)
    return applied


FULL = listing({"champion": 1, "b": 2})
WITHOUT_B = listing({"champion": 1})
EMPTY = Aspired({}, 2.0)
OTHERS = listing({"x": 1}, model="other")
BESIDE = {"other": {"x": 1}}


def both(one: Aspired, other: Aspired) -> Aspired:
    return Aspired({**one.models, **other.models}, listed_at=3.0)


@pytest.mark.parametrize(
    ("listings", "aliases"),
    [
        # An alias goes when two listings agree, not before.
        ((FULL, WITHOUT_B), {M: {"champion": 1, "b": 2}}),
        ((FULL, WITHOUT_B, WITHOUT_B), {M: {"champion": 1}}),
        # One that comes back is not gone, and begins anew.
        ((FULL, WITHOUT_B, FULL, WITHOUT_B), {M: {"champion": 1, "b": 2}}),
        # A model too.
        ((both(FULL, OTHERS), OTHERS), {M: {"champion": 1, "b": 2}, "other": {"x": 1}}),
        ((both(FULL, OTHERS), OTHERS, OTHERS), {"other": {"x": 1}}),
        # An alias that the listing before lacked goes with its model, which has one more.
        ((both(FULL, OTHERS), both(WITHOUT_B, OTHERS), OTHERS), {M: {"champion": 1}, **BESIDE}),
        # So does one of a model that was missing and comes back without it.
        ((both(FULL, OTHERS), OTHERS, both(WITHOUT_B, OTHERS)), {M: {"champion": 1}, **BESIDE}),
        # A registry that lists nothing where something was changes nothing, for ever.
        ((FULL, EMPTY, EMPTY, EMPTY), {M: {"champion": 1, "b": 2}}),
        # A moved alias counts at once.
        ((FULL, listing({"champion": 2, "b": 2})), {M: {"champion": 2, "b": 2}}),
    ],
)
def test_what_counts_after_listings(
    listings: tuple[Aspired, ...], aliases: dict[str, dict[str, int]]
) -> None:
    applied = after(*listings)
    found = {model.name: dict(model.aliases) for model in applied.aspired.models.values()}
    assert found == aliases


def test_an_empty_listing_says_that_it_is_ignored() -> None:
    applied = after(FULL, EMPTY)
    assert applied.ignored is not None
    assert "the listing is ignored" in applied.ignored
    assert applied.aspired.listed_at == EMPTY.listed_at


def test_a_first_listing_may_be_empty() -> None:
    assert after(EMPTY).ignored is None


def test_an_alias_kept_for_one_listing_keeps_its_version() -> None:
    shorter = Aspired(
        {M: AspiredModel(M, {1: FULL.models[M].versions[1]}, {"champion": 1})}, listed_at=2.0
    )
    applied = after(FULL, shorter)
    assert set(applied.aspired.models[M].versions) == {1, 2}
