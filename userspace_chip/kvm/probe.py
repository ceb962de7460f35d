"""What the local KVM can do, and how fast a guest runs on it: facts for ``irqmatrix doctor``.

Neither function is ever fatal or endless: a missing KVM is a result, and the speed payload runs in
counted portions that each come back by themselves.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from userspace_chip.kvm import abi
from userspace_chip.kvm.errors import KvmError, UnexpectedExitError
from userspace_chip.kvm.fds import KVM_API_VERSION, KvmFd, VcpuFd

VENDOR_MODULES: Final = ("kvm_intel", "kvm_amd", "kvm_pvm")
"""The kernel modules that can provide /dev/kvm; ``kvm_pvm`` needs no VMX or SVM."""
EMULATING_MODULE: Final = "kvm_pvm"
"""It emulates guests that do not know of it: without IRET, and each interrupt has its EOI early."""

CpuFlag = Literal["vmx", "svm"]


@dataclass(frozen=True)
class KvmProbe:
    """What was found out about one KVM device."""

    path: str
    error: str | None
    """Why the device cannot be used; ``None`` where it can."""
    api_version: int | None = None
    caps: Mapping[str, int] = field(default_factory=dict)
    """``KVM_CHECK_EXTENSION`` by name (:class:`~userspace_chip.kvm.abi.Cap`); 0 is missing."""
    irqchip_errors: Mapping[str, str | None] = field(default_factory=dict)
    """By mode (``on``, ``split``): why no such irqchip can be made; ``None`` where it was made."""
    module: str | None = None
    """The vendor module, where exactly one is loaded; ``None`` where it is not known."""
    nested: bool | None = None
    """The module's ``nested`` parameter; ``None`` where it has none."""
    cpu_flag: CpuFlag | None = None
    """The virtualisation extension in /proc/cpuinfo; ``None`` where the CPU shows neither."""

    @property
    def usable(self) -> bool:
        """Whether the device opened and speaks our API."""
        return self.error is None

    def why_not(self, mode: Literal["on", "split"]) -> str | None:
        """Why no irqchip of this mode can be had here; ``None`` where it can."""
        return self.error if not self.usable else self.irqchip_errors[mode]


@dataclass(frozen=True)
class GuestSpeed:
    """How fast a vCPU executes a register-only loop."""

    instructions: int
    duration_s: float

    @property
    def instructions_per_s(self) -> float:
        """About 2e6 where KVM emulates every instruction, above 1e9 on hardware."""
        return self.instructions / self.duration_s


def probe_kvm(
    path: str = "/dev/kvm", *, sys: Path = Path("/sys"), proc: Path = Path("/proc")
) -> KvmProbe:
    """Open ``path`` and ask; what is missing is named in the result, nothing is raised.

    ``sys`` and ``proc`` are where sysfs and procfs are mounted.
    """
    module = _vendor_module(sys)
    nested = None if module is None else _nested(sys, module)
    cpu_flag = _cpu_flag(proc)
    try:
        with KvmFd(path) as kvm:
            return KvmProbe(
                path=path,
                error=None,
                api_version=KVM_API_VERSION,
                caps={cap.name: kvm.check_extension(cap) for cap in abi.Cap},
                irqchip_errors={
                    "on": _irqchip_error(kvm, split=False),
                    "split": _irqchip_error(kvm, split=True),
                },
                module=module,
                nested=nested,
                cpu_flag=cpu_flag,
            )
    except KvmError as error:
        return KvmProbe(path, str(error), module=module, nested=nested, cpu_flag=cpu_flag)


def _irqchip_error(kvm: KvmFd, *, split: bool) -> str | None:
    try:
        with kvm.create_vm() as vm:
            if split:
                vm.enable_split_irqchip()
            else:
                vm.create_irqchip()
            vm.create_vcpu(0).get_lapic()
    except KvmError as error:
        return str(error)
    return None


