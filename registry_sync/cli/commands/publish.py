"""The commands of publishers, stamp and publish, which run on any machine."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel

from gateway.contract import InvalidReferenceError
from registry_sync.cli.arguments import AsJson, at_uri, new_alias, read_settings
from registry_sync.cli.output import (
    ExitStatus,
    fail,
    print_answer,
    print_done,
    print_error,
    progress_bars,
)
from registry_sync.domain import AspiredVersion
from registry_sync.errors import IncompleteArtifactError, SyncError
from registry_sync.settings import MAX_ARTIFACT_FILES, SyncSettings

if TYPE_CHECKING:  # other commands start half a second faster
    from registry_sync.sources import Source

# --- stamp ----------------------------------------------------------------------------------------


def stamp(
    uri: Annotated[str, typer.Argument(metavar="models:/NAME/VERSION")],
    *,
    force: Annotated[bool, typer.Option(help="Replace a different stamp.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compute the digest of a version's bytes, and stamp the version with it as a tag.

    Run it right after publishing, while the bytes are known to be right.
    """
    from registry_sync import bootstrap

    model, version = at_uri(uri)
    settings = read_settings()
    bootstrap.begin_log(settings)  # to stderr: stdout is the answer's
    try:
        registry = bootstrap.build_registry(settings)
        listed = registry.version(model, version)
        if listed.stamp_problem and not force:
            fail(listed.stamp_problem, ExitStatus.REFUSED)
        before, digest = listed.expected_digest, _digest_of(registry, settings, listed)
        if before is not None and before != digest and not force:
            fail(
                f"version {version} of {model} is stamped {before}, but its bytes have {digest}: "
                "if they were changed on purpose, stamp again with --force",
                ExitStatus.REFUSED,
            )
        if before != digest:
            registry.stamp(model, version, digest)
    except SyncError as error:
        fail(str(error), ExitStatus.REFUSED)
    stamped = StampAnswer(model=model, version=version, digest=digest, replaced=before)
    print_answer(stamped, _print_stamped, as_json=as_json)


class StampAnswer(BaseModel):
    """A stamp; ``replaced`` is the former stamp, or None."""

    model: str
    version: int
    digest: str
    replaced: str | None


def _print_stamped(answer: StampAnswer) -> None:
    print_done(f"{answer.model} version {answer.version} is stamped {answer.digest}")


def _digest_of(registry: Source, settings: SyncSettings, listed: AspiredVersion) -> str:
    """Fetch the bytes into a temporary folder, once they are stable; return their digest."""
    from registry_sync import bootstrap
    from registry_sync.artifacts import check_complete

    fetcher = bootstrap.build_fetcher(settings)
    with (
        tempfile.TemporaryDirectory(prefix="registry-gateway-") as folder,
        progress_bars() as progress,
    ):
        task = progress.add_task(f"fetching {listed.model} version {listed.version}", total=None)
        uri = registry.locate(listed.model, listed.version)
        fetch = partial(
            fetcher.fetch,
            judged=registry.is_whole(listed),
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
        try:
            fetched = fetch(uri, Path(folder, "first"))
        except IncompleteArtifactError:  # perhaps too young
            time.sleep(settings.upload_stable_s)
            fetched = fetch(uri, Path(folder, "second"))
        check_complete(fetched.folder)
        return fetched.manifest.digest


# --- publish --------------------------------------------------------------------------------------


def publish(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A model as MLflow saves it.")],
    uri: Annotated[str, typer.Argument(metavar="s3://BUCKET/PREFIX/MODEL")],
    *,
    version: Annotated[
        int | None, typer.Option(min=1, help="The number; the next free one by default.")
    ] = None,
    alias: Annotated[
        list[str] | None, typer.Option(help="An alias to point at the version; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Publish a model to an S3 prefix that nodes follow without MLflow.

    A published version is never overwritten. Its manifest, which makes it visible to nodes, is
    written after its files; the aliases are moved last.
    """
    from registry_sync import bootstrap
    from registry_sync.sources import read_folder

    aliases = [new_alias(one) for one in alias or []]
    settings = read_settings()
    bootstrap.begin_log(settings)
    try:
        publisher = bootstrap.build_publisher(uri)
        with progress_bars() as progress:
            tasks = {
                "hash": progress.add_task(f"hashing {folder}", total=None),
                "upload": progress.add_task("uploading", total=None, visible=False),
            }

            def show(phase: str, done: int, total: int) -> None:
                progress.update(tasks[phase], completed=done, total=total, visible=True)

            read = read_folder(
                folder,
                max_files=MAX_ARTIFACT_FILES,
                max_bytes=settings.max_artifact_bytes,
                on_bytes=show,
            )
            done = publisher.publish(read, version, aliases, show)
    except InvalidReferenceError as error:
        fail(str(error), ExitStatus.USAGE)
    except SyncError as error:
        fail(str(error), ExitStatus.REFUSED)
    if not done.guarded:
        print_error(
            "This storage ignores conditional writes, so two publications of one model may mix: "
            "publish from one machine at a time."
        )
    answer = PublishedVersion(
        model=done.location.model,
        version=done.version,
        digest=done.manifest.digest,
        location=done.location.uri(done.location.files(done.version)),
        files=len(done.manifest.files),
        size_bytes=read.size_bytes,
        uploaded=done.uploaded,
        aliases=aliases,
        guarded=done.guarded,
    )
    print_answer(answer, _print_published, as_json=as_json)


class PublishedVersion(BaseModel):
    """A publication; see `Publication`. ``aliases`` point at the version now."""

    model: str
    version: int
    digest: str
    location: str
    files: int
    size_bytes: int
    uploaded: bool
    aliases: list[str]
    guarded: bool


def _print_published(answer: PublishedVersion) -> None:
    how = "is published" if answer.uploaded else "was published before with the same bytes"
    pointed = "".join(f", @{one} points at it" for one in answer.aliases)
    print_done(
        f"{answer.model} version {answer.version} {how}{pointed}",
        f"{answer.digest}, {answer.files} files at {answer.location}",
    )
