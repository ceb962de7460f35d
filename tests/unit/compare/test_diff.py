"""Backend against backend: what is compared, what the noise is, what explains a difference."""

import itertools

import pytest
from pydantic import TypeAdapter

from harness.analyse.storm import find_lost, find_storms
from harness.compare.diff import DiffResult, DiffVerdict, Measurement, Sample, diff, noise_band
from harness.compare.expectations import Compared, rules_due
from harness.compare.known import BackendFacts, KnownDifferences
from harness.guests import linux
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


def compared(a, b, known=NOTHING):
    return diff("linux/q35", "linux", a, b, known)


def test_diff_of_same_work_in_very_different_time_has_nothing_unexplained():
    slow = sample({DISK: 203, LOC: 9_000, SERIAL: 9, RAISED: 201}, seconds=9)
    fast = sample({DISK: 200, LOC: 120, SERIAL: 3, RAISED: 200}, seconds=0.1)

    result = compared(backend("on", slow), backend("tcg", fast))

    assert result.unexplained == ()
    assert [each.what for each in result.informational] == ["handled/cpu/LOC"]
    assert result.compared > 0


def test_diff_of_lost_interrupts_is_unexplained():
    result = compared(backend("on", sample({DISK: 200})), backend("split", sample({DISK: 120})))

    (difference,) = result.unexplained
    assert difference.what == "handled/ioapic/21:virtio0"
    assert (difference.a, difference.b) == ((200,), (120,))
    assert difference.band == 20
    assert difference.verdict is DiffVerdict.UNEXPLAINED


def test_diff_of_line_that_only_one_has_counts_the_other_as_0():
    result = compared(
        backend("on", sample({DISK: 200, MESSAGE: 0})), backend("split", sample({DISK: 200}))
    )
    other = compared(backend("on", sample({DISK: 200})), backend("split", sample({MESSAGE: 200})))

    assert result.unexplained == ()
    assert {each.what for each in other.unexplained} == {
        "handled/ioapic/21:virtio0",
        "handled/msi/virtio1-req.0",
    }


def test_diff_sums_the_cpus():
    """Which CPU takes an interrupt is the scheduler's affair."""
    other_cpu = CounterKey("handled", "ioapic", "guest", 21, "virtio0", 1)

    result = compared(
        backend("on", sample({DISK: 200})), backend("split", sample({DISK: 100, other_cpu: 100}))
    )

    assert result.unexplained == ()


@pytest.mark.parametrize(("key", "count"), [(MISSED, 1), (SPURIOUS, 1)])
def test_diff_of_errors_has_no_noise(key, count):
    result = compared(backend("on", sample({key: 0})), backend("split", sample({key: count})))

    assert [each.what for each in result.unexplained] == [key.path]


def test_diff_explained_by_design_names_its_rule():
    result = compared(
        backend("on", sample({SPURIOUS: 0})), backend("tcg", sample({SPURIOUS: 3})), SHIPPED
    )

    (difference,) = result.by_design
    assert difference.rule == "spurious-vector"
    assert difference.link.startswith("https://")
    assert result.rules == {"spurious-vector"}
    assert result.unexplained == ()


def test_diff_of_not_observable_counter_is_told_not_compared():
    on = sample({RAISED: 200}, blind=blind_spots(Irqchip.ON))
    blind = sample({}, sources=("guest",))

    result = compared(backend("on", on), backend("split", blind))

    assert result.unexplained == ()
    (unseen,) = result.not_observable
    assert (unseen.counter, unseen.backend) == ("raised/ioapic/21", "split")
    assert unseen.reason == "qmp was not asked"


def test_diff_of_timer_in_the_kernel_is_no_difference():
    on = sample({}, blind=blind_spots(Irqchip.ON))
    split = sample({PIT: 4_000}, blind=blind_spots(Irqchip.SPLIT))

    result = compared(backend("on", on), backend("split", split))

    assert result.unexplained == result.informational == ()


def test_diff_of_mechanism_is_shown_only_where_a_rule_speaks_of_it():
    on, split = backend("on", sample({GSI4: 600})), backend("split", sample({GSI4: 300}))

    assert compared(on, split).by_design == compared(on, split).unexplained == ()
    assert [each.rule for each in compared(on, split, SHIPPED).by_design] == ["isa-double-line"]


def test_diff_of_mechanism_that_is_nearly_equal_is_none():
    on, split = backend("on", sample({GSI4: 305})), backend("split", sample({GSI4: 250}))

    assert compared(on, split, SHIPPED).by_design == ()


def test_diff_of_ghost_ticks_is_a_known_bug_of_the_new_qemu():
    def found(qemu):
        on = sample({LOWERED: 2_020}, seconds=4)
        split = sample({}, seconds=4, blind=blind_spots(Irqchip.SPLIT))
        return compared(
            backend("on", on, workload="idle", qemu=qemu),
            backend("split", split, workload="idle", qemu=qemu),
            SHIPPED,
        )

    assert [each.what for each in found((7, 2, 22)).unexplained] == ["storm/lowered/gsi/0"]
    assert [each.rule for each in found(QEMU_10).known_bugs] == ["hpet-ghost"]
    assert found(QEMU_10).unexplained == ()


