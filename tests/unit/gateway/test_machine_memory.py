"""How much memory there is, by groups that are folders here."""

import os
from pathlib import Path

import pytest

from gateway import machine_memory
from gateway.settings import MIB, GatewaySettings

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
NO_LIMIT = "9223372036854771712\n"


@pytest.mark.parametrize(
    ("cgroup", "files", "bytes_"),
    [
        ("", {}, MACHINE),
        ("0::/\n", {}, MACHINE),
        ("0::/\n", {"memory.max": "max\n"}, MACHINE),
        ("0::/\n", {"memory.max": "1048576\n"}, MIB),
        ("0::/\n", {"memory.max": "900000000000000\n"}, MACHINE),
        ("0::/\n", {"memory.max": "nonsense"}, MACHINE),
        ("0::/a/b\n", {"a/memory.max": "3145728", "a/b/memory.max": "max"}, 3 * MIB),
        ("0::/a/b\n", {"a/memory.max": "3145728", "a/b/memory.max": "2097152"}, 2 * MIB),
        ("0::/a\n", {"memory.max": "1048576", "b/memory.max": "1"}, MIB),
        (
            "4:memory:/a\n1:cpu,cpuacct:/b\n",
            {
                "memory/a/memory.limit_in_bytes": "2097152\n",
                "memory/memory.limit_in_bytes": NO_LIMIT,
                "cpu,cpuacct/b/memory.limit_in_bytes": "1",
            },
            2 * MIB,
        ),
        # A container of version 1: its own group is mounted as the root.
        ("4:memory:/docker/0123\n", {"memory/memory.limit_in_bytes": "2097152\n"}, 2 * MIB),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": NO_LIMIT}, MACHINE),
        # Both versions at once: memory is with the first.
        (
            "4:memory:/a\n0::/a\n",
            {"memory/a/memory.limit_in_bytes": "2097152\n", "a/cpu.max": "max 100000"},
            2 * MIB,
        ),
    ],
)
def test_the_smallest_limit_counts(
    tmp_path: Path, cgroup: str, files: dict[str, str], bytes_: int
) -> None:
    (tmp_path / "cgroup").write_text(cgroup)
    for name, text in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert machine_memory.available(tmp_path / "cgroup", tmp_path / "root") == bytes_


@pytest.mark.parametrize(("there", "budget"), [(4096, 2048), (1000, 500), (100, 64)])
def test_workers_may_have_half_of_it(
    monkeypatch: pytest.MonkeyPatch, there: int, budget: int
) -> None:
    monkeypatch.setattr(machine_memory, "available", lambda: there * MIB)
    assert GatewaySettings().max_resident_bytes == budget * MIB
