"""The model's side of the differential tests: the same steps on a ``Machine``."""

import errno
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from support.differential import Subject
from support.kernel_machine import (
    APIC_ADDRESS,
    MSR_APIC_BASE,
    X2APIC_MSRS,
    Entries,
    KernelMachine,
    MachineConfig,
    Registers,
    ioapic_bytes,
    ioapic_image,
    kernel_machine,
    lapic_bytes,
    lapic_image,
    pic_bytes,
    serve_highest,
)
from support.kvm import local_kvm, local_linux
from support.mini_guest import EXCEPTION_GP
from userspace_chip.architecture import IOAPIC_BASES, IOREDTBL, IOREGSEL, IOWIN
from userspace_chip.errors import RouteError, StateError, VectorRangeError
from userspace_chip.irqchip import Machine
from userspace_chip.kvm import abi
from userspace_chip.kvm.layout import (
    ioapic_to_kvm,
    lapic_to_kvm,
    pic_to_kvm,
    restore_irqchip,
    restore_lapic,
)
from userspace_chip.lapic_registers import EOI, ISR, NAMES, PPR, TMR, TPR
from userspace_chip.pic import PicChipState
from userspace_chip.ports import Irqchip
from userspace_chip.profile import Profile, profile, tune
from userspace_chip.routing import Route, RoutingTable, kernel_default
from userspace_chip.vcpu import Entry, Exit, MpState


def local_profile(config: MachineConfig) -> Profile:
    """The running kernel's profile, as far as its version and capabilities tell."""
    flags = config.x2apic_api
    return tune(
        profile(config.mode, linux=local_linux()),
        lapic__smi_accepted=bool(local_kvm().caps["X86_SMM"]),
        lapic__x2apic_icr_split=local_kvm().module == "kvm_amd",
        delivery__ids_32bit=bool(flags & abi.X2apicApiFlag.USE_32BIT_IDS),
        delivery__broadcast_quirk=not flags & abi.X2apicApiFlag.DISABLE_BROADCAST_QUIRK,
    )


