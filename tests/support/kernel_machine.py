"""The kernel's side of the differential tests: a VM whose irqchips are driven step by step."""

import ctypes
import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from support.kvm import skip_without_irqchip
from support.mini_guest import MiniGuest
from userspace_chip.architecture import IOAPIC_BASES, IOAPIC_PINS, IOREDTBL, IOREGSEL, IOWIN
from userspace_chip.ioapic import RTE, KvmIoapicImage
from userspace_chip.kvm import abi
from userspace_chip.kvm.errors import KvmError
from userspace_chip.kvm.fds import KvmFd, VcpuFd, VmFd
from userspace_chip.kvm.layout import ioapic_to_kvm, pic_to_kvm
from userspace_chip.lapic_registers import DFR, EOI, IRR, ISR, TMCCT, TMICT
from userspace_chip.messages import MsiMessage
from userspace_chip.pic import PicChipState
from userspace_chip.ports import Irqchip
from userspace_chip.routing import Route

APIC_ADDRESS = 0xFEE0_0000
X2APIC_MSRS = 0x800
MSR_APIC_BASE = 0x1B

PIC_BYTES = ctypes.sizeof(abi.KvmPicState)
IOAPIC_BYTES = ctypes.sizeof(abi.KvmIoapicState)
UNION_OFFSET = abi.KvmIrqchip.chip.offset

CPUID_FEATURES = 1
CPUID_PHYSICAL_BITS = 0x8000_0008
ECX_X2APIC = 1 << 21
ECX_TSC_DEADLINE = 1 << 24

Registers = tuple[tuple[int, int], ...]
"""(offset, value) of the LAPIC registers that are not 0."""
Entries = tuple[tuple[int, int], ...]
"""(pin, value) of the redirection table entries that are not as after reset."""


def pic_bytes(image: abi.KvmIrqchip) -> bytes:
    return bytes(memoryview(image).cast("B")[UNION_OFFSET : UNION_OFFSET + PIC_BYTES])


def ioapic_bytes(image: abi.KvmIrqchip) -> bytes:
    return bytes(memoryview(image).cast("B")[UNION_OFFSET : UNION_OFFSET + IOAPIC_BYTES])


def lapic_bytes(image: abi.KvmLapicState) -> bytes:
    """The register page without TMCCT, which follows the host's clock."""
    page = bytearray(image)
    page[TMCCT : TMCCT + 4] = bytes(4)
    return bytes(page)


def lapic_image(registers: Registers) -> abi.KvmLapicState:
    """A register page to load; DFR is flat unless given."""
    image = abi.KvmLapicState()
    for offset, value in ((DFR, 0xFFFF_FFFF), *registers):
        _put(image, offset, value)
    return image


def serve_highest(image: abi.KvmLapicState) -> bool:
    """What an acknowledge does to a register page: the highest request goes into service.

    The timer is stopped: loading a page starts it anew, with what is left of its count.
    """
    _put(image, TMICT, 0)
    _put(image, TMCCT, 0)
    for word in reversed(range(8)):
        at = IRR + 0x10 * word
        requests = int.from_bytes(image.regs[at : at + 4], "little")
        if requests:
            bit = 1 << requests.bit_length() - 1
            _put(image, at, requests ^ bit)
            at = ISR + 0x10 * word
            _put(image, at, int.from_bytes(image.regs[at : at + 4], "little") | bit)
            return True
    return False


def _put(image: abi.KvmLapicState, offset: int, value: int) -> None:
    image.regs[offset : offset + 4] = list(value.to_bytes(4, "little"))


def ioapic_image(ioregsel: int, id_: int, irr: int, entries: Entries) -> KvmIoapicImage:
    rtes = dict(entries)
    return KvmIoapicImage(
        ioregsel, id_, irr, tuple(rtes.get(pin, RTE.reset) for pin in range(IOAPIC_PINS))
    )


@dataclass(frozen=True)
class MachineConfig:
    """What both sides are built from."""

    mode: str = "on"
    cpus: int = 1
    observed: tuple[str, ...] = ("pics", "ioapic", "lapics")
    """pics, ioapic, lapics, bases (IA32_APIC_BASE), nmis, exits (EOI exits so far)."""
    x2apic_api: int = 0
    """``KVM_CAP_X2APIC_API`` flags to enable."""


