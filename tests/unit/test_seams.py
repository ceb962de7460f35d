"""Nothing asks which of several interchangeable things it has: it asks the thing itself."""

import ast
from pathlib import Path

import pytest

import harness

ROOT = Path(harness.__file__).parent
SEAMS = {
    "backends": {"LocalSession", "LabSession", "LocalBackend", "LabBackend"},
    "record": {"KernelTrace", "QemuTrace"},
}
"""What is behind a seam, by the room in which it may be told apart."""


def asked_for(source: str) -> set[str]:
    """The names of all classes that ``source`` asks for with ``isinstance``."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
            names = [part for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)]
            dotted = [part for part in ast.walk(node.args[1]) if isinstance(part, ast.Attribute)]
            found |= {part.id for part in names} | {part.attr for part in dotted}
    return found


@pytest.mark.parametrize("room", SEAMS)
def test_nobody_outside_of_its_room_asks_what_is_behind_a_seam(room):
    asking = {
        path.relative_to(ROOT).as_posix(): names
        for path in ROOT.rglob("*.py")
        if path.relative_to(ROOT).parts[0] != room
        if (names := asked_for(path.read_text(encoding="utf-8")) & SEAMS[room])
    }
    assert asking == {}


@pytest.mark.parametrize(
    "planted",
    [
        "isinstance(session, LabSession)",
        "isinstance(session, (LocalSession, lab.LabSession))",
        "x = isinstance(session, LocalSession | LabSession) and session.lost",
    ],
)
def test_seam_test_with_a_planted_question_finds_it(planted):
    assert "LabSession" in asked_for(planted)
