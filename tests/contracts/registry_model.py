"""What callers of a node may be answered with, by what happened in the registry: the model.

It knows nothing of how the control plane decides. It is told every event of the registry, every
listing, every activation and what operators did, and says which bytes may answer then.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.contract.rollout_requests import ActivateRequest

Version = tuple[str, int]
Alias = tuple[str, str]
BY_REGISTRY = {"poll", "webhook", "sync"}


@dataclass(eq=False)
class Creation:
    """One creation of a version: whoever has deleted it and made it anew has made another one.

    Attributes:
        right: Digests of which somebody has said that they are its bytes: registered with it and
            first seen here, stamped, or accepted by an operator.
        seen: Whether its bytes were accepted here: others are altered from then on.
    """

    right: set[str]
    stamped: bool = False
    seen: bool = False


@dataclass
class Model:
    """What may answer, on one node. ``marks``: the registry tells one creation from another."""

    marks: bool
    registered: dict[Version, Creation] = field(default_factory=dict)
    shown: dict[Version, Creation] = field(default_factory=dict)
    ever: dict[Version, list[Creation]] = field(default_factory=dict)
    forgotten: set[Version] = field(default_factory=set)
    doubtful: set[Version] = field(default_factory=set)
    """Forgotten, and without a mark: any of their creations may be the one that was accepted."""
    lacking: dict[Version, int] = field(default_factory=dict)
    aliases: dict[Alias, int] = field(default_factory=dict)
    wished: dict[Alias, tuple[int, Creation | None]] = field(default_factory=dict)
    lacking_aliases: dict[Alias, int] = field(default_factory=dict)
    last: dict[Alias, tuple[int, str]] = field(default_factory=dict)
    withdrawn: set[Alias] = field(default_factory=set)
    asked: dict[Alias, set[tuple[int, str]]] = field(default_factory=dict)
    kept: set[Alias] = field(default_factory=set)
    frozen: bool = False

    # --- the registry -----------------------------------------------------------------------------

    def made(self, version: Version, digest: str, *, stamped: bool) -> None:
        """A version is registered, for the first time or anew."""
        self.registered[version] = Creation({digest}, stamped)

    def stamped(self, version: Version, digest: str) -> None:
        """Its publisher says what its bytes are. Only where a stamp is a word of its own."""
        creation = self.registered[version]
        creation.right.add(digest)
        creation.stamped = True

    def altered(self, version: Version, digest: str) -> None:
        """Its bytes change: what was neither stamped nor seen before is believed as it is seen.

        Where the manifest is the stamp, it changes with them.
        """
        creation = self.registered[version]
        if not creation.seen and not (creation.stamped and self.marks):
            creation.right.add(digest)

    def accepted(self, version: Version, digest: str) -> None:
        """An operator takes its bytes as they are."""
        self.shown[version].right.add(digest)

    def refused(self, version: Version, digest: str) -> None:
        """What an operator wanted to take was other bytes by then."""
        self.shown[version].right.discard(digest)

    def renamed(self, version: Version, name: str, right: set[str]) -> None:
        """A version's model has another name; where creations have marks, it is what it was."""
        was = self.registered.pop(version)
        now = was if self.marks else Creation(right, stamped=True)
        self.registered[name, version[1]] = now

    # --- the node ---------------------------------------------------------------------------------

    def listed(self, aliases: dict[Alias, int], present: set[Version], active: set[Alias]) -> None:
        """The control plane has listed the registry, and the gateway has been told.

        An alias that is listed again while it is still ``active`` was not taken away: the ledger
        could not record it, and a lost table is to have it again.
        """
        for version in {*self.shown, *present}:
            if version not in present:
                self.lacking[version] = self.lacking.get(version, 0) + 1
                continue
            was_gone = self.lacking.pop(version, 0) >= 2
            known, now = self.shown.get(version), self.registered[version]
            if known is not None and known is not now and not self.marks and not was_gone:
                # Under a number that was never gone, this is no other creation: what was not seen
                # before is believed as it is seen.
                if not known.seen:
                    known.right |= now.right
                now = self.registered[version] = known
            self.shown[version] = now
            if now not in self.ever.setdefault(version, []):
                self.ever[version].append(now)
            if version not in self.doubtful:
                self.forgotten.discard(version)
        for alias in {*self.last, *self.aliases} - aliases.keys():
            self.lacking_aliases[alias] = self.lacking_aliases.get(alias, 0) + 1
            if self.lacking_aliases[alias] >= 2 and not self.frozen and alias not in self.kept:
                self.withdrawn.add(alias)
        for alias, number in aliases.items():
            self.lacking_aliases.pop(alias, None)
            if alias in active:
                self.withdrawn.discard(alias)
            self.wished[alias] = (number, self.shown.get((alias[0], number)))
        self.aliases = dict(aliases)

    def restarted(self) -> None:
        """The control plane began anew: two listings in a row begin anew, too."""
        self.lacking = {v: n for v, n in self.lacking.items() if n >= 2}
        self.lacking_aliases.clear()

    def lost_ledger(self) -> None:
        """Nobody remembers any more which versions were gone, nor which creation came last."""
        self.lacking.clear()
        several = {v for v, creations in self.ever.items() if len(creations) > 1}
        self.forgotten |= several
        if not self.marks:
            self.doubtful |= several

    def saw(self, version: Version, digest: str) -> None:
        """Bytes of a version were accepted on the node, which an operator may show it first."""
        known = self._known(version)
        if not known:
            return
        creation = next((one for one in known if digest in one.right), known[0])
        creation.seen = True
        self.shown[version] = creation
        if creation not in self.ever.setdefault(version, []):
            self.ever[version].append(creation)

    # --- what may answer --------------------------------------------------------------------------

    def may_answer_number(self, version: Version, digest: str) -> bool:
        """Whether these bytes may answer callers of a number."""
        if version in self.forgotten:  # the bytes of any of its creations may be kept
            return any(digest in creation.right for creation in self.ever[version])
        return any(digest in creation.right for creation in self._known(version))

    def _known(self, version: Version) -> list[Creation]:
        """Return the creations of a version that the node may know.

        An operator may have asked for a version that no listing has shown yet, or none since it was
        gone: then the next one is known, too.
        """
        shown, now = self.shown.get(version), self.registered.get(version)
        was_gone = self.lacking.get(version, 0) >= 2
        known = [shown, now] if shown is None or was_gone else [shown]
        return [creation for creation in known if creation is not None]

    def activated(self, one: ActivateRequest) -> str | None:
        """Take note that an alias was moved; return why it must not have been, or None."""
        alias, target = (one.model, one.alias), (one.version, one.digest)
        why = self._why_not(one, alias, target)
        self.last[alias] = target
        self.withdrawn.discard(alias)
        return why

    def _why_not(self, one: ActivateRequest, alias: Alias, target: tuple[int, str]) -> str | None:
        if one.asked_by == "recovery":
            if alias in self.withdrawn:
                return "it was taken away"
            if self.last.get(alias) != target:
                return "it was not there before"
            ever = self.ever.get((one.model, one.version), [])
            right = any(one.digest in creation.right for creation in ever)
            return None if right else "these were never its bytes"
        if one.asked_by == "operator":
            return None if target in self.asked.get(alias, ()) else "no operator asked for it"
        return self._why_not_by_registry(one, alias)

    def _why_not_by_registry(self, one: ActivateRequest, alias: Alias) -> str | None:
        if one.asked_by not in BY_REGISTRY:
            return f"nobody knows {one.asked_by}"
        if self.frozen:
            return "the node is frozen"
        version, creation = self.wished.get(alias, (0, None))
        if version != one.version or self.lacking_aliases.get(alias, 0) >= 2:
            return "the registry's alias is elsewhere"
        if creation is not self.shown.get((one.model, version)):
            return "the registry's alias has never meant this creation"
        if not self.may_answer_number((one.model, one.version), one.digest):
            return "these are not the bytes of the version"
        return None
