"""Backend against backend: what is compared, what the noise is, what explains a difference."""

import itertools
from dataclasses import replace

import pytest

from harness.analyse.storm import find_lost, find_storms
from harness.compare.diff import (
    COMPLETE,
    END,
    Measurement,
    Sample,
    Status,
    Subject,
    diff,
    noise_band,
)
from harness.compare.expectations import rules_due
from harness.compare.known import BackendFacts, KnownDifferences
from harness.guests import linux
from harness.guests.kinds.base import Part
from harness.model.case import Irqchip, Machine
from harness.model.counters import Counter, CounterKey, CounterSet, blind_spots
from harness.model.policy import WORK, CounterPolicy, Weight, counter_policy
from harness.record.collectors.procfs import count_guest
from support import golden
from support.recorded_run import MODES, WORKLOADS, recorded

DISK = CounterKey("handled", "ioapic", "guest", 21, "virtio0", 0)
MESSAGE = CounterKey("handled", "msi", "guest", name="virtio1-req.0", cpu=0)
SERIAL = CounterKey("handled", "ioapic", "guest", 4, "ttyS0", 0)
LOC = CounterKey("handled", "cpu", "guest", name="LOC", cpu=0)
SPURIOUS = CounterKey("handled", "cpu", "guest", name="SPU", cpu=0)
MISSED = CounterKey("handled", "cpu", "guest", name="MIS")
RAISED = CounterKey("raised", "ioapic", "qmp", 21)
PIT = CounterKey("raised", "ioapic", "qmp", 0)
GSI4 = CounterKey("raised", "gsi", "kvm", 4)
LOWERED = CounterKey("lowered", "gsi", "kvm", 0)
SOURCES = ("guest", "qmp", "kvm")
NOTHING = KnownDifferences(())
SHIPPED = KnownDifferences.shipped()
QEMU_10 = (10, 0, 13)


def sample(values, seconds=1.0, units=200, sources=SOURCES, blind=()):
    counters = [Counter(key, value) for key, value in values.items()]
    return Sample(
        CounterSet.of(counters, sources, blind), {"elapsed_ms": seconds * 1000, "units": units}
    )


def backend(mode, *samples, workload="block-intx", checks=None, qemu=(7, 2, 22)):
    linux = None if mode == "tcg" else (6, 1, 192)
    return Measurement(
        mode,
        BackendFacts(Irqchip(mode), Machine.Q35, qemu, linux),
        {workload: samples} if samples else {},
        checks or {},
    )


LINUX = Subject("linux/q35", "linux", "linux")


def compared(*backends, known=NOTHING, subject=LINUX):
    return diff(subject, backends, known)


def of(result, status):
    return [each for each in result.differences if each.status is status]


def unexplained(result):
    """What nothing explains, by path or id."""
    return [each.thing.counter or each.thing.part for each in of(result, Status.UNEXPLAINED)]


def rules(result, status):
    return [rule.id for each in of(result, status) for rule in each.rules]


def test_diff_of_same_work_in_very_different_time_has_nothing_unexplained():
    slow = sample({DISK: 203, LOC: 9_000, SERIAL: 9, RAISED: 201}, seconds=9)
    fast = sample({DISK: 200, LOC: 120, SERIAL: 3, RAISED: 200}, seconds=0.1)

    result = compared(backend("on", slow), backend("tcg", fast))

    assert unexplained(result) == []
    assert [each.thing.counter for each in of(result, Status.INFORMATIONAL)] == ["handled/cpu/LOC"]
    assert result.comparison.things > 0


def test_diff_of_lost_interrupts_is_unexplained():
    result = compared(backend("on", sample({DISK: 200})), backend("split", sample({DISK: 120})))

    (difference,) = of(result, Status.UNEXPLAINED)
    assert difference.thing.counter == "handled/ioapic/21:virtio0"
    assert (difference.groups, difference.saw) == ((("on",), ("split",)), ("200", "120"))


def test_diff_of_line_that_only_one_has_counts_the_other_as_0():
    result = compared(
        backend("on", sample({DISK: 200, MESSAGE: 0})), backend("split", sample({DISK: 200}))
    )
    other = compared(backend("on", sample({DISK: 200})), backend("split", sample({MESSAGE: 200})))

    assert unexplained(result) == []
    assert set(unexplained(other)) == {
        "handled/ioapic/21:virtio0",
        "handled/msi/virtio1-req.0",
    }


def test_diff_sums_the_cpus():
    """Which CPU takes an interrupt is the scheduler's affair."""
    other_cpu = CounterKey("handled", "ioapic", "guest", 21, "virtio0", 1)

    result = compared(
        backend("on", sample({DISK: 200})), backend("split", sample({DISK: 100, other_cpu: 100}))
    )

    assert unexplained(result) == []


