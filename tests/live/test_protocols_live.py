"""Images of other people on this machine's QEMU: every protocol, and every way to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support import flat_image
from support.live import execute, flat, write_config

pytestmark = pytest.mark.live

SOTEST = """toyos starts
SOTEST VERSION 1 BEGIN 3
SOTEST BENCHMARK:latency:us:12
SOTEST SUCCESS "timer"
SOTEST SKIP
SOTEST FAIL "ioapic"
SOTEST END
"""
TAP = "TAP version 14\n1..2\n# Subtest: pit\n    ok 1 - ticks\n    1..1\nok 1 - pit\nok 2 # SKIP\n"
EARLY = "SOTEST VERSION 1 BEGIN 25\n" + 4 * "SOTEST SUCCESS\n"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The results of all images by the names of their files, from one run; and where it is."""
    folder = tmp_path_factory.mktemp("protocols")

    def build(name: str, text: str, end: int, **more: int) -> Path:
        return flat_image.build(folder, name, text, end, **more)

    own = {"lines": [{"pass": "GOOD (?P<name>.*)"}, {"fail": "BAD"}, {"end": "BYE"}]}
    debugcon = build("debugcon", TAP, 0, port=flat_image.DEBUGCON)
    guests = [
        flat(build("sotest", SOTEST, flat_image.HANG)),
        flat(build("tap", TAP, flat_image.POWER_OFF)),
        flat(build("reset", EARLY, flat_image.RESET)),
        flat(build("off", EARLY, flat_image.POWER_OFF)),
        flat(build("nothing", "hello\n", 0)),
        flat(build("silent", "", 0)),
        flat(build("bare", "cpuid 1234\n", 0), checks="none"),
        flat(build("elf64", TAP, 0, bits=64)),
        flat(debugcon, output="debugcon"),
        flat(build("own", "GOOD a\nBYE\n", flat_image.HANG), protocol=own),
        flat(build("hyperv", TAP, 0), cpu="qemu64,hv_vpindex"),
    ]
    result, out = execute(folder, write_config(folder, guests))
    return {case.id.split("/")[0].removeprefix("flat-"): case for case in result.cases}, out


@pytest.mark.parametrize(
    ("name", "verdict", "detail"),
    [
        ("sotest", "fail", 'ioapic: SOTEST FAIL "ioapic"'),
        ("tap", "pass", ""),
        ("reset", "crash", "reset after 4 of 25 checks"),
        ("off", "crash", "powered off after 4 of 25 checks"),
        ("nothing", "error", "checked nothing: it reported no check"),
        ("silent", "error", "checked nothing: it reported no check"),
        ("bare", "pass", ""),
        ("elf64", "pass", ""),
        ("debugcon", "pass", ""),
        ("own", "pass", ""),
        ("hyperv", "skip", "kernel doesn't allow setting HyperV VP_INDEX"),
    ],
)
def test_image_gets_the_verdict_of_what_it_said_and_how_it_ended(ran, name, verdict, detail):
    case = ran[0][name]
    assert case.verdict == verdict
    assert detail in case.detail


def test_every_check_of_sotest_is_a_part_and_its_value_a_metric(ran):
    parts = ran[0]["sotest"].parts
    assert {part.id: part.verdict.value for part in parts} == {
        "timer": "pass",
        "check 2": "skip",
        "ioapic": "fail",
    }
    assert parts[0].metrics == {"latency (us)": 12}


def test_every_check_of_tap_and_its_parts_is_a_part(ran):
    assert [part.id for part in ran[0]["tap"].parts] == ["pit / ticks", "pit", "check 2"]


def test_values_are_in_the_results_that_are_kept(ran):
    result = json.loads((ran[1] / "result.json").read_text())
    (case,) = [case for case in result["cases"] if case["id"].startswith("flat-sotest/")]
    assert case["parts"][0]["metrics"] == {"latency (us)": 12}


def test_command_of_a_64_bit_image_names_a_file_that_is_there(ran):
    case = ran[0]["elf64"]
    command = (ran[1] / case.dir / "command.txt").read_text()
    (kernel,) = [line for line in command.splitlines() if "-kernel" in line]
    assert Path(kernel.split()[1]).is_file()
