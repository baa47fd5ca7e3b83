"""The catalogue: each model as the control plane describes it to the gateway. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from gateway.contract import CatalogueModel, CatalogueVersion, Environment, Policy, VersionState
from gateway.system.logs import for_public
from registry_sync.artifacts import DependencyVerdict, OwnEnvironment, Verdict
from registry_sync.domain import (
    OWN,
    AcceptedDigest,
    AspiredModel,
    AspiredVersion,
    Hold,
    LedgerView,
    Rejection,
    accepted,
    bounded_problems,
    is_made_anew,
    problems_of,
    read_policy,
)
from registry_sync.planning.actions import Failure
from registry_sync.planning.admissibility import (
    admissible_digest,
    expected_digest,
    quarantine_of,
    rejection,
)
from registry_sync.planning.incidents import explain_quarantine


@dataclass(frozen=True, slots=True)
class KnownState:
    """The state of one model's versions on this node.

    Attributes:
        descriptions: Descriptions of all artifacts in the store, by digest, with ``size_bytes``.
        fetching: Versions that are being fetched, or whose environment is being built.
        failures: The last failure of these steps, by version; each is tried again.
        environments: Built environments by the artifact's digest.
        signature_changes: Signature changes for callers, by alias.
        notes: Why an alias is not at the registry's version, by alias: a refused signature, a
            failed step, or the promotion window that it waits for.
        damaged: Damage of copies on this node, by digest.
    """

    descriptions: Mapping[str, Mapping[str, Any]]
    fetching: AbstractSet[int] = frozenset()
    failures: Mapping[int, Failure] = field(default_factory=dict)
    environments: Mapping[str, OwnEnvironment] = field(default_factory=dict)
    signature_changes: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    damaged: Mapping[str, str] = field(default_factory=dict)


def describe_model(
    name: str, listed: AspiredModel | None, ledger: LedgerView, known: KnownState
) -> CatalogueModel | None:
    """Return one model, or None if it is unlisted and has no accepted digest."""
    deleted = [
        one
        for (_, version), one in ledger.accepted.items()
        if listed is None or version not in listed.versions
    ]
    if listed is None and not deleted:
        return None
    versions = [_version(listed, n, ledger, known) for n in listed.versions] if listed else []
    versions += [_deleted(one, known) for one in deleted]
    return CatalogueModel(
        name=name,
        versions=sorted(versions, key=lambda one: one.version),
        aliases=dict(listed.aliases) if listed else {},
        notes=_notes(name, listed.aliases if listed else (), ledger, known),
        signature_changes=dict(known.signature_changes),
        policy=_policy(listed) if listed else Policy(),
    )


def for_callers(model: CatalogueModel) -> CatalogueModel:
    """Return a model whose reasons are redacted for callers, as the gateway shows them."""
    policy, problems = model.policy, [for_public(one) for one in model.policy.problems]
    reasons = [one for one in model.versions if one.reason is not None]
    if not (reasons or problems or model.notes or model.signature_changes):
        return model
    return model.model_copy(
        update={
            "versions": [
                one.model_copy(update={"reason": for_public(one.reason)}) if one.reason else one
                for one in model.versions
            ],
            "notes": _each_for_public(model.notes),
            "signature_changes": _each_for_public(model.signature_changes),
            "policy": policy.model_copy(update={"problems": problems}) if problems else policy,
        }
    )


def _each_for_public(by_alias: Mapping[str, str]) -> dict[str, str]:
    return {alias: for_public(text) for alias, text in by_alias.items()}


def _policy(listed: AspiredModel) -> Policy:
    """Return a model's policy, with the problems of the model and its newest versions first."""
    problems = bounded_problems(_problems(listed))
    return (read_policy(listed.tags) or Policy()).model_copy(update={"problems": problems})


def _problems(listed: AspiredModel) -> Iterator[str]:
    yield from listed.problems
    yield from problems_of(listed.tags)
    for number in sorted(listed.versions, reverse=True):
        yield from listed.versions[number].problems
        yield from problems_of(listed.versions[number].tags, number)


def _notes(
    name: str, aliases: Iterable[str], ledger: LedgerView, known: KnownState
) -> dict[str, str]:
    """Return a note by alias: its hold, else the freeze, else the known note."""
    notes = dict(known.notes)
    if ledger.freeze:
        frozen = f"frozen by {ledger.freeze.asked_by}: no alias of this node follows the registry"
        notes |= dict.fromkeys(aliases, frozen)
    for (model, alias), hold in ledger.holds.items():
        if model == name:
            notes[alias] = _held(hold)
    return notes


def _held(hold: Hold) -> str:
    if hold.lasting:
        return f"pinned at version {hold.target_version} by {hold.asked_by}"
    return (
        f"held at version {hold.target_version} by {hold.asked_by} until the registry "
        f"points it at another version than {hold.aspired_version}"
    )


