"""QEMU's log of trace events, and the order of several streams."""

import pytest

from harness.backends.base import BOOT_LINE
from harness.record.collectors.merge import in_order, merge
from harness.record.collectors.qemu_log import QemuLogReader
from support import golden
from userspace_chip.events import Event

RAISE = "6907@1795275252.573191:ioapic_set_irq vector: 4 level: 1\n"

DUMP = (
    "   883: v=0e e=0006 i=0 cpl=3 IP=0033:00000000004c8000 pc=00000000004c8000"
    " SP=002b:00007ffd9c3a5d28"
)
"""How ``-d int`` begins what it says of an exception."""
TAKEN = "Servicing hardware INT=0x30\n"


def read(*lines, **options):
    reader = QemuLogReader(**options)
    return list(reader.events(lines)), reader.report


def test_qemulog_stamped_line_becomes_event():
    events, report = read(RAISE)

    assert events == [Event(1_795_275_252_573_191_000, "qemu", "ioapic_set_irq", None, (4, 1))]
    assert report.complete


def test_qemulog_thread_tells_the_vcpu_where_it_is_known():
    events, _ = read(RAISE, RAISE.replace("6907", "6911"), vcpu_of_thread={6911: 1})

    assert [event.vcpu for event in events] == [None, 1]


def test_qemulog_offset_moves_to_another_clock():
    events, _ = read(RAISE, offset_ns=37_000_000_000)

    assert events[0].time_ns == 1_795_275_289_573_191_000


def test_qemulog_event_without_text_is_read():
    events, report = read("6907@1.000002:kvm_irqchip_commit_routes \n")

    assert events == [Event(1_000_002_000, "qemu", "kvm_irqchip_commit_routes", None, ())]
    assert report.complete


def test_qemulog_without_times_keeps_the_order_of_lines():
    events, report = read("ioapic_set_irq vector: 4 level: 1\n", "pic_interrupt irq 4 intno 12\n")

    assert [(event.time_ns, event.name) for event in events] == [
        (0, "ioapic_set_irq"),
        (0, "pic_interrupt"),
    ]
    assert report.complete


def test_qemulog_recording_is_read_whole_and_printed_as_it_was():
    recorded = golden.lines("qemulog-split-qemu7.2.txt")
    events, report = read(*recorded)

    assert report.complete
    assert not report.unknown
    assert [line.split(":", 1)[1] for line in recorded] == [
        f"{event.name} {event.text}\n" for event in events
    ]


def test_qemulog_other_messages_are_passed_over():
    events, report = read(
        "2026-11-21T15:34:12.583094Z qemu-system-x86_64: warning: host doesn't support it\n",
        "SMM: enter\n",
        "check_exception old: 0xffffffff new 0xe\n",
        DUMP + "\n",
        "RAX=000000000000fffe RBX=0000000000000286 RCX=0000000000000001 RDX=0000000000000001\n",
        "\n",
        RAISE,
    )

    assert len(events) == 1
    assert report.complete


def test_qemulog_interrupt_taken_has_the_time_of_the_event_behind_it():
    events, report = read(RAISE, TAKEN, RAISE.replace(".57", ".58"))

    assert events[1] == Event(events[2].time_ns, "qemu", "hardware_int", None, (0x30, "?"))
    assert events[1].text == "INT=0x30 TR=?"
    assert report.complete


def dump_of(vector, task):
    """What ``-d int`` says of an interrupt or exception, shortened."""
    return [
        DUMP.replace("v=0e", f"v={vector:02x}") + " env->regs[R_EAX]=000000000000fffe\n",
        "RAX=000000000000fffe RBX=0000000000000286 RCX=0000000000000001 RDX=0000000000000001\n",
        f"TR =0040 {task} 00004087 00008b00 DPL=0 TSS64-busy\n",
    ]


def tasks(*lines):
    return [event.args[1] for event in read(*lines)[0] if event.name == "hardware_int"]


def test_qemulog_interrupt_taken_has_its_cpus_task_segment():
    taken = dump_of(0x30, "fffffe0000003000")

    assert tasks(TAKEN, *taken) == ["fffffe0000003000"]
    assert tasks(TAKEN, *taken, TAKEN, *taken) == ["fffffe0000003000"] * 2


def test_qemulog_interrupt_taken_while_another_cpu_has_an_exception_has_no_task_segment():
    head, *registers = dump_of(0x30, "fffffe0000003000")
    other = dump_of(0x0E, "fffffe000003e000")

    assert tasks(TAKEN, *other, head, *registers) == ["?"]
    assert tasks(TAKEN, head, *other, *registers) == ["?"]
    assert tasks(*other[:1], TAKEN, *other[1:], head, *registers) == ["?"]


def test_qemulog_interrupt_taken_comes_before_the_event_behind_it():
    events, _ = read(RAISE, TAKEN, RAISE, *dump_of(0x30, "fffffe0000003000"))

    assert [event.name for event in events] == ["ioapic_set_irq", "hardware_int", "ioapic_set_irq"]


