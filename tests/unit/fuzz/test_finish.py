"""Findings finish themselves: run again, made short, merged, placed, explained."""

import asyncio
from dataclasses import replace

import pytest

from harness.compare.known import KnownDifferences
from harness.fuzz import evidence, finish
from harness.fuzz.campaign import Fuzzer, FuzzRequest, campaign_of
from harness.fuzz.finish import Finisher
from harness.fuzz.journal import Journal
from harness.fuzz.oracles import Oracle
from support import golden
from support.model_bench import ModelBench
from userspace_chip.profile import tune

GRAMMAR = str(golden.TESTS / "support" / "small-grammar.yaml")
QEMU_VERSIONS = {"system": "7.2", "7.2": "7.2", "10.0": "10.0"}
KERNELS = {"default": "6.12.1-1", "6.1": "6.1.1-1", "6.12": "6.12.1-1"}


class Images:
    """A cache with two QEMUs and two kernels."""

    def series(self, kind):
        return {"kernel": ("6.1", "6.12"), "qemu": ("10.0",)}[kind]

    def qemu(self, name):
        version = tuple(int(part) for part in QEMU_VERSIONS[name].split("."))
        return type("Qemu", (), {"version": version})

    def kernel(self, name):
        return type("Kernel", (), {"version": KERNELS[name]})


@pytest.fixture
def finished(tmp_path):
    def run(programs=20, known=(), folder="campaign", **how):
        bench = ModelBench(tmp_path, **how.pop("model", {}))
        request = FuzzRequest(**{"sides": ("tcg",), "seed": 5, "only": GRAMMAR, **how})
        place = tmp_path / folder
        resumed = place.exists()
        journal = Journal.resumed(place) if resumed else Journal.begun(place, campaign_of(request))
        fuzzer = Fuzzer(journal, bench)
        told, published = [], []
        images = Images()

        async def work():
            await fuzzer.run(programs, None)
            rules = KnownDifferences(tuple(known))
            await Finisher(fuzzer, images, rules, told.append, published.append).run()

        asyncio.run(work())
        return published

    return run


def latches(side, profile):
    """Every QEMU 7.2 whose IOAPIC is QEMU's is wrong."""
    return tune(profile, ioapic__edge_latch_when_masked=True) if profile.qemu == "7.2" else profile


def rules(tmp_path, check):
    path = tmp_path / "rules.yaml"
    path.write_text(
        "version: 1\nrules:\n  - id: masked-edge\n    kind: known-bug\n"
        "    reason: it latches what it must forget\n    link: https://example.org/1\n"
        f"    match: {{check: '{check}'}}\n",
        encoding="utf-8",
    )
    return KnownDifferences.load([path]).rules


def test_finding_is_short_and_the_same_differences_are_one(finished):
    found = finished(model={"wrong": latches})
    chips = [one for one in found if one.shown.difference.oracle is Oracle.CHIPS]
    assert chips
    assert all(len(one.data["steps"]) <= 6 for one in chips)
    assert len({one.signature for one in found}) == len(found)
    assert sum(len(one.programs) for one in found) > len(found)


def test_finding_says_what_the_short_program_shows(finished):
    (first, *_) = finished(model={"wrong": latches})
    step = int(first.text.split()[1])
    assert step < len(first.data["steps"])
    assert (first.shown.shown, first.shown.asked) == (4, 4)


def test_axis_of_a_fault_of_one_qemu_is_qemu(finished):
    (first, *_) = finished(model={"wrong": latches})
    assert first.axis == "QEMU: 7.2 | 10.0"
    assert {str(one.side): one.shows for one in first.members} == {
        "local:tcg": True,
        "local:tcg,qemu=10.0": False,
    }


