"""A guest of 145 bytes that does the register accesses it is told to, and nothing else.

A vCPU in real mode (flat 4 GiB segments) stops at port 0x10 after each command.  The next one lies
in the vCPU's own mailbox, which FS points to::

    FS:0   u16  address of the command's handler
    FS:4   u32  operand: memory address, port or MSR number
    FS:8   u32  value to write; what was read
    FS:12  u32  high half of an MSR's value
    FS:16  u8   set to 1 by a #GP
    FS:20  u16  where the interrupt that came in was entered, see STUBS_ADDRESS

Interrupts stay disabled (EFLAGS.IF = 0) but for the command ``take``, so that nothing is injected:
a delivered interrupt stays in IRR where it can be compared.  That also keeps apart what a KVM
backend does of itself: ``kvm_pvm`` writes an EOI to the APIC when it injects into an emulated
guest, so ``take`` is for the PIC's interrupts, with nothing in service in the LAPIC.
"""

import struct

from userspace_chip.kvm import abi
from userspace_chip.kvm.fds import VcpuFd, VmFd

COMMAND_PORT = 0x10
CODE_ADDRESS = 0x1000
MAILBOX_ADDRESS = 0x8000
MAILBOX_BYTES = 0x100
MEMORY_BYTES = 0x10000
EXCEPTION_GP = 13
STUBS_ADDRESS = 0x2000
"""256 times four bytes, ``call interrupt`` and a filler: the return address tells the vector."""
STUB_BYTES = 4
CALL_BYTES = 3
NO_INTERRUPT = 0

LISTING = (
    # label, machine code, assembly
    ("done", "e6 10", "out 0x10, al           ; command done, user space writes the next"),
    ("", "64 66 8b 1e 04 00", "mov ebx, fs:[4]        ; operand"),
    ("", "66 89 da", "mov edx, ebx           ; port commands want it there"),
    ("", "64 66 a1 08 00", "mov eax, fs:[8]        ; value"),
    ("", "64 ff 26 00 00", "jmp fs:[0]"),
    ("store", "64 66 a3 08 00", "mov fs:[8], eax"),
    ("", "eb e4", "jmp done"),
    ("read1", "67 8a 03", "mov al, [ebx]"),
    ("", "eb f4", "jmp store"),
    ("read2", "67 8b 03", "mov ax, [ebx]"),
    ("", "eb ef", "jmp store"),
    ("read4", "67 66 8b 03", "mov eax, [ebx]"),
    ("", "eb e9", "jmp store"),
    ("write1", "67 88 03", "mov [ebx], al"),
    ("", "eb cf", "jmp done"),
    ("write2", "67 89 03", "mov [ebx], ax"),
    ("", "eb ca", "jmp done"),
    ("write4", "67 66 89 03", "mov [ebx], eax"),
    ("", "eb c4", "jmp done"),
    ("in1", "ec", "in al, dx"),
    ("", "eb d6", "jmp store"),
    ("out1", "ee", "out dx, al"),
    ("", "eb be", "jmp done"),
    ("in2", "ed", "in ax, dx"),
    ("", "eb d0", "jmp store"),
    ("in4", "66 ed", "in eax, dx"),
    ("", "eb cc", "jmp store"),
    ("out2", "ef", "out dx, ax"),
    ("", "eb b4", "jmp done"),
    ("out4", "66 ef", "out dx, eax"),
    ("", "eb b0", "jmp done"),
    ("rdmsr", "66 89 d9", "mov ecx, ebx"),
    ("", "0f 32", "rdmsr"),
    ("", "64 66 89 16 0c 00", "mov fs:[12], edx"),
    ("", "eb b8", "jmp store"),
    ("wrmsr", "66 89 d9", "mov ecx, ebx"),
    ("", "64 66 8b 16 0c 00", "mov edx, fs:[12]"),
    ("", "0f 30", "wrmsr"),
    ("", "eb 96", "jmp done"),
    ("gp", "bc 00 10", "mov sp, 0x1000         ; forget the exception frame"),
    ("", "64 c6 06 10 00 01", "mov byte fs:[16], 1"),
    ("", "eb 8b", "jmp done"),
    ("take", "fb", "sti                    ; the window opens after the next instruction"),
    ("", "90", "nop"),
    ("", "e6 10", "out 0x10, al           ; an emulating KVM looks only when it is entered"),
    ("", "90", "nop"),
    ("", "fa", "cli"),
    ("", "eb 83", "jmp done"),
    ("interrupt", "58", "pop ax                 ; of the stub's call"),
    ("", "64 a3 14 00", "mov fs:[20], ax"),
    ("", "89 e5", "mov bp, sp"),
    ("", "81 66 04 ff fd", "and word [bp+4], ~0x200 ; one interrupt only: return with IF = 0"),
    ("", "cf", "iret"),
    ("write8", "67 0f 7f 03", "movq [ebx], mm0        ; 0, as nothing else sets it"),
    ("", "e9 6f ff", "jmp done"),
)


def assemble() -> tuple[bytes, dict[str, int]]:
    """The machine code and the addresses of its labels."""
    code = b""
    labels = {}
    for label, machine_code, _ in LISTING:
        if label:
            labels[label] = CODE_ADDRESS + len(code)
        code += bytes.fromhex(machine_code)
    return code, labels


