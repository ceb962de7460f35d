"""What ran on no backend at all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.base import resources
from harness.model.case import FlatGuest, LinuxGuest, ProbeGuest
from harness.model.verdict import NOT_REACHED, PartResult, Verdict, of_case
from harness.run.nowhere import ran_nowhere
from harness.scenario import choice
from support import cases

LINUX = LinuxGuest(("idle", "ipi"))


def probe(label, *names):
    """A guest with scenarios of these names; what they do does not matter."""
    (any_file,) = choice.find("pic.yaml", resources.configs() / "scenarios")
    scenario = choice.load([any_file])[0]
    programs = (replace(scenario.program, name=name) for name in names)
    return ProbeGuest(tuple(replace(scenario, program=program) for program in programs), label)


def results(guest, *parts_by_backend, verdict=Verdict.PASS):
    """Cases of ``guest`` on as many backends, and what each reported: verdict or detail."""
    backends = (cases.ON, cases.SPLIT, cases.TCG)
    ran = [cases.case(guest, backend) for backend in backends[: len(parts_by_backend)]]
    found = [
        of_case(case, verdict, "", 1.0, parts=tuple(PartResult(*part) for part in parts))
        for case, parts in zip(ran, parts_by_backend, strict=True)
    ]
    return ran, found


def test_workload_that_every_backend_skips_ran_nowhere():
    parts = [("idle", Verdict.PASS), ("ipi", Verdict.SKIP, "it needs two CPUs")]

    assert ran_nowhere(*results(LINUX, parts, parts)) == ("linux: ipi",)


def test_workload_that_one_backend_ran_is_none():
    skips = [("idle", Verdict.PASS), ("ipi", Verdict.SKIP)]
    runs = [("idle", Verdict.PASS), ("ipi", Verdict.FAIL, "no answer")]

    assert ran_nowhere(*results(LINUX, skips, runs)) == ()


@pytest.mark.parametrize("detail", [NOT_REACHED, f"{NOT_REACHED}: the guest hung"])
def test_part_that_no_backend_lived_to_see_ran_nowhere(detail):
    parts = [("idle", Verdict.HANG), ("ipi", Verdict.ERROR, detail)]

    assert ran_nowhere(*results(LINUX, parts)) == ("linux: ipi",)


def test_cases_that_were_skipped_as_a_whole_ran_nowhere():
    ran, found = results(LINUX, [], verdict=Verdict.SKIP)

    assert ran_nowhere(ran, found) == ("linux: idle", "linux: ipi")


def test_run_that_was_cut_short_says_nothing():
    ran, found = results(LINUX, [("idle", Verdict.PASS)], [("ipi", Verdict.PASS)])

    assert ran_nowhere(ran, found[:1]) == ()
    assert ran_nowhere(*results(LINUX, [], verdict=Verdict.INCOMPLETE)) == ()


def test_scenario_is_the_same_in_every_guest_that_runs_it():
    skipped, done = probe("plain", "a", "b"), probe("rich", "b")
    one = results(skipped, [("a", Verdict.PASS), ("b", Verdict.SKIP, "no feature")])
    other = results(done, [("b", Verdict.PASS)])

    assert ran_nowhere(*one) == ("b",)
    assert ran_nowhere([*one[0], *other[0]], [*one[1], *other[1]]) == ()


def test_check_that_an_image_skips_everywhere_is_named_with_its_image():
    image = FlatGuest(cases.FLAT.path)
    parts = [("EOI", Verdict.PASS), ("x2apic", Verdict.SKIP, "not there")]

    assert ran_nowhere(*results(image, parts, parts)) == (f"{image.name}: x2apic",)
