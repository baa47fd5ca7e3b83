"""The list of all commands."""

from __future__ import annotations

import typer
from rich.markup import escape

from gateway.system import settings_help
from registry_sync.cli.commands import decisions, explain, history, processes, publish, status, sync
from registry_sync.settings import SyncSettings


def add_commands(app: typer.Typer) -> None:
    """Add every command to the application."""
    app.command()(processes.up)
    app.command(**processes.PASSED_ON)(processes.gateway)
    settings = "\n\n".join(map(escape, settings_help(SyncSettings)))
    app.command("control-plane", epilog=settings)(processes.control_plane)
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
    quarantine = typer.Typer(
        help="Show, retry and accept versions with wrong bytes.", no_args_is_help=True
    )
    quarantine.command("list")(sync.list_quarantine)
    quarantine.command("retry")(sync.retry_quarantine)
    quarantine.command("accept")(sync.accept_quarantined)
    app.add_typer(quarantine, name="quarantine")