@pytest.mark.parametrize("line", [RAISE, TAKEN], ids=["event", "interrupt"])
@pytest.mark.parametrize("rest", [" CR2=00000000004c8000", ""], ids=["whole", "piece"])
def test_qemulog_event_behind_another_threads_dump_is_read(line, rest):
    events, report = read(DUMP + rest + line, vcpu_of_thread={6907: 1})

    assert [event.name for event in events] == [read(line)[0][0].name]
    assert report.complete


DATED = "2026-11-21T15:34:12.573191Z ioapic_set_irq vector: 4 level: 1\n"
"""As QEMU 11.1 logs it: the thread is that of the file."""


def test_qemulog_dated_lines_are_of_the_thread_whose_file_they_stand_in():
    events, report = read(
        *("irqmatrix: thread 6907\n", DATED),
        *("irqmatrix: thread 6911\n", DATED.replace("12.57", "12.56")),
        vcpu_of_thread={6911: 1},
    )

    assert events == [
        Event(1_795_275_252_573_191_000, "qemu", "ioapic_set_irq", None, (4, 1)),
        Event(1_795_275_252_563_191_000, "qemu", "ioapic_set_irq", 1, (4, 1)),
    ]
    assert report.complete


def test_qemulog_dated_interrupt_taken_has_a_time_of_its_own():
    date = "2026-11-21T15:34:12.573000Z "
    head, *registers = dump_of(0x30, "fffffe0000003000")
    pieces = date + head.replace(" env", f"{date} env")
    events, report = read(date + TAKEN, pieces, *registers, DATED)

    assert [(event.time_ns % 10**9, event.name) for event in events] == [
        (573_000_000, "hardware_int"),
        (573_191_000, "ioapic_set_irq"),
    ]
    assert events[0].args == (0x30, "fffffe0000003000")
    assert report.complete


def test_qemulog_interrupt_taken_at_the_end_of_a_threads_file_is_of_that_time():
    events, _ = read(DATED, TAKEN, "irqmatrix: thread 6911\n", DATED.replace("12.57", "12.59"))

    assert [event.name for event in events] == ["ioapic_set_irq", "hardware_int", "ioapic_set_irq"]
    assert events[1].time_ns == events[0].time_ns


def test_qemulog_interrupt_taken_last_is_not_of_the_qemu_that_comes_next():
    """A guest that moves takes it before it is saved, which the next one's start is not."""
    later = RAISE.replace("@17", "@18")
    events, report = read(RAISE, TAKEN, *dump_of(0x30, "fffffe0000003000"), BOOT_LINE, later)

    assert [event.name for event in events] == ["ioapic_set_irq", "hardware_int", "ioapic_set_irq"]
    assert events[1].args == (0x30, "fffffe0000003000")
    assert events[0].time_ns == events[1].time_ns < events[2].time_ns
    assert report.complete


@pytest.mark.parametrize("cut", [40, len(DATED) - 1])
def test_qemulog_dated_last_line_that_is_cut_is_left_out(cut):
    events, report = read(DATED, DATED[:cut])

    assert len(events) == 1
    assert report.truncated


def test_qemulog_events_in_a_form_that_is_not_known_are_damage():
    events, report = read("[12.573191] ioapic_set_irq vector: 4 level: 1\n")

    assert events == []
    assert report.damaged == 1


def test_qemulog_unknown_event_is_counted_not_fatal():
    _, report = read("1@1.000000:hpet_ram_read enter hpet_ram_readl at 0xf0\n", RAISE)

    assert dict(report.unknown) == {"hpet_ram_read": 1}
    assert report.complete


@pytest.mark.parametrize("cut", [4, 20, 30, len(RAISE) - 1])
def test_qemulog_truncated_last_line_is_reported_and_left_out(cut):
    events, report = read(RAISE, RAISE[:cut])

    assert len(events) == 1
    assert report.truncated


@pytest.mark.parametrize(
    "damage",
    [RAISE.replace("level: 1", "level: high"), "6907@17952752573191:ioapic_set_irq vector: 4\n"],
)
def test_qemulog_damaged_line_is_reported_and_the_next_one_read(damage):
    events, report = read(RAISE, damage, RAISE)

    assert len(events) == 2
    assert report.damaged == 1


def event(time_ns, name):
    return Event(time_ns, "harness", "mark", None, (name,))


def test_merge_orders_streams_by_time_and_is_stable():
    first = [event(1, "a"), event(3, "b"), event(3, "c")]
    second = [event(2, "d"), event(3, "e"), event(4, "f")]

    merged = merge(iter(first), iter(second))

    assert [each.args[0] for each in merged] == ["a", "d", "b", "c", "e", "f"]


def test_merge_of_nothing_is_nothing():
    assert list(merge(iter([]), iter([]))) == []


def test_in_order_sorts_what_threads_wrote_past_each_other():
    events = in_order([event(2, "a"), event(1, "b"), event(2, "c")])

    assert [each.args[0] for each in events] == ["b", "a", "c"]
