"""What an operator typed or set, parsed; or the end, with what is wrong with it."""

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
from registry_sync.cli.output import Exit, fail, say_error
from registry_sync.settings import SyncSettings

_MODEL_URI = re.compile(r"models:/(?P<model>[^/]+)/(?P<version>[^/]+)\Z")

AsJson = Annotated[bool, typer.Option("--json", help="Print the whole answer as JSON.")]
ModelArgument = Annotated[str, typer.Argument(help="The registered model.")]
AliasArgument = Annotated[
    str, typer.Argument(metavar="MODEL@ALIAS", help="Such as churn@champion.")
]


def of_model(model: str) -> dict[str, Any]:
    """Return what to ask about a model, or end with what is wrong with its name."""
    return of_selector(model, None)


def of_selector(model: str, selector: str | None) -> dict[str, Any]:
    """Return what to ask about a model and a selector of it; None: every alias."""
    with _checked(repr(" ".join(filter(None, (model, selector))))):
        asked = {"model": parse_model_name(model)}
        return asked if selector is None else asked | {"selector": str(parse_selector(selector))}


def of_alias(reference: str) -> dict[str, Any]:
    """Return what to ask about ``MODEL@ALIAS``."""
    model, _, alias = reference.rpartition("@")
    with _checked(f"{reference!r} is not MODEL@ALIAS"):
        return {"model": parse_model_name(model), "alias": parse_alias(alias)}


def of_version(reference: str) -> dict[str, Any]:
    """Return what to ask about ``MODEL/VERSION``."""
    model, _, version = reference.rpartition("/")
    with _checked(f"{reference!r} is not MODEL/VERSION, such as churn/3"):
        return {"model": parse_model_name(model), "version": parse_version(version)}


def at_uri(uri: str) -> tuple[str, int]:
    """Return the model and the version that ``models:/NAME/VERSION`` names."""
    match = _MODEL_URI.match(uri)
    if match is None:
        fail(f"{uri!r} is not models:/NAME/VERSION, such as models:/churn/3", Exit.USAGE)
    with _checked(f"{uri!r} names no version of a registered model"):
        return parse_model_name(match["model"]), parse_version(match["version"])


def new_alias(text: str) -> str:
    """Return an alias that is to be pointed."""
    with _checked(f"{text!r} can be no alias"):
        alias = parse_alias(text.removeprefix("@"))
    if alias == LATEST:
        fail(f"{LATEST!r} always means the highest version, and cannot be pointed", Exit.USAGE)
    return alias


@contextmanager
def _checked(what: str) -> Iterator[None]:
    """End the command where nobody can have meant what the block parses."""
    try:
        yield
    except InvalidReferenceError as error:
        fail(f"{what}: {error}", Exit.USAGE)


def read_settings() -> SyncSettings:
    """Read the settings, or end with what is wrong with them."""
    try:
        return SyncSettings()
    except ValidationError as error:
        *others, last = (
            f"{_variable(one['loc'])}: {one['msg'].removeprefix('Value error, ')}"
            for one in error.errors(include_input=False)
        )
        for line in others:
            say_error(line)
        fail(last, Exit.USAGE)


def _variable(place: tuple[int | str, ...]) -> str:
    """Return the environment variable that a setting was read from."""
    name = "_".join(map(str, place)).upper()
    return f"REGISTRY_SYNC_{name.removeprefix('REGISTRY_SYNC_')}"
