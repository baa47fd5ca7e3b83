"""What the control plane needs from a registry."""

from __future__ import annotations

from typing import Protocol

from registry_sync.domain import Aspired, AspiredModel, AspiredVersion


class Source(Protocol):
    """One registry. Stateless: every call asks it anew, and remembers nothing.

    All methods block for as long as the network takes (bounded, seconds) and are called from a
    thread, never on an event loop. Safe to call from several threads.
    """

    @property
    def name(self) -> str:
        """What messages call the registry: its kind, and where it is."""
        ...

    def aspired(self, before: Aspired | None = None) -> Aspired:
        """List everything that the registry has.

        Args:
            before: An earlier listing. Models that show no change since may be taken from it, so
                that tags of their versions may be as old; None: everything is asked for.

        Returns:
            The complete listing; what could not be understood is a problem inside it.

        Raises:
            SourceError: The registry could not be listed completely. There is no partial listing.
        """
        ...

    def model(self, name: str) -> AspiredModel | None:
        """Ask for one model with all its versions; None: there is no such model.

        Raises:
            SourceError: The registry did not answer.
        """
        ...

    def version(self, model: str, version: int) -> AspiredVersion:
        """Ask for one version, whatever its status.

        Raises:
            SourceError: It does not exist, or the registry did not answer.
        """
        ...

    def locate(self, model: str, version: int) -> str:
        """Return the URI from which the version's bytes can be fetched now.

        Raises:
            SourceError: The registry did not answer, or knows no such place.
        """
        ...

    def is_whole(self, version: AspiredVersion) -> bool:
        """Whether the registry itself knows that the last file of a version has been uploaded.

        False: it knows nothing of the kind, or does not answer.
        """
        ...

    def stamp(self, model: str, version: int, digest: str) -> None:
        """Write ``digest`` on the version as what its bytes must be.

        Raises:
            SourceError: The registry did not take it.
        """
        ...
