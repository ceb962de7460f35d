"""Consoles, real and hostile, each with the verdict, the blame and the detail that it gets."""

from pathlib import Path

import pytest
import yaml

from harness.base.errors import GuestCrash, GuestHang
from harness.guests.console import TAIL_LINES
from harness.model.case import FlatGuest, LinuxGuest
from support import cases, golden
from support.judging import judge

FOLDER = golden.TESTS / "golden" / "consoles"
CONSOLES = [
    (path.stem, console)
    for path in sorted(FOLDER.glob("*.yaml"))
    for console in yaml.safe_load(path.read_text(encoding="utf-8"))
]


def test_golden_consoles_are_at_least_a_hundred_and_have_names_of_their_own():
    names = [(kind, console["name"]) for kind, console in CONSOLES]
    assert len(names) == len(set(names))
    assert len(names) >= 100


def ending(console):
    """What a recording says of an end: ``exit: N``, or a word."""
    text, how = console["console"], console["end"]
    tail = tuple(line for line in text.splitlines() if line.strip())[-TAIL_LINES:]
    if isinstance(how, dict):
        return {"status": how["exit"]}
    return {
        "reset": {"status": 0, "ended_by": "guest-reset"},
        "power-off": {"status": 0, "ended_by": "guest-shutdown"},
        "end line": {"status": None},
        "gone": {"status": 0, "failure": GuestCrash("its QEMU went away", console_tail=tail)},
        "hang": {
            "status": None,
            "failure": GuestHang("nothing more within 60 s", console_tail=tail),
        },
    }[how]


@pytest.mark.parametrize(
    ("kind", "console"),
    [pytest.param(*one, id="-".join((one[0], one[1]["name"]))) for one in CONSOLES],
)
def test_golden_console_gets_its_verdict(tmp_path, kind, console):
    guest = LinuxGuest(("idle",)) if kind == "linux" else FlatGuest(Path("/images/x.flat"))
    (tmp_path / "stderr.log").write_text(console.get("stderr", ""))
    recording = cases.recording(
        tmp_path, cases.case(guest), console=console["console"], **ending(console)
    )

    result = judge(recording)

    said = {"verdict": result.verdict.value, "detail": result.detail}
    if result.blame is not None:
        said["blame"] = result.blame.value
    if result.parts:
        said["parts"] = " ".join(f"{part.id}={part.verdict}" for part in result.parts)
    assert said == console["gives"]
