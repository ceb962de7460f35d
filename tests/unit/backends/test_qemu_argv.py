import itertools
import subprocess
from dataclasses import replace

import pytest

from harness.backends.qemu_argv import (
    Channels,
    command_text,
    max_file_bytes,
    qemu_argv,
    trace_path,
)
from harness.guests.plan import GuestFiles
from harness.model.case import FlatGuest, LinuxGuest, Machine, Output, ProbeGuest
from support import cases

FILES = GuestFiles(("/usr/bin/qemu",), ("/usr/share/qemu",), "/kernel", "/initrd")
STDIO = Channels(console="stdio")


def values(argv: tuple[str, ...], option: str) -> list[str]:
    return [value for name, value in itertools.pairwise(argv) if name == option]


def test_argv_same_case_gives_the_same_list():
    case = cases.case(cases.LINUX, cases.ON)
    assert qemu_argv(case, FILES, STDIO) == qemu_argv(case, FILES, STDIO)


@pytest.mark.parametrize(
    ("backend", "machine"),
    [
        (cases.ON, "q35,accel=kvm,kernel-irqchip=on"),
        (cases.SPLIT, "q35,accel=kvm,kernel-irqchip=split"),
        (cases.OFF, "q35,accel=kvm,kernel-irqchip=off"),
        (cases.TCG, "q35,accel=tcg"),
    ],
)
def test_argv_backend_decides_accelerator_and_irqchip(backend, machine):
    argv = qemu_argv(cases.case(backend=backend), FILES, STDIO)
    assert values(argv, "-machine") == [machine]


def test_argv_cpu_smp_memory_and_devices_are_the_cases():
    case = cases.case(cpu="qemu64,+x2apic", smp=4, memory_mib=64, devices=("edu,addr=7",))
    argv = qemu_argv(case, FILES, STDIO)
    assert values(argv, "-cpu") == ["qemu64,+x2apic"]
    assert values(argv, "-smp") == ["4"]
    assert values(argv, "-m") == ["64M"]
    assert "edu,addr=7" in values(argv, "-device")


def test_argv_flat_image_gets_the_devices_that_it_expects():
    argv = qemu_argv(cases.case(replace(cases.FLAT, append="a b")), FILES, STDIO)
    assert {"pc-testdev", "pci-testdev", "isa-debug-exit,iobase=0xf4,iosize=4"} <= set(
        values(argv, "-device")
    )
    assert values(argv, "-append") == ["a b"]


def test_argv_flat_image_with_a_debug_console_has_it_at_its_port():
    argv = qemu_argv(cases.case(replace(cases.FLAT, output=Output.DEBUGCON)), FILES, STDIO)
    assert "isa-debugcon,iobase=0xe9,chardev=console" in values(argv, "-device")
    assert "pc-testdev" not in values(argv, "-device")  # which would take its port
    assert values(argv, "-serial") == []


@pytest.mark.parametrize(
    ("machine", "console"),
    [
        (Machine.Q35, "virtserialport,nr=1,chardev=console"),
        (Machine.MICROVM, "isa-debugcon,iobase=0x2100,chardev=console"),
    ],
)
def test_argv_probe_talks_by_what_takes_a_text_at_once_where_there_is_pci(machine, console):
    argv = qemu_argv(cases.case(ProbeGuest(()), machine=machine), FILES, STDIO)
    assert [word for word in argv if "chardev=console" in word] == [console]
    assert values(argv, "-serial") == []


def test_argv_flat_image_on_microvm_has_no_pci_device():
    argv = qemu_argv(cases.case(machine=Machine.MICROVM), FILES, STDIO)
    assert "pci-testdev" not in argv


def test_argv_linux_workloads_of_one_device_share_it():
    guest = LinuxGuest(("block-intx", "edu-quiet", "stuck-line"))
    argv = qemu_argv(cases.case(guest, cases.ON), FILES, STDIO)
    disks = [value for value in values(argv, "-device") if value.startswith("virtio-blk")]
    assert len(disks) == 1
    assert [value.split(",")[0] for value in values(argv, "-device")].count("edu") == 1


def test_argv_linux_kernel_arguments_of_workloads_and_guest_are_joined():
    guest = LinuxGuest(("rtc",), append="nosmp")
    (command_line,) = values(qemu_argv(cases.case(guest, cases.ON), FILES, STDIO), "-append")
    assert command_line == "console=ttyS0 quiet panic=-1 hpet=disable nosmp"


def test_argv_linux_on_microvm_under_tcg_is_told_the_speed_of_its_clock():
    files = replace(FILES, cpuinfo="bogomips\t: 4000.00\n")
    case = cases.case(cases.LINUX, cases.TCG, machine=Machine.MICROVM)
    (command_line,) = values(qemu_argv(case, files, STDIO), "-append")
    assert "tsc_early_khz=2000000" in command_line


def test_argv_channels_become_chardevs_with_names():
    channels = Channels(console="socket,fd=5", monitor="socket,fd=6", paused=True)
    argv = qemu_argv(cases.case(), FILES, channels)
    assert values(argv, "-chardev") == ["socket,id=console,fd=5", "socket,id=monitor,fd=6"]
    assert argv[-1] == "-S"


