"""Nothing asks which of several interchangeable things it has: it asks the thing itself."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import harness
from harness.guests.kinds.table import KINDS

ROOT = Path(harness.__file__).parent
SEAMS = {
    "backends": {"LocalSession", "LabSession", "LocalBackend", "LabBackend"},
    "record": {"KernelTrace", "QemuTrace"},
}
"""What is behind a seam, by the room in which it may be told apart."""
GUESTS = {kind.guest_type.__name__ for kind in KINDS.values()}
"""The types of guests: who drives or judges one has got it from a table, and need not ask."""


def named(nodes) -> set[str]:
    """The names in ``nodes``, without what is before a dot."""
    inside = [part for node in nodes for part in ast.walk(node)]
    names = {part.id for part in inside if isinstance(part, ast.Name)}
    return names | {part.attr for part in inside if isinstance(part, ast.Attribute)}


def asked_for(source: str) -> set[str]:
    """The names of all classes that ``source`` asks for: isinstance, ``type(x) is``, ``case``."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
            found |= named(node.args[1:])
        elif isinstance(node, ast.Compare):
            found |= named([node.left, *node.comparators])
        elif isinstance(node, ast.MatchClass):
            found |= named([node.cls])
    return found


def compared_with(source: str) -> set[str]:
    """The texts that ``source`` compares something with, or looks for at its beginning."""
    asking = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            asking += [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "startswith":
            asking += node.args
        elif isinstance(node, ast.MatchValue):
            asking.append(node.value)
    constants = [part for one in asking for part in ast.walk(one) if isinstance(part, ast.Constant)]
    return {part.value for part in constants if isinstance(part.value, str)}


@pytest.mark.parametrize("room", SEAMS)
def test_nobody_outside_of_its_room_asks_what_is_behind_a_seam(room):
    asking = {
        path.relative_to(ROOT).as_posix(): names
        for path in ROOT.rglob("*.py")
        if path.relative_to(ROOT).parts[0] != room
        if (names := asked_for(path.read_text(encoding="utf-8")) & SEAMS[room])
    }
    assert asking == {}


SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in ROOT.rglob("*.py")
    if "data" not in path.parts
}


def test_nobody_asks_of_what_type_a_guest_is():
    asking = {name: found for name, text in SOURCES.items() if (found := asked_for(text) & GUESTS)}
    assert asking == {}


def test_nobody_asks_what_the_kind_of_a_guest_is_called():
    asking = {
        name: found for name, text in SOURCES.items() if (found := compared_with(text) & set(KINDS))
    }
    assert asking == {}


@pytest.mark.parametrize(
    "planted",
    [
        "isinstance(case.guest, LinuxGuest)",
        "type(guest) is not LinuxGuest",
        "match guest:\n    case model.LinuxGuest(): pass",
    ],
)
def test_seam_test_with_a_planted_question_for_a_type_of_guest_finds_it(planted):
    assert asked_for(planted) & GUESTS == {"LinuxGuest"}


@pytest.mark.parametrize(
    "planted",
    [
        "case.guest.kind == 'linux'",
        "kind in ('linux', 'other')",
        "name.startswith('linux')",
        "match kind:\n    case 'linux': pass",
    ],
)
def test_seam_test_with_a_planted_word_for_a_kind_finds_it(planted):
    assert compared_with(planted) & set(KINDS) == {"linux"}


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


# --- Reports ------------------------------------------------------------------------------------

SHOWING = {"base/terminal.py", "run/progress.py", "report/text/render.py"}
"""The console itself, the display of a run that goes on, and the renderer of reports."""
READING = {"report/files.py", "report/bundle.py", "report/letter.py"}
"""Where reports are read from and written to."""
OPENING = {
    *(
        "open",
        "read_text",
        "read_bytes",
        "write_text",
        "write_bytes",
        "exists",
        "is_file",
        "is_dir",
    ),
    *("glob", "rglob", "iterdir", "read_json", "write_json", "read_typed", "read_counters"),
    *("read_ledger", "read_case", "read_verdict", "read_events", "load", "CaseDir", "RunDir"),
}


def imported(source: str) -> set[str]:
    """The first names of all modules that ``source`` imports anywhere."""
    nodes = list(ast.walk(ast.parse(source)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names}


def called(source: str) -> set[str]:
    """The names of all functions and methods that ``source`` calls."""
    calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return {getattr(each, "attr", getattr(each, "id", "")) for each in calls}


def sources(folder: str = "") -> dict[str, str]:
    paths = (ROOT / folder).rglob("*.py")
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def test_only_renderers_import_rich():
    found = {name for name, source in sources().items() if "rich" in imported(source)}
    assert found == SHOWING


def test_report_modules_open_no_file_but_those_whose_work_it_is():
    opening = {name for name, source in sources("report").items() if called(source) & OPENING}
    assert opening == READING


@pytest.mark.parametrize(
    ("planted", "names"),
    [("import rich.table", {"rich"}), ("def f():\n  from rich import box", {"rich"})],
)
def test_import_test_with_a_planted_import_finds_it(planted, names):
    assert imported(planted) == names


@pytest.mark.parametrize("planted", ["open('x')", "path.open()", "x = read_ledger(path).rows"])
def test_opening_test_with_a_planted_call_finds_it(planted):
    assert called(planted) & OPENING


def test_views_and_all_forms_of_a_run_are_made_without_rich():
    modules = ("run_view", "formats", "export.junit", "export.tap", "text.run_report")
    imports = "; ".join(f"import harness.report.{name}" for name in modules)
    command = [sys.executable, "-c", f"{imports}; import sys; sys.exit('rich' in sys.modules)"]

    assert subprocess.run(command, check=False).returncode == 0


def test_command_line_starts_without_what_only_some_commands_need():
    heavy = ["apsw", "distributed", "jinja2", "matplotlib", "perfetto", "qemu.qmp"]
    heavy += ["userspace_chip.irqchip", "userspace_chip.kvm.vmm", "harness.run.pipeline"]
    command = f"import harness.cli, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", command], check=True, capture_output=True)

    assert done.stdout.decode().strip() == "[]"
