"""The commands that start processes: `up` for a node, and one for each of its planes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.system import StartError
from gateway.system.processes import importable
from registry_sync.cli.arguments import read_settings
from registry_sync.cli.output import ExitStatus, fail
from registry_sync.errors import SyncError

_BOTH_PLANES = ("GATEWAY_", "REGISTRY_SYNC_")
PASSED_ON: Mapping[str, Any] = {
    "add_help_option": False,
    "context_settings": {"ignore_unknown_options": True, "allow_extra_args": True},
}
"""How `gateway` is added: all of its arguments, `--help` too, are for `python -m gateway`."""


def up(
    *,
    tracking_uri: Annotated[
        str,
        typer.Option(
            help="The MLflow server, or s3://bucket/prefix; else REGISTRY_SYNC_TRACKING_URI or "
            "MLFLOW_TRACKING_URI."
        ),
    ] = "",
    node_dir: Annotated[
        Path | None, typer.Option(help="The node's folder; else GATEWAY_NODE_DIR.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port of the gateway; else GATEWAY_PORT."),
    ] = None,
) -> None:
    """Run a node: its gateway and its control plane, with one log, until Ctrl-C.

    A process that ends is started again. All settings of both processes count: see
    `registry-gateway gateway --help` and `registry-gateway control-plane --help`.
    """
    for name, given in (("NODE_DIR", node_dir), ("RUNTIME_DIR", None)):
        os.environ.update(_shared(os.environ, name, given))
    if tracking_uri:
        os.environ["REGISTRY_SYNC_TRACKING_URI"] = tracking_uri
    if port is not None:
        os.environ["GATEWAY_PORT"] = str(port)
    settings = read_settings()
    from registry_sync import bootstrap  # other commands start half a second faster

    bootstrap.begin_log(settings)
    raise typer.Exit(bootstrap.run_node(os.environ))


def gateway(context: typer.Context) -> None:
    """Run the gateway; the same as `python -m gateway`. `--help` lists its settings."""
    # The gateway has to be the main program: its workers import their parent's main script.
    command = [sys.executable, "-P", "-m", "gateway", *context.args]
    os.execve(command[0], command, importable(os.environ))  # noqa: S606  # our own program


def control_plane() -> None:
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


def _shared(environ: Mapping[str, str], name: str, given: Path | None) -> dict[str, str]:
    """Return a folder's variables for both planes: as given, or as one of them has it."""
    variables = [prefix + name for prefix in _BOTH_PLANES]
    if given is not None:
        return dict.fromkeys(variables, str(given))
    values = [environ[one] for one in variables if environ.get(one)]
    if len({Path(one).absolute() for one in values}) > 1:
        fail(
            f"{variables[0]} and {variables[1]} must name the same folder: set them alike",
            ExitStatus.USAGE,
        )
    return dict.fromkeys(variables, values[0]) if values else {}