CODE, LABELS = assemble()


class GuestStoppedError(Exception):
    """The guest left its loop: a bug of the test, or of the KVM under it."""


class MiniGuest:
    """One command interpreter per vCPU of ``vm``; memory is mapped once for all of them."""

    def __init__(self, vm: VmFd, vcpus: list[VcpuFd]) -> None:
        self.vcpus = vcpus
        self.eois: list[tuple[int, int]] = []
        """(vCPU, vector) of every ``KVM_EXIT_IOAPIC_EOI`` so far."""
        self.unclaimed: list[int] = []
        """Addresses of accesses that no chip in the kernel took."""
        memory = vm.map_memory(0, MEMORY_BYTES)
        memory[CODE_ADDRESS : CODE_ADDRESS + len(CODE)] = CODE
        for vector in range(256):
            stub = STUBS_ADDRESS + STUB_BYTES * vector
            distance = (LABELS["interrupt"] - stub - CALL_BYTES) & 0xFFFF
            struct.pack_into("<BHx", memory, stub, 0xE8, distance)
            struct.pack_into("<HH", memory, 4 * vector, stub, 0)
        struct.pack_into("<HH", memory, 4 * EXCEPTION_GP, LABELS["gp"], 0)
        self._memory = memory
        for vcpu in vcpus:
            self._start(vcpu)

    def _start(self, vcpu: VcpuFd) -> None:
        vcpu.start_real_mode(CODE_ADDRESS)
        sregs = vcpu.get_sregs()
        sregs.fs.base = self._mailbox(vcpu.index)
        sregs.fs.selector = sregs.fs.base >> 4
        vcpu.set_sregs(sregs)
        vcpu.set_mp_state(abi.MpState.RUNNABLE)
        self._run(vcpu)

    def read(self, vcpu: int, address: int, size: int = 4) -> int:
        """A memory read of 1, 2 or 4 bytes."""
        return self._command(vcpu, f"read{size}", address)[0]

    def write(self, vcpu: int, address: int, value: int, size: int = 4) -> None:
        """A memory write of 1, 2 or 4 bytes, or 8 zeros."""
        self._command(vcpu, f"write{size}", address, value)

    def port_in(self, vcpu: int, port: int, size: int = 1) -> int:
        """A port read."""
        return self._command(vcpu, f"in{size}", port)[0]

    def port_out(self, vcpu: int, port: int, value: int, size: int = 1) -> None:
        """A port write."""
        self._command(vcpu, f"out{size}", port, value)

    def rdmsr(self, vcpu: int, index: int) -> int | None:
        """RDMSR; None where it faults."""
        low, high, faulted = self._command(vcpu, "rdmsr", index)
        return None if faulted else high << 32 | low

    def wrmsr(self, vcpu: int, index: int, value: int) -> bool:
        """WRMSR; False where it faults."""
        return not self._command(vcpu, "wrmsr", index, value)[2]

    def idle(self, vcpu: int) -> None:
        """Enter the guest once more: what KVM has left to do at an entry is done then."""
        self._command(vcpu, "done", 0)

    def take(self, vcpu: int) -> int | None:
        """Enable interrupts until one came in or nothing is left: its vector."""
        if self._command(vcpu, "take", 0)[2]:
            return EXCEPTION_GP
        self._run(self.vcpus[vcpu])
        faulted, entered = struct.unpack_from("<BxxxH", self._memory, self._mailbox(vcpu) + 16)
        if faulted:
            return EXCEPTION_GP
        if entered == NO_INTERRUPT:
            return None
        return (entered - STUBS_ADDRESS - CALL_BYTES) // STUB_BYTES

    @staticmethod
    def _mailbox(vcpu: int) -> int:
        return MAILBOX_ADDRESS + MAILBOX_BYTES * vcpu

    def _command(
        self, index: int, label: str, operand: int, value: int = 0
    ) -> tuple[int, int, int]:
        mailbox = self._mailbox(index)
        struct.pack_into(
            "<HxxIIIBxxxH",
            self._memory,
            mailbox,
            LABELS[label],
            operand,
            value & 0xFFFF_FFFF,
            value >> 32,
            0,
            NO_INTERRUPT,
        )
        self._run(self.vcpus[index])
        return struct.unpack_from("<IIB", self._memory, mailbox + 8)

    def _run(self, vcpu: VcpuFd) -> None:
        while True:
            reason = vcpu.run()
            exit_ = vcpu.kvm_run.exit
            if reason is abi.ExitReason.IO and exit_.io.port == COMMAND_PORT:
                return
            if reason is abi.ExitReason.IOAPIC_EOI:
                self.eois.append((vcpu.index, exit_.eoi.vector))
            elif reason is abi.ExitReason.IO:
                self.unclaimed.append(exit_.io.port)
            elif reason is abi.ExitReason.MMIO:
                self.unclaimed.append(exit_.mmio.phys_addr)
            elif reason is not abi.ExitReason.INTR:
                regs = vcpu.get_regs()
                raise GuestStoppedError(f"{reason.name} at rip {regs.rip:#x}")
