"""Counters: sums, deltas, what cannot be seen, and what events count for."""

import json

import pytest

from harness.base.errors import CollectError
from harness.model.case import Irqchip
from harness.model.counters import (
    COUNT_RULES,
    BlindSpot,
    Counter,
    CounterKey,
    CounterSet,
    EventTally,
    NotObservable,
    blind_spots,
    untraced,
)
from harness.record.collectors.ftrace import FtraceReader
from support import golden
from userspace_chip.events import EVENT_TYPES, KVM_EVENTS, Event, event_type

SERIAL = CounterKey("handled", "ioapic", "guest", 4, "ttyS0")
TIMER = CounterKey("raised", "ioapic", "qmp", 0)
PIC_READS = CounterKey("access", "pic", "kvm", name="read 0x21")


def on_cpu(key, cpu):
    return CounterKey(key.stage, key.controller, key.source, key.number, key.name, cpu)


def kvm(name, vcpu=0, **fields):
    return Event(1, "kvm", name, vcpu, event_type(name).args(**fields))


def count_events(events, sources):
    tally = EventTally()
    for each in events:
        tally.add(each)
    return CounterSet.of(tally.counters(), sources)


def counted(*events):
    return {str(counter.key): counter.value for counter in count_events(events, ["kvm", "qemu"])}


def test_key_path_has_number_and_name():
    assert SERIAL.path == "handled/ioapic/4:ttyS0"
    assert TIMER.path == "raised/ioapic/0"
    assert str(on_cpu(SERIAL, 1)) == "handled/ioapic/4:ttyS0 cpu1 [guest]"


def test_set_adds_equal_keys_up():
    counters = CounterSet.of([Counter(SERIAL, 2), Counter(SERIAL, 3)])

    assert counters.lookup(SERIAL) == Counter(SERIAL, 5)


def test_lookup_without_cpu_sums_the_cpus():
    counters = CounterSet.of([Counter(on_cpu(SERIAL, 0), 2), Counter(on_cpu(SERIAL, 1), 3)])

    assert counters.lookup(SERIAL) == Counter(SERIAL, 5)
    assert counters.lookup(on_cpu(SERIAL, 1)) == Counter(on_cpu(SERIAL, 1), 3)


def test_lookup_of_what_was_seen_never_is_0():
    assert CounterSet.of([], ["guest"]).lookup(SERIAL) == Counter(SERIAL, 0)


def test_lookup_in_source_that_was_not_asked_is_not_observable():
    found = CounterSet.of([], ["guest"]).lookup(TIMER)

    assert found == NotObservable(TIMER, "qmp was not asked")


def test_lookup_in_blind_spot_is_not_observable_with_the_reason():
    counters = CounterSet.of([], ["qmp"], blind_spots(Irqchip.ON))

    found = counters.lookup(TIMER)

    assert isinstance(found, NotObservable)
    assert "the PIT is in KVM" in found.reason
    assert counters.lookup(CounterKey("raised", "ioapic", "qmp", 4)).value == 0


@pytest.mark.parametrize("mode", [Irqchip.SPLIT, Irqchip.OFF, Irqchip.TCG])
def test_blind_spots_timer_is_seen_where_qemu_raises_it(mode):
    assert not any(spot.hides(TIMER) for spot in blind_spots(mode))


@pytest.mark.parametrize(
    ("mode", "stage", "controller", "hidden"),
    [
        (Irqchip.TCG, "exit", "kvm", True),
        (Irqchip.OFF, "accepted", "lapic", True),
        (Irqchip.OFF, "injected", "vcpu", True),
        (Irqchip.OFF, "reinjected", "vcpu", False),
        (Irqchip.OFF, "exit", "kvm", False),
        (Irqchip.SPLIT, "routed", "ioapic", True),
        (Irqchip.SPLIT, "accepted", "lapic", False),
        (Irqchip.ON, "routed", "ioapic", False),
    ],
)
def test_blind_spots_of_the_kernel_follow_who_emulates_what(mode, stage, controller, hidden):
    key = CounterKey(stage, controller, "kvm", 4)

    assert any(spot.hides(key) for spot in blind_spots(mode)) is hidden


