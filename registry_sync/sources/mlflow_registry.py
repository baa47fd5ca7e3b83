"""The MLflow model registry as a source."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from typing import Any

from gateway.contract import InvalidReferenceError, parse_model_name, parse_version
from gateway.system.logs import redacted
from registry_sync.domain import (
    DIGEST_TAG,
    Aspired,
    AspiredModel,
    AspiredVersion,
    LatestPolicy,
    read_stamp,
)
from registry_sync.errors import SourceError
from registry_sync.sources.aliases import READY, read_aliases
from registry_sync.sources.bounded_answers import bound_mlflow_answers
from registry_sync.sources.storage import as_source_error

_MODELS_PER_PAGE = 1000
_VERSIONS_PER_PAGE = 10_000
_MAX_PAGES = 1000
_FEW_MODELS = 5
_PENDING = "PENDING_REGISTRATION"
_REGISTERING_S = 600.0
_PROMPT_TAG = "mlflow.prompt.is_prompt"
_EXTERNAL_TAG = "mlflow.model.isExternal"
_CREATION_DIGITS = 32
_LOGGED_MODEL = re.compile(r"models:/(m-[0-9a-f]{32})")

_MLFLOW_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",  # its lines pass our redaction
}
"""MLflow's client blocks for four minutes on a dead server by default, and reads its limits from
the environment only."""


def bound_mlflow(environ: MutableMapping[str, str]) -> None:
    """Set MLflow's limits in the process's ``environ``, unless the user set them.

    Call before the first import of mlflow.
    """
    for name, value in _MLFLOW_DEFAULTS.items():
        environ.setdefault(name, value)


def connect_mlflow(
    tracking_uri: str,
    environ: MutableMapping[str, str],
    *,
    latest: LatestPolicy = "without_aliases",
    on_call: Callable[[str], None] = lambda _: None,
) -> MlflowRegistry:
    """Return a source for the MLflow server at ``tracking_uri``.

    ``environ`` is the process's environment, see `bound_mlflow`; the rest as `MlflowRegistry`.
    """
    bound_mlflow(environ)
    name = f"the MLflow registry at {redacted(tracking_uri)}"

    def connect() -> Any:
        with as_source_error(f"{name} cannot be used as a registry"):
            from mlflow import MlflowClient

            bound_mlflow_answers()
            return MlflowClient(tracking_uri=tracking_uri)

    return MlflowRegistry(connect, name, latest=latest, on_call=on_call)


class MlflowRegistry:
    """A `Source` of ready versions and aliases, without prompts.

    ``connect`` returns an ``MlflowClient``, at the first call: importing mlflow takes seconds.
    ``latest`` says which models have that alias. ``on_call`` is called with the name of every call
    to the server, before it is made.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        name: str = "the MLflow registry",
        *,
        latest: LatestPolicy = "without_aliases",
        on_call: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._connect = connect
        self._name = name
        self._latest = latest
        self._on_call = on_call
        self._clock = clock

    @cached_property
    def _client(self) -> Any:
        return self._connect()

    @property
    def name(self) -> str:
        """See `Source.name`."""
        return self._name

    def aspired(self, before: Aspired | None = None) -> Aspired:
        """List models with their aliases, then versions, so that no alias is ahead of its version.

        Versions are listed of models that changed since ``before``: with one call each for a few,
        else with one call for all.
        """
        listed_at = self._clock()
        with self._calling("could not be listed"):
            models = self._search("search_registered_models", _MODELS_PER_PAGE)
            known = _unchanged(models, before)
            changed = [model.name for model in models if model.name not in known]
            versions = self._versions_of(changed if known else None)
            models, late = self._not_older(models, versions)
            found = _aspired(models, versions, listed_at, known, self._latest)
            # Their versions may be outdated: the next poll lists both.
            marks = {name: mark for name, mark in found.marks.items() if name not in late}
            return replace(found, marks=marks)

    def model(self, name: str) -> AspiredModel | None:
        """Return one model with all its versions, or None if it is missing or a prompt."""
        with self._calling(f"did not list the model {name!r}"):
            models = self._search("search_registered_models", 1, filter_string=_named(name))
            if not models:
                return None
            versions = self._versions_of([name])
            models, _ = self._not_older(models, versions)
            return _aspired(models, versions, 0.0, {}, self._latest).models.get(name)

    def _not_older(
        self, models: list[Any], versions: Iterable[Any]
    ) -> tuple[list[Any], frozenset[str]]:
        """List models again that have a version newer than their own listing.

        A model may be deleted and made anew between the two listings; the aliases of the former
        would then point at versions of the latter. MLflow updates a model's time with each version.
        """
        updated = {model.name: model.last_updated_timestamp or 0 for model in models}
        late = {
            one.name
            for one in versions
            if one.name in updated and (one.creation_timestamp or 0) > updated[one.name]
        }
        if not late:
            return models, frozenset()
        if len(late) > _FEW_MODELS or not all(map(_can_be_named, late)):
            again = self._search("search_registered_models", _MODELS_PER_PAGE)
        else:
            call, one_page = "search_registered_models", 1
            again = [m for n in late for m in self._search(call, one_page, filter_string=_named(n))]
        newer = {model.name: model for model in again}
        current = (newer.get(one.name) if one.name in late else one for one in models)
        return [model for model in current if model is not None], frozenset(late)

    def _versions_of(self, names: Sequence[str] | None) -> list[Any]:
        """List the versions of these models, or of all."""
        if names is None or len(names) > _FEW_MODELS or not all(map(_can_be_named, names)):
            return self._search_versions()
        found: list[Any] = []
        for name in names:
            found += self._search_versions(filter_string=_named(name))
        return found

    def _search_versions(self, **options: Any) -> list[Any]:
        order = ["name ASC", "version_number ASC"]
        return self._search("search_model_versions", _VERSIONS_PER_PAGE, order_by=order, **options)

    def _search(self, call: str, per_page: int, **options: Any) -> list[Any]:
        """Return the results of an MLflow search, of all its pages."""
        search = getattr(self._client, call)
        found: list[Any] = []
        token = None
        for _ in range(_MAX_PAGES):
            self._on_call(call)
            page = search(max_results=per_page, page_token=token, **options)
            found += page
            token = page.token
            if not token:
                return found
        raise SourceError(f"the registry lists more than {_MAX_PAGES} pages")

    def version(self, model: str, version: int) -> AspiredVersion:
        """Return one version, in any state; refuse a prompt."""
        with self._calling(f"did not return version {version} of {model!r}"):
            self._on_call("get_model_version")
            found = self._client.get_model_version(model, str(version))
        if _PROMPT_TAG in dict(found.tags):
            raise SourceError(f"{model!r} is a prompt, not a model")
        return _version(found)

    def locate(self, model: str, version: int) -> str:
        """See `Source.locate`."""
        with self._calling(f"did not locate version {version} of {model!r}"):
            self._on_call("get_model_version_download_uri")
            return str(self._client.get_model_version_download_uri(model, str(version)))

    def is_whole(self, version: AspiredVersion) -> bool:
        """Whether the version is a logged model that is ready.

        ``log_model`` uploads the files, registers the version, and then marks the logged model as
        ready. MLflow does not know whether other locations are complete.
        """
        found = _LOGGED_MODEL.fullmatch(version.location)
        if found is None:
            return False
        try:
            with self._calling("did not return a logged model"):
                self._on_call("get_logged_model")
                logged = self._client.get_logged_model(found[1])
                external = dict(logged.tags).get(_EXTERNAL_TAG, "").lower() == "true"
                return str(logged.status) == READY and not external
        except SourceError:
            return False

    def stamp(self, model: str, version: int, digest: str) -> None:
        """Stamp a version with the tag ``gateway.digest``."""
        with self._calling(f"refused a tag on version {version} of {model!r}"):
            self._on_call("set_model_version_tag")
            self._client.set_model_version_tag(model, str(version), DIGEST_TAG, digest)

    def _calling(self, what: str) -> AbstractContextManager[None]:
        return as_source_error(f"{self._name} {what}")


