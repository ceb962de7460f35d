import asyncio
import json

import pytest
from rich.console import Console

from harness.base.errors import ConfigError, ImageError, StoreError
from harness.images.model import Choice
from harness.report.text import bisect_report
from harness.repro import bisect, catalogue
from harness.repro.bisect import (
    Bisector,
    BisectRequest,
    BisectStep,
    Boundary,
    Memory,
    Same,
    search,
    select,
)
from harness.repro.reproduce import Answer, Assessment
from support.repro_entries import ENTRY, write_entry

GOOD, BAD, SKIP = Answer.NOT_REPRODUCED, Answer.REPRODUCED, Answer.CANNOT_RUN


def searched(answers):
    tests = []

    async def test(index):
        tests.append(index)
        return answers[index]

    return asyncio.run(search(len(answers), test)), tests


@pytest.mark.parametrize("count", [2, 3, 5, 17, 29])
@pytest.mark.parametrize(("before", "after"), [(GOOD, BAD), (BAD, GOOD)])
def test_search_finds_every_boundary_in_few_tests(count, before, after):
    for first in range(1, count):
        found, tests = searched([before] * first + [after] * (count - first))
        assert found == Boundary(first - 1, first, before, after, ())
        assert len(tests) <= 2 + (count - 1).bit_length()
        assert len(tests) == len(set(tests))


@pytest.mark.parametrize("answer", [GOOD, BAD])
def test_search_same_ends_are_told_after_two_tests(answer):
    assert searched([answer] * 9) == (Same(answer), [0, 8])


def test_search_passes_over_what_cannot_be_tested():
    found, _ = searched([GOOD, GOOD, SKIP, SKIP, BAD, BAD])
    assert found == Boundary(1, 4, GOOD, BAD, (2, 3))


def test_search_ends_that_cannot_be_tested_move_inwards():
    found, _ = searched([SKIP, GOOD, GOOD, BAD, SKIP])
    assert found == Boundary(2, 3, GOOD, BAD, ())


def test_search_nothing_testable_is_no_answer():
    assert searched([SKIP, SKIP, SKIP])[0] == Same(None)


CHOICES = tuple(
    Choice(f"{version}-1", version, False, "bookworm")
    for version in ("6.1.170", "6.1.192", "6.12.43", "6.12.117", "6.16.3")
)


def versions(wanted):
    return [choice.version for choice in select("kernel", wanted, lambda: CHOICES)]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("6.1..6.12", ["6.1.170", "6.1.192", "6.12.43", "6.12.117"]),
        ("6.1.180..6.12.50", ["6.1.192", "6.12.43"]),
        ("6.1,6.12", ["6.1.192", "6.12.117"]),
        ("6.12.43", ["6.12.43"]),
        ("6.1.170-1", ["6.1.170"]),
        ("6.1..6.1, 6.16", ["6.1.170", "6.1.192", "6.16.3"]),
        ("./a/bzImage:mods,6.12", ["./a/bzImage:mods", "6.12.117"]),
        ("oldest,stable", ["6.1.192", "6.12.117"]),
        ("oldest..stable", ["6.1.170", "6.1.192", "6.12.43", "6.12.117"]),
    ],
)
def test_select_versions_ranges_and_paths(wanted, found):
    assert versions(wanted) == found


@pytest.mark.parametrize("wanted", ["5.10", "6.2..6.11", "6.20..6.30"])
def test_select_version_that_is_not_to_be_had_says_what_is(wanted):
    with pytest.raises(ConfigError, match=r"available: 6\.1\.170, .*6\.16\.3"):
        versions(wanted)


@pytest.mark.parametrize("wanted", ["", ",", "latest"])
def test_select_nonsense_says_how_to_write_it(wanted):
    with pytest.raises(ConfigError, match="a range such as"):
        versions(wanted)


A, B = CHOICES[0], Choice("10.0.2", "10.0.2", True, "x")
STEP = BisectStep("6.1.170", "10.0.2", BAD, "because", 12.0)


def test_memory_keeps_steps_for_the_next_start(tmp_path):
    Memory(tmp_path / "new", "digest").add(A, B, STEP)
    assert Memory(tmp_path / "new", "digest").get(A, B) == STEP


