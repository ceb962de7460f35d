"""The VMM's answers to exits, without a KVM."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from userspace_chip.irqchip import Machine
from userspace_chip.kvm import abi
from userspace_chip.kvm.vmm import Guest, Vmm
from userspace_chip.profile import profile

NOW_NS = 7_000_000


class Irqchip:
    """A mode that keeps when it was asked to handle an exit."""

    def __init__(self):
        self.chips = Machine(profile("off"), 1, board="q35", log=False)
        self.handled_ns = []

    def after_run(self, cpu):
        pass

    def settle(self):
        pass

    def handle(self, cpu, reason):
        self.handled_ns.append(self.chips.now_ns)
        return True


@pytest.mark.parametrize("reason", [abi.ExitReason.IOAPIC_EOI, abi.ExitReason.X86_WRMSR])
def test_exit_that_may_start_a_timer_is_handled_at_its_own_time(monkeypatch, reason):
    irqchip = Irqchip()
    vmm = Vmm(Guest(b""), lambda vm, cpus, kick: irqchip, lambda text: None)
    vmm._irqchip, vmm._chips = irqchip, irqchip.chips
    monkeypatch.setattr(vmm, "_now_ns", lambda: NOW_NS)

    vmm._handle(SimpleNamespace(vcpu=SimpleNamespace(index=0)), reason)

    assert irqchip.handled_ns == [NOW_NS]
