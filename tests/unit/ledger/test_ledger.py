"""The ledger on recordings of real Linux boots, whole and altered by one event."""

import json
import lzma
from functools import cache

import pytest

from harness.base.errors import CollectError
from harness.ledger.bookkeeper import HANDLERS, Bookkeeper
from harness.ledger.ledger import LAWS, Window, check_guest, dump, load, table
from harness.ledger.rules.state import NEAR_EVENTS, REDELIVERIES
from harness.model.case import Irqchip
from harness.model.counters import Counter, CounterKey, CounterSet
from harness.record.eventlog import EventLogReader
from support import golden
from support.books import account
from userspace_chip.events import EVENT_TYPES, Event, event_type

GOLDEN = golden.TESTS / "golden" / "ledger"
MODES = tuple(Irqchip)
IRR_LAWS = {"every acceptance is injected once", "every injection is ended"}


@cache
def recording(mode):
    """Pieces of a boot: the PIC's phase, timer and serial line, INTx disk, MSI-X disk."""
    with lzma.open(GOLDEN / f"linux-{mode}.jsonl.xz", "rt", encoding="utf-8") as file:
        return tuple(EventLogReader().events(file))


def event(name, time_ns=0, vcpu=0, **fields):
    kind = event_type(name)
    source = "kvm" if name.startswith("kvm") else "qemu"
    return Event(time_ns, source, name, vcpu, kind.args(**fields))


def where(mode, name, nth=0, **fields):
    """The place of the ``nth`` event of that name and with those fields."""
    found = [
        place
        for place, candidate in enumerate(recording(mode))
        if candidate.name == name
        and all(candidate.arg(field) == value for field, value in fields.items())
    ]
    return found[nth]


def after(mode, place, name, **fields):
    """The place of the next event of that name and with those fields."""
    return next(
        other
        for other, candidate in enumerate(recording(mode))
        if other > place
        and candidate.name == name
        and all(candidate.arg(field) == value for field, value in fields.items())
    )


def without(mode, place):
    events = recording(mode)
    return events[:place] + events[place + 1 :]


def doubled(mode, place):
    events = recording(mode)
    return events[: place + 1] + events[place:]


def changed(mode, place, **fields):
    events = recording(mode)
    old = events[place]
    args = event_type(old.name).args(**(old.fields | fields))
    return (*events[:place], old._replace(args=args), *events[place + 1 :])


def inserted(mode, place, name, **fields):
    events = recording(mode)
    new = event(name, events[place].time_ns, events[place].vcpu, **fields)
    return (*events[:place], new, *events[place:])


def first(events, mode):
    """Kind and place of the first finding."""
    finding = account(events, mode).findings[0]
    return finding.kind, finding.index


# --- Whole recordings ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_ledger_of_linux_boot_balances_without_findings(mode):
    ledger = account(recording(mode), mode)

    assert ledger.findings == ()
    assert ledger.warnings == ()
    assert ledger.balanced
    assert {law.status for law in ledger.laws} == {"balanced", "not observable"}
    assert ledger.events == len(recording(mode))


@pytest.mark.parametrize("mode", MODES)
def test_ledger_of_linux_boot_has_every_kind_of_cause(mode):
    rows = account(recording(mode), mode).rows
    vectors = [row for row in rows if row.kind == "vector"]

    assert {"by_pin", "by_msi", "by_lvt"} <= {stage for row in vectors for stage in row.counts}
    assert any(row.counts.get("acknowledged") for row in rows if row.kind == "ioapic")
    assert any(row.counts.get("injected") for row in rows if row.kind == "pic")


