"""Storms and losses, by the amount of work that was done."""

from dataclasses import dataclass

import pytest

from harness.analyse.storm import OnsetTracker, find_host_storm, find_lost, find_storm, find_storms
from harness.model import policy
from harness.model.case import Irqchip
from harness.model.counters import Counter, CounterKey, CounterSet, blind_spots
from harness.record.collectors.procfs import count_guest
from support import golden
from userspace_chip.events import Event

DISK = CounterKey("handled", "ioapic", "guest", 21, "virtio0", 0)
QUIET = CounterKey("handled", "ioapic", "guest", 9, "acpi", 0)
LOC = CounterKey("handled", "cpu", "guest", name="LOC", cpu=0)
RAISED = CounterKey("raised", "ioapic", "qmp", 21)
UP = CounterKey("raised", "gsi", "kvm", 0)
DOWN = CounterKey("lowered", "gsi", "kvm", 0)


@dataclass(frozen=True)
class Measured:
    metrics: dict


def measured(seconds=2.0, units=0):
    return Measured({"elapsed_ms": seconds * 1000, "units": units})


def counts(values, sources=("guest", "qmp", "kvm"), blind=()):
    return CounterSet.of([Counter(key, value) for key, value in values.items()], sources, blind)


def test_storm_of_stuck_line_has_rate_and_deliveries_per_assertion():
    storm = find_storm("stuck-line", measured(10, 1), counts({DISK: 99_900, RAISED: 1, LOC: 2_500}))

    assert storm.counter == "handled/ioapic/21:virtio0"
    assert storm.guest_visible
    assert storm.rate_hz == 9_990
    assert storm.per_assertion == 99_900
    assert str(storm) == (
        "handled/ioapic/21:virtio0: 99900 in 10.0 s (9990/s), 99900 for each of 1 assertions"
    )


def test_storm_of_a_guest_too_slow_for_its_rate_is_seen_by_deliveries_per_assertion():
    """A nested guest on a busy machine, five rounds of stuck-line: 14 ms for each delivery."""
    counters = counts({DISK: 1_030, RAISED: 145, LOC: 4_000})

    storm = find_storm("stuck-line", measured(17.5, 145), counters)

    assert storm is not None
    assert round(storm.per_assertion) == 7


def test_storm_without_monitor_takes_assertions_from_the_kernels_trace():
    gsi = CounterKey("raised", "gsi", "kvm", 21)

    storm = find_storm(
        "stuck-line", measured(10, 1), counts({DISK: 9_000, gsi: 3}, ("guest", "kvm"))
    )

    assert storm.assertions == 3


def test_storm_of_line_that_nobody_could_watch_has_no_assertions():
    storm = find_storm("stuck-line", measured(10, 1), counts({DISK: 9_000}, ("guest",)))

    assert storm.assertions is None
    assert storm.per_assertion is None


@pytest.mark.parametrize(
    ("workload", "seconds", "units", "deliveries"),
    [
        ("edu-quiet", 2, 0, 3),
        ("block-intx", 0.1, 200, 205),
        ("block-intx", 1, 100_000, 100_100),
        ("idle", 2, 2, 400),
        ("idle", 3600, 3600, 20_000),
    ],
)
def test_storm_is_not_what_the_work_explains(workload, seconds, units, deliveries):
    assert find_storm(workload, measured(seconds, units), counts({DISK: deliveries})) is None


def test_storm_in_other_line_than_the_works_is_seen():
    storm = find_storm("block-intx", measured(1, 5_000), counts({DISK: 5_000, QUIET: 5_000}))

    assert storm.counter == "handled/ioapic/9:acpi"


def test_storm_worst_line_is_named():
    storm = find_storm("idle", measured(1), counts({DISK: 5_000, QUIET: 6_000}))

    assert storm.count == 6_000


@pytest.mark.parametrize(("hz", "storm"), [(1_000, False), (20_000, True)])
def test_storm_of_timer_needs_more_than_any_tick(hz, storm):
    found = find_storm("idle", measured(2), counts({LOC: 2 * hz}))

    assert (found is not None) is storm


def test_storm_of_rtc_ticks_injected_again_without_end_is_seen():
    """rtc-slew-split: 1465 a second where 64 were asked for."""
    rtc = CounterKey("handled", "ioapic", "guest", 8, "rtc0", 0)

    assert find_storm("rtc", measured(2, 128), counts({rtc: 2_930})) is not None
    assert find_storm("rtc", measured(2, 128), counts({rtc: 130})) is None


def test_storm_of_ghost_ticks_is_the_hosts_alone():
    """hpet-ghost: 505 a second lowerings of GSI 0, no interrupt at all."""
    counters = counts({DOWN: 2_020, LOC: 30})

    (storm,) = find_storms("idle", measured(4), counters)

    assert storm.counter == "lowered/gsi/0"
    assert not storm.guest_visible
    assert "no interrupt for the guest" in str(storm)
    assert find_storm("idle", measured(4), counters) is None


