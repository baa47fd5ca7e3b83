"""What is kept of proofs: a cache on a disk that may be full, damaged, or somebody else's."""

import asyncio
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.serving.kept_proofs import MAX_FILE_BYTES, KeptProofs, _bytes_of, _subject, name_of
from gateway.system.files.damaged_files import DamagedFiles
from gateway.system.files.sealed import seal
from gateway.worker.loading.proofs import proof
from gateway.worker.loading.proofs.proof import Proof
from gateway.worker.protocol.messages import Load
from tests.fakes.disk import fill_disk
from tests.fakes.waiting import becomes

ORDER = Load("m", 1, f"sha256:{1:064x}", "/nowhere", "/nowhere", {})
PROOF = Proof(made_with="3.11", batching="joined", joined_rows=96, decided=True)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def written(folder: Path, order: Load = ORDER, proof: Proof = PROOF) -> Path:
    proofs = KeptProofs(folder)
    proofs.keep(order, proof)
    await proofs.close()
    return folder / name_of(order)


async def none_and_kept_anew(folder: Path) -> None:
    proofs = KeptProofs(folder)
    assert await proofs.of(ORDER) is None
    proofs.keep(ORDER, PROOF)
    assert await proofs.of(ORDER) == PROOF
    await proofs.close()
    assert await KeptProofs(folder).of(ORDER) == PROOF