@pytest.mark.parametrize(("key", "count"), [(MISSED, 1), (SPURIOUS, 1)])
def test_diff_of_errors_has_no_noise(key, count):
    result = compared(backend("on", sample({key: 0})), backend("split", sample({key: count})))

    assert unexplained(result) == [key.path]


def test_diff_explained_by_design_names_its_rule():
    result = compared(
        backend("on", sample({SPURIOUS: 0})), backend("tcg", sample({SPURIOUS: 3})), known=SHIPPED
    )

    assert rules(result, Status.BY_DESIGN) == ["spurious-vector"]
    assert unexplained(result) == []


def test_diff_of_not_observable_counter_is_told_not_compared():
    on = sample({RAISED: 200}, blind=blind_spots(Irqchip.ON))
    blind = sample({}, sources=("guest",))

    result = compared(backend("on", on), backend("split", blind))

    assert unexplained(result) == []
    (unseen,) = result.comparison.not_observable
    assert (unseen.counter, unseen.backend) == ("raised/ioapic/21", "split")
    assert unseen.reason == "qmp was not asked"


def test_diff_of_timer_in_the_kernel_is_no_difference():
    on = sample({}, blind=blind_spots(Irqchip.ON))
    split = sample({PIT: 4_000}, blind=blind_spots(Irqchip.SPLIT))

    result = compared(backend("on", on), backend("split", split))

    assert result.differences == ()


def test_diff_of_mechanism_is_shown_only_where_a_rule_speaks_of_it():
    on, split = backend("on", sample({GSI4: 600})), backend("split", sample({GSI4: 300}))

    assert compared(on, split).differences == ()
    found = compared(on, split, known=SHIPPED)
    assert rules(found, Status.BY_DESIGN) == ["isa-double-line"]


def test_diff_of_mechanism_that_is_nearly_equal_is_none():
    on, split = backend("on", sample({GSI4: 305})), backend("split", sample({GSI4: 250}))

    assert compared(on, split, known=SHIPPED).differences == ()


def test_diff_of_ghost_ticks_is_a_known_bug_of_the_new_qemu():
    def found(qemu):
        on = sample({LOWERED: 2_020}, seconds=4)
        split = sample({}, seconds=4, blind=blind_spots(Irqchip.SPLIT))
        return compared(
            backend("on", on, workload="idle", qemu=qemu),
            backend("split", split, workload="idle", qemu=qemu),
            known=SHIPPED,
        )

    assert unexplained(found((7, 2, 22))) == ["storm/lowered/gsi/0"]
    assert rules(found(QEMU_10), Status.KNOWN_BUG) == ["hpet-ghost"]
    assert unexplained(found(QEMU_10)) == []


def test_diff_of_ghost_ticks_shows_between_two_qemus_of_one_mode():
    new, old = sample({LOWERED: 2_020}, seconds=4), sample({}, seconds=4)

    result = compared(
        backend("on", new, workload="idle", qemu=QEMU_10),
        replace(backend("on", old, workload="idle"), backend="old"),
        known=SHIPPED,
    )

    assert set(rules(result, Status.KNOWN_BUG)) == {"hpet-ghost", "hpet-ghost-calls"}


def test_diff_of_storm_on_one_side_is_unexplained():
    quiet, storm = sample({DISK: 2}, units=0), sample({DISK: 90_000}, units=0)

    result = compared(
        backend("on", quiet, workload="edu-quiet"), backend("split", storm, workload="edu-quiet")
    )

    assert "storm/handled/ioapic/21:virtio0" in unexplained(result)


def test_diff_of_storm_on_both_sides_is_none():
    one, other = sample({DISK: 99_900}, units=1), sample({DISK: 40_000}, units=1)

    result = compared(
        backend("on", one, workload="stuck-line"), backend("split", other, workload="stuck-line")
    )

    assert unexplained(result) == []


def test_diff_of_storm_in_one_of_three_repeats_is_none():
    quiet, storm = sample({LOWERED: 0}, seconds=1), sample({LOWERED: 900}, seconds=1)

    result = compared(
        backend("on", quiet, storm, quiet, workload="idle"),
        backend("split", quiet, workload="idle"),
    )

    assert unexplained(result) == []


def test_diff_of_checks_compares_results():
    a = backend("on", checks={"EOI": "PASS", "unmask": "PASS", "gone": "PASS"})
    b = backend("split", checks={"EOI": "FAIL", "unmask": "PASS"})

    result = compared(a, b)

    assert [(each.thing.part, each.saw) for each in result.differences] == [
        ("EOI", ("PASS", "FAIL")),
        ("gone", ("PASS", "absent")),
    ]
    assert result.comparison.things == 3