def _version(
    model: AspiredModel, number: int, ledger: LedgerView, known: KnownState
) -> CatalogueVersion:
    listed = model.versions[number]
    digest = admissible_digest(listed, ledger)
    description = known.descriptions.get(digest or "")
    own = model.needs_own_environment(number)
    rejected = rejection(ledger, listed.model, number, digest or "", own=own)
    known_bytes = accepted(listed, ledger)
    if own:
        # By the accepted digest: a copy goes on serving after the registry's bytes were altered.
        environment = _own(known.environments.get(known_bytes.digest if known_bytes else ""))
        if description is not None:  # its environment meets its requirements
            description = {**description, "dependency_verdict": DependencyVerdict().as_body()}
        lacks = _lacks_own(environment, rejected)
    else:
        environment = Environment()
        lacks = _lacks_shared(description)
    here = description is not None and lacks is None
    state, reason, retry_at = _state(listed, ledger, known, here=here, lacks=lacks)
    refused = (
        f"rejected for aliases ({rejected.failure}): {rejected.explanation}" if rejected else None
    )
    return CatalogueVersion(
        version=number,
        state=state,
        digest=digest if here else None,
        expected_digest=None if listed.stamp_problem else expected_digest(listed, ledger),
        accepted_digest=known_bytes.digest if known_bytes else None,
        stamped=listed.stamped,
        rejected=rejected is not None,
        reason=reason or refused or _made_anew(listed, ledger) or next(iter(listed.problems), None),
        description=dict(description) if description is not None else None,
        retry_at=retry_at,
        size_bytes=_size(description),
        created_at=listed.created_at,
        environment=environment,
        policy=read_policy(listed.tags),
    )


def _made_anew(listed: AspiredVersion, ledger: LedgerView) -> str | None:
    if not is_made_anew(listed, ledger):
        return None
    return "the version was made anew in the registry: its bytes are fetched when it is asked for"


def _own(built: OwnEnvironment | None) -> Environment:
    if built is None:
        return Environment(kind=OWN)
    return Environment(kind=OWN, python=built.python, digest=built.digest)


def _lacks_own(environment: Environment, rejected: Rejection | None) -> str | None:
    """Return why a version cannot run in its environment, None if it can, or "" if not built."""
    if environment.python is not None:
        return None
    return rejected.explanation if rejected else ""


def _lacks_shared(description: Mapping[str, Any] | None) -> str | None:
    """Return why a version must not run in the shared environment, or None if it may."""
    verdict = (description or {}).get("dependency_verdict") or {}
    if verdict.get("status") != Verdict.REFUSE:
        return None
    return DependencyVerdict(Verdict.REFUSE, tuple(verdict["mismatches"])).reason


def _state(
    listed: AspiredVersion, ledger: LedgerView, known: KnownState, *, here: bool, lacks: str | None
) -> tuple[VersionState, str | None, float | None]:
    if found := quarantine_of(listed, ledger):
        anew = "made anew, with wrong bytes: " if is_made_anew(listed, ledger) else ""
        return VersionState.QUARANTINED, f"{anew}{explain_quarantine(found, listed, ledger)}", None
    if listed.stamp_problem:
        return VersionState.FAILED, listed.stamp_problem, None
    if here:
        return VersionState.AVAILABLE, None, None
    if listed.version in known.fetching:
        return VersionState.FETCHING, None, None
    damage = _damage(admissible_digest(listed, ledger), known)
    if failure := known.failures.get(listed.version):
        reason = f"{failure.reason}; {damage}" if damage else failure.reason
        # Callers go on waiting, as for a fetch, if the failure is over within seconds.
        state = VersionState.FETCHING if failure.short_lived else VersionState.FAILED
        return state, reason, failure.retry_at
    if damage:
        return VersionState.FAILED, f"{damage}; it is fetched again when the registry answers", None
    if lacks:
        return VersionState.FAILED, lacks, None
    return VersionState.REGISTERED, None, None


def _damage(digest: str | None, known: KnownState) -> str | None:
    """Return the damage of this node's copy as a clause, or None if no copy is damaged."""
    found = known.damaged.get(digest or "")
    return f"this node's copy of its bytes is damaged: {found}" if found else None


def _deleted(one: AcceptedDigest, known: KnownState) -> CatalogueVersion:
    """Return a version that the registry lacks; without tags, its built environment decides."""
    description = known.descriptions.get(one.digest)
    built = known.environments.get(one.digest)
    here = description is not None and (built is not None or _lacks_shared(description) is None)
    here = here and not one.superseded  # else these bytes are not those of its last creation
    damage = _damage(one.digest, known)
    return CatalogueVersion(
        version=one.version,
        state=VersionState.DELETED,
        digest=one.digest if here else None,
        expected_digest=one.expected_digest,
        accepted_digest=None if one.superseded else one.digest,
        stamped=one.stamped,
        reason="the registry no longer has this version" + (f"; {damage}" if damage else ""),
        description=dict(description) if description is not None else None,
        size_bytes=_size(description),
        environment=_own(built) if built else Environment(),
    )


def _size(description: Mapping[str, Any] | None) -> int | None:
    size = (description or {}).get("size_bytes")
    return size if isinstance(size, int) else None
