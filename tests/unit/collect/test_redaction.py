"""What a redacted text still says, and what is left out."""

from pathlib import Path

import pytest

from harness.collect.redaction import redacted
from harness.record.collectors.foreign.model import FileKind
from harness.record.collectors.foreign.read import ReadingFacts, read_file, read_lines

FIELD = Path(__file__).parents[2] / "golden/field"
COLLECT = Path(__file__).parents[2] / "golden/collect"
MEMBERS = {
    FileKind.COMMAND_LINE: "cmdline.txt",
    FileKind.XML: "libvirt.xml",
    FileKind.TRACE: "trace.txt",
    FileKind.INTERRUPTS: "guest-interrupts-1.txt",
}


def machine_of(member, kind, text):
    return read_lines(member, kind, text.splitlines(keepends=True), ReadingFacts())[0].content


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        *((FileKind.TRACE, path) for path in sorted(FIELD.glob("trace-cmd-*.txt"))),
        *((FileKind.INTERRUPTS, path) for path in sorted(COLLECT.glob("interrupts-*.txt"))),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_redacted_text_of_a_real_tool_is_read_as_before(kind, path, tmp_path):
    member = MEMBERS[kind]
    text = redacted({member: path.read_text()}).texts[member]
    (tmp_path / path.name).write_text(text)
    assert read_file(tmp_path / path.name, kind)[0].content == read_file(path, kind)[0].content


@pytest.mark.parametrize("path", sorted(FIELD.glob("cmdline-*.txt")), ids=lambda path: path.stem)
def test_redacted_command_line_is_the_same_machine(path):
    text = path.read_text()
    found = redacted({"cmdline.txt": text}).texts["cmdline.txt"]
    before, after = (machine_of("c", FileKind.COMMAND_LINE, each) for each in (text, found))
    for name in ("family", "version", "accel", "irqchip", "smp", "cpu", "hpet", "driftfix"):
        assert getattr(after, name) == getattr(before, name), name
    assert [each.model for each in after.devices] == [each.model for each in before.devices]


def test_redacted_xml_is_the_same_machine():
    text = (FIELD / "slew.xml").read_text()
    found = redacted({"libvirt.xml": text}).texts["libvirt.xml"]
    before, after = (machine_of("x", FileKind.XML, each) for each in (text, found))
    assert after.driftfix == before.driftfix == "slew"
    assert (after.family, after.irqchip, after.smp) == (before.family, before.irqchip, before.smp)
    assert [each.model for each in after.devices] == [each.model for each in before.devices]


def test_pci_address_time_and_thread_are_kept():
    text = (
        "CPU 0/KVM-1235 12:00:05 mlx5_comp0@pci:0000:3b:00.0 /machine/unattached/device[0] 0/10\n"
    )
    assert redacted({"trace.txt": text}).texts["trace.txt"] == text


def test_name_of_the_guest_in_its_command_line_is_replaced_in_the_trace():
    texts = {
        "cmdline.txt": "qemu-system-x86_64 -name guest=web-of-anna,process=annas",
        "trace.txt": " annas-12 [000] 1.5: kvm_entry: vcpu 0 web-of-anna\n",
    }
    found = redacted(texts).texts["trace.txt"]
    assert "anna" not in found
    assert "-12 [000] 1.5: kvm_entry: vcpu 0 " in found


@pytest.mark.parametrize(
    ("member", "text"),
    [
        ("cmdline.txt", """'qemu-kvm' '-name' 'web of anna' '-m' '64'"""),
        ("cmdline.txt", "qemu-kvm --name process=p,guest=web\\ of\\ anna,debug-threads=on"),
        ("cmdline.txt", "qemu-kvm\0-name\0web of anna\0"),
        ("libvirt.xml", "<domain><name>web of anna</name></domain>"),
    ],
)
def test_name_with_blanks_is_replaced_in_the_other_texts(member, text):
    found = redacted({member: text, "threads.txt": "1 2 web of anna\n"}).texts
    assert "anna" not in "".join(found.values())


def test_guest_that_is_called_as_a_tool_s_word_leaves_tables_readable():
    texts = {
        "cmdline.txt": "qemu-system-x86_64 -name timer",
        "guest-interrupts-1.txt": "      CPU0\n  0: 5 IO-APIC 2-edge timer\n",
    }
    assert "timer" in redacted(texts).texts["guest-interrupts-1.txt"]


def test_line_that_is_no_row_of_a_table_is_left_out_but_for_its_time():
    text = "anna:~$ secret word\nSun 12:00:01 secret\n   CPU0\n  8: 1 IO-APIC 8-edge rtc0\n"
    found = redacted({"guest-interrupts-1.txt": text}).texts["guest-interrupts-1.txt"]
    assert found == "43201.000000\n   CPU0\n  8: 1 IO-APIC 8-edge rtc0\n"


@pytest.mark.parametrize(
    ("member", "text"),
    [
        ("libvirt.xml", "<domain><name>anna"),
        ("libvirt.xml", "<!DOCTYPE a><domain/>"),
        ("cmdline.txt", "anna's notes"),
        ("versions.txt", "anna's notes"),
    ],
)
def test_text_that_is_not_what_it_should_be_is_left_out(member, text):
    found = redacted({member: text})
    assert found.texts == {}
    assert member in found.left_out


def test_placeholder_in_a_text_is_given_to_nothing_else():
    found = redacted({"trace.txt": "address-1 is not 10.0.0.1\n"}).texts["trace.txt"]
    assert found == "address-1 is not address-2\n"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("part", ["f", "f:", "a.", "@a", "/:", "1.", "-00", "::", "a@", "<a "])
def test_long_hostile_text_is_redacted_in_linear_time(part):
    """A pattern that goes back and forth over it takes hours, and the test's limit ends that."""
    found = redacted({"trace.txt": part * (300_000 // len(part))})
    assert found.left_out == {}


@pytest.mark.parametrize(
    ("member", "text"),
    [
        ("cmdline.txt", "qemu-kvm -spice port=5900,password=31337"),
        ("cmdline.txt", "qemu-kvm -M q35 -device virtio-blk-pci,serial=31337"),
        ("cmdline.txt", """qemu-kvm -device '{"driver":"ide-hd","serial":"31337"}'"""),
        ("cmdline.txt", """qemu-kvm -device '{"driver":"ide-hd","serial":31337}'"""),
        ("libvirt.xml", "<domain><devices><disk><serial>31337</serial></disk></devices></domain>"),
        ("libvirt.xml", "<domain><graphics passwd='31337'/></domain>"),
    ],
)
def test_secret_that_looks_like_any_number_is_replaced(member, text):
    assert "31337" not in redacted({member: text}).texts[member]


def test_host_without_a_name_leaves_the_registers_readable():
    text = "  IRR      (none)\n  Remote IRR (none)\n"

    assert redacted({"info-pic.txt": text}, {"(none)"}).texts["info-pic.txt"] == text


def test_trace_has_placeholders_for_tasks_with_names_and_its_events_as_they_were():
    event = "-185     [000] d..1.    69.957199: kvm_exit: vcpu 0 reason hlt rip 0xfe info1 0x0\n"
    text = f"   CPU 0/KVM{event} anna-desktop{event} anna sent 52:54:00:aa:bb:cc\n"

    first, second, third = redacted({"trace.txt": text}, {"anna"}).texts["trace.txt"].splitlines()

    assert f"{first}\n" == f"   CPU 0/KVM{event}"
    assert "anna" not in second + third
    assert f"{second}\n".endswith(event)
    assert "52:54" not in third