def test_diff_of_ghost_ticks_shows_between_two_qemus_of_one_mode():
    new, old = sample({LOWERED: 2_020}, seconds=4), sample({}, seconds=4)

    result = compared(
        backend("on", new, workload="idle", qemu=QEMU_10),
        backend("on", old, workload="idle"),
        SHIPPED,
    )

    assert {each.rule for each in result.known_bugs} == {"hpet-ghost", "hpet-ghost-calls"}


def test_diff_of_storm_on_one_side_is_unexplained():
    quiet, storm = sample({DISK: 2}, units=0), sample({DISK: 90_000}, units=0)

    result = compared(
        backend("on", quiet, workload="edu-quiet"), backend("split", storm, workload="edu-quiet")
    )

    assert "storm/handled/ioapic/21:virtio0" in {each.what for each in result.unexplained}


def test_diff_of_storm_on_both_sides_is_none():
    one, other = sample({DISK: 99_900}, units=1), sample({DISK: 40_000}, units=1)

    result = compared(
        backend("on", one, workload="stuck-line"), backend("split", other, workload="stuck-line")
    )

    assert result.unexplained == ()


def test_diff_of_storm_in_one_of_three_repeats_is_none():
    quiet, storm = sample({LOWERED: 0}, seconds=1), sample({LOWERED: 900}, seconds=1)

    result = compared(
        backend("on", quiet, storm, quiet, workload="idle"),
        backend("split", quiet, workload="idle"),
    )

    assert result.unexplained == ()


def test_diff_of_checks_compares_results():
    a = backend("on", checks={"EOI": "PASS", "unmask": "PASS", "gone": "PASS"})
    b = backend("split", checks={"EOI": "FAIL", "unmask": "PASS"})

    result = compared(a, b)

    assert [(each.what, each.a, each.b) for each in result.unexplained] == [
        ("EOI", ("PASS",), ("FAIL",)),
        ("gone", ("PASS",), ("absent",)),
    ]
    assert result.compared == 3


def test_checks_of_an_image_that_differ_are_marked_where_the_backends_part():
    a = backend("on", checks={"reset": "PASS", "EOI": "PASS", "unmask": "PASS", "gone": "PASS"})
    b = backend("split", checks={"reset": "PASS", "EOI": "FAIL", "unmask": "FAIL"})

    found = diff("flat-ioapic/q35", "flat-ioapic", a, b, NOTHING)

    assert [(each.what, each.first) for each in found.unexplained] == [
        ("EOI", True),
        ("unmask", False),
        ("gone", False),
    ]


def test_scenarios_that_differ_follow_from_nothing_before():
    a = backend("on", checks={"one": "step 0\nstep 1\n"})
    b = backend("split", checks={"one": "step 0\nstep 2\n"})

    (difference,) = diff("probe/q35", "probe", a, b, NOTHING).unexplained

    assert not difference.first
    assert (difference.a, difference.b) == (("step 1",), ("step 2",))


def test_diff_of_ioapic_version_is_by_design():
    a = backend("on", checks={"monitor.ioapic.version": "0x11"})
    b = backend("tcg", checks={"monitor.ioapic.version": "0x20"})

    result = compared(a, b, SHIPPED)

    assert [each.rule for each in result.by_design] == ["ioapic-version"]
    assert result.unexplained == ()


def test_diff_of_workload_that_only_one_ran_compares_nothing():
    result = compared(backend("on", sample({DISK: 200})), backend("split"))

    assert result.compared == 0
    assert result.unexplained == ()


def test_diff_result_survives_json():
    result = compared(
        backend("on", sample({SPURIOUS: 0, RAISED: 9}), checks={"x": "PASS"}),
        backend("tcg", sample({SPURIOUS: 3}, sources=("guest",)), checks={"x": "FAIL"}),
        SHIPPED,
    )
    adapter = TypeAdapter(DiffResult)

    assert adapter.validate_json(adapter.dump_json(result)) == result


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

    assert result.unexplained == result.informational == ()
    assert result.compared > 10


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

    assert result.unexplained == ()


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
    result = compared(recorded(a), recorded(b), SHIPPED)

    assert result.unexplained == ()
    assert result.known_bugs == ()
    assert result.compared >= 5


def test_diff_of_recorded_run_meets_the_rules_of_its_modes():
    pairs = [*itertools.combinations(map(recorded, MODES), 2)]
    found = [Compared(compared(a, b, SHIPPED), a.facts, b.facts, "linux") for a, b in pairs]

    assert {rule for each in found for rule in each.diff.rules} == {
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
    assert not [rule for rule in rules_due(SHIPPED, found) if rule.stale or rule.xpass]


@pytest.mark.parametrize("count", [150, 260, 40_000])
def test_diff_of_recorded_run_notices_a_disk_that_loses_or_repeats(count):
    wrong = recorded("split", **{"handled/ioapic/20:virtio0": count})

    result = compared(recorded("on"), wrong, SHIPPED)

    assert "handled/ioapic/20:virtio0" in {each.what for each in result.unexplained}


def test_policy_speaks_of_workloads_that_there_are():
    assert {work.workload for work in WORK} <= linux.WORKLOADS.keys()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("workload", WORKLOADS)
def test_recorded_run_has_neither_storm_nor_loss(mode, workload):
    (found,) = recorded(mode).samples[workload]

    assert find_storms(workload, found, found.counters) == []
    assert find_lost(workload, found, found.counters) is None
