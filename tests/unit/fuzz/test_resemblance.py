"""Known differences and reproducers that touch the same things as a finding."""

from harness.compare.known import KnownDifferences
from harness.fuzz import resemblance

KNOWN = KnownDifferences.shipped()


def of(*steps, **more):
    return resemblance.of({"steps": list(steps), **more}, KNOWN)


def test_finding_resembles_the_reproducer_whose_scenario_touches_the_same():
    found = of(
        {"pic.master.imr": 0xEF},
        {"line": {4: "high"}},
        {"lapic.lvt_lint0": {"mode": "extint"}},
        {"read": ["pic.master.irr", "pic.master.isr"]},
    )
    assert "lint0-opened-late" in found.entries


def test_finding_about_nothing_but_common_words_resembles_nothing():
    found = of("sti", "cli", {"line": {4: "high"}})
    assert found == resemblance.Resembling((), ())


def test_finding_about_something_unheard_of_resembles_nothing():
    found = of({"io.0x9999": 1}, {"lapic.tpr": 0})
    assert found == resemblance.Resembling((), ())
