"""The operator's command, ``registry-gateway``.

Exit codes: 0 it is done; 1 refused or failed; 2 wrong usage or settings; 3 the control plane does
not answer; 4 under way, not done yet. Results go to stdout, errors and progress to stderr.
"""

from __future__ import annotations

import re
import socket
import sys
import tempfile
import time
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import httpx
import typer
from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from gateway.model_ref import (
    LATEST,
    InvalidReferenceError,
    parse_alias,
    parse_model_name,
    parse_selector,
    parse_version,
)
from registry_sync.bootstrap import (
    build_fetcher,
    build_publisher,
    build_registry,
    configure_logging,
)
from registry_sync.bootstrap import run as run_control_plane
from registry_sync.errors import SyncError
from registry_sync.node_dir import StartError
from registry_sync.operations.bodies import (
    AliasState,
    ExplainAnswer,
    Explained,
    FreezeAnswer,
    History,
    HistoryEntry,
    PinAnswer,
    Problem,
    Quarantines,
    ReleaseAnswer,
    RollbackAnswer,
    State,
    SyncAnswer,
    UnpinAnswer,
    WebhookState,
)
from registry_sync.publish import Publication, read_folder
from registry_sync.settings import SyncSettings
from registry_sync.sources.source import Source

_TIMEOUT = httpx.Timeout(90.0, connect=5.0)
_MODEL_URI = re.compile(r"models:/(?P<model>[^/]+)/(?P<version>[^/]+)\Z")
_SHORT_DIGEST = len("sha256:") + 12
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400
_URL_VARIABLE = "REGISTRY_GATEWAY_OPERATIONS_URL"
_TOKEN_VARIABLE = "REGISTRY_GATEWAY_OPERATIONS_TOKEN"  # noqa: S105 - a name, no token

_Answer = TypeVar("_Answer", bound=BaseModel)


class Exit(IntEnum):
    """What the command ends with."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    UNREACHABLE = 3
    PENDING = 4


_EXITS = {
    "active": Exit.DONE,
    "accepted": Exit.DONE,
    "released": Exit.DONE,
    "done": Exit.DONE,
    "pending": Exit.PENDING,
    "refused": Exit.REFUSED,
}
app = typer.Typer(
    name="registry-gateway",
    help="Follow a model registry, and say what this node serves of it and why.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
quarantine_app = typer.Typer(
    help="Show and release versions whose bytes are wrong.", no_args_is_help=True
)
app.add_typer(quarantine_app, name="quarantine")
AsJson = Annotated[bool, typer.Option("--json", help="Print the whole answer as JSON.")]


def main() -> None:
    """Run the command that the arguments name."""
    app()


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """The one to ask; ``url`` empty: this node's, through its socket."""

    url: str
    token: str


_THIS_NODES = ControlPlane(url="", token="")
_chosen = ContextVar("_chosen", default=_THIS_NODES)


@app.callback()
def choose_control_plane(
    *,
    url: Annotated[
        str,
        typer.Option(envvar=_URL_VARIABLE, help="Ask the control plane at this http(s):// URL."),
    ] = "",
    token: Annotated[
        str,
        typer.Option(
            envvar=_TOKEN_VARIABLE,
            help="What it has as REGISTRY_SYNC_OPERATIONS_TOKEN; better by the variable: other "
            "users of the machine see arguments.",
        ),
    ] = "",
) -> None:
    """Note which control plane the command is to ask."""
    if url and not url.startswith(("http://", "https://")):
        _fail(f"{url!r} is no http:// or https:// URL, such as http://node:8081", Exit.USAGE)
    _chosen.set(ControlPlane(url, token))


# --- run ------------------------------------------------------------------------------------------


@app.command()
def run() -> None:
    """Run the control plane; the same as `python -m registry_sync`.

    Settings are environment variables with the prefix REGISTRY_SYNC_; the README lists them all.
    """
    settings = _settings()
    configure_logging(settings)
    try:
        status = run_control_plane(settings)
    except (StartError, SyncError) as error:
        _fail(str(error), Exit.REFUSED)
    raise typer.Exit(status)


# --- status ---------------------------------------------------------------------------------------