def test_blind_spots_with_apicv_hide_injections_and_eois():
    injected = CounterKey("injected", "vcpu", "kvm", 49)

    assert any(spot.hides(injected) for spot in blind_spots(Irqchip.ON, apicv=True))
    assert not any(spot.hides(injected) for spot in blind_spots(Irqchip.ON))


def test_untraced_events_are_not_observable():
    spots = untraced("qemu", ["ioapic_*", "pic_*"])
    counters = CounterSet.of([], ["qemu"], spots)

    raised = counters.lookup(CounterKey("raised", "gsi", "qemu", 4))

    assert isinstance(raised, NotObservable)
    assert "x86_gsi_interrupt" in raised.reason
    assert counters.lookup(CounterKey("routed", "ioapic", "qemu", 4)).value == 0


def test_untraced_nothing_is_hidden_where_all_is_traced():
    assert untraced("kvm", KVM_EVENTS) == ()


def test_delta_counts_since_the_earlier_snapshot():
    before = CounterSet.of([Counter(SERIAL, 10)], ["guest"])
    after = CounterSet.of([Counter(SERIAL, 17), Counter(on_cpu(SERIAL, 1), 3)], ["guest"])

    delta = after.since(before)

    assert delta.lookup(SERIAL).value == 7
    assert delta.values[on_cpu(SERIAL, 1)] == 3


def test_delta_of_32_bit_counter_survives_its_wrap():
    before = CounterSet.of([Counter(SERIAL, 2**32 - 5)])
    after = CounterSet.of([Counter(SERIAL, 7)])

    assert after.since(before).lookup(SERIAL).value == 12


def test_delta_of_other_boot_is_refused():
    before = CounterSet.of([Counter(SERIAL, 10)])

    with pytest.raises(CollectError, match="went backwards"):
        CounterSet.of([Counter(SERIAL, 3)]).since(before)


def test_delta_of_line_that_is_gone_is_not_observable():
    """A driver that is unbound frees its line, which then is not listed any more."""
    odd = CounterKey("handled", "ioapic", "guest", 21, "a[0-9]*")
    before = CounterSet.of([Counter(odd, 10)])

    delta = CounterSet.of([], ["guest"]).since(before)

    assert isinstance(delta.lookup(odd), NotObservable)
    assert isinstance(delta.lookup(SERIAL), Counter)


def test_delta_with_source_missing_before_does_not_claim_it():
    before = CounterSet.of([], ["guest"])
    after = CounterSet.of([Counter(TIMER, 7)], ["guest", "qmp"])

    delta = after.since(before)

    assert delta.sources == {"guest"}
    assert isinstance(delta.lookup(TIMER), NotObservable)


def test_merged_sets_add_up_and_keep_their_blind_spots():
    spot = BlindSpot("qmp", "raised/*", "why")
    one = CounterSet.of([Counter(SERIAL, 1)], ["guest"])
    other = CounterSet.of([Counter(SERIAL, 2)], ["qmp"], [spot])

    both = one.merged(other)

    assert both.lookup(SERIAL).value == 3
    assert both.sources == {"guest", "qmp"}
    assert both.blind == (spot,)


def test_total_matches_paths_of_one_source():
    counters = CounterSet.of([Counter(SERIAL, 1), Counter(TIMER, 2)])

    assert counters.total("*") == 3
    assert counters.total("*/ioapic/*", "qmp") == 2


def test_json_round_trip_keeps_everything():
    counters = CounterSet.of(
        [Counter(on_cpu(SERIAL, 1), 2**40), Counter(TIMER, 0), Counter(PIC_READS, 1)],
        ["guest", "kvm", "harness"],
        blind_spots(Irqchip.SPLIT),
    )

    assert CounterSet.loads(counters.dumps()) == counters
    assert CounterSet.from_json(json.loads(counters.dumps())) == counters


def test_json_has_one_counter_a_line():
    counters = CounterSet.of([Counter(SERIAL, 1), Counter(TIMER, 2)])

    assert sum('"value": ' in line for line in counters.dumps().splitlines()) == 2


