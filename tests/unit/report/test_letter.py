"""The folder of a finding, as it is mailed."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.compare.known import BackendFacts
from harness.fuzz.author import Written
from harness.fuzz.finish import Finished, Shown
from harness.fuzz.grammar import selected
from harness.fuzz.oracles import Difference, Oracle, compared
from harness.fuzz.placing import Member, axis_of
from harness.fuzz.programs import compiled
from harness.fuzz.resemblance import Resembling
from harness.images.cache import ImageCache
from harness.images.model import Build
from harness.model.case import Irqchip, Machine
from harness.report import letter
from harness.report.letter import Letter
from harness.repro import catalogue
from harness.repro.bench import parse
from harness.scenario import compile as scenario_compile
from harness.scenario.predict import predict
from userspace_chip.profile import profile, tune

DATA = {
    "about": "x",
    "steps": [
        {"ioapic.redir.14": {"vector": 0x51}},
        {"line": {14: "high"}},
        {"line": {14: "high"}},
    ],
}
SCENARIO = compiled("chips-irq-extra-012345", DATA)
RIGHT = profile("on", qemu="7.2", linux="6.12")
WRONG = tune(RIGHT, ioapic__edge_needs_low_before_rearm=False)


class Images(ImageCache):
    def qemu(self, name="system"):
        return type("Qemu", (), {"version": (7, 2, 22)})

    def kernel(self, name="default"):
        return type("Kernel", (), {"version": "6.12.117-1~deb12u1"})


@pytest.fixture(autouse=True)
def builds(monkeypatch):
    monkeypatch.setattr(letter, "qemu_build", lambda _: Build("1:7.2+dfsg-7+deb12u18", "abc"))
    monkeypatch.setattr(letter, "kernel_build", lambda _: Build("6.12.117-1~deb12u1", "def"))


def member(text, profile_, shows):
    side = parse(text)
    axes = {"irqchip": side.irqchip.value, "QEMU": "7.2", "Linux": "6.12"}
    facts = BackendFacts(side.irqchip, Machine.Q35, (7, 2), (6, 12))
    log = predict(SCENARIO.program, profile_)
    return Member(side, axes, facts, log, predict(SCENARIO.program, RIGHT), shows)


def finding(**changes):
    members = (member("lab:on", WRONG, True), member("lab:split", RIGHT, False))
    found, *_ = compared(SCENARIO, members[0].expected, members[0].log)
    difference = Difference(Oracle.CHIPS, 7, "fuzz-1-7", "ioapic", "lab:on", "model", found)
    written = Written("fuzz-1-7", 7, selected("ioapic")[0], DATA)
    one = Finished(
        id=SCENARIO.name,
        signature="chips: irq extra: ioapic.redir, line",
        shown=Shown(difference, written, 3, 4),
        text=found.text,
        data=DATA,
        scenario=SCENARIO,
        steps_before=30,
        programs=(("fuzz-1-7", "lab:on"), ("fuzz-1-9", "lab:on")),
        members=members,
        axis=axis_of(members[:1], members[1:]),
        rule=None,
        resembling=Resembling(("ioapic-masked-edge",), ()),
    )
    return replace(one, **changes)


@pytest.fixture
def written(tmp_path):
    def of(**changes) -> Path:
        folder = tmp_path / "finding"
        images = Images(tmp_path / "images", offline=True)
        Letter(finding(**changes), folder, images, Machine.Q35, "qemu64").write()
        return folder

    return of


def test_report_says_what_where_and_how_often(written):
    text = (written() / "report.md").read_text()
    assert "step 2 (line: {14: high}), CPU 0: irq 0x51 is not expected" in text
    assert "3 of 4 executions show it; 2 random programs do" in text
    assert "**irqchip: on | split**" in text
    assert "`ioapic-masked-edge`" in text


def test_report_has_full_versions_and_build_ids_of_every_backend(written):
    text = (written() / "report.md").read_text()
    row = "1:7.2+dfsg-7+deb12u18, build ID abc | 6.12.117-1~deb12u1, build ID def"
    assert f"| `lab:on` | {row} | **yes** |" in text
    assert f"| `lab:split` | {row} | no |" in text


def test_report_has_the_steps_as_accesses_and_the_specification(written):
    text = (written() / "report.md").read_text()
    assert "step 0, CPU 0: IOAPIC at 0xfec00000, index 0x2c (ioapic.redir.14) := 0x51" in text
    assert "I/O Redirection Table Registers" in text


def test_scenario_of_the_folder_compiles_to_the_same(written):
    (found,) = scenario_compile.load(written() / "scenario.yaml")
    assert found.program == SCENARIO.program


def test_logs_of_every_backend_and_what_was_expected_are_there(written):
    logs = written() / "logs"
    assert {path.name for path in logs.iterdir()} == {
        *("lab-split.log", "lab-split-predicted.log", "lab-on.log", "lab-on-predicted.log")
    }
    assert (logs / "lab-on.log").read_text() != (logs / "lab-on-predicted.log").read_text()


def test_entry_is_a_reproducer_whose_recipe_runs_the_scenario(written):
    entry = catalogue.find(str(written() / "entry.yaml"))
    cases = entry.config().cases
    assert {case.backend.irqchip for case in cases} == {Irqchip.SPLIT, Irqchip.ON}
    assert {case.guest.scenarios[0].program for case in cases} == {SCENARIO.program}
    (sign,) = entry.signs
    assert {mode.value: str(value) for mode, value in sign.expect.items()} == {
        "on": "1",
        "split": "0",
    }


def test_finding_without_a_telling_line_says_how_to_look_at_it(written):
    shown = finding().shown
    ends = replace(shown, difference=replace(shown.difference, oracle=Oracle.ENDS, blame="lab"))
    folder = written(shown=ends)
    text = (folder / "report.md").read_text()
    assert "irqmatrix minimise chips-irq-extra-012345 --file scenario.yaml" in text
    assert "It looks like the fault of: lab." in text
    assert not (folder / "entry.yaml").exists()