IMAGE = Subject("flat-ioapic/q35", "flat-ioapic", "flat-ioapic", part=Part.CHECK)


def image(mode, checks, ended="status 1"):
    """What an image reported, in its order."""
    return replace(backend(mode, checks=checks), sequence=tuple(checks), ended=ended)


def test_checks_of_an_image_that_differ_are_marked_where_the_backends_part():
    a = image("on", {"reset": "PASS", "EOI": "PASS", "unmask": "PASS"})
    b = image("split", {"reset": "PASS", "EOI": "FAIL", "unmask": "FAIL"})

    found = compared(a, b, subject=IMAGE).differences

    assert [(each.thing.part, each.first) for each in found] == [("EOI", True), ("unmask", False)]


def test_image_that_ends_early_is_one_difference_and_not_one_for_each_check():
    whole = {f"check {number}": "PASS" for number in range(29)}
    early = image("split", dict(list(whole.items())[:3]), ended="status 127")

    (found,) = compared(image("on", whole), early, subject=IMAGE).differences

    assert found.thing.part == END
    assert found.saw == (COMPLETE, "ended after check 2 (status 127); 26 checks not reached")


def test_image_that_ends_before_its_first_check_says_so():
    early = image("split", {}, ended="crash")

    (found,) = compared(image("on", {"EOI": "PASS"}), early, subject=IMAGE).differences

    assert found.saw[1] == "ended before any check (crash); 1 check not reached"


def test_image_that_ends_early_differs_in_what_it_did_reach_as_well():
    a = image("on", {"reset": "PASS", "EOI": "PASS", "unmask": "PASS"})
    b = image("split", {"reset": "PASS", "EOI": "FAIL"}, ended="hang")

    found = compared(a, b, subject=IMAGE).differences

    assert [each.thing.part for each in found] == ["EOI", END]


def test_check_that_an_image_leaves_out_on_its_way_is_absent():
    a = image("on", {"reset": "PASS", "x2apic": "PASS", "EOI": "PASS"})
    b = image("tcg", {"reset": "PASS", "EOI": "PASS"})

    (found,) = compared(a, b, subject=IMAGE).differences

    assert (found.thing.part, found.saw) == ("x2apic", ("PASS", "absent"))


def test_scenarios_that_differ_follow_from_nothing_before():
    a = backend("on", checks={"one": "step 0\nstep 1\n"})
    b = backend("split", checks={"one": "step 0\nstep 2\n"})

    (difference,) = compared(a, b, subject=Subject("probe/q35", "probe", "probe")).differences

    assert not difference.first
    assert difference.saw == ("step 1", "step 2")


def test_backends_are_parted_by_what_they_saw():
    logs = {"on": "a", "split": "b", "off": "b", "tcg": "c"}
    backends = [backend(mode, checks={"one": log}) for mode, log in logs.items()]

    (difference,) = compared(*backends).differences

    assert difference.groups == (("on",), ("split", "off"), ("tcg",))


def test_counters_within_the_band_are_one_group():
    counts = {"on": 200, "split": 205, "off": 120, "tcg": 118}
    backends = [backend(mode, sample({DISK: count})) for mode, count in counts.items()]

    (difference,) = compared(*backends).differences

    assert difference.groups == (("on", "split"), ("off", "tcg"))
    assert difference.saw == ("200 to 205", "118 to 120")


def test_counters_in_a_chain_of_small_steps_are_not_all_one_group():
    counts = {"on": 2000, "split": 2180, "off": 2360}
    backends = [backend(mode, sample({DISK: count})) for mode, count in counts.items()]

    (difference,) = compared(*backends).differences

    assert difference.left == (("on", "off"),)


def test_difference_that_rules_explain_in_part_is_unexplained_and_says_between_whom():
    versions = {"on": "0x11", "split": "0x20", "off": "0x21"}
    checks = "monitor.ioapic.version"
    backends = [backend(mode, checks={checks: text}) for mode, text in versions.items()]

    (difference,) = compared(*backends, known=SHIPPED).differences

    assert difference.status is Status.UNEXPLAINED
    assert [rule.id for rule in difference.rules] == ["ioapic-version"]
    assert difference.left == (("on", "off"), ("split", "off"))


def test_diff_of_ioapic_version_is_by_design():
    a = backend("on", checks={"monitor.ioapic.version": "0x11"})
    b = backend("tcg", checks={"monitor.ioapic.version": "0x20"})

    result = compared(a, b, known=SHIPPED)

    assert rules(result, Status.BY_DESIGN) == ["ioapic-version"]
    assert unexplained(result) == []


def test_diff_of_workload_that_only_one_ran_compares_nothing():
    result = compared(backend("on", sample({DISK: 200})), backend("split"))

    assert result.comparison.things == 0
    assert unexplained(result) == []


