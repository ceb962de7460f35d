"""The kernel's trace as text: real recordings, and what real traces hold besides events."""

import pytest

from harness.record.collectors.ftrace import FtraceReader
from support import golden
from userspace_chip.events import Event

IRQ = "       CPU 1/KVM-6911    [000] d..1.    12.345678: kvm_set_irq: gsi 4 level 1 source 0\n"


def read(*lines, **options):
    reader = FtraceReader(**options)
    return list(reader.events(lines)), reader.report


def test_ftrace_event_line_becomes_event():
    events, report = read(IRQ)

    assert events == [Event(12_345_678_000, "kvm", "kvm_set_irq", 1, (4, 1, 0))]
    assert report.complete
    assert (report.lines, report.events) == (1, 1)


def test_ftrace_same_line_again_gives_same_event():
    events, _ = read(IRQ, IRQ, IRQ.replace("12.345678", "13.000001"))

    assert events[0] == events[1]
    assert events[2] == events[0]._replace(time_ns=13_000_001_000)


def test_ftrace_offset_is_added_to_every_time():
    events, _ = read(IRQ, IRQ, offset_ns=-345_678_000)

    assert [event.time_ns for event in events] == [12_000_000_000] * 2


@pytest.mark.parametrize(
    ("head", "vcpu"),
    [
        ("       CPU 0/KVM-123     [000] d..1. ", 0),
        ("      CPU 11/KVM-123     [003] ..... ", 11),
        ("       CPU 0/TCG-123     [000] ..... ", None),
        (" qemu-system-x86-127     [000] .N... ", None),
        ("          <idle>-0       [001] dNh3. ", None),
        ("    weird] name: x-12      [001] ..... ", None),
        ("       CPU 2/KVM-1234567 (   1200) [000] ..... ", 2),
        ("       CPU 2/KVM-55      (-------) [000] ..... ", 2),
        ("       CPU 2/KVM-55      [1000] ", 2),
    ],
)
def test_ftrace_vcpu_is_told_by_the_name_of_its_thread(head, vcpu):
    line = f"{head}   9.000001: kvm_eoi: apicid 0 vector 49\n"
    events, report = read(line, line)

    assert events == [Event(9_000_001_000, "kvm", "kvm_eoi", vcpu, (0, 49))] * 2
    assert report.complete


@pytest.mark.parametrize(
    "name",
    [
        "ftrace-on-linux6.18.txt",
        "ftrace-split-linux6.18.txt",
        "ftrace-split-linux6.1.txt",
    ],
)
def test_ftrace_recording_is_read_whole(name):
    recorded = golden.lines(name)
    headers = sum(line.startswith("#") for line in recorded)
    events, report = read(*recorded)

    assert report.complete
    assert not report.unknown
    assert report.lines == len(recorded)
    assert len(events) == report.events == len(recorded) - headers


def test_ftrace_recording_is_printed_as_it_was_read():
    recorded = golden.lines("ftrace-split-linux6.1.txt")
    events, _ = read(*recorded)

    assert [line.split(": ", 1)[1] for line in recorded] == [
        f"{event.name}: {event.text}\n" for event in events
    ]


def test_ftrace_mark_becomes_event_of_the_harness():
    events, _ = read("   bash-6905 [001] ...1. 1795275252.551097: tracing_mark_write: begin a: b\n")

    assert events == [Event(1_795_275_252_551_097_000, "harness", "mark", None, ("begin a: b",))]


def test_ftrace_losses_become_events_at_the_end_of_their_gap():
    events, report = read(
        IRQ, "CPU:1 [LOST 123 EVENTS]\n", "CPU:0 [LOST EVENTS]\n", IRQ.replace("12.", "14.")
    )

    assert [event.name for event in events] == ["kvm_set_irq", "lost", "lost", "kvm_set_irq"]
    assert events[1] == Event(14_345_678_000, "harness", "lost", None, (123, 1))
    assert events[2].arg("count") == 1
    assert report.lost == 124
    assert not report.complete


def test_ftrace_loss_at_the_very_end_is_kept():
    events, report = read(IRQ, "CPU:0 [LOST 5 EVENTS]\n")

    assert events[-1] == Event(12_345_678_000, "harness", "lost", None, (5, 0))
    assert report.events == 2


def test_ftrace_unknown_tracepoint_is_counted_not_fatal():
    page_fault = IRQ.replace(
        "kvm_set_irq: gsi 4 level 1 source 0", "kvm_page_fault: vcpu 0 rip 0x1"
    )
    events, report = read(page_fault, page_fault, IRQ)

    assert len(events) == 1
    assert dict(report.unknown) == {"kvm_page_fault": 2}
    assert report.complete


@pytest.mark.parametrize("cut", [5, 40, 70, 85, len(IRQ) - 1])
def test_ftrace_truncated_last_line_is_reported_and_left_out(cut):
    """Even where what is left could be read: "vector 4" may have been "vector 49"."""
    events, report = read(IRQ, IRQ[:cut])

    assert len(events) == 1
    assert report.truncated
    assert report.damaged == 0


@pytest.mark.parametrize(
    "damage",
    [
        "garbage\n",
        IRQ.replace("gsi 4", "gsi four"),
        IRQ.replace("12.345678", "12.34"),
        IRQ.replace("12.345678", "12345678"),
        "\x00\x01\ufffd: kvm_set_irq: gsi 4 level 1 source 0\n",
    ],
)
def test_ftrace_damaged_line_is_reported_and_the_next_one_read(damage):
    events, report = read(IRQ, damage, IRQ)

    assert len(events) == 2
    assert report.damaged == 1
    assert report.examples[0].number == 2
    assert report.examples[0].text == damage.rstrip("\n")


def test_ftrace_keeps_few_examples_of_much_damage():
    _, report = read(*["garbage\n"] * 1000)

    assert report.damaged == 1000
    assert len(report.examples) == 5


def test_ftrace_headers_and_empty_lines_are_passed_over():
    events, report = read("# tracer: nop\n", "#\n", "\n", IRQ)

    assert len(events) == 1
    assert report.complete


def test_ftrace_numbers_beyond_32_bits_stay_whole():
    line = IRQ.replace(
        "kvm_set_irq: gsi 4 level 1 source 0",
        "kvm_msr: msr_write 6e0 = 0xffffffffffffffff (#GP)",
    ).replace("12.345678", "18446744073.709551")
    (event,), _ = read(line)

    assert event.arg("value") == 2**64 - 1
    assert event.time_ns == 18_446_744_073_709_551_000


def test_ftrace_repeated_pio_keeps_its_trailing_blank():
    line = (
        IRQ.split("kvm_set_irq")[0] + "kvm_pio: pio_write at 0xcf8 size 4 count 1 val 0x80000000 \n"
    )
    (event,), _ = read(line)

    assert event.fields == {
        "access": "write",
        "port": 0xCF8,
        "size": 4,
        "count": 1,
        "value": 0x80000000,
        "more": False,
    }


def test_ftrace_stopped_early_reports_what_was_given():
    reader = FtraceReader()
    stream = reader.events([IRQ] * 10)
    next(stream)
    stream.close()

    assert reader.report.events == 1