@pytest.mark.parametrize(
    ("ups", "downs", "seconds"), [(2_000, 2_020, 4), (0, 58, 0.5), (0, 250, 60), (200, 3_000, 1)]
)
def test_storm_is_not_a_line_that_is_raised_too_or_slow(ups, downs, seconds):
    assert find_storms("idle", measured(seconds), counts({UP: ups, DOWN: downs})) == []


def test_storm_is_not_the_pic_line_of_a_pci_interrupt():
    """A recording: 200 reads with INTx under kernel-irqchip=on, in 6.6 s."""
    pic, pci = CounterKey("lowered", "gsi", "kvm", 10), CounterKey("raised", "gsi", "kvm", 20)
    console = CounterKey("raised", "gsi", "kvm", 4)

    assert find_storms("block-intx", measured(6.6, 200), counts({pic: 804, pci: 201})) == []
    assert find_storms("idle", measured(6.6), counts({pic: 804, console: 256})) != []


def test_storm_without_time_is_not_guessed():
    assert find_storms("idle", Measured({}), counts({DISK: 10**6})) == []


def test_storm_where_the_raising_is_not_observable_counts_lowerings():
    counters = counts({DOWN: 2_020}, blind=blind_spots(Irqchip.TCG))

    assert [storm.assertions for storm in find_storms("idle", measured(4), counters)] == [None]


def test_lost_fewer_interrupts_than_reads_is_told():
    lost = find_lost("block-intx", measured(1, 200), counts({DISK: 150}))

    assert (lost.count, lost.required) == (150, 180)
    assert "150 interrupts for 200 units of work" in str(lost)


@pytest.mark.parametrize(
    ("workload", "units", "deliveries"),
    [
        ("block-intx", 200, 200),
        ("block-intx", 200, 185),
        ("stuck-line", 1, 1),
        ("idle", 2, 0),
        ("ipi", 1000, 0),
    ],
)
def test_lost_is_not_what_the_work_can_be_done_with(workload, units, deliveries):
    assert find_lost(workload, measured(1, units), counts({DISK: deliveries})) is None


def test_lost_all_of_serial_is_told_and_one_is_enough():
    tty = CounterKey("handled", "ioapic", "guest", 4, "ttyS0", 1)

    assert find_lost("serial", measured(1, 4096), counts({tty: 0})).required == 1
    assert find_lost("serial", measured(1, 4096), counts({tty: 4})) is None


def test_lost_is_not_claimed_where_the_guest_was_not_asked():
    assert find_lost("block-intx", measured(1, 200), counts({}, ("kvm",))) is None


@pytest.mark.parametrize("workload", ["block-intx", "block-msix"])
def test_recording_of_200_reads_is_neither_storm_nor_loss(workload):
    before, after = (
        count_guest(
            golden.text(f"interrupts-{workload}-{when}-linux6.1.txt"),
            golden.text(f"stat-{workload}-{when}-linux6.1.txt"),
        )
        for when in ("before", "after")
    )
    delta = after.since(before)

    assert find_storms(workload, measured(0.079, 200), delta) == []
    assert find_lost(workload, measured(0.079, 200), delta) is None


def test_host_storm_of_silent_guest_is_its_acknowledged_pin():
    acknowledged = CounterKey("acknowledged", "ioapic", "kvm", 21)
    clock = CounterKey("acknowledged", "ioapic", "kvm", 8)
    counters = counts({acknowledged: 60_000, clock: 90_000, RAISED: 1})

    storm = find_host_storm(20.0, counters)

    assert (storm.pin, storm.rate_hz, storm.per_assertion) == (21, 3_000, 60_000)
    assert find_host_storm(600.0, counters) is None


def set_irq(time_ns, pin=21):
    return Event(time_ns, "qemu", "ioapic_set_irq", None, (pin, 1))


def test_onset_is_the_first_window_with_the_rate():
    tracker = OnsetTracker()
    slow = [n * 100_000_000 for n in range(10)]
    fast = [1_000_000_000 + n * 1_000_000 for n in range(200)]
    for time_ns in (*slow, *fast):
        tracker.add(set_irq(time_ns))

    assert tracker.onset_s == {21: 1.0}


def test_onset_of_what_never_had_the_rate_is_none():
    tracker = OnsetTracker()
    for n in range(1_000):
        tracker.add(set_irq(n * 10_000_000))
        tracker.add(set_irq(n * 10_000, pin=8))

    assert tracker.onset_s == {}


@pytest.mark.parametrize(
    ("value", "number"), [(5, 5.0), ("44.009", 44.009), ("24,25", 0.0), (None, 0.0)]
)
def test_metric_that_is_no_number_is_0(value, number):
    metrics = {} if value is None else {"x": value}

    assert policy.number(metrics, "x") == number


def test_policy_assertions_of_a_stuck_line_hang_on_when_the_kernel_gives_up():
    stuck = policy.counter_policy("stuck-line", "raised/ioapic/20", "qmp")
    quiet = policy.counter_policy("edu-quiet", "raised/ioapic/20", "qmp")
    assert (stuck.weight, quiet.weight) == (policy.Weight.TIMING, policy.Weight.COMPARED)
