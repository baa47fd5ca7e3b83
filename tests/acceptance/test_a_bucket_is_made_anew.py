"""A number of a bucket's model that was gone and comes again, and one whose bytes were altered."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import _node
from tests.acceptance.node import Node
from tests.acceptance.registry import row_answers, row_body
from tests.acceptance.surface import Document, alias_of
from tests.acceptance.traffic import Answer, Call, Traffic, ask, asks, client, describe
from tests.acceptance.waiting import eventually, eventually_true
from tests.models.catalogue import LinearModel
from tests.servers import Seaweed

ALIAS = "champion"
BUCKET = "made-anew"
STAYS = "stays"
"""A model that is always there, with the bytes that come anew, so that no listing is empty."""
PASSES = 3
ENOUGH_ANSWERS = 10
OLD, NEW = 1.0, 2.0


@pytest.fixture
def node(short_folder: Path, s3_server: Seaweed) -> Iterator[Node]:
    s3_server.make_bucket(BUCKET)
    with _node(short_folder, f"s3://{BUCKET}/models", control=s3_server.environ) as made:
        yield made


def publish(node: Node, folder: Path, model: str) -> str:
    """Publish a folder as version 1 of a model, with the alias at it; its digest."""
    uri = f"s3://{BUCKET}/models/{model}"
    done = node.command("publish", str(folder), uri, "--version", "1", "--alias", ALIAS, "--json")
    assert done.returncode == 0, done.stderr
    digest: str = json.loads(done.stdout)["digest"]
    return digest


def remove(s3: Any, model: str) -> None:
    """Remove every object of a model."""
    listed = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"models/{model}/")["Contents"]
    for one in listed:
        s3.delete_object(Bucket=BUCKET, Key=one["Key"])


def put_anew(s3: Any, source: str, model: str) -> None:
    """Publish what another model has, by hand: the files, then the manifest, then the aliases."""
    listed = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"models/{source}/")["Contents"]
    for key in sorted((one["Key"] for one in listed), key=lambda key: key.count("/"), reverse=True):
        content = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        s3.put_object(Bucket=BUCKET, Key=key.replace(source, model), Body=content)


async def test_what_was_gone_comes_anew_and_what_was_altered_needs_an_operator(
    node: Node, s3_server: Seaweed, tmp_path: Path
) -> None:
    folders = {n: LinearModel(n).save(tmp_path / f"{n:g}") for n in (OLD, NEW)}
    right = {slope: row_answers(slope) for slope in (OLD, NEW)}
    s3 = s3_server.client()
    gone, altered = "gone", "altered"
    for model in (gone, altered):
        await asyncio.to_thread(publish, node, folders[OLD], model)
    new = await asyncio.to_thread(publish, node, folders[NEW], STAYS)
    node.start()

    def has(answer: Answer, slope: float) -> bool:
        return answer.ok and answer.predictions == [right[slope][answer.call.row]]

    async with client(8) as http, client(2) as watching:
        for model in (gone, altered):
            await node.active(watching, model, ALIAS, 1)
        callers = [asks(model, word) for model in (gone, altered) for word in (f"@{ALIAS}", "1")]
        async with Traffic(http, node.url, callers, lambda call: row_body(call.row)) as traffic:

            async def calls() -> None:
                count = len(traffic.answers) + ENOUGH_ANSWERS * len(callers)
                await eventually_true(lambda: len(traffic.answers) > count, "callers go on")

            await calls()
            # Gone for some listings, and published again with other bytes.
            remove(s3, gone)
            await _alias_is(node, watching, gone, None)
            await calls()
            await asyncio.to_thread(put_anew, s3, STAYS, gone)
            await _digest_is(node, watching, gone, new)
            anew_from = len(traffic.answers)
            # Replaced without a listing that lacked it: nobody says that this was meant.
            node.stop_control()
            remove(s3, altered)
            await asyncio.to_thread(put_anew, s3, STAYS, altered)
            node.start_control()
            shown = await _quarantined(node, watching, altered)
            assert "altered" in shown["reason"], shown
            await calls()
            altered_until = len(traffic.answers)
            again = await asyncio.to_thread(node.command, "quarantine", "release", f"{altered}/1")
            assert again.returncode == 1, again.stdout
            await calls()
            taken = await asyncio.to_thread(node.command, "quarantine", "accept", f"{altered}/1")
            assert taken.returncode == 0, taken.stderr
            await _digest_is(node, watching, altered, new)
            taken_from = len(traffic.answers)
            await calls()
        last = await ask(watching, node.url, Call(gone, 3, "1"), row_body(3))
        told = await asyncio.to_thread(node.command, "history", gone, "--json")
    assert has(last, NEW), last
    assert "made anew" in [one["what"] for one in json.loads(told.stdout)["entries"]]
    strange = [a for a in traffic.answers if a.ok and not (has(a, OLD) or has(a, NEW))]
    assert not strange, describe(strange)
    # A caller may have been asked before, and answered after: those in the air are few.
    air = 2 * len(callers)
    late = [a for a in traffic.answers[anew_from + air :] if a.call.model == gone]
    wrong = [answer for answer in late if not has(answer, NEW)]
    assert late, "callers went on"
    assert not wrong, describe(wrong)
    served = [a for a in traffic.answers[:altered_until] if a.call.model == altered]
    wrong = [answer for answer in served if not has(answer, OLD)]
    assert not wrong, describe(wrong)
    accepted = [a for a in traffic.answers[taken_from + air :] if a.call.model == altered]
    wrong = [answer for answer in accepted if not has(answer, NEW)]
    assert accepted, "callers went on"
    assert not wrong, describe(wrong)


async def _alias_is(node: Node, http: Any, model: str, version: int | None) -> None:
    async def look() -> bool:
        document = await node.model(http, model)
        aliases = (document or {}).get("aliases", {})
        return bool(aliases.get(ALIAS, {}).get("active") == version)

    await eventually(look, f"{model}@{ALIAS} is {version}")


async def _digest_is(node: Node, http: Any, model: str, digest: str) -> None:
    async def look() -> bool:
        document = await node.model(http, model)
        there = document is not None and ALIAS in document["aliases"]
        return there and bool(alias_of(document, ALIAS)["digest"] == digest)

    await eventually(look, f"{model}@{ALIAS} means {digest}")


async def _quarantined(node: Node, http: Any, model: str) -> Document:
    async def look() -> Document | None:
        document = await node.version(http, model, 1)
        return document if document.get("state") == "quarantined" else None

    return await eventually(look, f"{model}/1 is quarantined")
