"""Parsed arguments and settings; an invalid one ends the command."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from gateway.contract import (
    LATEST,
    InvalidReferenceError,
    parse_alias,
    parse_model_name,
    parse_selector,
    parse_version,
)
from registry_sync.cli.output import ExitStatus, fail, print_error
from registry_sync.settings import SyncSettings

_MODEL_URI = re.compile(r"models:/(?P<model>[^/]+)/(?P<version>[^/]+)\Z")

AsJson = Annotated[bool, typer.Option("--json", help="Print the whole answer as JSON.")]
ModelArgument = Annotated[str, typer.Argument(help="The registered model.")]
AliasArgument = Annotated[
    str, typer.Argument(metavar="MODEL@ALIAS", help="Such as churn@champion.")
]


def of_model(model: str) -> dict[str, Any]:
    """Return the query for a model; end the command if its name is invalid."""
    return of_selector(model, None)


def of_selector(model: str, selector: str | None) -> dict[str, Any]:
    """Return the query for a model's selector or, with None, for all its aliases."""
    with _checked(repr(" ".join(filter(None, (model, selector))))):
        query = {"model": parse_model_name(model)}
        return query if selector is None else query | {"selector": str(parse_selector(selector))}


def of_alias(reference: str) -> dict[str, Any]:
    """Return the query for ``MODEL@ALIAS``."""
    model, _, alias = reference.rpartition("@")
    with _checked(f"{reference!r} is not MODEL@ALIAS"):
        return {"model": parse_model_name(model), "alias": parse_alias(alias)}


def of_version(reference: str) -> dict[str, Any]:
    """Return the query for ``MODEL/VERSION``."""
    model, _, version = reference.rpartition("/")
    with _checked(f"{reference!r} is not MODEL/VERSION, such as churn/3"):
        return {"model": parse_model_name(model), "version": parse_version(version)}


def at_uri(uri: str) -> tuple[str, int]:
    """Return the model and the version of ``models:/NAME/VERSION``."""
    match = _MODEL_URI.match(uri)
    if match is None:
        fail(f"{uri!r} is not models:/NAME/VERSION, such as models:/churn/3", ExitStatus.USAGE)
    with _checked(f"{uri!r} is not a version of a registered model"):
        return parse_model_name(match["model"]), parse_version(match["version"])


def new_alias(text: str) -> str:
    """Return an alias that a publisher may set."""
    with _checked(f"{text!r} is not an alias"):
        alias = parse_alias(text.removeprefix("@"))
    if alias == LATEST:
        fail(f"{LATEST!r} means the highest version, and cannot be set", ExitStatus.USAGE)
    return alias


@contextmanager
def _checked(what: str) -> Iterator[None]:
    """End the command if the block parses an invalid reference."""
    try:
        yield
    except InvalidReferenceError as error:
        fail(f"{what}: {error}", ExitStatus.USAGE)


def read_settings() -> SyncSettings:
    """Read the settings; end the command if one is invalid."""
    try:
        return SyncSettings()
    except ValidationError as error:
        *others, last = (
            f"{_variable(one['loc'])}: {one['msg'].removeprefix('Value error, ')}"
            for one in error.errors(include_input=False)
        )
        for line in others:
            print_error(line)
        fail(last, ExitStatus.USAGE)


def _variable(location: tuple[int | str, ...]) -> str:
    """Return the environment variable of a setting."""
    name = "_".join(map(str, location)).upper()
    return f"REGISTRY_SYNC_{name.removeprefix('REGISTRY_SYNC_')}"
