import os
import subprocess
import tempfile
from pathlib import Path

from harness.backends import local


def dead_process() -> int:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def test_short_directory_is_named_after_its_process_and_gone_after_its_block():
    with local.short_directory() as directory:
        assert directory.name.startswith(f"irqmatrix-{os.getpid()}-")
    assert not directory.exists()


def test_leftovers_of_a_dead_harness_are_removed_and_those_of_the_living_stay(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    instances = tmp_path / "tracefs" / "instances"
    dead, alive = f"irqmatrix-{dead_process()}-x", f"irqmatrix-{os.getpid()}-x"
    for parent in (instances, tmp_path / "tmp"):
        for name in (dead, alive, "irqmatrix-notes", "somebody-else"):
            (parent / name).mkdir(parents=True)
    (tmp_path / "tmp" / dead / "stderr").write_text("left")

    local.remove_leftovers(str(tmp_path / "tracefs"))

    for parent in (instances, tmp_path / "tmp"):
        left = {path.name for path in Path(parent).iterdir()}
        assert left == {alive, "irqmatrix-notes", "somebody-else"}