@app.command()
def status(*, as_json: AsJson = False) -> None:
    """Show where every alias is, where the registry wants it, and why they differ."""
    state = _ask("GET", "/state", State)
    if as_json:
        _print_json(state)
        return
    out = Console()
    out.print(f"node [bold]{state.node_id}[/], following {state.tracking_uri}", highlight=False)
    out.print(f"registry: {_listed(state)}", highlight=False)
    if state.frozen:
        out.print(
            Text(
                f"frozen {_ago(state.frozen.at)} by {state.frozen.asked_by}: no alias follows the "
                "registry until `registry-gateway unfreeze`",
                style="yellow",
            )
        )
    for name, trouble in (("gateway", state.gateway_error), ("ledger", state.ledger_error)):
        out.print(Text(f"{name}: {trouble or 'answers'}", style="red" if trouble else ""))
    for webhook in state.webhooks:
        out.print(_webhook_line(webhook))
    for problem in state.problems:
        out.print(Text(problem, style="yellow"))
    out.print(_aliases_table(state))
    for work in state.work:
        if work.reason:
            out.print(
                Text(_retry(work.step, work.subject, work.failures, work.reason, work.retry_at))
            )


def _listed(state: State) -> str:
    when = "never listed" if state.listed_at is None else f"listed {_ago(state.listed_at)}"
    return f"{when}; {state.source_error}" if state.source_error else when


def _webhook_line(webhook: WebhookState) -> Text:
    said = f"webhook {webhook.name}: {webhook.taken} taken"
    said += f", the last {_ago(webhook.taken_at)}" if webhook.taken_at else ""
    if webhook.refused_at:
        said += f"; {webhook.refused} refused, the last {_ago(webhook.refused_at)}: "
        said += webhook.refusal or ""
    failing = (webhook.refused_at or 0.0) > (webhook.taken_at or 0.0)
    return Text(said, style="yellow" if failing else "")


def _retry(
    step: str, subject: list[str], failures: int, reason: str, retry_at: float | None
) -> str:
    wait_s = max(0.0, (retry_at or 0.0) - time.time())
    what = " ".join([step, *(part[:_SHORT_DIGEST] for part in subject)])
    return f"{what}: failed {failures} times, again in {wait_s:.0f} s: {reason}"


def _aliases_table(state: State) -> Table:
    table = _alias_columns()
    for model in state.models:
        for alias in model.aliases:
            table.add_row(*_alias_row(model.name, alias))
    return table


def _alias_columns() -> Table:
    return Table("model", "alias", "active", "aspired", "since", "digest", "why", box=None)


def _alias_row(model: str, alias: AliasState) -> list[Text]:
    same = alias.active == alias.aspired
    held = f" ({'pinned' if alias.pinned else 'held'} at {alias.held_at})" if alias.held_at else ""
    why = alias.reason or ("" if same else "under way")
    return [
        Text(model),
        Text(f"@{alias.alias}"),
        Text(str(alias.active or "-"), style="green" if same else "yellow"),
        Text(f"{alias.aspired or '-'}{held}"),
        Text(_ago(alias.since) if alias.since else "-"),
        Text((alias.digest or "-")[:_SHORT_DIGEST]),
        Text(why, style="" if same else "yellow"),
    ]


# --- history --------------------------------------------------------------------------------------


@app.command()
def history(
    model: Annotated[str | None, typer.Argument(help="The registered model; none: all.")] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Newest entries to show.")] = 30,
    as_json: AsJson = False,
) -> None:
    """Show who changed what, from which version to which, how it went and how long it took."""
    query: dict[str, Any] = {"limit": limit} | ({"model": model} if model else {})
    answer = _ask("GET", "/history", History, params=query)
    if as_json:
        _print_json(answer)
        return
    if not answer.entries:
        Console(stderr=True).print(f"Nothing has happened to {model or 'any model'} yet.")
        return
    Console().print(_history_table(answer.entries))


def _history_table(entries: list[HistoryEntry]) -> Table:
    table = Table("when", "model", "what", "version", "asked by", "outcome", "took", "", box=None)
    for entry in entries:
        table.add_row(*_history_row(entry))
    return table


