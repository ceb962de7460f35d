"""The guest's own counts, as Linux 6.1 and 6.12 printed them."""

import pytest

from harness.base.errors import CollectError
from harness.model.counters import Counter, CounterKey
from harness.record.collectors.procfs import count_guest, parse_interrupts, parse_stat
from support import golden


def guest(workload, when):
    return count_guest(
        golden.text(f"interrupts-{workload}-{when}-linux6.1.txt"),
        golden.text(f"stat-{workload}-{when}-linux6.1.txt"),
    )


def lines(text):
    return {line.irq: line for line in parse_interrupts(text)}


def test_interrupts_pin_of_ioapic_has_chip_flow_and_device():
    line = lines(golden.text("interrupts-linux6.12.txt"))["9"]

    assert (line.chip, line.pin, line.flow, line.actions) == ("IO-APIC", 9, "fasteoi", ("acpi",))
    assert line.counts == {0: 0, 1: 0}


def test_interrupts_timer_is_pin_2():
    line = lines(golden.text("interrupts-linux6.12.txt"))["0"]

    assert line.key(0) == CounterKey("handled", "ioapic", "guest", 2, "timer", 0)
    assert line.total == 93


def test_interrupts_message_goes_by_its_device_alone():
    line = lines(golden.text("interrupts-block-msix-after-linux6.1.txt"))["25"]

    assert line.key(0) == CounterKey("handled", "msi", "guest", None, "virtio1-req.0", 0)


def test_interrupts_message_of_linux_6_12_is_the_same_counter():
    text = "           CPU0\n 25:  202  PCI-MSIX-0000:00:02.0   1-edge      virtio1-req.0\n"

    assert lines(text)["25"].key(0).path == "handled/msi/virtio1-req.0"


@pytest.mark.parametrize("kind", ["LOC", "RES", "NMI", "ERR", "MIS", "PIW"])
def test_interrupts_kinds_are_read(kind):
    line = lines(golden.text("interrupts-linux6.12.txt"))[kind]

    assert line.number is None
    assert line.key(None).path == f"handled/cpu/{kind}"


def test_interrupts_kind_for_all_cpus_has_no_cpu():
    text = "           CPU0       CPU1\nERR:          3\nMIS:          0\n"

    assert lines(text)["ERR"].counts == {None: 3}


def test_interrupts_columns_belong_to_the_cpus_of_the_heading():
    """CPUs 1 and 2 are offline."""
    text = (
        "           CPU0       CPU3\n  4:   7   9   IO-APIC   4-edge      ttyS0\nLOC: 1 2 Local\n"
    )

    assert lines(text)["4"].counts == {0: 7, 3: 9}
    assert lines(text)["LOC"].counts == {0: 1, 3: 2}


def test_interrupts_shared_line_has_all_its_devices():
    text = "     CPU0\n 21:  5   IO-APIC  21-fasteoi   virtio0, ehci_hcd:usb1\n"

    line = lines(text)["21"]

    assert line.actions == ("virtio0", "ehci_hcd:usb1")
    assert line.key(0).path == "handled/ioapic/21:virtio0,ehci_hcd:usb1"


def test_interrupts_pic_line_is_a_pin_of_the_pic():
    text = "     CPU0\n  4:  5    XT-PIC   4-edge  ttyS0\n  2:  0    XT-PIC      cascade\n"

    assert lines(text)["4"].key(0).path == "handled/pic/4:ttyS0"
    assert lines(text)["2"].key(0).path == "handled/pic/2:cascade"


def test_interrupts_line_without_device_keeps_its_number():
    text = "     CPU0\n  5:  5   IO-APIC   5-edge\n"

    assert lines(text)["5"].key(0).path == "handled/ioapic/5"


def test_interrupts_numbers_beyond_32_bits_stay_whole():
    text = "     CPU0\n  4:  4294967299   IO-APIC   4-edge      ttyS0\n"

    assert lines(text)["4"].total == 4294967299


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cat: /proc/interrupts: No such file\n",
        "           CPU0       CPU1\n  4:    7\n",
        "           CPU0\n  4:    x   IO-APIC   4-edge      ttyS0\n",
        "           CPU0\nno colon\n",
    ],
)
def test_interrupts_of_another_form_are_refused(text):
    with pytest.raises(CollectError):
        parse_interrupts(text)


@pytest.mark.parametrize("cut", [60, 200, 700])
def test_interrupts_cut_off_are_refused(cut):
    with pytest.raises(CollectError):
        parse_interrupts(golden.text("interrupts-linux6.12.txt")[:cut])


def test_guest_delta_of_200_reads_with_intx_is_200_interrupts_on_the_line():
    delta = guest("block-intx", "after").since(guest("block-intx", "before")).without_cpus()
    line = CounterKey("handled", "ioapic", "guest", 21, "virtio0")

    assert delta.lookup(line) == Counter(line, 200)


def test_guest_delta_of_200_reads_with_msix_is_200_messages():
    delta = guest("block-msix", "after").since(guest("block-msix", "before"))

    assert delta.total("handled/msi/virtio1-*") == 200
    assert delta.total("handled/ioapic/*virtio*") == 0


def test_guest_line_that_never_came_is_0_not_unknown():
    delta = guest("block-intx", "after").since(guest("block-intx", "before"))
    quiet = CounterKey("handled", "cpu", "guest", name="SPU")

    assert delta.lookup(quiet) == Counter(quiet, 0)


def test_stat_has_totals_soft_interrupts_and_times():
    counters = {
        counter.key.path: counter.value
        for counter in parse_stat(golden.text("stat-block-intx-after-linux6.1.txt"))
        if counter.key.cpu in (None, 1)
    }

    assert counters["handled/all/total"] == 2353
    assert counters["activity/linux/context switches"] == 2398
    assert counters["activity/softirq/TIMER"] == 194
    assert counters["activity/softirq/RCU"] == 534
    assert counters["time/cpu/system"] == 147


def test_stat_of_linux_with_more_columns_is_read():
    text = (
        "cpu  1 2\ncpu0 1 2 3 4 5 6 7 8 9 10 11\nintr 5 1\nctxt 9\n"
        "softirq 1 1 0 0 0 0 0 0 0 0 0 7\n"
    )

    assert len(parse_stat(text)) == 1 + 1 + 10 + 10


@pytest.mark.parametrize("text", ["", "cpu  1\nintr\nctxt 1\nsoftirq 1\n", "cpu 1\nintr x\n"])
def test_stat_of_another_form_is_refused(text):
    with pytest.raises(CollectError, match="/proc/stat"):
        parse_stat(text)