def test_diff_of_recordings_of_two_kernels_words_is_quiet():
    """The same guest's own counts against themselves: the smallest false alarm there could be."""
    delta = count_guest(
        golden.text("interrupts-block-intx-after-linux6.1.txt"),
        golden.text("stat-block-intx-after-linux6.1.txt"),
    ).since(
        count_guest(
            golden.text("interrupts-block-intx-before-linux6.1.txt"),
            golden.text("stat-block-intx-before-linux6.1.txt"),
        )
    )
    same = Sample(delta, {"elapsed_ms": 264, "units": 200})

    result = compared(backend("on", same), backend("split", same))

    assert result.differences == ()
    assert result.comparison.things > 10


POLICY = CounterPolicy("x", None, Weight.COMPARED, "", floor=10, floor_hz=5, tolerance=0.1)


@pytest.mark.parametrize(
    ("a", "b", "seconds", "band"),
    [
        ([50], [40], 1, 10),
        ([50], [40], 10, 50),
        ([1000], [900], 1, 100),
        ([100, 140], [100], 1, 60),
        ([100], [90, 100, 150], 1, 90),
    ],
)
def test_band_is_the_greatest_of_floor_rate_tolerance_and_spread(a, b, seconds, band):
    assert noise_band(POLICY, a, b, seconds) == band


def test_band_learned_from_repeats_hides_what_the_backend_does_by_itself():
    noisy = [sample({DISK: count}) for count in (200, 260, 230)]

    result = compared(backend("on", *noisy), backend("split", sample({DISK: 300})))

    assert unexplained(result) == []


@pytest.mark.parametrize(
    ("workload", "key", "weight"),
    [
        ("block-intx", DISK, Weight.COMPARED),
        ("idle", DISK, Weight.COMPARED),
        ("stuck-line", DISK, Weight.TIMING),
        ("serial", SERIAL, Weight.TIMING),
        ("idle", SERIAL, Weight.TIMING),
        ("idle", LOC, Weight.TIMING),
        ("idle", SPURIOUS, Weight.COMPARED),
        ("ipi", CounterKey("handled", "cpu", "guest", name="RES"), Weight.TIMING),
        ("rtc", CounterKey("handled", "ioapic", "guest", 8, "rtc0"), Weight.COMPARED),
        ("idle", CounterKey("handled", "ioapic", "guest", 2, "timer"), Weight.TIMING),
        ("idle", CounterKey("activity", "softirq", "guest", name="RCU"), Weight.TIMING),
        ("idle", RAISED, Weight.COMPARED),
        ("idle", PIT, Weight.TIMING),
        ("idle", CounterKey("raised", "pic", "qmp", 5), Weight.MECHANISM),
        ("idle", GSI4, Weight.MECHANISM),
    ],
)
def test_policy_gives_every_counter_its_weight(workload, key, weight):
    assert counter_policy(workload, key.path, key.source).weight is weight


@pytest.mark.parametrize(("a", "b"), [*itertools.combinations(MODES, 2)])
def test_diff_of_recorded_run_has_nothing_unexplained(a, b):
    result = compared(recorded(a), recorded(b), known=SHIPPED)

    assert unexplained(result) == []
    assert of(result, Status.KNOWN_BUG) == []
    assert result.comparison.things >= 5


def test_diff_of_recorded_run_meets_the_rules_of_its_modes():
    found = compared(*map(recorded, MODES), known=SHIPPED)

    assert unexplained(found) == []
    assert set(rules(found, Status.BY_DESIGN)) == {
        "intx-drives-pic-line",
        "ioapic-version",
        "isa-double-line",
        "isa-double-line-lowered",
        "lines-told-always",
        "off-lapic-accesses-exit",
        "off-needs-irq-windows",
        "split-eoi-exits",
        "split-ioapic-sends-msi",
    }
    assert not [rule for rule in rules_due(SHIPPED, found.pairs) if rule.stale or rule.xpass]


@pytest.mark.parametrize("count", [150, 260, 40_000])
def test_diff_of_recorded_run_notices_a_disk_that_loses_or_repeats(count):
    wrong = recorded("split", **{"handled/ioapic/20:virtio0": count})

    result = compared(recorded("on"), wrong, known=SHIPPED)

    assert "handled/ioapic/20:virtio0" in unexplained(result)


def test_policy_speaks_of_workloads_that_there_are():
    assert {work.workload for work in WORK} <= linux.WORKLOADS.keys()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("workload", WORKLOADS)
def test_recorded_run_has_neither_storm_nor_loss(mode, workload):
    (found,) = recorded(mode).samples[workload]

    assert find_storms(workload, found, found.counters) == []
    assert find_lost(workload, found, found.counters) is None
