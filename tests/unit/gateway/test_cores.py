"""How many cores there are, by groups that are folders here."""

import os
from pathlib import Path

import pytest

from gateway import cores

AFFINITY = len(os.sched_getaffinity(0))


def groups(folder: Path, cgroup: str, files: dict[str, str]) -> int:
    (folder / "cgroup").write_text(cgroup)
    for name, text in files.items():
        path = folder / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return cores.available(folder / "cgroup", folder / "root")


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
def test_the_smallest_limit_counts(
    tmp_path: Path, cgroup: str, files: dict[str, str], limit: int
) -> None:
    assert groups(tmp_path, cgroup, files) == limit


def test_cores_are_shared_among_all_workers_and_nobody_has_none() -> None:
    assert [cores.share(16, 8), cores.share(2, 8), cores.share(7, 2)] == [2, 1, 3]