def test_memory_of_another_recipe_is_forgotten(tmp_path):
    Memory(tmp_path, "digest").add(A, B, STEP)
    assert len(Memory(tmp_path, "another")) == 0


def test_memory_does_not_keep_what_could_not_be_tested(tmp_path):
    Memory(tmp_path, "digest").add(A, B, BisectStep("6.1.170", "10.0.2", SKIP, "no network", 1.0))
    assert len(Memory(tmp_path, "digest")) == 0


def test_memory_of_a_path_is_of_the_file_that_was_there(tmp_path):
    image = tmp_path / "bzImage"
    image.write_text("old")
    kernel = Choice(str(image), str(image), True, "path")
    Memory(tmp_path, "digest").add(kernel, B, STEP)
    assert Memory(tmp_path, "digest").get(kernel, B) == STEP
    image.write_text("a newer build")
    assert Memory(tmp_path, "digest").get(kernel, B) is None


def test_memory_that_is_damaged_is_told(tmp_path):
    (tmp_path / bisect.STATE).write_text("{")
    with pytest.raises(StoreError, match="remove it, or choose another --out"):
        Memory(tmp_path, "digest")


class Cache:
    """Has all versions, without a network or a disk."""

    def choices(self, kind):
        if kind == "kernel":
            return CHOICES
        return tuple(Choice(v, v, True, "x") for v in ("7.2.22", "10.0.2"))


class Reproducer:
    """Reproduces in Linux before 6.12 under any QEMU from 10 on."""

    def __init__(self, fail_at=None):
        self.tested = []
        self.fail_at = fail_at

    async def reproduce(self, request, console, *, quiet):
        self.tested.append((request.kernel, request.qemu))
        if len(self.tested) == self.fail_at:
            raise KeyboardInterrupt
        if request.kernel == "6.1.192-1":
            raise ImageError("it cannot be downloaded")
        bad = request.kernel.startswith("6.1.") and request.qemu.startswith("10.")
        assessment = Assessment(BAD if bad else GOOD, "seen", (), None)
        return type("Found", (), {"assessment": assessment})


@pytest.fixture
def plan(tmp_path):
    entry = catalogue.load(write_entry(tmp_path, ENTRY))
    return BisectRequest(entry, "6.1..6.16", "7.2,10.0", tmp_path / "out", 1)


def bisected(plan, monkeypatch, reproducer):
    monkeypatch.setattr(bisect, "reproduce", reproducer.reproduce)
    bisector = Bisector(plan, Cache(), Console(quiet=True), quiet=True)
    return asyncio.run(bisector.run())


def test_bisection_of_two_axes_searches_each_and_says_where(plan, monkeypatch):
    found = bisected(plan, monkeypatch, Reproducer())
    assert found.exit_status == 0
    assert [bisect_report.conclusion(line) for line in found.lines] == [
        "both ends are good: 6.1.170 and 6.16.3; "
        "there is no change between them: choose a wider range",
        "last bad: 6.1.170; first good: 6.12.43; between them, untestable: 6.1.192",
        "both ends are good: 7.2.22 and 10.0.2; "
        "there is no change between them: choose a wider range",
    ]
    document = json.loads(bisect_report.bisection_json(found))
    assert document["lines"][1]["after"] == "6.12.43"


def test_bisection_without_a_boundary_is_status_3(plan, monkeypatch):
    class Never(Reproducer):
        async def reproduce(self, request, console, *, quiet):
            return type("Found", (), {"assessment": Assessment(GOOD, "", (), None)})

    assert bisected(plan, monkeypatch, Never()).exit_status == 3


def test_bisection_interrupted_goes_on_where_it_was(plan, monkeypatch):
    first = Reproducer(fail_at=4)
    with pytest.raises(KeyboardInterrupt):
        bisected(plan, monkeypatch, first)
    second = Reproducer()
    found = bisected(plan, monkeypatch, second)
    assert found.exit_status == 0
    assert not set(first.tested[:-1]) & set(second.tested)


def test_bisection_of_one_version_is_refused(plan, monkeypatch):
    one = BisectRequest(plan.entry, "6.1", "10.0", plan.out, 1)
    with pytest.raises(ConfigError, match="there is nothing to bisect"):
        bisected(one, monkeypatch, Reproducer())
