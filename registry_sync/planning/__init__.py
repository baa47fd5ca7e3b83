"""Decisions without effects: what is due, what is allowed, what stays, and why. Pure."""

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
    Subject,
    Urgency,
    goal_of,
    subject_of,
    verb_of,
)
from registry_sync.planning.admissibility import (
    admissible_digest,
    expected_digest,
    is_quarantined,
    other_bytes,
    predecessor_is_over,
    quarantine_of,
    runs_in_own,
    why_other_bytes,
)
from registry_sync.planning.automatic_rollbacks import rollback_of, unrecorded
from registry_sync.planning.catalogue import KnownState, VersionProblem, describe_model, for_callers
from registry_sync.planning.creations import Version, lacking_versions, learned, learned_of
from registry_sync.planning.due import DueActions, StartOutcome
from registry_sync.planning.explain import (
    Explanation,
    explain,
    signature_change,
    why_unable,
)
from registry_sync.planning.incidents import incident_of, way_out, why_not_acceptable
from registry_sync.planning.plan import LISTINGS_FOR_REMOVAL, plan
from registry_sync.planning.remembered import RememberedListing
from registry_sync.planning.retention import (
    Pressure,
    RetainedDigests,
    as_candidates,
    choose_removed,
    what_stays,
)
from registry_sync.planning.snapshot import Cause, Snapshot

__all__ = [
    "LISTINGS_FOR_REMOVAL",
    "Action",
    "Activate",
    "AllowDigest",
    "BuildEnvironment",
    "Cause",
    "DueActions",
    "EndHold",
    "Explanation",
    "Fetch",
    "KnownState",
    "Pressure",
    "RememberedListing",
    "RetainedDigests",
    "RetireAlias",
    "RetireStandby",
    "Snapshot",
    "Stage",
    "StartOutcome",
    "Subject",
    "Urgency",
    "Version",
    "VersionProblem",
    "admissible_digest",
    "as_candidates",
    "choose_removed",
    "describe_model",
    "expected_digest",
    "explain",
    "for_callers",
    "goal_of",
    "incident_of",
    "is_quarantined",
    "lacking_versions",
    "learned",
    "learned_of",
    "other_bytes",
    "plan",
    "predecessor_is_over",
    "quarantine_of",
    "rollback_of",
    "runs_in_own",
    "signature_change",
    "subject_of",
    "unrecorded",
    "verb_of",
    "way_out",
    "what_stays",
    "why_not_acceptable",
    "why_other_bytes",
    "why_unable",
]
