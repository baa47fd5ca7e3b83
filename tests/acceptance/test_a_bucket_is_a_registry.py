"""Without MLflow: what one command publishes to a bucket is served, promoted, and checked.

So is a number of a model that was gone and comes again, and one whose bytes were altered. The tests
share one node, which follows the bucket: each has models of its own.
"""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import _node
from tests.acceptance.node import Node
from tests.acceptance.registry import row_answers, row_body
from tests.acceptance.surface import Document, active_version, alias_of
from tests.acceptance.traffic import Answer, Call, Traffic, ask, asks, client, describe
from tests.acceptance.waiting import eventually, eventually_true
from tests.models.catalogue import LinearModel
from tests.servers import Seaweed

ALIAS = "champion"
BUCKET = "without-mlflow"
MODEL = "a model"
STAYS = "stays"
"""A model that is always there, with the bytes that come anew."""
ENOUGH_ANSWERS = 20
ENOUGH_OF_EACH = 10
PASSES = 2
OLD, NEW = 1.0, 2.0


@pytest.fixture(scope="module")
def node(short_folder: Path, s3_server: Seaweed) -> Iterator[Node]:
    """A node that follows the bucket. No MLflow server runs for it."""
    s3_server.make_bucket(BUCKET)
    with _node(short_folder, f"s3://{BUCKET}/models", control=s3_server.environ) as made:
        yield made


async def publish(node: Node, folder: Path, model: str, *options: str) -> dict[str, Any]:
    """Publish a folder as a version of a model by command, with the alias at it."""
    uri = f"s3://{BUCKET}/models/{model}"
    arguments = ("publish", str(folder), uri, "--alias", ALIAS, "--json", *options)
    done = await asyncio.to_thread(node.command, *arguments)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def remove(s3: Any, model: str) -> None:
    """Remove every object of a model."""
    listed = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"models/{model}/")["Contents"]
    for one in listed:
        s3.delete_object(Bucket=BUCKET, Key=one["Key"])


def put_copy(s3: Any, source: str, model: str) -> None:
    """Publish what another model has, by hand: the files, then the manifest, then the aliases."""
    listed = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"models/{source}/")["Contents"]
    for key in sorted((one["Key"] for one in listed), key=lambda key: key.count("/"), reverse=True):
        content = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        s3.put_object(Bucket=BUCKET, Key=key.replace(source, model), Body=content)


async def test_a_model_is_served_promoted_and_checked_without_mlflow(
    node: Node, s3_server: Seaweed, tmp_path: Path
) -> None:
    folders = {n: LinearModel(float(n)).save(tmp_path / str(n)) for n in (1, 2, 3)}
    first = await publish(node, folders[1], MODEL)
    assert (first["version"], first["guarded"]) == (1, True), first
    node.start()
    s3 = s3_server.client()
    async with client(2) as http, client(2) as watching:
        await node.active(watching, MODEL, ALIAS, 1)
        shown = await node.version(watching, MODEL, 1)
        assert (shown["digest"], shown["unstamped"]) == (first["digest"], False), shown
        callers = [asks(MODEL, f"@{ALIAS}")] * 2
        async with Traffic(http, node.url, callers, lambda call: row_body(call.row)) as traffic:

            async def calls() -> None:
                count = len(traffic.answers) + ENOUGH_ANSWERS
                await eventually_true(lambda: len(traffic.answers) > count, "callers go on")

            # A second publication moves the alias.
            await calls()
            second = await publish(node, folders[2], MODEL)
            await node.active(watching, MODEL, ALIAS, 2)
            await calls()
            # The same bytes once more, only to move the alias back.
            again = await publish(node, folders[1], MODEL, "--version", "1")
            assert not again["uploaded"]
            await node.active(watching, MODEL, ALIAS, 1)
            # An upload without its manifest is nobody's version.
            for path in ("MLmodel", "model.pkl"):
                s3.put_object(Bucket=BUCKET, Key=f"models/{MODEL}/3/{path}", Body=b"half")
            await node.passes(watching, PASSES)
            assert await node.version(watching, MODEL, 3) == {}
            # Aliases that cannot be read take nothing away.
            aliases = f"models/{MODEL}/aliases.json"
            s3.put_object(Bucket=BUCKET, Key=aliases, Body=b"{")
            await node.passes(watching, PASSES)
            document = await node.model(watching, MODEL)
            assert active_version(document, ALIAS) == 1
            assert "aliases.json cannot be read" in json.dumps(document)
            s3.put_object(Bucket=BUCKET, Key=aliases, Body=b'{"champion": 1}')
            # Bytes that were altered after they were published are quarantined.
            with node.control_paused():
                altered = await publish(node, folders[3], MODEL)
                _alter(s3, f"models/{MODEL}/{altered['version']}/")
            refused = await _quarantined(node, watching, MODEL, altered["version"])
            assert altered["digest"] in refused["reason"], refused
            await calls()
            document = await node.model(watching, MODEL)
        one_more = await ask(watching, node.url, Call(MODEL, 0, "2"), row_body(0))
    wrong = [answer for answer in traffic.answers if not answer.ok]
    assert not wrong, describe(wrong)
    expected = {number: row_answers(float(number)) for number in (1, 2)}
    digests = {1: first["digest"], 2: second["digest"]}
    for answer in traffic.answers:
        version = answer.version or 0
        assert answer.predictions == [expected[version][answer.call.row]], answer
        assert answer.digest == digests[version], answer
    assert {answer.version for answer in traffic.answers} == {1, 2}
    assert (one_more.version, one_more.predictions) == (2, [expected[2][0]])
    shown = alias_of(document, ALIAS)
    assert (shown["active"], shown["aspired"]) == (1, altered["version"]), shown
    assert shown["why"] == refused["reason"], shown