@pytest.mark.parametrize("mode", MODES)
def test_ledger_cut_off_anywhere_has_no_findings(mode):
    events = recording(mode)
    cuts = range(1, len(events), len(events) // 40)

    findings = [account(events[:cut], mode).findings for cut in cuts]

    assert findings == [()] * len(cuts)


def test_ledger_in_tcg_says_why_injections_cannot_be_seen():
    laws = {law.name: law for law in account(recording("tcg"), Irqchip.TCG).laws}

    assert {laws[name].status for name in IRR_LAWS} == {"not observable"}
    assert "TCG" in laws["every acceptance is injected once"].reason


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_law_has_source(law):
    assert ".c:" in law.source


# --- Alterations: one event each ----------------------------------------------------------------


def test_on_eoi_removed_is_stuck_where_the_next_vector_goes_ahead():
    place = where("on", "kvm_apic", 40, access="write", register="APIC_EOI") + 1
    assert recording("on")[place].name == "kvm_eoi"

    kind, index = first(without("on", place), Irqchip.ON)

    assert kind == "stuck"
    assert index == after("on", place, "kvm_inj_virq", reinjected=False) - 1


def test_on_eoi_doubled_is_spurious():
    place = where("on", "kvm_eoi", 50)

    assert first(doubled("on", place), Irqchip.ON) == ("spurious", place + 1)


def test_on_eoi_of_another_vector_is_spurious():
    place = where("on", "kvm_eoi", 50)

    assert first(changed("on", place, vector=61), Irqchip.ON) == ("spurious", place)


def test_on_acceptance_doubled_is_spurious():
    place = where("on", "kvm_apic_accept_irq", 2, vector=38)

    assert first(doubled("on", place), Irqchip.ON) == ("spurious", place + 1)


def test_on_timer_acceptance_doubled_is_spurious():
    place = where("on", "kvm_apic_accept_irq", 20, vector=236)

    assert first(doubled("on", place), Irqchip.ON) == ("spurious", place + 1)


def test_on_acceptance_with_vector_of_no_entry_is_misrouted():
    place = where("on", "kvm_apic_accept_irq", 2, vector=39)

    findings = account(changed("on", place, vector=61), Irqchip.ON).findings

    assert ("misrouted", place) in [(finding.kind, finding.index) for finding in findings]


@pytest.mark.parametrize("vector", [38, 39])
@pytest.mark.parametrize("mode", [Irqchip.ON, Irqchip.SPLIT])
def test_acceptance_by_another_cpu_is_misrouted(mode, vector):
    place = where(mode, "kvm_apic_accept_irq", 2, vector=vector)

    assert first(changed(mode, place, apicid=1), mode) == ("misrouted", place)


def test_on_acceptance_removed_is_lost_at_the_pin():
    place = where("on", "kvm_apic_accept_irq", 2, vector=38)

    assert first(without("on", place), Irqchip.ON) == ("lost", place)


def test_on_timer_acceptance_removed_is_spurious_at_the_injection():
    place = where("on", "kvm_apic_accept_irq", 20, vector=236)

    kind, index = first(without("on", place), Irqchip.ON)

    assert (kind, index) == ("spurious", after("on", place, "kvm_inj_virq", vector=236) - 1)


@pytest.mark.parametrize("mode", [Irqchip.ON, Irqchip.SPLIT])
def test_injection_removed_is_lost_at_its_eoi(mode):
    place = where(mode, "kvm_inj_virq", 3, vector=38, reinjected=False)
    assert recording(mode)[place + 1].name != "kvm_inj_virq"

    kind, index = first(without(mode, place), mode)

    assert (kind, index) == ("lost", after(mode, place, "kvm_eoi", vector=38) - 1)


@pytest.mark.parametrize("mode", [Irqchip.ON, Irqchip.SPLIT, Irqchip.OFF])
def test_injection_of_another_vector_is_spurious(mode):
    place = where(mode, "kvm_inj_virq", 100)

    assert first(changed(mode, place, vector=61), mode) == ("spurious", place)


def test_on_acknowledgement_removed_is_stuck_at_the_eoi():
    place = where("on", "kvm_ack_irq", 2, irqchip="IOAPIC")

    assert first(without("on", place), Irqchip.ON) == ("stuck", place - 1)


def test_on_acknowledgement_doubled_is_spurious():
    place = where("on", "kvm_ack_irq", 2, irqchip="IOAPIC")

    assert first(doubled("on", place), Irqchip.ON) == ("spurious", place + 1)


def test_on_pin_masked_and_delivered_is_spurious_at_the_acceptance():
    place = where("on", "kvm_ioapic_set_irq", 4, pin=20, masked=False)
    accepted = after("on", place, "kvm_apic_accept_irq", vector=38)
    place = after("on", accepted, "kvm_ioapic_set_irq", pin=20)

    altered = changed("on", place, masked=True)

    assert first(altered, Irqchip.ON) == ("spurious", accepted)


def test_on_pin_unmasked_and_not_delivered_is_lost():
    raised = where("on", "kvm_set_irq", gsi=0, level=1, source=2)
    place = after("on", raised, "kvm_ioapic_set_irq", pin=2, masked=True)

    assert first(changed("on", place, masked=False, vector=48), Irqchip.ON) == ("lost", place)


def test_on_delayed_delivery_is_a_storm():
    place = where("on", "kvm_ack_irq", 2, irqchip="IOAPIC")
    entry = {"dst": 0, "vector": 38, "delivery_mode": "Fixed", "dest_mode": "physical"}

    altered = inserted(
        "on", place + 1, "kvm_ioapic_delayed_eoi_inj", **entry, trigger="level", masked=False
    )

    assert first(altered, Irqchip.ON) == ("storm", place + 1)


def test_split_message_of_another_vector_is_misrouted():
    raised = where("split", "kvm_set_irq", 4, gsi=20, level=1)
    place = after("split", raised, "kvm_msi_set_irq")

    assert first(changed("split", place, vector=61), Irqchip.SPLIT) == ("misrouted", place)


def test_split_acceptance_removed_is_lost_at_the_message():
    raised = where("split", "kvm_set_irq", 4, gsi=20, level=1)
    place = after("split", raised, "kvm_apic_accept_irq")

    assert first(without("split", place), Irqchip.SPLIT) == ("lost", place - 1)


def test_split_message_removed_is_lost_at_the_route():
    raised = where("split", "kvm_set_irq", 4, gsi=20, level=1)
    place = after("split", raised, "kvm_msi_set_irq")

    assert first(without("split", place), Irqchip.SPLIT) == ("lost", raised)


def test_split_exit_and_broadcast_removed_is_stuck_at_the_eoi():
    place = where("split", "kvm_userspace_exit", 3, number=26)
    events = without("split", place)
    events = tuple(
        other
        for number, other in enumerate(events)
        if not (place <= number < place + 6 and other.name.startswith("ioapic_"))
    )

    assert first(events, Irqchip.SPLIT)[0] == "stuck"


@pytest.mark.parametrize("mode", [Irqchip.SPLIT, Irqchip.OFF, Irqchip.TCG])
def test_remote_irr_never_cleared_is_stuck_at_the_broadcast(mode):
    place = where(mode, "ioapic_clear_remote_irr", 3)

    kind, index = first(without(mode, place), mode)

    assert kind == "stuck"
    assert recording(mode)[index].name == "ioapic_eoi_broadcast"
    assert place - index <= 2


@pytest.mark.parametrize("mode", [Irqchip.SPLIT, Irqchip.OFF, Irqchip.TCG])
def test_level_assertion_without_service_is_lost(mode):
    place = where(mode, "ioapic_set_remote_irr", 3)

    kind, index = first(without(mode, place), mode)

    assert (kind, recording(mode)[index].name) == ("lost", "ioapic_set_irq")
    assert place - index <= 2


@pytest.mark.parametrize("mode", [Irqchip.SPLIT, Irqchip.OFF, Irqchip.TCG])
def test_delayed_reassert_is_a_storm(mode):
    place = where(mode, "ioapic_clear_remote_irr", 3)

    altered = inserted(mode, place + 1, "ioapic_eoi_delayed_reassert", pin=20)

    assert first(altered, mode) == ("storm", place + 1)


def test_off_eoi_removed_is_stuck_at_the_next_injection():
    taken = where("off", "kvm_inj_virq", 150, vector=236)
    place = after("off", taken, "apic_mem_writel", addr=0xB0)

    kind, index = first(without("off", place), Irqchip.OFF)

    assert kind == "stuck"
    assert index == after("off", place, "kvm_inj_virq") - 1


@pytest.mark.parametrize("mode", [Irqchip.OFF, Irqchip.TCG])
@pytest.mark.parametrize("fields", [{"vector": 61}, {"dst": 2}], ids=["vector", "destination"])
def test_delivery_of_another_vector_or_destination_is_misrouted(mode, fields):
    place = where(mode, "apic_deliver_irq", 4, vector=38)

    assert first(changed(mode, place, **fields), mode) == ("misrouted", place)


@pytest.mark.parametrize("mode", [Irqchip.OFF, Irqchip.TCG])
def test_delivery_removed_is_lost(mode):
    place = where(mode, "apic_deliver_irq", 30, vector=37)

    kind, index = first(without(mode, place), mode)

    assert (kind, recording(mode)[index].name) == ("lost", "ioapic_set_irq")
    assert place - index <= 3


@pytest.mark.parametrize("mode", [Irqchip.OFF, Irqchip.TCG])
def test_delivery_doubled_is_spurious(mode):
    place = where(mode, "apic_deliver_irq", 4, vector=38)

    assert first(doubled(mode, place), mode) == ("spurious", place + 1)


@pytest.mark.parametrize("mode", [Irqchip.SPLIT, Irqchip.OFF, Irqchip.TCG])
def test_pic_interrupt_doubled_is_spurious(mode):
    place = where(mode, "pic_interrupt", -1)

    assert first(doubled(mode, place), mode) == ("spurious", place + 1)


def test_tcg_broadcast_removed_is_spurious_at_the_clearing():
    place = where("tcg", "ioapic_eoi_broadcast", 3)

    assert first(without("tcg", place), Irqchip.TCG) == ("spurious", place)


def test_tcg_eoi_of_level_interrupt_removed_is_spurious_at_the_broadcast():
    place = where("tcg", "ioapic_eoi_broadcast", 3)
    written = max(
        number
        for number, other in enumerate(recording("tcg")[:place])
        if other.name == "apic_mem_writel" and other.args[0] == 0xB0
    )

    assert first(without("tcg", written), Irqchip.TCG) == ("spurious", place - 1)


# --- Findings that take more than one event -----------------------------------------------------


def accepted(vector, time_ns=0, trigger="edge"):
    return event(
        "kvm_apic_accept_irq", time_ns, apicid=0, vector=vector, delivery_mode="Fixed",
        trigger=trigger,
    )  # fmt: skip


def timer_setup(*vectors):
    registers = ("APIC_LVTT", "APIC_LVT0", "APIC_LVT1", "APIC_LVTPC")
    for register, vector in zip(registers, vectors, strict=False):
        yield event("kvm_apic", access="write", register=register, value=0x20000 | vector)


def injected(vector, time_ns=0):
    return event("kvm_inj_virq", time_ns, kind="IRQ", vector=vector, reinjected=False)


def ended(vector, time_ns=0):
    return event("kvm_eoi", time_ns, apicid=0, vector=vector)


def test_pending_vector_passed_over_again_and_again_is_lost():
    books = [*timer_setup(0x41, 0x81), accepted(0x81)]
    for _ in range(3):
        books += [accepted(0x41), injected(0x41), ended(0x41)]

    finding = account(books, Irqchip.ON).findings[0]

    assert (finding.kind, finding.subject) == ("lost", "vector 129 cpu0")


def test_vector_in_service_to_the_end_is_stuck():
    books = [*timer_setup(0x41, 0x81), accepted(0x41), injected(0x41)]
    for number in range(150):
        now = number * 10_000_000
        books += [accepted(0x81, now), injected(0x81, now), ended(0x81, now)]

    finding = account(books, Irqchip.ON).findings[0]

    assert (finding.kind, finding.subject, finding.index) == ("stuck", "vector 65 cpu0", 3)


def level_pin(number):
    entry = {"delivery_mode": "Fixed", "dest_mode": "physical", "trigger": "level"}
    return [
        event("kvm_set_irq", gsi=number, level=1, source=0),
        accepted(0x51, trigger="level"),
        event("kvm_ioapic_set_irq", pin=number, dst=0, vector=0x51, **entry, masked=False,
              coalesced=False),
    ]  # fmt: skip


def test_level_line_that_comes_back_without_end_is_a_storm():
    books = level_pin(20)
    for _ in range(REDELIVERIES + 1):
        books += [injected(0x51), ended(0x51)]
        books += [event("kvm_ack_irq", irqchip="IOAPIC", pin=20), accepted(0x51, trigger="level")]

    ledger = account(books, Irqchip.ON)

    assert [finding.kind for finding in ledger.findings] == ["storm"]
    assert ledger.findings[0].subject == "ioapic pin 20"
    assert next(row for row in ledger.rows if row.kind == "ioapic").counts["redelivered"] == 1001


# --- Guests' and machines' own ways -------------------------------------------------------------


def written(addr, value, vcpu=0, time_ns=0):
    return event("apic_mem_writel", time_ns, vcpu, addr=addr, value=value)


def expired(time_ns=0):
    return event("apic_local_deliver", time_ns, None, lvt=0, delivery_mode=0)


def taken_by(vcpu, vector):
    return event("kvm_inj_virq", 0, vcpu, kind="IRQ", vector=vector, reinjected=True)


def later(events):
    """``events``, and so much after them that nothing can be owed any more."""
    filler = event("kvm_pio", access="write", port=0x80, size=1, count=1, value=0, more=False)
    return [*events, *(filler._replace(time_ns=n * 10**7) for n in range(NEAR_EVENTS + 1))]


def test_off_timer_in_main_thread_is_taken_by_the_cpu_that_takes_it():
    books = [written(0x320, 0x200EC, vcpu) for vcpu in (0, 1)]
    books += [expired(), taken_by(1, 0xEC), written(0xB0, 0, 1)]

    ledger = account(later(books), Irqchip.OFF, smp=2)

    assert ledger.findings == ()
    assert [(row.name, row.counts) for row in ledger.rows] == [
        ("vector 236 cpu1", {"by_lvt": 1, "accepted": 1, "injected": 1, "eoi": 1})
    ]


def test_tcg_timer_in_main_thread_is_ended_by_the_cpu_that_ends_it():
    books = [written(0x320, 0x200EC, vcpu) for vcpu in (0, 1)]
    books += [expired(), written(0xB0, 0, 1)]

    ledger = account(later(books), Irqchip.TCG, smp=2)

    assert (ledger.findings, ledger.warnings) == ((), ())
    assert [row.name for row in ledger.rows] == ["vector 236 cpu1"]


@pytest.mark.parametrize(("injections", "kinds"), [(3, []), (4, ["spurious"])])
def test_off_timer_that_seemed_to_merge_is_injected_once_more_even_behind_the_next(
    injections, kinds
):
    """QEMU had taken the first when the second came, and the second when the third did."""
    done = [taken_by(0, 0xEC), written(0xB0, 0)]
    books = [written(0x320, 0x200EC), expired(), expired(), *done, expired()]

    ledger = account(later([*books, *done * (injections - 1)]), Irqchip.OFF)

    assert [finding.kind for finding in ledger.findings] == kinds
    assert ledger.balanced is not bool(kinds)


@pytest.mark.parametrize(
    ("shorthand", "high", "cpus"), [(0, 1, [1]), (1, 0, [0]), (2, 0, [0, 1]), (3, 0, [1])]
)
def test_off_ipi_is_accepted_by_the_cpus_that_icr_names(shorthand, high, cpus):
    books = [written(0x310, high << 24), written(0x300, shorthand << 18 | 0xFD)]

    rows = account(books, Irqchip.OFF, smp=2).rows

    assert [row.cpu for row in rows if row.counts["by_ipi"] == 1] == cpus


def test_off_spurious_vector_is_no_finding():
    books = [written(0xF0, 0x1FF), taken_by(0, 0xFF)]

    ledger = account(later(books), Irqchip.OFF)

    assert ledger.findings == ()
    assert ledger.warnings == ("spurious vectors were injected",)


def test_stray_eoi_of_the_guest_is_a_warning():
    ledger = account(later([written(0xB0, 0)]), Irqchip.OFF)

    assert ledger.findings == ()
    assert ledger.warnings == ("EOI with nothing in service",)


def test_ipi_by_hypercall_is_a_warning():
    books = [
        accepted(0xFD)._replace(args=(1, 0xFD, "Fixed", "edge")),
        injected(0xFD)._replace(vcpu=1),
        event("kvm_eoi", 0, 1, apicid=1, vector=0xFD),
    ]

    ledger = account(later(books), Irqchip.ON, smp=2)

    assert ledger.findings == ()
    assert "IPI" in ledger.warnings[0]


def test_synic_messages_with_auto_eoi_balance():
    """A lab's Linux 6.1: tests/support/flat/synic.S, from its first MSR on."""
    with lzma.open(GOLDEN / "synic-on.jsonl.xz", "rt", encoding="utf-8") as file:
        ledger = account(EventLogReader().events(file), Irqchip.ON)

    (row,) = [row for row in ledger.rows if row.name == "vector 80 cpu0"]
    assert row.counts == {"by_synic": 20, "accepted": 20, "injected": 20, "eoi": 20}
    assert ledger.findings == ()
    assert not [law.name for law in ledger.laws if law.status == "broken"]


def set_msr(msr, value):
    return event("kvm_msr", 0, 0, access="write", msr=msr, value=value, gp=False)


@pytest.mark.parametrize(
    ("msr", "value"),
    [
        (0x40000092, 0x51),  # SINT2
        (0x400000B2, 0x51 << 4 | 1 << 12 | 1),  # a timer in direct mode
    ],
)
def test_synic_vector_without_auto_eoi_is_ended_by_the_guest(msr, value):
    end = event("kvm_eoi", apicid=0, vector=0x51)
    ledger = account(later([set_msr(msr, value), accepted(0x51), injected(0x51), end]), Irqchip.ON)

    assert ledger.findings == ()
    (row,) = [row for row in ledger.rows if row.name == "vector 81 cpu0"]
    assert row.counts == {"by_synic": 1, "accepted": 1, "injected": 1, "eoi": 1}


@pytest.mark.parametrize(
    ("msr", "value"),
    [
        (0x40000092, 0x10051),  # masked
        (0x400000B2, 0x51 << 4 | 1 << 12),  # off
        (0x400000B2, 0x51 << 4 | 2 << 16 | 1),  # not direct: it sends a message
        (0x400000B3, 0x51 << 4 | 1 << 12 | 1),  # the timer's count
        (0x40000084, 0x51),
    ],
)
def test_vector_that_synic_does_not_send_is_misrouted(msr, value):
    events = later([set_msr(msr, value), accepted(0x51), injected(0x51)])

    assert account(events, Irqchip.ON).findings[0].kind == "misrouted"


def message(dst, vector):
    return event(
        "kvm_msi_set_irq", 0, None, dst=dst, vector=vector, delivery_mode="Fixed",
        dest_mode="physical", trigger="edge", rh=False,
    )  # fmt: skip


def test_message_to_a_cpu_that_is_not_there_is_no_finding():
    assert account(later([message(7, 0x41)]), Irqchip.ON).findings == ()


def test_message_to_a_cpu_that_is_there_and_does_not_come_is_lost():
    findings = account(later([message(0, 0x41)]), Irqchip.ON).findings

    assert [(finding.kind, finding.index) for finding in findings] == [("lost", 0)]


def test_message_to_an_id_that_the_guest_has_changed_reaches_its_cpu():
    books = [
        event("kvm_apic", access="write", register="APIC_ID", value=5 << 24),
        message(5, 0x41),
        accepted(0x41)._replace(vcpu=None),
    ]

    assert account(later(books), Irqchip.ON).findings == ()


def test_logical_message_in_x2apic_mode_reaches_any_cpu():
    books = [
        event("kvm_apic", access="write", register="APIC_LDR", value=1 << 24),
        event("kvm_msr", access="write", msr=0x1B, value=0xFEE00D00, gp=False),
        message(2, 0x41)._replace(args=(2, 0x41, "Fixed", "logical", "edge", False)),
        accepted(0x41)._replace(vcpu=None),
    ]

    assert account(later(books), Irqchip.ON).findings == ()


def test_logical_message_to_another_cpu_is_misrouted():
    books = [
        event("kvm_apic", access="write", register="APIC_LDR", value=1 << 24),
        message(2, 0x41)._replace(args=(2, 0x41, "Fixed", "logical", "edge", False)),
        accepted(0x41)._replace(vcpu=None),
    ]

    assert [finding.kind for finding in account(books, Irqchip.ON).findings] == ["misrouted"]


def test_split_with_qemus_threads_unknown_gives_no_finding():
    events = [
        other._replace(vcpu=None) if other.source == "qemu" else other
        for other in recording("split")
    ]

    ledger = account(events, Irqchip.SPLIT, smp=2)

    assert ledger.findings == ()


def test_acceptance_after_init_starts_from_nothing():
    init = accepted(0)._replace(args=(0, 0, "INIT", "edge"))
    books = [*timer_setup(0x41, 0x81), accepted(0x81), accepted(0x41), injected(0x41)]

    ledger = account([*books, init], Irqchip.ON)

    assert ledger.balanced
    assert [row.counts.get("pending", 0) for row in ledger.rows] == [0, 0]


def test_findings_of_one_subject_are_not_repeated_without_end():
    events = level_pin(20)[:2]
    events += [ended(0x61)] * 10

    ledger = account(events, Irqchip.ON)

    spurious = [finding for finding in ledger.findings if finding.kind == "spurious"]
    assert len(spurious) == 3
    assert ledger.suppressed == 7
    assert "and 7 more findings" in table(ledger)


@pytest.mark.parametrize("mode", [Irqchip.OFF, Irqchip.TCG])
def test_messages_of_two_ioapics_are_not_taken_for_devices_own(mode):
    """Or microvm's guest, which counts them as its IOAPICs', would have handled none of them."""

    def causes(ioapics):
        rows = account(recording(mode.value), mode, ioapics=ioapics).rows
        stages = ("by_pin", "by_msi", "by_lvt")
        return {r.name: [r.counts.get(s) for s in stages] for r in rows if r.kind == "vector"}

    assert causes(2) == causes(1)
    assert sum(by_msi or 0 for _, by_msi, _ in causes(2).values()) > 0


def test_pins_of_two_ioapics_are_not_checked():
    place = where("off", "ioapic_clear_remote_irr", 3)

    assert account(without("off", place), Irqchip.OFF, ioapics=2).findings == ()


# --- Bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_ledger_after_lost_events_is_not_checkable_and_finds_nothing(mode):
    events = recording(mode)
    middle = len(events) // 2
    lost = Event(events[middle].time_ns, "harness", "lost", None, (20, 0))

    ledger = account((*events[:middle], lost, *events[middle + 20 :]), mode)

    assert ledger.findings == ()
    assert {law.status for law in ledger.laws} <= {"not checkable", "not observable"}
    assert "lost" in ledger.warnings[0]


def test_ledger_of_damaged_recording_drops_what_it_found():
    place = where("on", "kvm_eoi", 50)

    ledger = account(without("on", place), Irqchip.ON, damage="3 damaged lines")

    assert ledger.findings == ()
    assert ledger.balanced
    assert ledger.warnings == ("events are incomplete: 3 damaged lines",)


@pytest.mark.parametrize("source", ["kvm", "qemu"])
def test_ledger_without_one_of_two_tracers_is_not_checkable(source):
    events = [other for other in recording("split") if other.source != source]

    ledger = account(events, Irqchip.SPLIT)

    assert ledger.findings == ()
    assert ledger.warnings[-1] == f"events are incomplete: no events of {source}"
    assert {law.status for law in ledger.laws} <= {"not checkable", "not observable"}


@pytest.mark.parametrize("mode", [Irqchip.ON, Irqchip.SPLIT])
def test_acceptance_traced_after_its_injection_is_a_warning(mode):
    events = list(recording(mode))
    place = where(mode, "kvm_apic_accept_irq", 20, vector=236)
    other = after(mode, place, "kvm_inj_virq", vector=236)
    moved = events.pop(place)
    events.insert(other, moved._replace(time_ns=events[other - 1].time_ns + 2000))

    ledger = account(events, mode)

    assert ledger.findings == ()
    assert ledger.warnings == ("injections that are traced before their acceptance",)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("jump_s", [-3600, 3600])
def test_clock_jump_gives_no_finding(mode, jump_s):
    events = recording(mode)
    jumped = [
        other._replace(time_ns=other.time_ns + jump_s * 10**9 * (number > len(events) // 2))
        for number, other in enumerate(events)
    ]

    ledger = account(jumped, mode)

    assert ledger.findings == ()
    assert ledger.warnings == (("times go back; the order is the recording's",) * (jump_s < 0))


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("kvm_eoi", (0, 256)),
        ("kvm_ioapic_set_irq", (24, 1, 0x31, "Fixed", "physical", "edge", False, False)),
        ("kvm_ack_irq", ("IOAPIC", -1)),
        ("kvm_inj_virq", ("IRQ", 1 << 60, False)),
        ("kvm_set_irq", (4, 1, 1 << 40)),
    ],
)
def test_event_with_values_that_no_chip_has_is_left_out_with_a_warning(name, args):
    ledger = account([Event(0, "kvm", name, 0, args)], Irqchip.ON)

    assert ledger.findings == ()
    assert ledger.warnings == (f"{name} with values that no chip has",)


def test_error_in_a_rule_is_not_taken_for_a_foreign_trace(monkeypatch):
    def broken(self, event, args):
        raise ValueError("a mistake in a rule")

    monkeypatch.setitem(HANDLERS, Irqchip.ON, {"kvm_eoi": broken})

    with pytest.raises(ValueError, match="a mistake in a rule"):
        account([Event(0, "kvm", "kvm_eoi", 0, (0, 0x31))], Irqchip.ON)


def test_rules_are_for_events_that_there_are_and_methods_of_the_bookkeeper():
    for rules in HANDLERS.values():
        assert rules.keys() <= EVENT_TYPES.keys()
        assert all(getattr(Bookkeeper, rule.__name__) is rule for rule in rules.values())


def test_hardware_delivery_makes_irr_laws_not_observable():
    books = [*timer_setup(0x41), accepted(0x41)]
    books.append(books[-1]._replace(name="kvm_apicv_accept_irq"))

    ledger = account(books, Irqchip.ON)

    assert {law.status for law in ledger.laws if law.name in IRR_LAWS} == {"not observable"}
    assert ledger.balanced


def test_books_do_not_grow_with_events():
    books = Bookkeeper(Irqchip.ON)
    events = recording("on")
    for other in events:
        books.add(other)
    before = len(books._debts), sum(len(thread.open) for thread in books._threads.values())
    for _ in range(5):
        for other in events:
            books.add(other)

    assert len(books._debts) <= max(before[0], NEAR_EVENTS)
    assert sum(len(thread.open) for thread in books._threads.values()) <= before[1] + 1


# --- The guest's own counts ---------------------------------------------------------------------


def marked(mode):
    mark = event_type("mark")
    events = recording(mode)

    def at(time_ns, text):
        return Event(time_ns, "harness", "mark", None, mark.args(text=text))

    plain = [other for other in events if other.name != "mark"]
    return [
        at(plain[0].time_ns, "begin boot"),
        *plain,
        at(plain[-1].time_ns, "end boot"),
    ]


def guest_counts(**counts):
    keys = {
        "disk": CounterKey("handled", "ioapic", "guest", 20, "virtio0", 0),
        "msix": CounterKey("handled", "msi", "guest", name="virtio1-req.0", cpu=0),
        "total": CounterKey("handled", "all", "guest", name="total"),
    }
    return CounterSet.of([Counter(keys[name], value) for name, value in counts.items()], ["guest"])


def taken(mode, vector):
    rows = account(recording(mode), mode).rows
    return next(row for row in rows if row.number == vector).counts["injected"]


@pytest.mark.parametrize("mode", [Irqchip.ON, Irqchip.SPLIT, Irqchip.OFF])
def test_guest_that_counts_what_it_took_balances(mode):
    handled = guest_counts(disk=taken(mode, 38), msix=taken(mode, 39), total=100)

    ledger = account(marked(mode), mode, handled={"boot": handled})

    assert ledger.findings == ()
    assert ledger.laws[-1].name == "boot: the guest handles what it was given"
    assert ledger.laws[-1].status == "balanced"


def test_guest_that_counts_more_than_it_took_is_spurious():
    handled = guest_counts(disk=taken("on", 38) + 1, msix=taken("on", 39), total=100)

    ledger = account(marked("on"), Irqchip.ON, handled={"boot": handled})

    assert [finding.kind for finding in ledger.findings] == ["spurious"]
    assert ledger.findings[0].subject == "ioapic pin 20 in boot"
    assert ledger.laws[-1].status == "broken"


def test_guest_that_counts_far_less_than_it_took_is_lost():
    ledger = account(
        marked("on"),
        Irqchip.ON,
        handled={"boot": guest_counts(disk=taken("on", 38), msix=0, total=100)},
    )

    assert [(finding.kind, finding.subject) for finding in ledger.findings] == [
        ("lost", "MSI in boot")
    ]


def window(taken, pins, messages=()):
    mark = event("mark", vcpu=None, text="end work")
    return Window("work", taken, 0, pins, frozenset(messages), frozenset(), 9, mark)


def test_vector_that_a_pin_and_a_message_share_on_two_cpus_is_nothing_lost():
    counts = guest_counts(disk=200, msix=200, total=400)
    shared = window({38: 400}, {20: 38}, messages=[38])

    law, findings = check_guest(shared, counts, Irqchip.ON)

    assert (law.status, findings) == ("balanced", ())


def test_vector_of_a_pin_alone_that_was_taken_far_more_often_than_handled_is_lost():
    counts = guest_counts(disk=200, msix=200, total=400)
    alone = window({38: 400, 39: 200}, {20: 38}, messages=[39])

    _, findings = check_guest(alone, counts, Irqchip.ON)

    assert [(found.kind, found.subject) for found in findings] == [
        ("lost", "ioapic pin 20 in work")
    ]


@pytest.mark.parametrize(("before", "checked"), [(38, {20: 38}), (40, {})], ids=["same", "moved"])
def test_pin_whose_vector_changes_during_a_workload_is_not_compared(before, checked):
    books = Bookkeeper(Irqchip.SPLIT)
    address = 0xFEC00010
    for vector, mark in ((before, "begin work"), (38, "end work")):
        entry = vector | 1 << 15
        books.add(event("ioapic_mem_write", addr=address, regsel=0x38, size=4, value=entry))
        books.add(event("mark", vcpu=None, text=mark))

    assert books._windows[0].pins == checked


# --- On disk, and as a table --------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_ledger_read_back_is_equal(mode):
    ledger = account(without(mode, len(recording(mode)) // 2), mode)

    assert load(dump(ledger)) == ledger


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"schema": "irqmatrix-counters", "version": 1}',
        '{"schema": "irqmatrix-ledger", "version": 99}',
        '{"schema": "irqmatrix-ledger", "version": 1}',
    ],
)
def test_load_of_what_is_no_ledger_raises(text):
    with pytest.raises(CollectError, match="ledger"):
        load(text)


