"""Decisions without effects: due actions, admissible versions, kept artifacts, reasons. Pure."""

from registry_sync.planning.actions import (
    Action as Action,
    Activate as Activate,
    AllowDigest as AllowDigest,
    BuildEnvironment as BuildEnvironment,
    EndHold as EndHold,
    Failure as Failure,
    Fetch as Fetch,
    RetireAlias as RetireAlias,
    RetireStandby as RetireStandby,
    Stage as Stage,
    Subject as Subject,
    Urgency as Urgency,
    goal_of as goal_of,
    subject_of as subject_of,
    verb_of as verb_of,
)
from registry_sync.planning.admissibility import (
    admissible_digest as admissible_digest,
    expected_digest as expected_digest,
    is_quarantined as is_quarantined,
    other_bytes as other_bytes,
    predecessor_is_over as predecessor_is_over,
    quarantine_of as quarantine_of,
    runs_in_own as runs_in_own,
    why_other_bytes as why_other_bytes,
)
from registry_sync.planning.automatic_rollbacks import (
    rollback_of as rollback_of,
    unrecorded as unrecorded,
)
from registry_sync.planning.catalogue import (
    KnownState as KnownState,
    describe_model as describe_model,
    for_callers as for_callers,
)
from registry_sync.planning.creations import (
    Version as Version,
    lacking_versions as lacking_versions,
    learned as learned,
)
from registry_sync.planning.explain import (
    Explanation as Explanation,
    explain as explain,
    signature_change as signature_change,
    why_inadmissible as why_inadmissible,
    why_unable as why_unable,
)
from registry_sync.planning.incidents import (
    incident_of as incident_of,
    way_out as way_out,
    why_not_acceptable as why_not_acceptable,
)
from registry_sync.planning.plan import (
    LISTINGS_FOR_REMOVAL as LISTINGS_FOR_REMOVAL,
    as_due as as_due,
    is_due as is_due,
    plan as plan,
)
from registry_sync.planning.remembered import RememberedListing as RememberedListing
from registry_sync.planning.retention import (
    choose_removed as choose_removed,
    what_stays as what_stays,
)
from registry_sync.planning.snapshot import Cause as Cause, Snapshot as Snapshot
from registry_sync.planning.waiting_actions import (
    DueActions as DueActions,
    StartOutcome as StartOutcome,
)