def test_axis_of_a_fault_of_one_kernel_and_mode_names_both(finished):
    def wrong(side, profile):
        bad = (profile.mode, profile.linux) == ("split", "6.1")
        return tune(profile, ioapic__edge_latch_when_masked=True) if bad else profile

    sides = ("lab:on,kernel=6.1", "lab:split,kernel=6.1", "lab:split,kernel=6.12")
    (first, *_) = finished(model={"wrong": wrong}, sides=sides)
    assert first.axis == "Linux: 6.1 | 6.12, only in split"


def test_finding_that_a_rule_explains_is_explained(finished, tmp_path):
    known = rules(tmp_path, "chips: *")
    found = finished(model={"wrong": latches}, known=known)
    chips = [one for one in found if one.shown.difference.oracle is Oracle.CHIPS]
    assert {one.rule.id for one in chips} == {"masked-edge"}
    assert all(one.is_explained for one in chips)


def test_finding_that_no_rule_explains_is_not(finished, tmp_path):
    found = finished(model={"wrong": latches}, known=rules(tmp_path, "ioapic-*"))
    assert not any(one.is_explained for one in found)


def test_finding_that_does_not_show_again_is_flaky_with_its_rate(finished):
    names = {f"fuzz-5-{number}": 1 for number in range(200)}
    found = finished(model={"wrong": latches, "flaky": names})
    chips = [one for one in found if one.shown.difference.oracle is Oracle.CHIPS]
    assert chips
    assert all((one.shown.shown, one.shown.asked) == (1, 4) for one in chips)
    assert all(one.is_explained and one.shown.is_flaky for one in found)


def test_finding_whose_short_program_shows_it_nowhere_again_is_flaky(finished):
    (first, *_) = finished(model={"wrong": latches})
    assert not first.is_flaky
    gone = [replace(member, shows=False) for member in first.members]
    assert replace(first, members=tuple(gone)).is_flaky
    assert replace(first, members=tuple(gone)).is_explained


def stops_at_masks(scenario):
    return any("mask: true" in step for step in scenario.steps)


def test_program_that_stops_the_probe_is_a_finding_that_is_made_shorter(finished):
    found = finished(model={"hangs_at": stops_at_masks}, programs=10)
    (one,) = (one for one in found if one.shown.difference.oracle is Oracle.ENDS)
    assert one.shown.difference.blame == "irqchip"
    assert len(one.data["steps"]) == 1
    assert "mask" in str(one.data["steps"])
    assert one.text.startswith("step 0: ")
    assert (one.shown.shown, one.shown.asked) == (4, 4)


def test_program_that_stops_the_probe_stays_as_it_is_once_the_time_for_it_is_up(
    finished, monkeypatch
):
    monkeypatch.setattr(evidence, "PATIENCE_S", -1.0)
    (one, *_) = finished(model={"hangs_at": stops_at_masks}, programs=10)
    assert len(one.data["steps"]) == one.steps_before


def test_findings_that_were_finished_are_not_finished_again(finished):
    assert finished(folder="same", model={"wrong": latches})
    assert finished(folder="same", model={"wrong": latches}) == []


def test_no_more_than_some_of_a_kind_are_made_short(finished, monkeypatch):
    monkeypatch.setattr(finish, "REPRESENTATIVES", 1)
    found = finished(model={"wrong": latches}, programs=40)
    counted = sum(len(one.programs) for one in found)
    noted = [one.note for one in found if "not minimised" in one.note]
    assert noted
    assert counted > len(found)


def test_program_that_shows_it_on_several_sides_is_made_short_once(finished):
    def wrong(side, profile):
        return tune(profile, ioapic__edge_latch_when_masked=True)

    found = finished(model={"wrong": wrong}, sides=("tcg", "tcg,qemu=10.0"))
    chips = [one for one in found if one.shown.difference.oracle is Oracle.CHIPS]
    assert chips
    for one in chips:
        assert {side for _, side in one.programs} == {"local:tcg", "local:tcg,qemu=10.0"}
        assert one.axis == "everywhere it was run"
