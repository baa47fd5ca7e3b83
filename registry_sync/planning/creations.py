"""Changes of accepted digests after a listing. Pure.

A number may be made anew: in MLflow after its model was deleted or renamed away, in a bucket after
its objects were removed. An accepted digest belongs to one creation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set as AbstractSet
from dataclasses import replace

from registry_sync.domain import (
    EARLIER_CREATION,
    AcceptedDigest,
    AcceptedDigestChange,
    Aspired,
    AspiredVersion,
    LedgerView,
    is_made_anew,
    was_made_after,
)

Version = tuple[str, int]
"""A model, and the number of one of its versions."""


def lacking_versions(listed: Aspired, ledger: LedgerView) -> frozenset[Version]:
    """Return the accepted versions that a listing lacks."""
    return frozenset(
        (model, version)
        for (model, version), known in ledger.accepted.items()
        if known.gone_at is None
        and not (model in listed.models and listed.models[model].has(version))
    )


def learned(
    listed: Aspired,
    ledger: LedgerView,
    accepted_for: Callable[[str], AcceptedDigest | None],
    *,
    gone: AbstractSet[Version] = frozenset(),
    at: float = 0.0,
) -> tuple[AcceptedDigestChange, ...]:
    """Return the changes of accepted digests after a listing.

    Args:
        listed: The listing, or a part of it.
        ledger: The records in force, at least of that part.
        accepted_for: Returns the digest accepted last for a creation, under any name, or None.
        gone: Versions that this listing and the one before lack.
        at: Epoch seconds.
    """
    known = ledger.accepted
    changes = [
        AcceptedDigestChange(known[key], replace(known[key], gone_at=at)) for key in sorted(gone)
    ]
    for one in listed.versions():
        changes += _of_version(one, ledger, accepted_for)
    return tuple(changes)


def _of_version(
    one: AspiredVersion, ledger: LedgerView, accepted_for: Callable[[str], AcceptedDigest | None]
) -> Iterator[AcceptedDigestChange]:
    known = ledger.accepted.get((one.model, one.version))
    its = accepted_for(one.creation) if one.creation is not None else None
    if its is not None and (
        known is None or (known.creation, known.digest) != (its.creation, its.digest)
    ):
        there = replace(its, model=one.model, version=one.version)  # its model was renamed
        yield AcceptedDigestChange(known, replace(there, gone_at=None, superseded=False))
    elif known is not None:
        yield from _of_known(one, known, ledger)


def _of_known(
    one: AspiredVersion, known: AcceptedDigest, ledger: LedgerView
) -> Iterator[AcceptedDigestChange]:
    if known.creation is None and one.creation is not None:
        over = was_made_after(one, known)
        of = EARLIER_CREATION if over else one.creation
        yield AcceptedDigestChange(known, replace(known, creation=of, superseded=over))
        return
    superseded = is_made_anew(one, ledger)
    if superseded != known.superseded:
        yield AcceptedDigestChange(known, replace(known, superseded=superseded))
