"""The operator's command, ``registry-gateway``.

Exit statuses: 0 done; 1 refused or failed; 2 wrong usage or settings; 3 the control plane does not
answer; 4 not done yet. Results go to stdout, errors and progress to stderr.
"""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from gateway.system.logs import remember, secrets_of
from registry_sync.cli import client
from registry_sync.cli.commands import add_commands
from registry_sync.cli.output import escape_unencodable

app = typer.Typer(
    name="registry-gateway",
    help="Serve every model of a registry: run a node, and see and decide what it serves.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def main(arguments: list[str] | None = None, name: str | None = None) -> None:
    """Run the command of these arguments or, with None, of the process's."""
    app(args=arguments, prog_name=name)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        try:
            release = version("registry-gateway")
        except PackageNotFoundError:  # a checkout that is not installed
            release = "(not installed)"
        typer.echo(f"registry-gateway {release}")
        raise typer.Exit


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
    show_version: Annotated[  # noqa: ARG001  # its callback ends the command
        bool,
        typer.Option(
            "--version", help="Print the version and end.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Choose the control plane that the command calls."""
    remember(secrets_of(os.environ) | {token})
    escape_unencodable()
    client.choose(url, token)


add_commands(app)