def test_load_of_unknown_kind_of_finding_raises():
    place = where("on", "kvm_eoi", 50)
    data = json.loads(dump(account(doubled("on", place), Irqchip.ON)))
    data["findings"][0]["kind"] = "odd"

    with pytest.raises(CollectError, match="odd"):
        load(json.dumps(data))


def test_table_has_rows_laws_and_findings():
    place = where("on", "kvm_eoi", 50)

    text = table(account(doubled("on", place), Irqchip.ON))

    assert "ioapic pin 20" in text
    assert "vector 236 cpu0" in text
    assert "broken: every injection is ended" in text
    assert f"spurious: vector {recording('on')[place].args[1]} cpu0: EOI without" in text


@pytest.mark.parametrize("expiries", [2, 3])
def test_ledger_timer_that_leaves_periodic_mode_may_expire_twice_more(expiries):
    """The tick that was noted, and the one that was on its way; a third one comes from nowhere."""
    timer = {"apicid": 0, "vector": 236, "delivery_mode": "Fixed", "trigger": "edge"}
    taken = (
        event("kvm_apic_accept_irq", **timer),
        event("kvm_inj_virq", kind="IRQ", vector=236, reinjected=False),
        event("kvm_eoi", apicid=0, vector=236),
    )
    periodic, one_shot = (
        event("kvm_apic", access="write", register="APIC_LVTT", value=value)
        for value in (0x200EC, 0xEC)
    )
    later = event("kvm_msr", access="read", msr=0x10, value=0, gp=False)
    events = (periodic, *taken * 2, one_shot, *taken * expiries, *(later,) * 2 * NEAR_EVENTS)
    seconds = 10**9
    spread = [each._replace(time_ns=place * seconds) for place, each in enumerate(events)]

    found = account(spread, Irqchip.ON).findings

    assert [finding.kind for finding in found] == ["spurious"] * (expiries - 2)


