"""`irqmatrix minimise` on the Python chips: nothing is booted; and what it says of bad input."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.cli import main
from harness.scenario import compile as scenario_compile
from harness.scenario.compare import unordered_steps
from harness.scenario.finding import findings
from harness.scenario.predict import predict
from support import golden
from userspace_chip.profile import profile

FORTY = golden.TESTS / "support" / "scenarios" / "split-eoi-forty.yaml"
LOST = ("--backend", "model:split,kernel=6.1")


@dataclass(frozen=True)
class Done:
    status: int
    stdout: str
    stderr: str


@pytest.fixture
def minimise(monkeypatch, capsys, tmp_path):
    """The command, in this process and in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["irqmatrix", "minimise", *map(str, arguments)])
        try:
            main()
            status = 0
        except SystemExit as ended:
            status = ended.code or 0
        said = capsys.readouterr()
        return Done(status, said.out, " ".join(said.err.split()))

    return run


def shown_by(path, expected, found):
    """The findings of the only scenario of a file."""
    (scenario,) = scenario_compile.load(path)
    logs = (predict(scenario.program, one) for one in (expected, found))
    return [str(one) for one in findings(*logs, unordered=unordered_steps(scenario.program))]


def test_minimise_forty_steps_with_a_lost_eoi_leaves_a_few_that_lose_it(minimise):
    against = ("--against", "model:split,kernel=6.12")
    done = minimise("split-eoi-forty", "--file", FORTY, *LOST, *against, "--json")

    found = json.loads(done.stdout)
    assert done.status == 0
    assert (found["steps_before"], found["boots"]) == (40, 0)
    assert len(found["steps"]) <= 12
    path, lost = Path(found["path"]), profile("split", linux="6.1")
    assert shown_by(path, profile("split", linux="6.12"), lost) == ["irq 0x51 missing"]
    assert shown_by(path, profile("on", linux="6.1"), lost) == ["irq 0x51 missing"]


def test_minimise_chooses_the_difference_that_is_asked_for(minimise):
    # By design: the version register of the IOAPIC, beside a real difference.
    Path("mine.yaml").write_text(
        """
version: 1
scenarios:
  mine:
    about: two differences
    steps:
      - lapic.tpr: 0
      - read: ioapic.version
      - ioapic.redir.14: {vector: 0x51, dest: cpu0}
      - line: {14: high}
      - line: {14: high}
"""
    )
    sides = ("--backend", "model:split", "--against", "model:on")
    first = minimise("mine", "--file", "mine.yaml", *sides, "--out", "1.yaml")
    second = minimise("mine", "--file", "mine.yaml", *sides, "--out", "2.yaml", "--finding", 2)
    third = minimise("mine", "--file", "mine.yaml", *sides, "--finding", 3)

    on, split = profile("on"), profile("split")
    assert "mine-minimised: 5 steps reduced to 1\n  0: read: ioapic.version" in first.stdout
    assert shown_by(Path("1.yaml"), on, split) == ["read differs bits 0x31"]
    assert "mine-minimised: 5 steps reduced to 3" in second.stdout
    assert shown_by(Path("2.yaml"), on, split) == ["irq 0x51 extra"]
    assert third.status == 2
    assert "there is no difference 3: there are: 1: step 1" in third.stderr


def test_minimise_writes_a_file_that_says_how_it_was_made_with_numbers_as_people_write_them(
    minimise,
):
    name = "ioapic-level-destination-changed-in-service"
    done = minimise(name, *LOST, "--against", "model:split", "--finding", 1)

    assert done.status == 0
    assert Path(f"{name}-minimised.yaml").read_text() == (
        "# Made by irqmatrix 0.1.0: irqmatrix minimise ioapic-level-destination-changed-in-service"
        " --backend model:split,kernel=6.1 --against model:split\n"
        "version: 1\n"
        "scenarios:\n"
        "  ioapic-level-destination-changed-in-service-minimised:\n"
        "    about: 'minimised from ioapic-level-destination-changed-in-service: read differs bits"
        " 0x4000 (model:split,kernel=6.1\n"
        "      against model:split)'\n"
        "    cpus: 2\n"
        "    handlers:\n"
        "      0x51:\n"
        "        first:\n"
        "          do:\n"
        "          - ioapic.redir.14.high: {dest: cpu1}\n"
        "          - line: {14: low}\n"
        "    steps:\n"
        "    - ioapic.redir.14: {vector: 0x51, trigger: level}\n"
        "    - line: {14: high}\n"
        "    - {read: ioapic.redir.14}\n"
    )


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("ioapic-levl-delivered", *LOST), 2, "did you mean 'ioapic-level-delivered'"),
        (("no-such", "--file", FORTY, *LOST), 2, "there is no scenario 'no-such'"),
        (("x", "--file", "absent.yaml", *LOST), 2, "absent.yaml: cannot be read"),
        (("rtc-slew-storm", *LOST), 2, "rtc-slew-storm has no scenario"),
        (("ioapic-level-delivered", *LOST), 2, "a model against itself"),
        (("ioapic-level-delivered", "--backend", "spilt"), 2, "did you mean 'split'?"),
        (("ioapic-level-delivered",), 2, "Missing option '--backend'"),
        (
            ("ioapic-level-delivered", *LOST, "--against", "model:on"),
            3,
            "ioapic-level-delivered shows no difference between model:split,kernel=6.1,qemu=10.0 "
            "and model:on,kernel=6.12,qemu=10.0",
        ),
        (
            ("ioapic-level-delivered", *LOST, "--out", "absent/x.yaml"),
            2,
            "cannot write absent/x.yaml: No such file or directory",
        ),
        (("ioapic-level-delivered", *LOST, "--out", "."), 2, "it is a directory"),
        (
            ("split-eoi-forty", "--file", FORTY, *LOST, "--out", FORTY),
            2,
            "it contains the scenario itself",
        ),
    ],
)
def test_minimise_bad_input_is_a_message_and_writes_nothing(minimise, arguments, status, message):
    before = FORTY.read_bytes()
    done = minimise(*arguments)

    assert done.status == status
    assert message in done.stderr
    assert list(Path().iterdir()) == []
    assert FORTY.read_bytes() == before