def _vendor_module(sys: Path) -> str | None:
    loaded = [name for name in VENDOR_MODULES if (sys / "module" / name).is_dir()]
    return loaded[0] if len(loaded) == 1 else None


def _nested(sys: Path, module: str) -> bool | None:
    return _parameter(sys, module, "nested")


def _parameter(sys: Path, module: str, name: str) -> bool | None:
    try:
        text = (sys / "module" / module / "parameters" / name).read_text(encoding="ascii")
    except OSError:
        return None
    return text.strip() in ("Y", "1")


def assists(kvm: KvmProbe, sys: Path = Path("/sys")) -> tuple[str, ...]:
    """The hardware that delivers interrupts and that the module uses: ``avic``, ``apicv``.

    By the parameters of the modules (Linux 6.1 ``arch/x86/kvm/svm/svm.c``, ``vmx/vmx.c``).
    """
    parameter = {"kvm_amd": "avic", "kvm_intel": "enable_apicv"}.get(kvm.module or "")
    if parameter is None:
        return ()
    is_used = _parameter(sys, str(kvm.module), parameter)
    return (parameter.removeprefix("enable_"),) if is_used else ()


def _cpu_flag(proc: Path) -> CpuFlag | None:
    try:
        text = (proc / "cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("flags"):
            flags = line.split()
            return "vmx" if "vmx" in flags else "svm" if "svm" in flags else None
    return None


# ---------------------------------------------------------------- speed

_TSS_ADDRESS: Final = 0x7FFD_0000  # anywhere without memory: see VmFd.set_tss_addr
_SPEED_CODE_ADDRESS: Final = 0x1000
_SPEED_CODE: Final = bytes.fromhex(
    "66 e5 10"  # again: in   eax, 0x10     how many turns? (a 32-bit read from user space)
    "66 48"  #     turn:  dec  eax
    "75 fc"  #            jnz  turn
    "eb f7"  #            jmp  again
)
_INSTRUCTIONS_PER_TURN: Final = 2
_FIRST_TURNS: Final = 2_000  # a few milliseconds at the worst
_MAX_TURNS: Final = 0xFFFF_FFFF


def measure_guest_speed(path: str = "/dev/kvm", *, budget_s: float = 0.5) -> GuestSpeed:
    """Run a counting loop on a vCPU for about ``budget_s`` seconds.

    The loop asks for its next number of turns at a port, so that every entry is bounded by a
    number that grows only with the speed already seen.  Raises
    :class:`~userspace_chip.kvm.errors.KvmError` where there is no KVM or the vCPU cannot run.
    """
    with KvmFd(path) as kvm, kvm.create_vm() as vm:
        memory = vm.map_memory(0, 0x10000)
        memory[_SPEED_CODE_ADDRESS : _SPEED_CODE_ADDRESS + len(_SPEED_CODE)] = _SPEED_CODE
        vm.set_tss_addr(_TSS_ADDRESS)
        vcpu = vm.create_vcpu(0)
        vcpu.start_real_mode(_SPEED_CODE_ADDRESS)
        _run_to_request(vcpu)
        turns, total, elapsed_s = _FIRST_TURNS, 0, 0.0
        while True:
            vcpu.io_data()[:] = turns.to_bytes(4, "little")
            start_s = time.perf_counter()
            _run_to_request(vcpu)
            last_s = time.perf_counter() - start_s
            total += turns
            elapsed_s += last_s
            left_s = budget_s - elapsed_s
            affordable = int(turns * left_s / max(last_s, 1e-9))
            turns = min(4 * turns, affordable, _MAX_TURNS)
            if turns < _FIRST_TURNS:
                return GuestSpeed(_INSTRUCTIONS_PER_TURN * total, elapsed_s)


def _run_to_request(vcpu: VcpuFd) -> None:
    reason = vcpu.run()
    while reason is abi.ExitReason.INTR:
        reason = vcpu.run()
    if reason is not abi.ExitReason.IO:
        raise UnexpectedExitError(reason.name, "measuring the guest's speed")
