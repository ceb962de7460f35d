"""A command line or XML -> the nearest guest: what is taken over, replaced, and left out."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.base.errors import CannotRun
from harness.explain.nearest.guest import nearest_guest
from harness.explain.nearest.recipe import recipe
from harness.explain.nearest.versions import Offered, VersionsHere
from harness.explain.reproduction import planned
from harness.explain.vm import vm_of
from harness.model.case import Irqchip, LinuxGuest, Machine, ProbeGuest
from harness.record.collectors.foreign.machine import read_command_line, read_xml
from harness.record.collectors.foreign.model import Evidence, FileKind, NamedVersions
from harness.repro import catalogue

FIELD = Path(__file__).parents[2] / "golden" / "field"
HERE = VersionsHere(
    (Offered("10.0", (10, 0, 13)), Offered("7.2", (7, 2, 22)), Offered("11", (11, 1, 3))),
    (
        Offered("6.12", (6, 12, 117)),
        Offered("6.1", (6, 1, 192)),
        Offered("7", (7, 3, 4)),
        Offered("6.18.15", (6, 18, 15)),
    ),
)


def nearest(options, *, entry=None, command_line="", qemu=None, linux=None):
    line = f"qemu-system-x86_64 {options}"
    evidence = [
        Evidence("versions", FileKind.VERSIONS, NamedVersions(qemu=qemu, linux=linux)),
        read_command_line("cmdline", line),
    ]
    found = None if entry is None else catalogue.find(entry)
    return nearest_guest(vm_of(evidence), HERE, found, command_line=command_line)


def changed(guest, word):
    """The changes about ``word``: what there is instead, and why."""
    return [(each.instead, each.why) for each in guest.changes if word in each.what]


KVM = "-M q35 -accel kvm,kernel-irqchip=on"


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ("-M q35,hpet=off", ("-machine hpet=off",)),
        ("-M pc -no-hpet", ("-machine hpet=off",)),
        ("-M pc,pit=off", ("-machine pit=off",)),
        ("-M q35,hpet=on", ()),
        ("-M microvm,pit=on,pic=off", ("-machine pic=off", "-machine pit=on")),
        ("-M q35 -rtc base=utc,driftfix=slew", ("-rtc driftfix=slew",)),
        ("-M q35 -rtc driftfix=none", ()),
        ("-M q35 -global mc146818rtc.lost_tick_policy=slew", ("-rtc driftfix=slew",)),
        (
            "-M q35 -global kvm-pit.lost_tick_policy=discard",
            ("-global kvm-pit.lost_tick_policy=discard",),
        ),
        ("-M q35 -global kvm-pit.lost_tick_policy=x,y", ()),
        ("-M q35 -global apic-common.vapic=off", ("-global apic-common.vapic=off",)),
        ("-M q35 -global hpet.msi=on", ("-global hpet.msi=on",)),
        ("-M q35 -global hpet.msi=/etc/passwd", ()),
        ("-M q35 -global ide-hd.serial=x", ()),
    ],
)
def test_options_about_interrupts_are_taken_over_and_no_others(options, taken):
    assert nearest(f"{options} -accel kvm").options == taken


@pytest.mark.parametrize(
    ("cpu", "given"),
    [
        ("host", "qemu64,+tsc-deadline"),
        ("host,-tsc-deadline", "qemu64,-tsc-deadline"),
        ("qemu64", "qemu64"),
        ("Nehalem,+x2apic", "qemu64,+x2apic"),
        ("EPYC,x2apic=off,kvm=off", "qemu64,-x2apic,-kvm"),
        ("Skylake-Client-v3,hv_relaxed,hv_synic", "qemu64,+tsc-deadline,+hv-relaxed,+hv-synic"),
        ("qemu64,+kvm_pv_eoi,enforce,vendor=x", "qemu64,+kvm-pv-eoi"),
        ("qemu64,apic=$(id)", "qemu64"),
    ],
)
def test_cpu_keeps_the_flags_about_interrupts(cpu, given):
    assert nearest(f"{KVM} -cpu {cpu}").cpu == given


@pytest.mark.parametrize(
    ("options", "own", "modes"),
    [
        (KVM, "on", ["on", "split", "tcg"]),
        ("-M q35 -accel kvm,kernel-irqchip=split", "split", ["split", "on", "tcg"]),
        ("-M q35 -accel tcg", "tcg", ["tcg", "on", "split"]),
        ("-M q35 -accel kvm,kernel-irqchip=off", "off", ["off", "on", "split", "tcg"]),
        ("-M q35 -accel xen", None, ["on", "split", "tcg"]),
        (
            "-M q35 -accel kvm,kernel-irqchip=split -device intel-iommu,intremap=on",
            "split",
            ["split", "tcg"],
        ),
    ],
)
def test_own_mode_comes_first_and_those_that_cannot_be_are_said(options, own, modes):
    guest = nearest(options)

    assert guest.own == own
    assert [each.value for each in guest.modes] == modes
    missing = {each.value for each in Irqchip} - set(modes)
    assert all(changed(guest, f"mode {each}") for each in missing)


def test_own_mode_that_no_qemu_here_has_is_run_all_the_same():
    """So that the reason is that of the run, and not silence."""
    evidence = [read_command_line("x", "qemu-system-x86_64 -M q35 -accel kvm,kernel-irqchip=off")]
    newest = replace(HERE, qemus=HERE.qemus[2:])

    assert nearest_guest(vm_of(evidence), newest).modes[0] is Irqchip.OFF


def test_userspace_lapic_takes_a_qemu_that_has_it():
    assert nearest("-M q35 -accel kvm,kernel-irqchip=off", qemu=(9, 1)).qemu.name == "7.2"


@pytest.mark.parametrize(
    ("qemu", "linux", "found"),
    [
        ((10, 0, 13), (6, 12, 117), ("10.0", "6.12")),
        ((9, 2), (6, 8), ("10.0", "6.12")),
        ((8, 0), (5, 15), ("7.2", "6.1")),
        ((11, 0), (7, 1), ("11", "7")),
        ((6, 0), (6, 17), ("7.2", "6.18.15")),
        ((40, 9, 9), (999999, 1), ("11", "7")),
    ],
)
def test_nearest_versions_are_taken_and_said_where_they_are_others(qemu, linux, found):
    guest = nearest(KVM, qemu=qemu, linux=linux)

    assert (guest.qemu.name, guest.kernel.name) == found
    assert bool(changed(guest, "QEMU ")) is (qemu[:2] != guest.qemu.version[:2])
    assert bool(changed(guest, "host's Linux")) is (linux[:2] != guest.kernel.version[:2])


def test_version_of_the_machine_type_is_a_lower_bound():
    guest = nearest("-M pc-q35-8.2 -accel kvm")

    assert guest.qemu.name == "10.0"
    assert changed(guest, "QEMU 8.2 or later")
    assert "-machine pc-q35-8.2" in guest.options


def test_machine_type_that_the_qemu_may_not_have_is_left_out():
    guest = nearest("-M pc-i440fx-2.1 -accel kvm", qemu=(10, 0))

    assert guest.options == ()
    assert changed(guest, "version 2.1 of the machine type")


def test_versions_that_are_not_known_are_those_that_an_entry_shows_with():
    guest = nearest("-M pc-q35-5.2 -accel kvm,kernel-irqchip=split", entry="split-stale-route")
    shows = catalogue.find("split-stale-route").affected

    assert any(guest.qemu.version in (each.qemu or ()) for each in shows)
    assert changed(guest, "QEMU's version, which is not known")


@pytest.mark.parametrize(
    ("name", "machine"),
    [
        ("q35", Machine.Q35),
        ("pc-q35-rhel9.4.0", Machine.Q35),
        ("pc-i440fx-jammy", Machine.PC),
        ("pc-q35-8.1+pve0", Machine.Q35),
        ("isapc", Machine.PC),
        ("microvm", Machine.MICROVM),
    ],
)
def test_machine_is_its_family(name, machine):
    assert nearest(f"-M {name} -accel kvm").machine is machine


def test_machine_that_is_not_given_is_the_default_of_qemu():
    guest = nearest("-accel kvm")

    assert guest.machine is Machine.PC
    assert changed(guest, "machine type")


def test_machine_that_is_no_pc_cannot_run():
    with pytest.raises(CannotRun, match="virt"):
        nearest("-M virt -accel kvm")


@pytest.mark.parametrize(
    ("options", "devices", "left"),
    [
        ("-device virtio-net-pci,netdev=n,mac=1", ("virtio-net-pci,romfile=",), []),
        ("-drive file=/x,if=virtio", ("virtio-blk-pci,drive=vm-disk0",), []),
        ("-device vfio-pci,host=01:00.0", (), ["vfio-pci"]),
        ("-device qxl-vga -device pcie-root-port,id=r", (), ["qxl-vga", "pcie-root-port"]),
        ("-device usb-tablet", (), ["usb-tablet"]),
        ("-device usb-tablet -device qemu-xhci", ("qemu-xhci", "usb-tablet"), []),
        ("-device evil,path=/etc/passwd", (), ["evil"]),
        ("-serial stdio", (), []),
        (
            '-device {"driver":"virtio-blk-pci","drive":"libvirt-1"}',
            ("virtio-blk-pci,drive=vm-disk0",),
            [],
        ),
    ],
)
def test_devices_are_known_ones_without_their_backends(options, devices, left):
    guest = nearest(f"{KVM} {options!r}" if options.startswith("{") else f"{KVM} {options}")

    assert guest.devices == devices or "{" in options
    assert all(changed(guest, name) for name in left)


def test_devices_of_libvirt_in_json_are_read():
    guest = nearest(f"""{KVM} -device '{{"driver":"virtio-blk-pci","drive":"libvirt-1"}}'""")

    assert guest.devices == ("virtio-blk-pci,drive=vm-disk0",)


def test_many_devices_are_a_few():
    guest = nearest(KVM + " -device e1000" * 40 + " -device virtio-balloon-pci" * 40)

    assert guest.devices == ("e1000,romfile=",) * 2 + ("virtio-balloon-pci",)
    assert changed(guest, "e1000")


def test_disks_are_empty_ones():
    guest = nearest(f"{KVM} -drive file=/home/a.img,if=virtio -device nvme,drive=x")

    assert [each for each in guest.options if "null-co" not in each] == []
    assert len(guest.options) == 2


def test_cpus_and_memory_are_bounded():
    guest = nearest(f"{KVM} -smp 64 -m 512G")

    assert guest.smp == 4
    assert changed(guest, "64 CPUs")
    assert changed(guest, "MiB of memory")


def test_guest_with_the_userspace_lapic_has_one_cpu():
    guest = nearest("-M q35 -accel kvm,kernel-irqchip=off -smp 2")

    assert guest.smp == 1
    assert changed(guest, "2 CPUs")


def test_kernel_words_about_interrupts_are_taken_over():
    line = "BOOT_IMAGE=/vmlinuz root=/dev/vda1 hpet=disable noapic init=/bin/sh clocksource=evil"

    assert nearest(KVM, command_line=line).append == "hpet=disable noapic"


def test_what_is_left_out_is_listed_with_why():
    guest = nearest(
        f"{KVM} -netdev tap,id=n -chardev socket,id=c,path=/x -vnc :1 -no-such /y -name secret "
        "-object memory-backend-file,id=m,mem-path=/z"
    )

    for word in ("-netdev", "-chardev", "-vnc", "-no-such", "-name", "-object", "operating system"):
        ((_, why),) = changed(guest, word)
        assert why


HOSTILE = (
    f"{KVM} -drive file=/etc/shadow,if=virtio -chardev file,id=c,path=/etc/cron.d/x "
    "-netdev tap,id=n,script=/evil -device virtio-net-pci,romfile=/evil,netdev=n "
    "-device loader,file=/evil -monitor tcp:evil:1 -qmp unix:/evil -incoming exec:evil "
    "-plugin /evil -readconfig /evil -D /evil -pidfile /evil -daemonize -fw_cfg name=evil,file=/e "
    "-cpu host,+evil,model-id=/evil -global evil.evil=/evil -rtc base=evil,driftfix=slew;evil "
    "-smp cpus=1;evil -kernel /evil -L /evil -bios /evil -object rng-random,filename=/evil"
)


def test_hostile_command_line_leaves_none_of_its_text():
    guest = nearest(HOSTILE)
    (idle,) = [each for each in planned(guest, None).cases if each.backend.irqchip is guest.own]

    text = repr(recipe(guest, None)) + repr(idle)
    assert "evil" not in text
    assert "/" not in "".join((*guest.devices, *guest.options, guest.cpu, guest.append))


# --- The configuration ----------------------------------------------------------------------------


def of_xml(name, entry=None):
    evidence = [read_xml(name, (FIELD / name).read_text())]
    found = None if entry is None else catalogue.find(entry)
    return nearest_guest(vm_of(evidence), HERE, found), found


def test_idle_guest_runs_in_every_mode():
    guest = nearest(KVM)

    cases = planned(guest, None).cases
    assert {each.backend.irqchip for each in cases} == set(guest.modes)
    assert {each.guest.workloads for each in cases if isinstance(each.guest, LinuxGuest)} == {
        ("idle",)
    }


def test_entry_adds_its_work_in_the_shape_of_the_vm():
    guest, entry = of_xml("slew.xml", "rtc-slew-storm")

    cases = planned(guest, entry).cases
    assert {each.guest.workloads for each in cases} == {("idle",), ("rtc",)}
    assert all("-rtc driftfix=slew" in each.options for each in cases)
    assert all(each.smp == 2 for each in cases)
    assert all("-machine hpet=off" in each.options for each in cases)


def test_entry_whose_option_the_vm_does_not_have_does_not_bring_it():
    guest = nearest("-M q35 -accel kvm,kernel-irqchip=split", entry="rtc-slew-storm")

    cases = planned(guest, catalogue.find("rtc-slew-storm")).cases
    assert not any("-rtc driftfix=slew" in each.options for each in cases)


def test_probe_of_an_entry_has_the_options_and_no_disks():
    guest, _ = of_xml("slew.xml")

    cases = planned(guest, catalogue.find("split-pit-kicks-lint0-masked")).cases
    probes = [each for each in cases if isinstance(each.guest, ProbeGuest)]
    assert {each.backend.irqchip for each in probes} == set(guest.modes)
    assert all(each.devices == () and "-rtc driftfix=slew" in each.options for each in probes)
    assert not any("blockdev" in option for each in probes for option in each.options)


def test_idle_entry_is_the_idle_guest():
    entry = catalogue.find("hpet-ghost-ticks")

    assert len(planned(nearest(KVM), entry).cases) == 3


def test_later_attempt_runs_in_the_own_mode_alone():
    entry = catalogue.find("hpet-ghost-ticks")

    (case,) = planned(nearest(KVM), entry, attempt=3).cases
    assert case.backend.irqchip is Irqchip.ON
    assert case.guest.parameters == {"idle": {"seconds": "43"}}


def test_guest_under_tcg_is_local():
    entry = catalogue.find("hpet-ghost-ticks")

    (case,) = planned(nearest("-M q35 -accel tcg"), entry, attempt=1).cases
    assert case.backend.irqchip is Irqchip.TCG


def test_every_entry_with_signs_of_the_field_can_be_planned():
    guest = nearest("-M q35 -accel kvm,kernel-irqchip=split -smp 2")
    entries = [each for each in catalogue.shipped_entries() if each.field is not None]

    for entry in entries:
        assert planned(guest, entry).cases
