"""The kernel's side of the differential tests: a VM whose irqchips are driven step by step."""

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from support.kvm import skip_without_irqchip
from support.mini_guest import MiniGuest

from userspace_chip.ioapic import KvmIoapicImage
from userspace_chip.kvm import abi
from userspace_chip.kvm.fds import KvmFd, Route, VcpuFd, VmFd
from userspace_chip.kvm.layout import ioapic_to_kvm, pic_to_kvm
from userspace_chip.pic import PicChipState
from userspace_chip.ports import Irqchip

PIC_BYTES = ctypes.sizeof(abi.KvmPicState)
IOAPIC_BYTES = ctypes.sizeof(abi.KvmIoapicState)
UNION_OFFSET = abi.KvmIrqchip.chip.offset


def pic_bytes(image: abi.KvmIrqchip) -> bytes:
    return bytes(memoryview(image).cast("B")[UNION_OFFSET : UNION_OFFSET + PIC_BYTES])


def ioapic_bytes(image: abi.KvmIrqchip) -> bytes:
    return bytes(memoryview(image).cast("B")[UNION_OFFSET : UNION_OFFSET + IOAPIC_BYTES])


class KernelMachine:
    """One VM.  Every public method but ``observe`` is a step; its result is what KVM answered."""

    def __init__(self, vm: VmFd, vcpus: list[VcpuFd], observed: tuple[str, ...]) -> None:
        self._vm = vm
        self._vcpus = vcpus
        self._guest = MiniGuest(vm, vcpus)
        self._observers = [getattr(self, f"_observe_{part}") for part in observed]

    def observe(self) -> Mapping[str, bytes]:
        state: dict[str, bytes] = {}
        for observer in self._observers:
            observer(state)
        return state

    def _observe_pics(self, state: dict[str, bytes]) -> None:
        state["pic0"] = pic_bytes(self._vm.get_irqchip(Irqchip.PIC_MASTER))
        state["pic1"] = pic_bytes(self._vm.get_irqchip(Irqchip.PIC_SLAVE))

    def _observe_ioapic(self, state: dict[str, bytes]) -> None:
        state["ioapic"] = ioapic_bytes(self._vm.get_irqchip(Irqchip.IOAPIC))

    # ------------------------------------------------------------ states

    def load_pic(self, chip: Irqchip, state: PicChipState) -> None:
        self._vm.set_irqchip(pic_to_kvm(chip, state))

    def load_ioapic(self, image: KvmIoapicImage) -> None:
        self._vm.set_irqchip(ioapic_to_kvm(image))

    # ------------------------------------------------------------ messages

    def routes(self, *routes: Route) -> None:
        self._vm.set_gsi_routing(routes)

    def line(self, gsi: int, level: int) -> int:
        return self._vm.irq_line_status(gsi, bool(level))

    def msi(self, address: int, data: int) -> int:
        return self._vm.signal_msi(address, data)

    # ------------------------------------------------------------ registers, by a guest

    def port_in(self, port: int, size: int = 1) -> int:
        return self._guest.port_in(0, port, size)

    def port_out(self, port: int, value: int, size: int = 1) -> None:
        self._guest.port_out(0, port, value, size)

    def take(self) -> int | None:
        return self._guest.take(0)


@contextmanager
def kernel_machine(
    mode: str, observed: tuple[str, ...], *, cpus: int = 1
) -> Iterator[KernelMachine]:
    """A fresh VM of this irqchip mode; skips the test where there can be none."""
    skip_without_irqchip(mode)
    with KvmFd() as kvm, kvm.create_vm() as vm:
        if mode == "on":
            vm.create_irqchip()
        else:
            vm.enable_split_irqchip()
        vcpus = [vm.create_vcpu(index) for index in range(cpus)]
        yield KernelMachine(vm, vcpus, observed)