def _can_be_named(name: str) -> bool:
    """Whether a filter can name a model: MLflow's filters cannot contain both quotes."""
    return not ("'" in name and '"' in name)


def _named(name: str) -> str:
    quote = '"' if "'" in name else "'"
    return f"name = {quote}{name}{quote}"


def _mark(model: Any) -> Hashable:
    """Return a mark of a model; includes its aliases, whose moves change no time in MLflow."""
    return (
        model.last_updated_timestamp,
        tuple(sorted((alias, str(to)) for alias, to in dict(model.aliases).items())),
        tuple(sorted(dict(model.tags).items())),
        tuple(sorted((one.current_stage, str(one.version)) for one in model.latest_versions or ())),
    )


def _unchanged(models: Iterable[Any], before: Aspired | None) -> dict[str, AspiredModel]:
    """Return the models of an earlier listing that are unchanged."""
    if before is None:
        return {}
    return {
        model.name: before.models[model.name]
        for model in models
        if model.name in before.models and before.marks.get(model.name) == _mark(model)
    }


def _aspired(
    models: Iterable[Any],
    versions: Iterable[Any],
    listed_at: float,
    known: Mapping[str, AspiredModel],
    latest: LatestPolicy,
) -> Aspired:
    """Join the listings of models and versions; a model only in the latter is ignored.

    ``versions`` are of every model outside ``known``, which are unchanged; the listing of models
    began at ``listed_at`` (epoch seconds).
    """
    by_model: dict[str, list[Any]] = {}
    for version in versions:
        by_model.setdefault(version.name, []).append(version)
    found: dict[str, AspiredModel] = {}
    problems: list[str] = []
    marks: dict[str, Hashable] = {}
    for model in models:
        if _PROMPT_TAG in dict(model.tags):
            continue
        try:
            name = parse_model_name(model.name)
        except InvalidReferenceError as error:
            problems.append(f"a registered model is ignored: {error}")
            continue
        listed = by_model.get(name, [])
        found[name] = known[name] if name in known else _model(model, listed, latest)
        if name in known or not _may_change(model, listed, listed_at):
            marks[name] = _mark(model)
    return Aspired(found, listed_at, tuple(problems), marks)