class ModelMachine:
    """See :class:`~support.kernel_machine.KernelMachine`: the same methods, the same meaning."""

    def __init__(self, config: MachineConfig, *, physical_bits: int) -> None:
        self.machine = machine = Machine(
            local_profile(config),
            config.cpus,
            routes=kernel_default() if config.mode == "on" else RoutingTable(),
            log=False,
            reset=False,
            physical_bits=physical_bits,
        )
        self._exits: list[int] = []
        self._ids_32bit = machine.profile.delivery.ids_32bit
        self._observers = [getattr(self, f"_observe_{part}") for part in config.observed]
        for cpu, vcpu in enumerate(machine.vcpus):
            vcpu.state.mp_state = MpState.RUNNABLE  # as the guest's start makes it
            self._enter(cpu)

    def observe(self) -> Mapping[str, bytes]:
        state: dict[str, bytes] = {}
        for observer in self._observers:
            observer(state)
        return state

    def _observe_pics(self, state: dict[str, bytes]) -> None:
        for chip in (Irqchip.PIC_MASTER, Irqchip.PIC_SLAVE):
            image = pic_to_kvm(chip, self.machine.pic.state.chips[chip])
            state[f"pic{int(chip)}"] = pic_bytes(image)

    def _observe_ioapic(self, state: dict[str, bytes]) -> None:
        image = self.machine.ioapics[0].get_irqchip()
        state["ioapic"] = ioapic_bytes(ioapic_to_kvm(image))

    def _observe_lapics(self, state: dict[str, bytes]) -> None:
        for cpu in range(len(self.machine.lapics)):
            state[f"lapic{cpu}"] = lapic_bytes(self._page(cpu))

    def _observe_bases(self, state: dict[str, bytes]) -> None:
        for cpu, lapic in enumerate(self.machine.lapics):
            state[f"base{cpu}"] = lapic.state.apic_base.to_bytes(8, "big")

    def _observe_nmis(self, state: dict[str, bytes]) -> None:
        for cpu, vcpu in enumerate(self.machine.vcpus):
            pending = vcpu.state.nmi_queued + vcpu.state.nmi_pending
            state[f"nmi{cpu}"] = bytes([pending != 0])

    def _observe_exits(self, state: dict[str, bytes]) -> None:
        state["exits"] = bytes(self._exits)

    def _page(self, cpu: int) -> abi.KvmLapicState:
        lapic = self.machine.lapics[cpu]
        return lapic_to_kvm(
            lapic.state,
            version=lapic.version,
            ids_32bit=self._ids_32bit,
            icr_split=self.machine.profile.lapic.x2apic_icr_split,
        )

    # ------------------------------------------------------------ states

    def load_pic(self, chip: Irqchip, state: PicChipState) -> None:
        restore_irqchip(self.machine, pic_to_kvm(chip, state))

    def load_ioapic(self, ioregsel: int, id_: int, irr: int, entries: Entries) -> None:
        image = ioapic_image(ioregsel, id_, irr, entries)
        restore_irqchip(self.machine, ioapic_to_kvm(image))

    def load_lapic(self, vcpu: int, registers: Registers) -> str | None:
        try:
            restore_lapic(self.machine, vcpu, lapic_image(registers))
        except StateError:
            return "EINVAL"
        return None

    def serve(self, vcpu: int) -> bool:
        image = self._page(vcpu)
        if not serve_highest(image):
            return False
        restore_lapic(self.machine, vcpu, image)
        return True

    # ------------------------------------------------------------ messages

    def routes(self, *routes: Route) -> str | None:
        try:
            self.machine.set_routes(routes)
        except RouteError:
            return "EINVAL"
        return None

    def line(self, gsi: int, level: int) -> int:
        return self.machine.irq_line(gsi, level)

    def msi(self, address: int, data: int) -> int | str:
        try:
            return self.machine.signal_msi(address, data)
        except RouteError:
            return "EINVAL"

    def interrupt(self, vcpu: int, vector: int) -> str | None:
        try:
            result = self.machine.interrupt(vcpu, vector)
        except VectorRangeError:
            return "EINVAL"
        return errno.errorcode[-result] if result else None

    def nmi(self, vcpu: int) -> None:
        self.machine.nmi(vcpu)

    def mp_state(self, vcpu: int) -> str:
        cpu = self.machine.vcpus[vcpu]
        cpu.accept_events()
        return cpu.state.mp_state.name

    # ------------------------------------------------------------ registers, by a guest

    def _enter(self, cpu: int, interruptible: bool = False) -> Entry:
        """Enter the guest; like the kernel's side, note EOI exits and do nothing about them."""
        machine = self.machine
        entry = machine.step(cpu, interruptible)
        while entry.exit is Exit.IOAPIC_EOI:
            vector = machine.vcpus[cpu].state.ioapic_eoi
            assert vector is not None
            self._exits += (cpu, vector)
            entry = machine.step(cpu, interruptible)
        return entry

    def idle(self, vcpu: int) -> None:
        self._enter(vcpu)
        self.machine.exit(vcpu)

    def port_in(self, port: int, size: int = 1) -> int:
        self._enter(0)
        value = self.machine.pio_read(0, port, size)
        self.machine.exit(0)
        return value

    def port_out(self, port: int, value: int, size: int = 1) -> None:
        self._enter(0)
        self.machine.pio_write(0, port, value, size)
        self.machine.exit(0)

    def read(self, vcpu: int, address: int, size: int = 4) -> int:
        self._enter(vcpu)
        value = self.machine.mmio_read(vcpu, address, size)
        self.machine.exit(vcpu)
        return value

    def write(self, vcpu: int, address: int, value: int, size: int = 4) -> None:
        self._enter(vcpu)
        self.machine.mmio_write(vcpu, address, size, value)
        self.machine.exit(vcpu)
        if address == APIC_ADDRESS + EOI:
            self.idle(vcpu)

    def rte(self, pin: int, half: int, value: int) -> None:
        self.write(0, IOAPIC_BASES[0] + IOREGSEL, IOREDTBL + 2 * pin + half)
        self.write(0, IOAPIC_BASES[0] + IOWIN, value)

    def rdmsr(self, vcpu: int, index: int) -> int | None:
        self._enter(vcpu)
        value = self.machine.msr_read(vcpu, index)
        self.machine.exit(vcpu)
        if value is None:
            self._fault(vcpu)
        return value

    def _fault(self, vcpu: int) -> None:
        """The #GP is injected at one more entry, and interrupts are looked at again after that."""
        self.machine.vcpus[vcpu].queue_exception(EXCEPTION_GP, error_code=True)
        self.idle(vcpu)
        self.idle(vcpu)

    def wrmsr(self, vcpu: int, index: int, value: int) -> bool:
        self._enter(vcpu)
        done = self.machine.msr_write(vcpu, index, value)
        self.machine.exit(vcpu)
        if not done:
            self._fault(vcpu)
        elif index == X2APIC_MSRS + (EOI >> 4):
            self.idle(vcpu)
        return done

    def take(self) -> int | None:
        self._enter(0)
        self.machine.exit(0)
        vector = self._enter(0, interruptible=True).vector
        self.machine.exit(0)
        return vector

    # ------------------------------------------------------------ registers, by ioctl

    def get_msr(self, vcpu: int, index: int) -> int | None:
        return self.machine.msr_read(vcpu, index)

    def set_msr(self, vcpu: int, index: int, value: int) -> bool:
        if index == MSR_APIC_BASE:
            return self.machine.lapics[vcpu].set_apic_base(value, host=True)
        return self.machine.msr_write(vcpu, index, value)