def test_argv_guest_that_comes_from_elsewhere_is_waited_for():
    argv = qemu_argv(cases.case(cases.LINUX), FILES, replace(STDIO, incoming=True))
    assert argv[-2:] == ("-incoming", "defer")
    assert "-incoming" not in qemu_argv(cases.case(cases.LINUX), FILES, STDIO)


@pytest.mark.parametrize(
    ("backend", "patterns"),
    [
        (cases.ON, []),
        (cases.SPLIT, ["ioapic_*", "pic_*", "kvm_irqchip_*"]),
        (cases.TCG, ["apic_*", "ioapic_*", "pic_*", "cpu_set_apic_base"]),
    ],
)
def test_argv_traces_the_chips_that_are_qemus(backend, patterns):
    argv = qemu_argv(cases.case(backend=backend), FILES, replace(STDIO, trace_log="/log"))
    assert values(argv, "-trace") == patterns


@pytest.mark.parametrize(
    ("qemu", "path", "items"), [((10, 0, 13), "/d/trace", []), ((11, 1, 3), "/d/trace.%d", ["tid"])]
)
def test_argv_threads_have_files_where_a_line_of_the_log_does_not_name_them(qemu, path, items):
    argv = qemu_argv(
        cases.case(backend=cases.SPLIT), FILES, replace(STDIO, trace_log=trace_path("/d", qemu))
    )
    assert (values(argv, "-D"), values(argv, "-d")) == ([path], items)


@pytest.mark.parametrize(
    ("guest", "backend", "items"),
    [
        (LinuxGuest(("idle",)), cases.TCG, ["int"]),
        (LinuxGuest(("idle",)), cases.OFF, []),
        (cases.case().guest, cases.TCG, []),
    ],
    ids=["linux", "kvm", "flat"],
)
def test_argv_logs_taken_interrupts_of_linux_under_tcg_only(guest, backend, items):
    files = replace(FILES, initrd="/initrd")
    argv = qemu_argv(cases.case(guest, backend), files, replace(STDIO, trace_log="/log"))
    assert values(argv, "-d") == items


def test_command_text_is_the_same_argv_to_a_shell():
    guest = FlatGuest(cases.FLAT.path, append="it's 'quoted' $HOME")
    argv = qemu_argv(cases.case(guest), FILES, STDIO)
    script = f"set -- {command_text(argv)}" + "printf '%s\\0' \"$@\""
    said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert tuple(said.split("\0")[:-1]) == argv


def test_argv_options_stand_with_their_values_in_their_order():
    case = cases.case(options=("-rtc driftfix=slew", "-no-user-config"))
    argv = qemu_argv(case, FILES, STDIO)
    assert argv[-3:] == ("-rtc", "driftfix=slew", "-no-user-config")


def test_probe_of_several_cpus_under_tcg_runs_them_in_turns():
    case = cases.case(ProbeGuest(()), cases.TCG, smp=2)
    argv = qemu_argv(case, FILES, STDIO)
    assert values(argv, "-accel") == ["tcg,thread=single"]
    assert values(argv, "-machine") == ["q35"]


def test_probe_boot_behind_a_scenario_that_hung_begins_with_the_next_one():
    case = cases.case(ProbeGuest((), first=3, far_return=True), cases.LOCAL_ON)
    argv = qemu_argv(case, FILES, STDIO)
    assert values(argv, "-append") == ["from=3 lret"]


def test_argv_deterministic_has_its_clocks_count_instructions():
    argv = qemu_argv(cases.case(backend=cases.TCG, deterministic=True), FILES, STDIO)

    assert values(argv, "-icount") == ["shift=1,sleep=off"]
    assert values(argv, "-rtc") == ["base=2026-01-01,clock=vm"]
    assert values(argv, "-seed") == ["1"]
    assert "-icount" not in qemu_argv(cases.case(backend=cases.TCG), FILES, STDIO)


def test_argv_deterministic_linux_gets_its_commands_with_the_kernel_and_another_clock():
    guest = LinuxGuest(("idle",), append="quiet")
    case = cases.case(guest, cases.TCG, deterministic=True)
    (words,) = values(qemu_argv(case, FILES, STDIO), "-append")
    microvm = replace(case, machine=Machine.MICROVM)
    (others,) = values(qemu_argv(microvm, FILES, STDIO), "-append")

    assert words.endswith(" quiet -- do:run,idle do:report do:poweroff")
    assert "tsc_early_khz=1000000 " in others


@pytest.mark.parametrize(
    ("options", "most"),
    [((), 128 << 20), (("-no-shutdown",), 128 << 20), (("-drive file=x.img",), None)],
)
def test_files_of_qemu_are_limited_where_it_has_no_disks_of_its_own(options, most):
    case = replace(cases.case(), options=options)
    assert max_file_bytes(case) == most


def test_files_of_qemu_may_hold_the_state_of_a_guest_that_moves():
    case = cases.case(LinuxGuest(("idle",), migrate=True))
    assert max_file_bytes(case) == 2 * case.memory_mib << 20
