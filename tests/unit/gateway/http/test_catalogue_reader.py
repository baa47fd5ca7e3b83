"""A catalogue's document, read in slices: the same result and the same refusals as in one go."""

import asyncio
import json
import random

import pytest
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from gateway.contract.catalogue import Catalogue, CatalogueModel, CatalogueVersion, VersionState
from gateway.http import catalogue_reader
from gateway.http.catalogue_reader import read_catalogue
from gateway.routing.lazy_versions import ListedVersions

DIGEST = "sha256:" + "a" * 64


def a_catalogue(models=3, versions=2):
    return Catalogue(
        writer="w",
        epoch=4,
        models=[
            CatalogueModel(
                name=f"modèl {number}",
                versions=[
                    CatalogueVersion(
                        version=one + 1,
                        state=VersionState.AVAILABLE,
                        digest=DIGEST,
                        description={"flavor": "sklearn", "deep": [{"a": [1, 2.5, None, "é"]}]},
                    )
                    for one in range(versions)
                ],
                aliases={"champion": 1},
            )
            for number in range(models)
        ],
        listed_at=17.5,
    )


def at_once(document):
    """What reading in one go gives; None: it is refused."""
    try:
        return Catalogue.model_validate(json.loads(document))
    except (ValueError, ValidationError, RecursionError):
        return None


async def in_slices(document):
    try:
        return await read_catalogue(document)
    except RequestValidationError:
        return None


@pytest.mark.parametrize("indent", [None, 2])
async def test_catalogue_is_read_back(indent):
    catalogue = a_catalogue()
    document = json.dumps(catalogue.model_dump(mode="json"), indent=indent).encode()
    read = await read_catalogue(document)
    assert read == catalogue


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"null",
        b"{}",
        b'{"writer": "w", "epoch": 1, "models": []}',
        b' \n{ "writer" : "w" , "epoch" : 1 , "models" : [ ] } \t',
        b'{"writer": "w", "epoch": 1, "models": []} x',
        b'{"writer": "w", "epoch": 1, "models": [],}',
        b'{"writer": "w", "epoch": 1, "models": [{"name": "m", "versions": []},]}',
        b'{"writer": "w", "epoch": 1, "models": {}}',
        b'{"writer": "w", "epoch": 1, "models": null}',
        b'{"writer": "w", "epoch": 1, "models": [1]}',
        b'{"writer": "w", "epoch": 1, "models": [{"name": "m"}]}',
        b'{"writer": "w", "epoch": 1, "models": [{"name": "m", "versions": 3}]}',
        b'{"writer": "w", "epoch": 1, "models": [{"name": "m", "versions": [3]}]}',
        b'{"writer": "w", "epoch": 1, "models": [], "models": [], "new": {"models": [1]}}',
        b'{"writer": "w", "epoch": 1, "models": [{"name": "m", "versions": [], "versions": null}]}',
        b'{"writer": "w", "epoch": 1, "models": [{"name": "m", "versions": null, "versions": []}]}',
        b'{"writer": "w", "epoch": 1, "models": [{"versions": [], "name": "m"}]}',
        b'{"writer": "w", "epoch": 1, "models": [{} {}]}',
        b"{1: 2}",
        b'{"writer": "\xff", "epoch": 1, "models": []}',
        b"[" * 100_000,
        b'{"models": ' + b"[" * 100_000,
    ],
)
async def test_reader_accepts_what_decoding_at_once_accepts(document):
    assert await in_slices(document) == at_once(document)


async def test_damage_anywhere_is_refused_as_ever():
    dice = random.Random(3)
    whole = a_catalogue(2, 2).model_dump_json().encode()
    for _ in range(2000):
        damaged = bytearray(whole)
        for _ in range(dice.randrange(1, 3)):
            at = dice.randrange(len(damaged))
            damaged[at : at + dice.randrange(3)] = bytes([dice.choice(b'{}[],:"0 nx\\\xff')])
        assert await in_slices(bytes(damaged)) == at_once(bytes(damaged)), bytes(damaged)


async def test_a_refusal_says_where():
    document = json.loads(a_catalogue().model_dump_json())
    document["models"][2]["versions"][1]["digest"] = "sha256:short"
    with pytest.raises(RequestValidationError) as refused:
        await read_catalogue(json.dumps(document).encode())
    assert [one["loc"] for one in refused.value.errors()] == [
        ("body", "models", 2, "versions", 1, "digest")
    ]


@pytest.mark.parametrize(("models", "versions"), [(2000, 2), (1, 4000)])
async def test_other_tasks_run_meanwhile(models, versions):
    turns = 0

    async def others():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    document = a_catalogue(models, versions).model_dump_json().encode()
    task = asyncio.create_task(others())
    await asyncio.sleep(0)
    turns = 0
    await read_catalogue(document)
    task.cancel()
    assert turns >= 10, "4000 versions take more than ten slices on any machine"


@pytest.mark.parametrize(("models", "versions"), [(40, 2), (1, 100)])
async def test_nothing_larger_than_a_version_is_decoded_at_once(monkeypatch, models, versions):
    sizes = []

    class Measured(catalogue_reader._Reader):
        def value(self):
            began = self._at
            value = super().value()
            sizes.append(self._at - began)
            return value

    monkeypatch.setattr(catalogue_reader, "_Reader", Measured)
    catalogue = a_catalogue(models, versions)
    await read_catalogue(catalogue.model_dump_json().encode())
    assert max(sizes) <= len(catalogue.models[0].versions[-1].model_dump_json())


def test_listed_versions_read_as_the_list_that_they_were_made_of():
    versions = a_catalogue(1, 3).models[0].versions
    listed = ListedVersions(versions)
    assert list(listed) == versions
    assert listed == versions
    assert listed == ListedVersions(versions)
    assert listed != versions[:2]
    assert (len(listed), listed.has(3), listed.has(9)) == (3, True, False)
    assert (listed.of(2), listed.of(9)) == (versions[1], None)
