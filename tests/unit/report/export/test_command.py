"""`irqmatrix report --junit --tap` and `run --known`: files, and what they say of bad input."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from harness.cli import main
from harness.store import result
from support import runs


@dataclass(frozen=True)
class Done:
    status: int
    stdout: str
    stderr: str


@pytest.fixture
def irqmatrix(monkeypatch, capsys):
    """The command, in this process."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["irqmatrix", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Done(ended.value.code, said.out, " ".join(said.err.split()))

    return run


@pytest.fixture
def run_dir(tmp_path):
    directory = tmp_path / "run"
    directory.mkdir()
    result.write(runs.EVERYTHING, directory / "result.json")
    return directory


def test_report_writes_both_files_whole_and_prints_the_tables(irqmatrix, run_dir, tmp_path):
    done = irqmatrix("report", run_dir, "--junit", tmp_path / "x.xml", "--tap", tmp_path / "x.tap")

    assert (done.status, done.stderr) == (0, "")
    assert "UNEXPLAINED  linux/q35/qemu64/smp1  idle handled/ioapic/4:ttyS0" in done.stdout
    assert (tmp_path / "x.xml").read_text().startswith("<?xml")
    assert (tmp_path / "x.tap").read_text().startswith("TAP version 14\n")
    assert {path.name for path in tmp_path.iterdir()} == {"run", "x.xml", "x.tap"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "cannot read"),
        ('{"schema": 3, "name": "cut o', "is not a result"),
        ('{"schema": 3}', "is not a result"),
        ('{"schema": 1, "name": "x", "cases": []}', "has schema 1: this irqmatrix reads 3"),
        ('{"schema": 3, "name": "\\ud800"}', "is not a result"),
    ],
    ids=["missing", "cut off", "incomplete", "older", "no text"],
)
def test_report_of_an_unusable_result_says_so_and_writes_nothing(
    irqmatrix, run_dir, tmp_path, text, says
):
    path = run_dir / "result.json"
    path.unlink() if text is None else path.write_text(text)

    done = irqmatrix("report", run_dir, "--junit", tmp_path / "x.xml", "--tap", tmp_path / "x.tap")

    assert done.status == 2
    assert says in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_report_to_a_place_that_cannot_be_written_leaves_the_old_file(irqmatrix, run_dir, tmp_path):
    old = tmp_path / "old.xml"
    old.write_text("old")

    done = irqmatrix("report", run_dir, "--junit", old, "--tap", tmp_path / "none" / "x.tap")

    assert done.status == 2
    assert "cannot write" in done.stderr
    assert "No such file or directory" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"run", "old.xml"}


def test_run_with_a_folder_without_known_differences_is_refused_before_anything_runs(
    irqmatrix, tmp_path
):
    out = tmp_path / "out"

    done = irqmatrix("run", "configs/quick.yaml", "--known", tmp_path / "none", "--out", out)

    assert done.status == 2
    assert "no known differences there: there is no such directory" in done.stderr
    assert not out.exists()
