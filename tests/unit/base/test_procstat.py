"""The stat file of a process or thread."""

import os
from pathlib import Path

from harness.base.procstat import ProcStat, read_stat


def test_stat_of_a_name_with_blanks_and_parentheses_is_read(tmp_path):
    numbers = " ".join(["0"] * 9)
    (tmp_path / "stat").write_text(f"7 (CPU 0) (KVM)) S 3 {numbers} 40 2 0\n")
    assert read_stat(tmp_path) == ProcStat("CPU 0) (KVM)", "S", 3, 40, 2)


def test_stat_of_this_process_has_its_parent():
    assert read_stat(Path("/proc/self")).parent == os.getppid()


def test_stat_of_what_has_ended_is_none(tmp_path):
    assert read_stat(tmp_path) is None
