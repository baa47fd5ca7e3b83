"""The operator's command, ``registry-gateway``.

Exit codes: 0 it is done; 1 refused or failed; 2 wrong usage or settings; 3 the control plane does
not answer; 4 under way, not done yet. Results go to stdout, errors and progress to stderr.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.markup import escape

from gateway.system import StartError, settings_help
from gateway.system.logs import remember, secrets_of
from registry_sync.cli import client, decisions, history, publish, status, sync
from registry_sync.cli.arguments import read_settings
from registry_sync.cli.output import Exit, fail, spell_everything
from registry_sync.errors import SyncError
from registry_sync.settings import SyncSettings

app = typer.Typer(
    name="registry-gateway",
    help="Follow a model registry, and say what this node serves of it and why. "
    "`run --help` lists the settings.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def main(arguments: list[str] | None = None, name: str | None = None) -> None:
    """Run the command that the arguments name: those of the process, unless they are given."""
    app(args=arguments, prog_name=name)


@app.callback()
def choose_control_plane(
    *,
    url: Annotated[
        str,
        typer.Option(
            envvar=client.URL_VARIABLE,
            help="Ask the control plane at this http(s):// URL.",
        ),
    ] = "",
    token: Annotated[
        str,
        typer.Option(
            envvar=client.TOKEN_VARIABLE,
            help="What it has as REGISTRY_SYNC_OPERATIONS_TOKEN; better by the variable: other "
            "users of the machine see arguments.",
        ),
    ] = "",
) -> None:
    """Note which control plane the command is to ask."""
    remember(secrets_of(os.environ) | {token})
    spell_everything()
    client.choose(url, token)


@app.command(epilog="\n\n".join(map(escape, settings_help(SyncSettings))))
def run() -> None:
    """Run the control plane; the same as `python -m registry_sync`.

    Settings are environment variables; their defaults are in parentheses.
    """
    from registry_sync import bootstrap  # most commands only ask: half a second less for them

    settings = read_settings()
    log = bootstrap.begin_log(settings)
    try:
        ended = bootstrap.run(settings, log.end)
    except (StartError, SyncError) as error:
        fail(str(error), Exit.REFUSED)
    raise typer.Exit(ended)


# In the order in which `--help` lists them.
for command in (
    status.status,
    history.history,
    history.explain,
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
    help="Show, retry and accept versions whose bytes are wrong.", no_args_is_help=True
)
quarantine_app.command("list")(sync.list_quarantine)
quarantine_app.command("retry")(sync.retry_quarantine)
quarantine_app.command("accept")(sync.accept_quarantined)
app.add_typer(quarantine_app, name="quarantine")
