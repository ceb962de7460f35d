"""CPUs and memory, with and without the limits of a container."""

import os

import pytest

from harness.base.capacity import Capacity, capacity

CPUS = len(os.sched_getaffinity(0))


def machine(folder, files, group="0::/a/b\n"):
    """A /proc and a /sys/fs/cgroup with ``files``."""
    for name, text in ({"proc/self/cgroup": group} | files).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return capacity(folder / "proc", folder / "cgroup")


MEMINFO = "MemTotal: 9000000 kB\nMemAvailable:    8388608 kB\n"


def test_capacity_without_limits_is_that_of_the_machine(tmp_path):
    found = machine(tmp_path, {"proc/meminfo": MEMINFO, "cgroup/a/b/cpu.max": "max 100000\n"})
    assert found == Capacity(CPUS, 8192)


def test_capacity_of_a_container_is_its_groups_and_of_those_above(tmp_path):
    files = {
        "proc/meminfo": MEMINFO,
        "cgroup/a/cpu.max": "150000 100000\n",
        "cgroup/a/b/memory.max": f"{4 << 30}\n",
        "cgroup/a/b/memory.current": f"{3 << 30}\n",
        "cgroup/a/b/memory.stat": f"anon 5\ninactive_file {1 << 30}\n",
    }
    assert machine(tmp_path, files) == Capacity(1, 2048)


def test_capacity_of_a_container_with_groups_of_version_1_is_limited_too(tmp_path):
    files = {
        "proc/meminfo": MEMINFO,
        "cgroup/cpu,cpuacct/x/cpu.cfs_quota_us": "50000\n",
        "cgroup/cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
        "cgroup/memory/x/memory.limit_in_bytes": f"{1 << 30}\n",
        "cgroup/memory/x/memory.usage_in_bytes": "0\n",
    }
    group = "5:memory:/x\n4:cpu,cpuacct:/x\n"
    assert machine(tmp_path, files, group) == Capacity(1, 1024)


def test_capacity_of_a_machine_that_says_nothing_has_unknown_memory(tmp_path):
    assert machine(tmp_path, {}, "") == Capacity(CPUS, None)


@pytest.mark.parametrize(
    ("found", "need_mib", "cpus_each", "count"),
    [
        (Capacity(8, 10_000), 3000, 1, 3),
        (Capacity(2, 100_000), 3000, 1, 2),
        (Capacity(8, 100_000), 3000, 4, 2),
        (Capacity(8, None), 3000, 1, 8),
        (Capacity(1, 100), 3000, 2, 1),
    ],
)
def test_fitting_is_what_cpus_and_memory_allow_and_at_least_one(found, need_mib, cpus_each, count):
    assert found.fitting(need_mib, cpus_each) == count
