"""The operator's command, ``registry-gateway``.

Exit statuses: 0 done; 1 refused or failed; 2 wrong usage or settings; 3 the control plane does not
answer; 4 not done yet. Results go to stdout, errors and progress to stderr.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.markup import escape

from gateway.system import StartError, settings_help
from gateway.system.logs import remember, secrets_of
from registry_sync.cli import client, decisions, explain, history, publish, status, sync
from registry_sync.cli.arguments import read_settings
from registry_sync.cli.output import ExitStatus, escape_unencodable, fail
from registry_sync.errors import SyncError
from registry_sync.settings import SyncSettings

app = typer.Typer(
    name="registry-gateway",
    help="Follow a model registry, and explain what this node serves. "
    "`run --help` lists the settings.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def main(arguments: list[str] | None = None, name: str | None = None) -> None:
    """Run the command of these arguments or, with None, of the process's."""
    app(args=arguments, prog_name=name)


@app.callback()
def choose_control_plane(
    *,
    url: Annotated[
        str,
        typer.Option(
            envvar=client.URL_VARIABLE,
            help="The http(s):// URL of the control plane; by default this node's socket.",
        ),
    ] = "",
    token: Annotated[
        str,
        typer.Option(
            envvar=client.TOKEN_VARIABLE,
            help="The control plane's REGISTRY_SYNC_OPERATIONS_TOKEN. Prefer the variable: other "
            "users of the machine see arguments.",
        ),
    ] = "",
) -> None:
    """Choose the control plane that the command calls."""
    remember(secrets_of(os.environ) | {token})
    escape_unencodable()
    client.choose(url, token)


@app.command(epilog="\n\n".join(map(escape, settings_help(SyncSettings))))
def run() -> None:
    """Run the control plane; the same as `python -m registry_sync`.

    Settings are environment variables; their defaults are in parentheses.
    """
    from registry_sync import bootstrap  # other commands start half a second faster

    settings = read_settings()
    log = bootstrap.begin_log(settings)
    try:
        ended = bootstrap.run(settings, log.end)
    except (StartError, SyncError) as error:
        fail(str(error), ExitStatus.REFUSED)
    raise typer.Exit(ended)


# In the order in which `--help` lists them.
for command in (
    status.status,
    history.history,
    explain.explain,
    decisions.rollback,
    decisions.pin,
    decisions.unpin,
    decisions.freeze,
    decisions.unfreeze,
    sync.sync,
    sync.retry,
    publish.stamp,
    publish.publish,
):
    app.command()(command)

quarantine_app = typer.Typer(
    help="Show, retry and accept versions with wrong bytes.", no_args_is_help=True
)
quarantine_app.command("list")(sync.list_quarantine)
quarantine_app.command("retry")(sync.retry_quarantine)
quarantine_app.command("accept")(sync.accept_quarantined)
app.add_typer(quarantine_app, name="quarantine")
