"""Snapshots for the plan from a line of text, such as ``champion@2, active 1, here 1 2``."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from gateway.contract import AliasRef
from gateway.contract.node_state import ActiveAlias, AwaitedVersion, NodeState, RefusedDigest
from gateway.contract.rollout_requests import StageRequest
from registry_sync.domain import (
    AcceptedDigest,
    Activation,
    Aspired,
    AspiredModel,
    AspiredVersion,
    Freeze,
    Hold,
    LedgerView,
    Quarantine,
    Rejection,
)
from registry_sync.planning.snapshot import Snapshot

M, A = "m", "champion"
D = {n: f"sha256:{n:064x}" for n in range(10)}
OTHER = D[9]
ROLLBACK_AT = 5.0
OPENS_AT = datetime(2026, 11, 25, 9, tzinfo=UTC)


def given(text: str) -> Snapshot:
    """Return the snapshot of clauses, each a method of `Scene` and its arguments.

    ``alias@version`` is an alias of the registry, which has versions 1 to 3 of one model.
    """
    scene = Scene()
    for clause in filter(None, text.split(", ")):
        name, *words = clause.split()
        if "@" in name:
            alias, version = name.split("@")
            scene.aliases[alias] = int(version)
            continue
        pairs = [word.partition("=") for word in words]
        arguments = [_value(word) for word, sign, _ in pairs if not sign]
        getattr(scene, name)(*arguments, **{key: _value(word) for key, _, word in pairs if word})
    return scene.snapshot()


def _value(word: str) -> int | str:
    return int(word) if word.isdigit() else word


@dataclass
class Scene:
    """What a snapshot is made of; each method adds something."""

    aliases: dict[str, int] = field(default_factory=dict)
    is_listed: bool = True
    stamps: dict[int, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    tags_of_1: dict[str, str] = field(default_factory=dict)
    what_is: Snapshot = field(
        default_factory=lambda: Snapshot(
            Aspired({}, 0.0),
            listings=2,
            node=NodeState(node_id="n", boot_id="b", seq=1, generation=7),
            ledger=LedgerView(),
            stored=frozenset(),
        )
    )

    def snapshot(self) -> Snapshot:
        versions = {n: AspiredVersion(M, n, "", self.stamps.get(n)) for n in (1, 2, 3)}
        versions[1] = replace(versions[1], tags=self.tags_of_1)
        model = AspiredModel(M, versions, self.aliases, tags=self.tags)
        aspired = Aspired({M: model} if self.is_listed else {}, float(self.is_listed))
        return replace(self.what_is, aspired=aspired)

    def _is(self, **found: Any) -> None:
        self.what_is = replace(self.what_is, **found)

    def _of_ledger(self, **found: Any) -> None:
        self._is(ledger=replace(self.what_is.ledger, **found))

    # --- the registry

    def unlisted(self) -> None:
        self.is_listed = False

    def listings(self, count: int) -> None:
        self._is(listings=count)

    def stamped(self, *versions: int, digest: int = 0) -> None:
        self.stamps |= {n: D[digest or n] for n in versions}

    def tag(self, **tags: str) -> None:
        self.tags |= {f"gateway.{name}": value for name, value in tags.items()}

    def tag_of_1(self, **tags: str) -> None:
        self.tags_of_1 |= {f"gateway.{name}": value for name, value in tags.items()}

    def asked_by(self, initiator: str) -> None:
        self._is(initiators={AliasRef(M, A): initiator})

    # --- the gateway

    def active(self, version: int, alias: str = A, digest: int = 0, previous: int = 0) -> None:
        one = ActiveAlias(
            model=M,
            alias=alias,
            version=version,
            digest=D[digest or version],
            since=0.0,
            previous_version=previous or None,
            previous_digest=D[previous] if previous else None,
        )
        self.what_is.node.active.append(one)

    def standby(self, *versions: int) -> None:
        self.what_is.node.standbys.extend(
            StageRequest(stage_id=f"s{n}", model=M, version=n, digest=D[n]) for n in versions
        )

    def wanted(self, *versions: int, alias: str | None = None) -> None:
        self.what_is.node.wanted.extend(
            AwaitedVersion(model=M, version=n, since=float(at), alias=alias)
            for at, n in enumerate(versions)
        )

    def left(self, version: int, alias: str = A) -> None:
        """An automatic rollback left a version for version 1."""
        self.what_is.node.refused_digests.append(
            RefusedDigest(
                model=M,
                alias=alias,
                digest=D[version],
                reason="it fails",
                version=version,
                since=ROLLBACK_AT,
                to_version=1,
                to_digest=D[1],
            )
        )

    # --- this node

    def here(self, *versions: int) -> None:
        """Accepted and stored."""
        self.stored(*versions)
        found = {(M, n): AcceptedDigest(M, n, D[n], None, False, "l") for n in versions}
        self._of_ledger(accepted=found)

    def stored(self, *versions: int) -> None:
        self._is(stored={D[n] for n in versions})

    def proved(self, *versions: int) -> None:
        self._is(proved={(M, n, D[n]): f"s{n}" for n in versions})

    def built(self, *versions: int) -> None:
        self._is(environments={D[n] for n in versions})

    def refused(self, *versions: int) -> None:
        self._is(refused={D[n]: "it needs other libraries" for n in versions})

    def require_digest(self) -> None:
        self._is(require_digest=True)

    def retention_over(self) -> None:
        self._is(rollback_since=0.0)

    def closed(self) -> None:
        self._is(promotions_act_at=OPENS_AT)

    # --- the ledger

    def held(self, target: int, at: int | None = None, by: str = "operator") -> None:
        """``at``: the version of the registry's alias when the hold was made."""
        self._hold(Hold(M, A, at, target, D[target], by, ROLLBACK_AT if by == "gateway" else 0.0))

    def pinned(self, target: int, at: int) -> None:
        self._hold(Hold(M, A, at, target, D[target], "operator", 0.0, lasting=True))

    def _hold(self, hold: Hold) -> None:
        self._of_ledger(holds={AliasRef(M, A): hold})

    def recorded(self) -> None:
        self._of_ledger(automatic_rollbacks=frozenset({(AliasRef(M, A), ROLLBACK_AT)}))

    def frozen(self) -> None:
        self._of_ledger(freeze=Freeze("operator", 0.0))

    def last(self, version: int, retired_at: int | None = None) -> None:
        self._last(replace(_activation(version), retired_at=retired_at))

    def predecessor(self, version: int) -> None:
        """The alias's bytes belong to an earlier creation of the listed version."""
        self._last(replace(_activation(version), digest=OTHER, creation="an earlier one"))

    def _last(self, one: Activation) -> None:
        self._of_ledger(last_active={AliasRef(M, A): one})

    def rejected(self, version: int, failure: str = "warm_up_failed", own: int = 0) -> None:
        one = Rejection(M, version, D[version], failure, "it failed", 0.0, own=bool(own))
        self._of_ledger(rejections={(M, version, D[version]): one})

    def quarantined(self, version: int, expected: int = 0) -> None:
        digest = D[expected] if expected else None
        one = Quarantine(M, version, digest, "l", OTHER, "wrong bytes", 0.0)
        self._of_ledger(quarantines={(M, version): one})


def _activation(version: int) -> Activation:
    return Activation(M, A, version, D[version], None, None, "poll", 0.0, 1)
