"""The run directory's seam: a name stands in one place, and everything follows it."""

import ast
from pathlib import Path

import pytest

import harness
from harness.analyse import case_evidence
from harness.model import manifest
from harness.model.layout import CaseDir, FileEntry, RunDir
from harness.store import case_folder
from support import cases

ROOT = Path(harness.__file__).parent
LAYOUT = ROOT / "model" / "layout.py"
NAMES = {
    getattr(folder, name)
    for folder in (CaseDir, RunDir)
    for name, entry in vars(folder).items()
    if isinstance(entry, FileEntry)
}
ALSO_A_WORD = {"earlier", "again", "first-time"}
"""Names that are something else elsewhere."""


def literals(source: str) -> set[str]:
    """All pieces of text in ``source``, those of f-strings and paths apart, without slashes."""
    return {
        part
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for part in node.value.split("/")
    }


def test_entry_is_a_name_of_the_class_and_a_path_of_a_folder():
    assert CaseDir.events == "events.jsonl"
    assert CaseDir(Path("case")).events == Path("case/events.jsonl")
    assert RunDir(Path("run")).case("a").verdict == Path("run/a/verdict.json")


def test_no_two_entries_of_a_folder_have_the_same_name():
    for folder in (CaseDir, RunDir):
        names = [
            getattr(folder, n) for n, entry in vars(folder).items() if isinstance(entry, FileEntry)
        ]
        assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(ROOT.rglob("*.py")) if path != LAYOUT],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_module_names_no_file_of_a_run_itself(path):
    assert literals(path.read_text(encoding="utf-8")) & (NAMES - ALSO_A_WORD) == set()


def test_planted_name_of_a_file_is_found():
    assert literals('x = directory / f"{case}/events.jsonl"') & NAMES == {"events.jsonl"}


def test_file_that_is_called_something_else_is_written_and_read_there(tmp_path, monkeypatch):
    monkeypatch.setattr(CaseDir, "events", FileEntry("toy.jsonl"))
    recording = cases.recording(tmp_path, cases.case())
    described = manifest.describe(recording.case, qemu="7.2.22", linux="6.1.192")

    made = case_folder.analysed(recording, described, tmp_path)

    assert (tmp_path / "toy.jsonl").exists()
    assert not (tmp_path / "events.jsonl").exists()
    assert list(case_evidence.read_events(tmp_path)) == []
    assert made.described.id == recording.case.id