def _history_row(entry: HistoryEntry) -> list[Text]:
    what = f"{entry.what} @{entry.alias}" if entry.alias else entry.what
    version = "-" if entry.version is None else str(entry.version)
    if entry.previous is not None:
        version = f"{entry.previous} → {version}"
    styles = {"complete": "green", "failed": "yellow", "refused": "red"}
    return [
        Text(datetime.fromtimestamp(entry.at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")),
        Text(entry.model or "(this node)"),
        Text(what),
        Text(version),
        Text(entry.asked_by or "-"),
        Text(entry.outcome, style=styles.get(entry.outcome, "")),
        Text(_took(entry.durations_s)),
        Text(entry.reason or ""),
    ]


def _took(durations_s: dict[str, float]) -> str:
    """Return the whole duration, and that of each phase where there is more than one."""
    if not durations_s:
        return ""
    whole_s = sum(seconds for phase, seconds in durations_s.items() if "." not in phase)
    phases = ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in durations_s.items())
    return f"{whole_s:.2f} s" + (f" ({phases})" if len(durations_s) > 1 else "")


# --- explain --------------------------------------------------------------------------------------


@app.command()
def explain(
    model: Annotated[str, typer.Argument(help="The registered model.")],
    selector: Annotated[
        str | None, typer.Argument(help="A version or an alias; none: every alias.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Say which version a selector means on this node, why, and what happens next."""
    try:
        query = {"model": parse_model_name(model)}
        if selector is not None:
            query["selector"] = str(parse_selector(selector))
    except InvalidReferenceError as error:
        _fail(f"{' '.join(filter(None, (model, selector)))!r}: {error}", Exit.USAGE)
    answer = _ask("GET", "/explain", ExplainAnswer, params=query)
    if as_json:
        _print_json(answer)
        return
    _say_explanation(answer)


def _say_explanation(answer: ExplainAnswer) -> None:
    out = Console(highlight=False, soft_wrap=True)
    troubles = {"registry": answer.source_error, "gateway": answer.gateway_error}
    for name, trouble in {**troubles, "ledger": answer.ledger_error}.items():
        if trouble:
            out.print(Text(f"{name}: {trouble}", style="red"))
    if answer.frozen:
        out.print(Text(f"frozen {_ago(answer.frozen.at)} by {answer.frozen.asked_by}", "yellow"))
    if not answer.selectors:
        out.print(f"{answer.model} has no alias; its versions are called by number.")
    for one in answer.selectors:
        _say_selector(out, answer.model, one)
    if answer.versions:
        table = Table("version", "state", "digest", "stamped", "why", box=None)
        for version in answer.versions:
            table.add_row(
                str(version.version),
                version.state,
                (version.digest or "-")[:_SHORT_DIGEST],
                "yes" if version.stamped else "no",
                Text(version.reason or ""),
            )
        out.print(table)
    if answer.attempts:
        out.print("")
        Console().print(_history_table(answer.attempts))


def _say_selector(out: Console, model: str, one: Explained) -> None:
    name = f"{model}{one.selector}" if one.selector.startswith("@") else f"{model} {one.selector}"
    means = f"means version {one.version} here" if one.version else "means nothing here"
    since = f", since {_ago(one.since)}" if one.since else ""
    asked = f", asked by {one.asked_by}" if one.asked_by else ""
    before = f", before that {one.previous}" if one.previous else ""
    settled = one.version is not None and one.target in (None, one.version)
    out.print(Text(f"{name} {means}{since}{asked}{before}", "green" if settled else "yellow"))
    if one.aspired is not None:
        out.print(f"  the registry wants version {one.aspired}")
    out.print(Text(f"  {one.why}: {one.reason}"))
    if one.doing:
        out.print(f"  under way: {', '.join(one.doing)}")
    if one.failure:
        wait_s = max(0.0, (one.retry_at or 0.0) - time.time())
        out.print(
            Text(f"  failed {one.failures} times, again in {wait_s:.0f} s: {one.failure}", "yellow")
        )


# --- rollback -------------------------------------------------------------------------------------


@app.command()
def rollback(
    reference: Annotated[
        str, typer.Argument(metavar="MODEL@ALIAS", help="Such as churn@champion.")
    ],
    *,
    to: Annotated[
        int | None, typer.Option(min=1, help="The version; none: the one that was active before.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put an alias back to what it pointed at before, and hold it there.

    It stays until the registry moves the alias to another version than now. Works with the
    registry down.
    """
    body = {**_parse_alias_reference(reference), "version": to}
    answer = _ask("POST", "/rollback", RollbackAnswer, json=body)
    if as_json:
        _print_json(answer)
    else:
        _say_rollback(answer)
    raise typer.Exit(_EXITS[answer.outcome])


def _say_rollback(answer: RollbackAnswer) -> None:
    name = f"{answer.model}@{answer.alias}"
    if answer.outcome == "refused":
        _say_error(f"{name} stays at version {answer.from_version}: {answer.reason}")
        return
    if answer.outcome == "pending":
        _say_error(
            f"{name} is to go back to version {answer.to_version}, and still serves version "
            f"{answer.from_version}: {answer.reason}. It goes on being tried; see "
            "`registry-gateway status`."
        )
        return
    out = Console(highlight=False, soft_wrap=True)
    out.print(
        Text(f"{name} is back at version {answer.to_version} (was {answer.from_version}).", "green")
    )
    if answer.was_pinned:
        out.print(f"It was pinned, and is no longer: `registry-gateway pin {name} …` pins it.")
    if answer.held_while_aspired is None:
        out.print("It stays there until the registry gives the alias a version.")
    else:
        out.print(
            f"It stays there while the registry's alias points at version "
            f"{answer.held_while_aspired}; move the alias in the registry to follow it again."
        )


# --- pin, unpin -----------------------------------------------------------------------------------


@app.command()
def pin(
    reference: Annotated[
        str, typer.Argument(metavar="MODEL@ALIAS", help="Such as churn@champion.")
    ],
    version: Annotated[int, typer.Argument(min=1, help="The version that it is to mean.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Keep an alias at a version, wherever the registry moves it, until `unpin`.

    A version that is not on this node is fetched and checked first.
    """
    body = {**_parse_alias_reference(reference), "version": version}
    answer = _ask("POST", "/pin", PinAnswer, json=body)
    if as_json:
        _print_json(answer)
    else:
        _say_pin(answer)
    raise typer.Exit(_EXITS[answer.outcome])


def _say_pin(answer: PinAnswer) -> None:
    name = f"{answer.model}@{answer.alias}"
    if answer.outcome == "refused":
        where = f" at version {answer.from_version}" if answer.from_version else " as it was"
        _say_error(f"{name} is not pinned, and stays{where}: {answer.reason}")
    elif answer.outcome == "pending":
        _say_error(
            f"{name} is pinned at version {answer.to_version}, and not there yet: "
            f"{answer.reason}. It goes on being tried; see `registry-gateway explain`."
        )
    else:
        was = f" (was {answer.from_version})" if answer.from_version else ""
        _say(
            f"{name} is pinned at version {answer.to_version}{was}.",
            "It stays there, wherever the registry moves the alias; `registry-gateway unpin "
            f"{name}` ends that.",
        )


@app.command()
def unpin(
    reference: Annotated[
        str, typer.Argument(metavar="MODEL@ALIAS", help="Such as churn@champion.")
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Let an alias follow the registry again, after `pin` or `rollback`."""
    body = _parse_alias_reference(reference)
    answer = _ask("POST", "/unpin", UnpinAnswer, json=body)
    if as_json:
        _print_json(answer)
        return
    name, what = f"{answer.model}@{answer.alias}", "pinned" if answer.was_pinned else "held"
    _say(f"{name} is no longer {what} at version {answer.was}.", _goes_on(answer))


def _goes_on(answer: UnpinAnswer) -> str:
    if answer.aspired == answer.active:
        return "It is where the registry wants it."
    if answer.frozen:
        return f"It stays at version {answer.active or '-'}: this node is frozen."
    if answer.aspired is None:
        return "The registry does not have it: it is taken away when two listings agree."
    return f"It goes to version {answer.aspired}, where the registry wants it."


# --- freeze, unfreeze -----------------------------------------------------------------------------


@app.command()
def freeze(*, as_json: AsJson = False) -> None:
    """Let no alias of this node follow the registry, until `unfreeze`.

    What was lost still comes back, and rollback and pin still move what they name.
    """
    answer = _ask("POST", "/freeze", FreezeAnswer)
    if as_json:
        _print_json(answer)
    elif answer.changed:
        _say(
            "This node is frozen.",
            "No alias follows the registry until `registry-gateway unfreeze`; rollback and pin "
            "still move what they name.",
        )
    elif answer.frozen:
        _say(f"This node was frozen already, {_ago(answer.frozen.at)}.")


@app.command()
def unfreeze(*, as_json: AsJson = False) -> None:
    """Let the aliases of this node follow the registry again."""
    answer = _ask("POST", "/unfreeze", FreezeAnswer)
    if as_json:
        _print_json(answer)
    elif answer.changed:
        _say("This node follows the registry again.")
    else:
        _say("This node was not frozen.")


# --- sync -----------------------------------------------------------------------------------------


@app.command()
def sync(
    model: Annotated[str, typer.Argument(help="The registered model.")], *, as_json: AsJson = False
) -> None:
    """List the registry now, try again what waits, and see where the model's aliases get."""
    try:
        body = {"model": parse_model_name(model)}
    except InvalidReferenceError as error:
        _fail(f"{model!r}: {error}", Exit.USAGE)
    answer = _ask("POST", "/sync", SyncAnswer, json=body)
    if as_json:
        _print_json(answer)
    else:
        if answer.reason:
            _say_error(f"the registry could not be listed: {answer.reason}")
        table = _alias_columns()
        for alias in answer.aliases:
            table.add_row(*_alias_row(answer.model, alias))
        Console().print(table)
    raise typer.Exit(_EXITS[answer.outcome])


# --- quarantine -----------------------------------------------------------------------------------


@quarantine_app.command("list")
def list_quarantine(*, as_json: AsJson = False) -> None:
    """Show which versions have wrong bytes, since when, and why."""
    answer = _ask("GET", "/quarantine", Quarantines)
    if as_json:
        _print_json(answer)
        return
    if not answer.quarantines:
        Console(stderr=True).print("Nothing is quarantined.")
        return
    table = Table("model", "version", "since", "expected", "found", "why", box=None)
    for one in answer.quarantines:
        gone = "" if one.listed else " (the registry no longer lists it)"
        table.add_row(
            Text(one.model),
            str(one.version),
            _ago(one.at),
            (one.expected_digest or "-")[:_SHORT_DIGEST],
            (one.found_digest or "-")[:_SHORT_DIGEST],
            Text(one.reason + gone),
        )
    Console().print(table)


@quarantine_app.command("release")
def release_quarantine(
    reference: Annotated[str, typer.Argument(metavar="MODEL/VERSION", help="Such as churn/3.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Fetch and check a quarantined version once more; wrong bytes are quarantined again."""
    model, _, version = reference.rpartition("/")
    try:
        body = {"model": parse_model_name(model), "version": parse_version(version)}
    except InvalidReferenceError as error:
        _fail(f"{reference!r} is not MODEL/VERSION, such as churn/3: {error}", Exit.USAGE)
    answer = _ask("POST", "/quarantine/release", ReleaseAnswer, json=body)
    if as_json:
        _print_json(answer)
    else:
        _say_release(answer)
    raise typer.Exit(_EXITS[answer.outcome])


def _say_release(answer: ReleaseAnswer) -> None:
    name = f"{answer.model}/{answer.version}"
    if answer.outcome == "accepted":
        _say(f"{name} is no longer quarantined: its bytes are right, and here.")
    elif answer.outcome == "released":
        _say(f"{name} is no longer quarantined; {answer.reason}.")
    elif answer.outcome == "pending":
        _say_error(f"{name} is no longer quarantined, and not here yet: {answer.reason}")
    else:
        _say_error(f"{name} is quarantined again: {answer.reason}")


# --- stamp ----------------------------------------------------------------------------------------


@app.command()
def stamp(
    uri: Annotated[str, typer.Argument(metavar="models:/NAME/VERSION")],
    *,
    force: Annotated[bool, typer.Option(help="Replace another stamp that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a version's bytes must be: compute their digest and write it as a tag.

    Run it right after publishing, where the bytes are known to be the right ones.
    """
    model, version = _parse_uri(uri)
    settings = _settings()
    registry = build_registry(settings)
    try:
        before = registry.version(model, version).expected_digest
        digest = _digest_of(registry, settings, model, version)
        if before is not None and before != digest and not force:
            _fail(
                f"version {version} of {model} is stamped {before}, but its bytes have {digest}: "
                "if they were changed on purpose, stamp again with --force",
                Exit.REFUSED,
            )
        if before != digest:
            registry.stamp(model, version, digest)
    except SyncError as error:
        _fail(str(error), Exit.REFUSED)
    if as_json:
        _print_json(Stamped(model=model, version=version, digest=digest, replaced=before))
        return
    out = Console(highlight=False, soft_wrap=True)
    out.print(Text(f"{model} version {version} is stamped {digest}", "green"))


class Stamped(BaseModel):
    """What was stamped; ``replaced``: the stamp that was there before."""

    model: str
    version: int
    digest: str
    replaced: str | None


def _parse_alias_reference(reference: str) -> dict[str, Any]:
    """Return model and alias of ``MODEL@ALIAS``, or end with what is wrong with it."""
    model, _, alias = reference.rpartition("@")
    try:
        return {"model": parse_model_name(model), "alias": parse_alias(alias)}
    except InvalidReferenceError as error:
        _fail(f"{reference!r} is not MODEL@ALIAS: {error}", Exit.USAGE)


def _parse_uri(uri: str) -> tuple[str, int]:
    match = _MODEL_URI.match(uri)
    if match is None:
        _fail(f"{uri!r} is not models:/NAME/VERSION, such as models:/churn/3", Exit.USAGE)
    try:
        return parse_model_name(match["model"]), parse_version(match["version"])
    except InvalidReferenceError as error:
        _fail(f"{uri!r} names no version of a registered model: {error}", Exit.USAGE)


def _digest_of(registry: Source, settings: SyncSettings, model: str, version: int) -> str:
    """Fetch the bytes into a temporary folder, and return their digest.

    Raises:
        SyncError: They cannot be fetched, or are refused.
    """
    fetcher = build_fetcher(settings)
    with (
        tempfile.TemporaryDirectory(prefix="registry-gateway-") as folder,
        _progress() as progress,
    ):
        task = progress.add_task(f"fetching {model} version {version}", total=None)
        fetched = fetcher.fetch(
            registry.locate(model, version),
            Path(folder) / "artifact",
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
        return fetched.manifest.digest


# --- publish --------------------------------------------------------------------------------------


@app.command()
def publish(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A model as MLflow saves it.")],
    uri: Annotated[str, typer.Argument(metavar="s3://BUCKET/PREFIX/MODEL")],
    *,
    version: Annotated[
        int | None, typer.Option(min=1, help="The number; none: the next one that is free.")
    ] = None,
    alias: Annotated[
        list[str] | None, typer.Option(help="Point this alias at it; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Publish a model to an S3 prefix that nodes follow without MLflow.

    A published version is never overwritten. Nodes see it when its manifest is there, which is
    written last; the aliases are pointed after that.
    """
    aliases = [_parse_new_alias(one) for one in alias or []]
    settings = _settings()
    try:
        publisher = build_publisher(uri)
        with _progress() as progress:
            tasks = {
                "hash": progress.add_task(f"hashing {folder}", total=None),
                "upload": progress.add_task("uploading", total=None, visible=False),
            }

            def show(phase: str, done: int, total: int) -> None:
                progress.update(tasks[phase], completed=done, total=total, visible=True)

            read = read_folder(
                folder,
                max_files=settings.max_artifact_files,
                max_bytes=settings.max_artifact_bytes,
                on_bytes=show,
            )
            done = publisher.publish(read, version, aliases, show)
    except InvalidReferenceError as error:
        _fail(str(error), Exit.USAGE)
    except SyncError as error:
        _fail(str(error), Exit.REFUSED)
    _say_published(done, aliases, size_bytes=read.size_bytes, as_json=as_json)


class PublishedVersion(BaseModel):
    """What was published.

    Attributes:
        model: The model's name.
        version: Its number.
        digest: The digest of its artifact, which its manifest stamps.
        location: Where its files are.
        files: How many there are.
        size_bytes: Bytes of all of them.
        uploaded: False: the same bytes were published under that number before.
        aliases: The aliases that were pointed at it.
        guarded: False: the storage ignores conditions, so publish from one place at a time.
    """

    model: str
    version: int
    digest: str
    location: str
    files: int
    size_bytes: int
    uploaded: bool
    aliases: list[str]
    guarded: bool


def _say_published(
    done: Publication, aliases: list[str], *, size_bytes: int, as_json: bool
) -> None:
    answer = PublishedVersion(
        model=done.place.model,
        version=done.version,
        digest=done.manifest.digest,
        location=done.place.uri(done.place.files(done.version)),
        files=len(done.manifest.files),
        size_bytes=size_bytes,
        uploaded=done.uploaded,
        aliases=aliases,
        guarded=done.guarded,
    )
    if not done.guarded:
        _say_error(
            "This storage ignores conditional writes, so nothing keeps two publications of one "
            "model apart: publish it from one place at a time."
        )
    if as_json:
        _print_json(answer)
        return
    out = Console(highlight=False, soft_wrap=True)
    how = "is published" if done.uploaded else "was published before with the same bytes"
    pointed = "".join(f", @{one} points at it" for one in aliases)
    out.print(Text(f"{answer.model} version {answer.version} {how}{pointed}", "green"))
    out.print(f"{answer.digest}, {answer.files} files at {answer.location}")


def _parse_new_alias(text: str) -> str:
    try:
        alias = parse_alias(text.removeprefix("@"))
    except InvalidReferenceError as error:
        _fail(f"{text!r} can be no alias: {error}", Exit.USAGE)
    if alias == LATEST:
        _fail(f"{LATEST!r} always means the highest version, and cannot be pointed", Exit.USAGE)
    return alias


# --- shared ---------------------------------------------------------------------------------------


def _progress() -> Progress:
    """Return bars of bytes on stderr, which go when the work is done."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _settings() -> SyncSettings:
    """Read the settings, or end with what is wrong with them."""
    try:
        return SyncSettings()
    except ValidationError as error:
        lines = []
        for one in error.errors():
            name = "_".join(str(part) for part in one["loc"]).upper().removeprefix("REGISTRY_SYNC_")
            lines.append(f"REGISTRY_SYNC_{name}: {one['msg']}")
        _fail("\n".join(lines), Exit.USAGE)


def _ask(method: str, path: str, kind: type[_Answer], **options: Any) -> _Answer:
    """Ask the control plane that was chosen; end with what to do if it does not answer."""
    chosen = _chosen.get()
    try:
        with _client(chosen) as client:
            answer = client.request(method, path, **options)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        _fail(_unreachable(chosen, type(error).__name__), Exit.UNREACHABLE)
    try:
        if not answer.is_success:
            _fail(Problem.model_validate_json(answer.content).detail, Exit.REFUSED)
        return kind.model_validate_json(answer.content)
    except ValidationError:
        _fail(
            f"the control plane answered {answer.status_code}, and this command cannot read it: "
            "are both of the same release?",
            Exit.UNREACHABLE,
        )


def _client(chosen: ControlPlane) -> httpx.Client:
    if chosen.url:
        headers = {"Authorization": f"Bearer {chosen.token}"} if chosen.token else {}
        return httpx.Client(base_url=chosen.url, headers=headers, timeout=_TIMEOUT)
    path = str(_settings().operations_socket)
    with socket.socket(socket.AF_UNIX) as probe:  # httpx leaves a refused one open
        probe.connect(path)
    transport = httpx.HTTPTransport(uds=path)
    return httpx.Client(transport=transport, base_url="http://control-plane", timeout=_TIMEOUT)


def _unreachable(chosen: ControlPlane, error: str) -> str:
    if chosen.url:
        return (
            f"no control plane answers at {chosen.url} ({error}): see its "
            "REGISTRY_SYNC_OPERATIONS_HOST and REGISTRY_SYNC_OPERATIONS_PORT"
        )
    return (
        f"no control plane answers at {_settings().operations_socket.absolute()} ({error}): start "
        "it with `python -m registry_sync`, set REGISTRY_SYNC_NODE_DIR to its folder, or "
        f"{_URL_VARIABLE} to its address"
    )


def _print_json(body: BaseModel) -> None:
    typer.echo(body.model_dump_json(indent=2))


def _say(done: str, *more: str) -> None:
    out = Console(highlight=False, soft_wrap=True)
    out.print(Text(done, "green"))
    for line in more:
        out.print(Text(line))


def _say_error(message: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text(message, style="red"))


def _fail(message: str, code: Exit) -> NoReturn:
    _say_error(message)
    sys.stderr.flush()
    raise typer.Exit(code)


def _ago(at: float) -> str:
    """Return how long ago ``at`` (epoch seconds) was, in the largest unit that fits."""
    seconds = max(0.0, time.time() - at)
    for unit, size_s in (("d", _DAY_S), ("h", _HOUR_S), ("min", _MINUTE_S)):
        if seconds >= size_s:
            return f"{seconds / size_s:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