# --- split: an EOI's exit is handled without QEMU's lock -----------------------------------------


def line_20(level, time_ns=0, vcpu=None):
    return event("ioapic_set_irq", time_ns, vcpu, pin=20, level=level)


def delivered_38():
    yield event("kvm_set_irq", gsi=20, level=1, source=0)
    fields = {"dst": 0, "vector": 38, "delivery_mode": "Fixed", "trigger": "level"}
    yield event("kvm_msi_set_irq", **fields, dest_mode="physical", rh=False)
    yield accepted(38, trigger="level")


def ended_38():
    """A level interrupt of pin 20 up to the moment at which the pin is free again."""
    address, entry = 0xFEC00010, 38 | 1 << 15
    yield event("ioapic_mem_write", addr=address, regsel=0x38, size=4, value=entry)
    yield line_20(1)
    yield event("ioapic_set_remote_irr", pin=20)
    yield from delivered_38()
    yield injected(38)
    yield ended(38)
    yield event("kvm_userspace_exit", reason="KVM_EXIT_IOAPIC_EOI", number=26)
    yield event("ioapic_eoi_broadcast", vector=38)
    yield event("ioapic_clear_remote_irr", pin=20, vector=38)


def much_later():
    yield from (accepted(0x81, 10**9 + number) for number in range(2 * NEAR_EVENTS))