def open_pair(
    config: MachineConfig,
) -> Callable[[], AbstractContextManager[tuple[Subject, Subject]]]:
    @contextmanager
    def pair() -> Iterator[tuple[KernelMachine, ModelMachine]]:
        with kernel_machine(config) as kernel:
            yield kernel, ModelMachine(config, physical_bits=kernel.physical_bits)

    return pair


def explain(part: str, kernel: bytes, model: bytes) -> list[str]:
    """Which registers differ."""
    if part.startswith("pic"):
        return _explain_fields(part, abi.KvmPicState, kernel, model)
    if part == "ioapic":
        lines = _explain_fields(part, abi.KvmIoapicState, kernel, model)
        left, right = (abi.KvmIoapicState.from_buffer_copy(raw).redirtbl for raw in (kernel, model))
        return lines + [
            f"ioapic.redirtbl[{pin}]: kernel {left[pin]:#x}, model {right[pin]:#x}"
            for pin in range(len(left))
            if left[pin] != right[pin]
        ]
    if part.startswith("lapic"):
        return [
            f"{part}.{NAMES.get(at & ~15, hex(at))}: kernel {kernel[at : at + 4][::-1].hex()},"
            f" model {model[at : at + 4][::-1].hex()}"
            for at in range(0, len(kernel), 4)
            if kernel[at : at + 4] != model[at : at + 4] and not (at == PPR and _fresh_ppr(kernel))
        ]
    return [f"{part}: kernel {kernel.hex(' ')}, model {model.hex(' ')}"]


def _fresh_ppr(page: bytes) -> bool:
    """Whether PPR follows from TPR and ISR, which it need not right after a page was loaded.

    KVM recomputes it when it looks for an interrupt, and may look more often than it has to: no
    disagreement where the kernel's PPR is fresh and the model's is not yet.
    """
    words = [int.from_bytes(page[at : at + 4], "little") for at in range(ISR, TMR, 0x10)]
    isr = sum(word << 32 * index for index, word in enumerate(words))
    in_service = isr.bit_length() - 1 & 0xF0 if isr else 0
    tpr = page[TPR]
    return page[PPR] == (tpr if tpr & 0xF0 >= in_service else in_service)


def _explain_fields(
    part: str, kind: type[abi.KvmPicState | abi.KvmIoapicState], kernel: bytes, model: bytes
) -> list[str]:
    left, right = kind.from_buffer_copy(kernel), kind.from_buffer_copy(model)
    return [
        f"{part}.{name}: kernel {getattr(left, name):#x}, model {getattr(right, name):#x}"
        for name in kind.__annotations__
        if name != "redirtbl" and getattr(left, name) != getattr(right, name)
    ]
