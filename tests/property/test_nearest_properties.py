"""Whatever a command line says, the guest that is built from it is made of known parts."""

import re
import shlex

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.base.errors import CannotRun, CollectError
from harness.explain.nearest.guest import nearest_guest
from harness.explain.nearest.recipe import recipe
from harness.explain.nearest.versions import Offered, VersionsHere
from harness.explain.reproduction import planned
from harness.explain.vm import vm_of
from harness.record.collectors.foreign.machine import OPTIONS, read_command_line
from harness.record.collectors.foreign.model import VmMachine

HERE = VersionsHere(
    (Offered("10.0", (10, 0, 13)), Offered("7.2", (7, 2, 22)), Offered("11", (11, 1, 3))),
    (Offered("6.12", (6, 12, 117)), Offered("7", (7, 3, 4))),
)
MARK = "zqx"
"""Part of every text that a stranger may choose, and of nothing that is known."""
WORDS = (
    *(
        "q35",
        "pc",
        "microvm",
        "kvm",
        "tcg",
        "on",
        "off",
        "split",
        "host",
        "slew",
        "delay",
        "virtio",
    ),
    *("hpet", "pit", "pic", "kernel-irqchip", "accel", "driftfix", "intremap", "if", "id", "file"),
    *("kvm-pit.lost_tick_policy", "hpet.msi", "apic-common.vapic", "x2apic", "kvm_pv_eoi"),
    *("virtio-blk-pci", "virtio-net-pci", "nvme", "vfio-pci", "usb-tablet", "qemu-xhci"),
    *("intel-iommu", "romfile", "4", "64", "999999999", "pc-q35-8.2", "pc-i440fx-99.9"),
)
STRANGE = st.text(min_size=0, max_size=8).map(lambda text: f"{MARK}{text}")
WORD = st.one_of(st.sampled_from(WORDS), STRANGE)
VALUE = st.lists(st.one_of(WORD, st.tuples(WORD, WORD).map("=".join)), min_size=1, max_size=5).map(
    ",".join
)
OPTION = st.one_of(st.sampled_from(sorted(OPTIONS)), STRANGE)
KNOWN_OPTION = re.compile(
    r"-machine (?:(?:hpet|pic|pit)=(?:on|off)|pc-(?:q35|i440fx)-\d+\.\d+)|-rtc driftfix=slew|"
    r"-global (?:kvm-pit\.lost_tick_policy=(?:delay|discard)|apic-common\.vapic=off|"
    r"hpet\.msi=(?:on|off|true|false)|hpet\.timers=\d+|ioapic\.version=\w+|"
    r"ICH9-LPC\.noreboot=\w+)|-blockdev null-co,node-name=vm-disk\d,size=67108864,read-zeroes=on"
)
KNOWN_DEVICE = re.compile(
    r"[a-zA-Z0-9-]+(?:,romfile=)?(?:,serial=vm-disk\d)?(?:,drive=vm-disk\d|,intremap=(?:on|off))?"
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(OPTION, VALUE), max_size=12), st.text(max_size=40))
def test_guest_of_any_command_line_is_made_of_known_parts(options, command_line):
    words = [word for option, value in options for word in (f"-{option}", value)]
    try:
        evidence = read_command_line("cmdline", shlex.join(["qemu-system-x86_64", *words]))
        vm = vm_of([evidence])
        guest = nearest_guest(vm, HERE, command_line=command_line)
    except (CannotRun, CollectError):
        return

    text = repr(recipe(guest, None))
    assert MARK not in text
    assert all(KNOWN_OPTION.fullmatch(each) for each in guest.options), guest.options
    assert all(KNOWN_DEVICE.fullmatch(each) for each in guest.devices), guest.devices
    assert {each.backend.irqchip for each in planned(guest, None).cases} == set(guest.modes)
    assert isinstance(evidence.content, VmMachine)
