"""The stat file of a process or thread."""

import os
import subprocess
import threading
import time
from pathlib import Path

from harness.base.procstat import CpuTime, ProcStat, cpu_times, neediest, read_stat


def test_stat_of_a_name_with_blanks_and_parentheses_is_read(tmp_path):
    numbers = " ".join(["0"] * 9)
    (tmp_path / "stat").write_text(f"7 (CPU 0) (KVM)) S 3 {numbers} 40 2 0\n")
    assert read_stat(tmp_path) == ProcStat("CPU 0) (KVM)", "S", 3, 40, 2)


def test_stat_of_this_process_has_its_parent():
    assert read_stat(Path("/proc/self")).parent == os.getppid()


def test_stat_of_what_has_ended_is_none(tmp_path):
    assert read_stat(tmp_path) is None


def test_cpu_times_are_those_of_each_thread():
    before = cpu_times(os.getpid())
    begun_s = time.thread_time()
    while time.thread_time() < begun_s + 0.02:
        pass
    after = cpu_times(os.getpid())
    own = threading.get_native_id()
    assert after[own].ran_s - before[own].ran_s >= 0.01


def test_cpu_times_of_what_has_ended_are_none():
    with subprocess.Popen(["true"]) as process:
        process.wait()
        assert cpu_times(process.pid) == {}


def test_cpu_times_of_what_ends_while_it_is_looked_at_are_none(monkeypatch):
    def gone(_path):
        raise ProcessLookupError

    monkeypatch.setattr(os, "listdir", gone)
    monkeypatch.setattr(os, "scandir", gone)
    assert cpu_times(os.getpid()) == {}


def test_neediest_thread_is_the_one_that_ran_and_waited_longest_since():
    before = {1: CpuTime(50, 9), 2: CpuTime(1, 1)}
    after = {1: CpuTime(51, 9), 2: CpuTime(2, 3), 3: CpuTime(0.5, 1)}
    assert neediest(before, after) == CpuTime(1, 2)
    assert neediest(before, {}) is None