def _may_change(model: Any, listed: list[Any], listed_at: float) -> bool:
    """Whether a model may change without a change of its mark.

    A pending version may become ready, for some time after its registration; an alias may be ahead
    of the listing of versions.
    """
    numbers = {str(one.version) for one in listed}
    ahead = any(str(to) not in numbers for to in dict(model.aliases).values())
    return ahead or any(
        one.status == _PENDING and listed_at - (one.creation_timestamp or 0) / 1000 < _REGISTERING_S
        for one in listed
    )


def _model(model: Any, listed: Iterable[Any], latest: LatestPolicy) -> AspiredModel:
    """Return one model with its ready versions and followed aliases."""
    statuses: dict[int, str] = {}
    ready: dict[int, AspiredVersion] = {}
    ignored: list[str] = []
    for entity in listed:
        try:
            version = _version(entity)
        except (TypeError, ValueError) as error:
            ignored.append(f"the version {entity.version!r} is ignored: {error}")
            continue
        statuses[version.version] = version.status
        if version.status == READY:
            ready[version.version] = version
    aliases, unfollowed, problems = read_aliases(dict(model.aliases), statuses, latest)
    return AspiredModel(
        name=model.name,
        versions=ready,
        aliases=aliases,
        unfollowed=frozenset(unfollowed),
        unready=frozenset(statuses).difference(ready),
        tags=dict(model.tags),
        problems=(*ignored, *problems),
    )


def _version(entity: Any) -> AspiredVersion:
    """Return the version of an MLflow entity; an unreadable stamp becomes a problem.

    Raises:
        ValueError: The version number is invalid.
    """
    tags = dict(entity.tags)
    stamp, why_not = read_stamp(entity.name, entity.version, tags)
    created_ms = entity.creation_timestamp
    return AspiredVersion(
        model=entity.name,
        version=parse_version(str(entity.version)),
        location=str(entity.source),
        expected_digest=stamp,
        tags=tags,
        status=str(entity.status),
        created_at=created_ms / 1000 if created_ms else None,
        creation=_creation(entity),
        problems=(why_not,) if why_not else (),
        stamp_problem=why_not,
    )


def _creation(entity: Any) -> str:
    """Return the mark of a version's creation.

    MLflow numbers versions from 1 again after a model was deleted or renamed. A copy of a logged
    model has that model's source, and its own time.
    """
    parts = (entity.creation_timestamp, entity.run_id or "", str(entity.source))
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:_CREATION_DIGITS]