async def test_proof_is_kept_for_the_next_worker_and_over_a_restart(tmp_path: Path) -> None:
    folder = tmp_path / "proofs"
    await none_and_kept_anew(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "other",
    [
        {"digest": f"sha256:{2:064x}"},
        {"environment": "sha256:1"},
        {"cuda_devices": "all"},
    ],
)
async def test_proof_is_of_one_artifact_and_environment(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    await written(tmp_path)
    assert await KeptProofs(tmp_path).of(replace(ORDER, **other)) is None
    again = replace(ORDER, model="another name", version=7, proof=PROOF.as_header())
    assert await KeptProofs(tmp_path).of(again) == PROOF


async def test_another_format_has_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written(tmp_path)
    monkeypatch.setattr(proof, "FORMAT", proof.FORMAT + 1)
    assert await KeptProofs(tmp_path).of(ORDER) is None


def document(**members: object) -> bytes:
    body = {**_subject(ORDER), "proof": PROOF.as_header()} | members
    return json.dumps(body, indent=1).encode()


def damages() -> dict[str, Any]:
    whole = _bytes_of(ORDER, PROOF)
    return {
        "altered": whole.replace(b'"joined_rows": ', b'"joined_rows": 1'),
        "without its checksum": document(),
        "of another artifact": _bytes_of(replace(ORDER, digest=f"sha256:{2:064x}"), PROOF),
        "of another environment": _bytes_of(replace(ORDER, environment="sha256:e"), PROOF),
        "of another device": _bytes_of(replace(ORDER, cuda_devices="all"), PROOF),
        "of nothing": seal(json.dumps({"proof": PROOF.as_header()}, indent=1).encode()),
        "empty": b"",
        "cut": whole[:-5],
        "zeros": b"\0" * len(whole),
        "deep": b"[" * 10_000,
        "other": b'{"batching": "joined"}',
        "newer": seal(document(proof=PROOF.as_header() | {"tomorrow": 1})),
        "with more": seal(document(tomorrow=1)),
        "large": whole + b" " * MAX_FILE_BYTES,
        "no text": b"\xff\xfe",
        "a number": b"1",
    }


@pytest.mark.parametrize("damage", damages())
async def test_damaged_proof_is_ignored_and_written_again(tmp_path: Path, damage: str) -> None:
    path = await written(tmp_path)
    path.write_bytes(damages()[damage])
    await none_and_kept_anew(tmp_path)


@pytest.mark.parametrize("kind", ["a link", "an endless link", "a folder", "a pipe"])
async def test_what_is_no_file_is_not_opened(tmp_path: Path, kind: str) -> None:
    path = await written(tmp_path)
    elsewhere = path.rename(tmp_path / "elsewhere")
    if kind == "a link":
        path.symlink_to(elsewhere)
    elif kind == "an endless link":
        path.symlink_to("/dev/zero")
    elif kind == "a folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    await none_and_kept_anew(tmp_path)


async def test_missing_folder_prevents_nothing(tmp_path: Path) -> None:
    (tmp_path / "proofs").write_text("a file")
    proofs = KeptProofs(tmp_path / "proofs")
    assert await proofs.of(ORDER) is None
    proofs.keep(ORDER, PROOF)
    await proofs.close()
    assert await proofs.of(ORDER) == PROOF


def orders_of(count: int) -> list[Load]:
    return [replace(ORDER, digest=f"sha256:{n:064x}") for n in range(count)]


async def test_a_write_does_not_list_the_folder_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[Path] = []
    real = Path.iterdir

    def counted(folder: Path) -> Iterator[Path]:
        listed.append(folder)
        return real(folder)

    monkeypatch.setattr(Path, "iterdir", counted)
    monkeypatch.setattr("gateway.serving.kept_proofs.MOST_KEPT", 8)
    proofs = KeptProofs(tmp_path)
    orders = orders_of(31)[2:]  # without ORDER's digest
    for order in orders:
        proofs.keep(order, PROOF)
    await proofs.close()
    assert await proofs.of(orders[-8]) == PROOF
    proofs.keep(ORDER, PROOF)
    await proofs.close()
    assert len(listed) == 1
    monkeypatch.undo()
    assert names(tmp_path) == {name_of(one) for one in (ORDER, orders[-8], *orders[-6:])}


async def test_most_recently_used_proofs_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 64
    monkeypatch.setattr("gateway.serving.kept_proofs.MOST_KEPT", most)
    proofs = KeptProofs(tmp_path)
    orders = orders_of(most + 20)
    for number, order in enumerate(orders[:most]):
        path = tmp_path / name_of(order)
        path.write_bytes(_bytes_of(order, PROOF))
        os.utime(path, (number, number))
    assert await proofs.of(orders[0]) == PROOF  # used, so no longer the oldest
    for order in orders[most:]:
        proofs.keep(order, PROOF)
    await proofs.close()
    left = names(tmp_path)
    assert len(left) == most
    assert {name_of(orders[0]), *map(name_of, orders[most:])} <= left
    assert len(proofs._known) <= most


async def test_disproved_batching_is_not_restored_by_a_sibling(tmp_path: Path) -> None:
    proofs = KeptProofs(tmp_path)
    disproved = replace(PROOF)
    disproved.answer_whole("an answer to 3 rows was not one per row")
    proofs.keep(ORDER, PROOF)
    proofs.keep(ORDER, disproved)
    proofs.keep(ORDER, replace(PROOF, joined_rows=192))
    await proofs.close()
    assert await proofs.of(ORDER) == disproved
    assert await KeptProofs(tmp_path).of(ORDER) == disproved


async def test_what_is_known_is_not_written_again(tmp_path: Path) -> None:
    path = await written(tmp_path)
    proofs = KeptProofs(tmp_path)
    await proofs.of(ORDER)
    os.utime(path, (1, 1))
    proofs.keep(ORDER, replace(PROOF))
    await proofs.close()
    assert path.stat().st_mtime == 1


async def test_of_many_findings_the_last_is_written(tmp_path: Path) -> None:
    proofs = KeptProofs(tmp_path)
    for rows in range(2, 500):
        proofs.keep(ORDER, replace(PROOF, joined_rows=rows))
    await proofs.close()
    known = await KeptProofs(tmp_path).of(ORDER)
    assert known is not None
    assert known.joined_rows == 499


async def test_refused_proof_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.serving.kept_proofs._RETRY_S", 0.01)
    damaged = DamagedFiles()
    proofs = KeptProofs(tmp_path / "proofs", damaged)
    with monkeypatch.context() as full:
        fill_disk(full)
        proofs.keep(ORDER, PROOF)
        await becomes(damaged.all, "it is refused")
    await becomes(lambda: not damaged.all(), "it is written")
    assert names(tmp_path / "proofs") == {name_of(ORDER)}
    await proofs.close()


async def test_what_no_thread_could_write_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.serving.kept_proofs._RETRY_S", 0.01)
    proofs = KeptProofs(tmp_path / "proofs")

    async def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as without, capture_logs() as logs:
        without.setattr(asyncio, "to_thread", refuse)
        proofs.keep(ORDER, PROOF)
        await becomes(lambda: logs, "it is refused")
    await becomes((tmp_path / "proofs" / name_of(ORDER)).exists, "it is written")
    await proofs.close()
    assert logs[0]["event"] == "proof.write_failed"


async def test_refused_proof_is_reported_and_written_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = DamagedFiles()
    proofs = KeptProofs(tmp_path / "proofs", damaged)
    with monkeypatch.context() as full, capture_logs() as logs:
        fill_disk(full)
        for rows in (96, 192):
            proofs.keep(ORDER, replace(PROOF, joined_rows=rows))
            await proofs.close()
    assert [one["event"] for one in logs] == ["file.write_failed"]
    assert [one.name for one in damaged.all()] == ["proofs"]
    other = replace(ORDER, digest=f"sha256:{2:064x}")
    proofs.keep(other, PROOF)
    await proofs.close()
    assert names(tmp_path / "proofs") == {name_of(ORDER), name_of(other)}
    assert damaged.all() == []