def test_json_of_empty_set_is_read_back():
    assert CounterSet.loads(CounterSet.of([]).dumps()) == CounterSet.of([])


def document(**changes):
    return json.dumps(CounterSet.of([Counter(SERIAL, 1)]).to_json() | changes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        document(schema="other"),
        document(version=2),
        document(counters=[{"stage": "handled"}]),
        document(counters=[{"stage": "odd", "controller": "x", "source": "kvm", "value": 1}]),
        document(counters=[{"stage": "raised", "controller": "x", "source": "kvm", "value": "1"}]),
        document()[:-20],
    ],
)
def test_json_of_another_form_is_refused(text):
    with pytest.raises(CollectError, match="counters"):
        CounterSet.loads(text)


def test_rules_name_events_and_their_fields():
    for rule in COUNT_RULES:
        fields = EVENT_TYPES[rule.event].index.keys()
        named = {rule.number, rule.cpu, *rule.name, *rule.when} - {None, "vcpu"}
        assert named <= fields, rule


def test_events_raise_and_lower_are_told_apart():
    up = kvm("kvm_set_irq", gsi=4, level=1, source=0)
    down = kvm("kvm_set_irq", gsi=4, level=0, source=0)

    assert counted(up, up, down) == {"raised/gsi/4 [kvm]": 2, "lowered/gsi/4 [kvm]": 1}


def test_events_second_pic_has_pins_8_to_15():
    fields = {"pin": 0, "trigger": "edge", "masked": False, "coalesced": True}

    assert counted(kvm("kvm_pic_set_irq", chip=1, **fields)) == {
        "routed/pic/8 [kvm]": 1,
        "coalesced/pic/8 [kvm]": 1,
    }


def test_events_accepted_counts_on_the_target_not_the_sender():
    event = kvm(
        "kvm_apic_accept_irq", 0, apicid=1, vector=49, delivery_mode="Fixed", trigger="edge"
    )

    assert counted(event) == {"accepted/lapic/49 cpu1 [kvm]": 1}


def test_events_reinjection_is_no_second_injection():
    first = kvm("kvm_inj_virq", kind="IRQ", vector=49, reinjected=False)
    again = kvm("kvm_inj_virq", kind="IRQ", vector=49, reinjected=True)
    soft = kvm("kvm_inj_virq", kind="Soft/INTn", vector=49, reinjected=False)

    assert counted(first, again, again, soft) == {
        "injected/vcpu/49 cpu0 [kvm]": 1,
        "reinjected/vcpu/49 cpu0 [kvm]": 2,
    }


def test_events_eoi_of_nothing_has_no_vector():
    assert counted(kvm("kvm_eoi", apicid=0, vector=-1)) == {"eoi/lapic/none cpu0 [kvm]": 1}


def test_events_port_access_counts_for_the_chip_there():
    def pio(port):
        return kvm("kvm_pio", access="write", port=port, size=1, count=1, value=0x20, more=False)

    assert counted(pio(0x20), pio(0xA1), pio(0x40), pio(0x3F8)) == {
        "access/pic/write 0x20 cpu0 [kvm]": 1,
        "access/pic/write 0xa1 cpu0 [kvm]": 1,
        "access/pit/write 0x40 cpu0 [kvm]": 1,
    }


def test_events_of_qemu_count_as_qemus():
    event = Event(1, "qemu", "kvm_run_exit", None, (1, 26))

    assert counted(event) == {"exit/kvm/26 cpu1 [qemu]": 1}


def test_events_recording_counts_as_many_as_its_lines():
    recorded = golden.lines("ftrace-split-linux6.1.txt")
    counters = count_events(FtraceReader().events(recorded), ["kvm"])

    def lines(text):
        return sum(text in line for line in recorded)

    assert counters.total("injected/*") + counters.total("reinjected/*") == lines(": IRQ 0x") > 20
    assert counters.total("raised/gsi/*") == lines(" level 1 source") > 5
    assert counters.total("access/lapic/write APIC_EOI") == lines("apic_write APIC_EOI") > 0
    assert counters.total("exit/kvm/KVM_EXIT_IO") == lines("KVM_EXIT_IO (2)") > 0