def _alter(s3: Any, prefix: str) -> None:
    """Change one byte of a version's largest file, and no size."""
    listed = s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]
    key = max(listed, key=lambda one: one["Size"])["Key"]
    content = bytearray(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    content[len(content) // 2] ^= 1
    s3.put_object(Bucket=BUCKET, Key=key, Body=bytes(content))


@pytest.mark.soak(
    "unit/registry_sync/reconcile/reconciler/test_made_anew.py",
    "acceptance/test_versions_made_anew.py",
)
async def test_what_was_gone_comes_anew_and_what_was_altered_needs_an_operator(
    node: Node, s3_server: Seaweed, tmp_path: Path
) -> None:
    folders = {n: LinearModel(n).save(tmp_path / f"{n:g}") for n in (OLD, NEW)}
    right = {slope: row_answers(slope) for slope in (OLD, NEW)}
    s3 = s3_server.client()
    gone, altered = "gone", "altered"
    await publish(node, folders[OLD], gone)
    await asyncio.to_thread(put_copy, s3, gone, altered)
    new = (await publish(node, folders[NEW], STAYS))["digest"]
    node.start()

    def has(answer: Answer, slope: float) -> bool:
        return answer.ok and answer.predictions == [right[slope][answer.call.row]]

    async with client(8) as http, client(2) as watching:
        for model in (gone, altered):
            await node.active(watching, model, ALIAS, 1)
        callers = [asks(model, word) for model in (gone, altered) for word in (f"@{ALIAS}", "1")]
        async with Traffic(http, node.url, callers, lambda call: row_body(call.row)) as traffic:

            async def calls() -> None:
                count = len(traffic.answers) + ENOUGH_OF_EACH * len(callers)
                await eventually_true(lambda: len(traffic.answers) > count, "callers go on")

            await calls()
            # Gone for some listings, and published again with other bytes.
            remove(s3, gone)
            await _alias_is(node, watching, gone, None)
            await calls()
            await asyncio.to_thread(put_copy, s3, STAYS, gone)
            await _digest_is(node, watching, gone, new)
            anew_from = len(traffic.answers)
            # No listing lacks the version between the two: nothing shows that this was meant.
            with node.control_paused():
                remove(s3, altered)
                await asyncio.to_thread(put_copy, s3, STAYS, altered)
            shown = await _quarantined(node, watching, altered, 1)
            assert "altered" in shown["reason"], shown
            await calls()
            altered_until = len(traffic.answers)
            again = await asyncio.to_thread(node.command, "quarantine", "retry", f"{altered}/1")
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


async def _quarantined(node: Node, http: Any, model: str, version: int) -> Document:
    async def look() -> Document | None:
        document = await node.version(http, model, version)
        return document if document.get("state") == "quarantined" else None

    return await eventually(look, f"{model}/{version} is quarantined")
