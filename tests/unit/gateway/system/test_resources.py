"""Cores and memory of this process, by groups that are folders here."""

import os
from pathlib import Path

import pytest

from gateway import settings
from gateway.settings import MIB, GatewaySettings
from gateway.system import resources

AFFINITY = len(os.sched_getaffinity(0))
MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
NO_LIMIT = "9223372036854771712\n"


def written(folder: Path, cgroup: str, files: dict[str, str]) -> tuple[Path, Path]:
    (folder / "cgroup").write_text(cgroup)
    for name, text in files.items():
        path = folder / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "cgroup", folder / "root"


@pytest.mark.parametrize(
    ("cgroup", "files", "limit"),
    [
        ("0::/\n", {}, AFFINITY),
        ("0::/\n", {"cpu.max": "max 100000"}, AFFINITY),
        ("0::/\n", {"cpu.max": "150000 100000"}, 1),
        ("0::/\n", {"cpu.max": "20000 100000"}, 1),
        ("0::/a/b\n", {"a/cpu.max": "100000 100000", "a/b/cpu.max": "max 100000"}, 1),
        ("0::/\n", {"cpu.max": "900000000 100000"}, AFFINITY),
        ("0::/\n", {"cpu.max": "nonsense"}, AFFINITY),
        (
            "4:cpu,cpuacct:/a\n1:memory:/b\n",
            {
                "cpu,cpuacct/a/cpu.cfs_quota_us": "100000",
                "cpu,cpuacct/a/cpu.cfs_period_us": "100000",
            },
            1,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, AFFINITY),
    ],
)  # fmt: skip
def test_the_smallest_limit_of_cores_counts(
    tmp_path: Path, cgroup: str, files: dict[str, str], limit: int
) -> None:
    assert resources.available_cores(*written(tmp_path, cgroup, files)) == limit


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
def test_the_smallest_limit_of_memory_counts(
    tmp_path: Path, cgroup: str, files: dict[str, str], bytes_: int
) -> None:
    assert resources.available_bytes(*written(tmp_path, cgroup, files)) == bytes_


@pytest.mark.parametrize(("there", "budget"), [(4096, 2048), (1000, 500), (100, 64)])
def test_workers_may_have_half_of_it(
    monkeypatch: pytest.MonkeyPatch, there: int, budget: int
) -> None:
    monkeypatch.setattr(settings, "available_bytes", lambda: there * MIB)
    assert GatewaySettings().max_resident_bytes == budget * MIB
