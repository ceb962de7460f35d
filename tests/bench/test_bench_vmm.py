"""Port exits under the VMM beside a bare loop of the ioctl, and level interrupts beside QEMU's.

The times are the process's own: what else runs on the machine does not count.
"""

from __future__ import annotations

import resource
import struct
import subprocess
import sys
import time

import pytest

from harness.guests.kinds.devices import TEST_DEVICES
from support import flat_image
from support import multiboot as images
from support.kvm import skip_without_irqchip
from support.qtest import system_qemu
from userspace_chip.kvm import abi, boot, vmm
from userspace_chip.kvm.entry import enter
from userspace_chip.kvm.fds import KvmFd
from userspace_chip.kvm.split import SplitIrqchip
from userspace_chip.profile import profile

FEW, MANY = 1_000, 21_000
"""Rounds of an interrupt; what their difference takes is free of starting and ending."""
MOST_OF_QEMUS_ROUND = 5.0
EXITS = 60_000
BASE = 0x200000
MEMORY_BYTES = 4 << 20
EXIT_PORT = 0xF4
CODE = b"\xb9" + struct.pack("<I", EXITS) + bytes.fromhex("e6 80 49 75 fb b0 00 e6 f4 f4")
"""mov ecx, EXITS; again: out 0x80, al; dec ecx; jnz again; mov al, 0; out 0xf4, al; hlt"""
IMAGE = (
    images.header(flags=images.HAS_ADDRESSES)
    + struct.pack("<5I", BASE, BASE, 0, 0, BASE + 32)
    + CODE
)


def bare_loop() -> None:
    """KVM_RUN, and a look at the port."""
    with KvmFd() as kvm, kvm.create_vm() as vm:
        vm.map_memory(0, MEMORY_BYTES)[BASE : BASE + len(IMAGE)] = IMAGE
        vm.enable_split_irqchip()
        vcpu = vm.create_vcpu(0)
        enter(vcpu, boot.entered_at(BASE + 32))
        while vcpu.run() is not abi.ExitReason.IO or vcpu.kvm_run.exit.io.port != EXIT_PORT:
            pass


def under_vmm(*, with_events: bool) -> None:
    def make(vm, cpus, kick):
        return SplitIrqchip(vm, profile("split"), kick, "route")

    guest = vmm.Guest(IMAGE, memory_mib=4)
    events = (lambda taken: None) if with_events else None
    with vmm.Vmm(guest, make, lambda text: None, events=events) as machine:
        assert machine.run(60).end is vmm.End.EXIT


def rate(run) -> float:
    start_s = time.process_time()
    run()
    return EXITS / (time.process_time() - start_s)


@pytest.mark.parametrize(("with_events", "least"), [(False, 0.60), (True, 0.35)])
def test_bench_port_exits_beside_a_bare_loop(benchmark, with_events, least):
    skip_without_irqchip("split")

    def ratios() -> float:
        return rate(lambda: under_vmm(with_events=with_events)) / rate(bare_loop)

    best = max(benchmark.pedantic(ratios, rounds=1), ratios(), ratios())
    benchmark.extra_info["of a bare loop"] = round(best, 2)

    assert best >= least


def child_s(command: list[str], status: int) -> float:
    """The CPU time of a process that has to end with ``status``."""

    def used_s() -> float:
        found = resource.getrusage(resource.RUSAGE_CHILDREN)
        return found.ru_utime + found.ru_stime

    before_s = used_s()
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status, done.stderr
    return used_s() - before_s


def test_bench_round_of_a_level_interrupt_beside_qemus(benchmark, tmp_path):
    skip_without_irqchip("split")
    if (qemu := system_qemu()) is None:
        pytest.skip("there is no qemu-system-x86_64")
    few, many = (
        str(flat_image.assemble(tmp_path, f"level-{rounds}", "level.S", f"-DROUNDS={rounds}"))
        for rounds in (FEW, MANY)
    )
    machine = "q35,accel=kvm,kernel-irqchip=split"
    by_qemu = [
        *(str(qemu), "-machine", machine, "-m", "64", "-nodefaults", "-display", "none"),
        *TEST_DEVICES,
    ]
    by_vmm = [sys.executable, "-m", "userspace_chip.kvm", "--irqchip", "split"]

    def ratio() -> float:
        ours_s = child_s([*by_vmm, many], 0) - child_s([*by_vmm, few], 0)
        qemus_s = child_s([*by_qemu, "-kernel", many], 1) - child_s([*by_qemu, "-kernel", few], 1)
        return ours_s / qemus_s

    least = min(benchmark.pedantic(ratio, rounds=1), ratio(), ratio())
    benchmark.extra_info["of QEMU's round"] = round(least, 2)

    assert least <= MOST_OF_QEMUS_ROUND