def test_split_line_that_falls_while_its_eoi_is_handled_is_not_lost():
    books = [*ended_38(), line_20(0, 500_000), *timer_setup(0x81), *much_later()]

    assert "ioapic pin 20" not in {f.subject for f in account(books, Irqchip.SPLIT).findings}


def test_split_line_that_stays_high_after_eoi_and_is_not_delivered_is_lost():
    books = [*ended_38(), *timer_setup(0x81), *much_later()]

    finding = account(books, Irqchip.SPLIT).findings[0]

    assert (finding.kind, finding.subject) == ("lost", "ioapic pin 20")


def test_split_delivery_that_other_lines_overtake_is_not_lost():
    again = event("ioapic_set_remote_irr", pin=20)
    overtaken = [line_20(0, 900_000), event("ioapic_set_irq", 920_000, None, pin=4, level=1)]
    books = [*ended_38(), again, *overtaken, *delivered_38(), *timer_setup(0x81), *much_later()]

    assert "ioapic pin 20" not in {f.subject for f in account(books, Irqchip.SPLIT).findings}


def shared_vector():
    """A disk's level line on CPU 0 and a serial port's edges on CPU 1 have one vector."""
    message = {"vector": 35, "delivery_mode": "Fixed"}
    entry = message | {"dest_mode": "physical", "masked": False, "coalesced": False}
    return [
        event("kvm_set_irq", 1, None, gsi=11, level=1, source=0),
        event("kvm_apic_accept_irq", 2, None, apicid=0, trigger="level", **message),
        event("kvm_ioapic_set_irq", 3, None, pin=11, dst=0, trigger="level", **entry),
        event("kvm_set_irq", 4, None, gsi=4, level=1, source=0),
        event("kvm_apic_accept_irq", 5, None, apicid=1, trigger="edge", **message),
        event("kvm_ioapic_set_irq", 6, None, pin=4, dst=1, trigger="edge", **entry),
        event("kvm_inj_virq", 7, 1, kind="IRQ", vector=35, reinjected=False),
        event("kvm_inj_virq", 8, 0, kind="IRQ", vector=35, reinjected=False),
        event("kvm_eoi", 9, 1, apicid=1, vector=35),
        *(event("kvm_set_irq", 10**9 + n, None, gsi=4, level=0, source=0) for n in range(500)),
        event("kvm_set_irq", 2 * 10**9, 0, gsi=11, level=0, source=0),
        event("kvm_eoi", 2 * 10**9 + 1, 0, apicid=0, vector=35),
        event("kvm_ack_irq", 2 * 10**9 + 2, 0, irqchip="IOAPIC", pin=11),
    ]


def test_on_edge_on_another_cpu_that_shares_a_levels_vector_ends_nothing_at_the_pin():
    books = Bookkeeper(Irqchip.ON, smp=2, ioapics=1)
    for one in shared_vector():
        books.add(one)
    findings = books.close(damage=None, handled={}).findings
    assert [found for found in findings if found.kind == "stuck"] == []