class KernelMachine:
    """One VM.  Every public method but ``observe`` is a step; its result is what KVM answered."""

    def __init__(
        self, vm: VmFd, vcpus: list[VcpuFd], observed: tuple[str, ...], physical_bits: int
    ) -> None:
        self.physical_bits = physical_bits
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

    def _observe_lapics(self, state: dict[str, bytes]) -> None:
        for vcpu in self._vcpus:
            state[f"lapic{vcpu.index}"] = lapic_bytes(vcpu.get_lapic())

    def _observe_bases(self, state: dict[str, bytes]) -> None:
        for vcpu in self._vcpus:
            base = vcpu.get_msr(MSR_APIC_BASE)
            assert base is not None
            state[f"base{vcpu.index}"] = base.to_bytes(8, "big")

    def _observe_nmis(self, state: dict[str, bytes]) -> None:
        for vcpu in self._vcpus:
            state[f"nmi{vcpu.index}"] = bytes([vcpu.get_events().nmi_pending != 0])

    def _observe_exits(self, state: dict[str, bytes]) -> None:
        state["exits"] = bytes(number for exit_ in self._guest.eois for number in exit_)

    # ------------------------------------------------------------ states

    def load_pic(self, chip: Irqchip, state: PicChipState) -> None:
        self._vm.set_irqchip(pic_to_kvm(chip, state))

    def load_ioapic(self, ioregsel: int, id_: int, irr: int, entries: Entries) -> None:
        self._vm.set_irqchip(ioapic_to_kvm(ioapic_image(ioregsel, id_, irr, entries)))

    def load_lapic(self, vcpu: int, registers: Registers) -> str | None:
        try:
            self._vcpus[vcpu].set_lapic(lapic_image(registers))
        except KvmError as error:
            return errno.errorcode[error.errno]
        return None

    def serve(self, vcpu: int) -> bool:
        """Acknowledge by hand (interrupts are disabled): get, change and set the state."""
        image = self._vcpus[vcpu].get_lapic()
        if not serve_highest(image):
            return False
        self._vcpus[vcpu].set_lapic(image)
        return True

    # ------------------------------------------------------------ messages

    def routes(self, *routes: Route) -> str | None:
        try:
            self._vm.set_gsi_routing(routes)
        except KvmError as error:
            return errno.errorcode[error.errno]
        return None

    def line(self, gsi: int, level: int) -> int:
        return self._vm.irq_line_status(gsi, bool(level))

    def msi(self, address: int, data: int) -> int | str:
        try:
            return self._vm.signal_msi(MsiMessage(address, data))
        except KvmError as error:
            return errno.errorcode[error.errno]

    def interrupt(self, vcpu: int, vector: int) -> str | None:
        try:
            self._vcpus[vcpu].interrupt(vector)
        except KvmError as error:
            return errno.errorcode[error.errno]
        return None

    def nmi(self, vcpu: int) -> None:
        self._vcpus[vcpu].nmi()

    def mp_state(self, vcpu: int) -> str:
        """Asking for it makes KVM act on INIT and SIPI."""
        return self._vcpus[vcpu].get_mp_state().name

    # ------------------------------------------------------------ registers, by a guest

    def port_in(self, port: int, size: int = 1) -> int:
        return self._guest.port_in(0, port, size)

    def port_out(self, port: int, value: int, size: int = 1) -> None:
        self._guest.port_out(0, port, value, size)

    def read(self, vcpu: int, address: int, size: int = 4) -> int:
        return self._guest.read(vcpu, address, size)

    def write(self, vcpu: int, address: int, value: int, size: int = 4) -> None:
        self._guest.write(vcpu, address, value, size)
        if address == APIC_ADDRESS + EOI:
            self._guest.idle(vcpu)

    def rte(self, pin: int, half: int, value: int) -> None:
        """Write the low (0) or high (1) half of a redirection table entry."""
        self._guest.write(0, IOAPIC_BASES[0] + IOREGSEL, IOREDTBL + 2 * pin + half)
        self._guest.write(0, IOAPIC_BASES[0] + IOWIN, value)

    def rdmsr(self, vcpu: int, index: int) -> int | None:
        value = self._guest.rdmsr(vcpu, index)
        if value is None:
            self._guest.idle(vcpu)
        return value

    def wrmsr(self, vcpu: int, index: int, value: int) -> bool:
        done = self._guest.wrmsr(vcpu, index, value)
        if not done or index == X2APIC_MSRS + (EOI >> 4):
            self._guest.idle(vcpu)
        return done

    def take(self) -> int | None:
        return self._guest.take(0)

    def idle(self, vcpu: int) -> None:
        self._guest.idle(vcpu)

    # ------------------------------------------------------------ registers, by ioctl

    def get_msr(self, vcpu: int, index: int) -> int | None:
        return self._vcpus[vcpu].get_msr(index)

    def set_msr(self, vcpu: int, index: int, value: int) -> bool:
        return self._vcpus[vcpu].set_msr(index, value)


def guest_cpuid(kvm: KvmFd) -> tuple[abi.KvmCpuidEntry2, ...]:
    """All that KVM offers, with x2APIC and TSC-deadline: the profiles' default."""
    leaves = kvm.supported_cpuid()
    for leaf in leaves:
        if leaf.function == CPUID_FEATURES:
            leaf.ecx |= ECX_X2APIC | ECX_TSC_DEADLINE
    return leaves


def physical_bits(cpuid: tuple[abi.KvmCpuidEntry2, ...]) -> int:
    """MAXPHYADDR of the guest."""
    return next(leaf.eax & 0xFF for leaf in cpuid if leaf.function == CPUID_PHYSICAL_BITS)


@contextmanager
def kernel_machine(config: MachineConfig) -> Iterator[KernelMachine]:
    """A fresh VM of this irqchip mode; skips the test where there can be none."""
    skip_without_irqchip(config.mode)
    with KvmFd() as kvm, kvm.create_vm() as vm:
        if config.mode == "on":
            vm.create_irqchip()
            vm.create_pit2()
        else:
            vm.enable_split_irqchip()
        if config.x2apic_api:
            vm.enable_cap(abi.Cap.X2APIC_API, config.x2apic_api)
        cpuid = guest_cpuid(kvm)
        vcpus = [vm.create_vcpu(index) for index in range(config.cpus)]
        for vcpu in vcpus:
            vcpu.set_cpuid(cpuid)
            # A new vCPU is missing in KVM's APIC map until something makes KVM recompute it.
            vcpu.set_lapic(vcpu.get_lapic())
        yield KernelMachine(vm, vcpus, config.observed, physical_bits(cpuid))
