"""A guest that does accesses at exactly known times, for what a stopped machine cannot show.

Where the qtest accelerator is absent nothing can step the virtual clock of a stopped machine.
So a few bytes of real-mode code stand in for the firmware: they do a list of port and memory
accesses with pauses between, under ``-icount shift=N,sleep=off``, where every instruction takes
exactly 2**N nanoseconds of virtual time and the time stamp counter *is* that time.  Two runs give
the same numbers.

After each access the guest reads port 0x21, whose trace event marks the place in QEMU's trace.
"""

from __future__ import annotations

import os
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from support.qtest import QtestError, die_with_parent

TIMEOUT_S = 120.0
MAX_ACCESSES = 2700

_ACCESS = struct.Struct("<IHxxIxxxxQ")  # pause, 2 * operation, address, value
_RESULT = struct.Struct("<QQ")  # time stamp, value
_ACCESSES_AT = 0x10000
_RDTSC_TO_ACCESS = 6
_ACCESS_TO_MARK = 3
_OPERATIONS = {
    name: number
    for number, name in enumerate(
        [
            *((op, size) for op in ("in", "out") for size in (1, 2, 4)),
            *((op, size) for op in ("load", "store") for size in (1, 2, 4, 8)),
            ("end", 0),
        ]
    )
}

# Assembled from the instructions beside it.  DS:SI are the accesses, ES:DI the results, FS is all
# of memory; an access of whatever kind is the sixth instruction after RDTSC.
_CODE = bytes.fromhex(
    "fa2e660f0116e400"  # cli; lgdt cs:[gdtr]
    "0f20c00c010f22c0"  # mov eax, cr0; or al, 1; mov cr0, eax
    "bb08008ee3"  # mov bx, 8; mov fs, bx
    "24fe0f22c0"  # and al, 0xfe; mov cr0, eax
    "b800108ed8"  # mov ax, 0x1000; mov ds, ax
    "b800208ec0"  # mov ax, 0x2000; mov es, ax
    "31f631ff"  # xor si, si; xor di, di
    "668b0c"  # next: mov ecx, [si]
    "8b5c040f6f4c10"  # mov bx, [si + 4]; movq mm1, [si + 16]
    "664975fc"  # spin: dec ecx; jnz spin
    "0f31"  # rdtsc
    "266689052666895504"  # mov es:[di], eax; mov es:[di + 4], edx
    "668b5408668b4410"  # mov edx, [si + 8]; mov eax, [si + 16]
    "2effa7c600"  # jmp cs:[bx + table]
    "eceb45"  # in al, dx; jmp stored
    "edeb42"  # in ax, dx; jmp stored
    "66edeb3e"  # in eax, dx; jmp stored
    "eeeb3b"  # out dx, al; jmp stored
    "efeb38"  # out dx, ax; jmp stored
    "66efeb34"  # out dx, eax; jmp stored
    "64678a02eb2e"  # mov al, fs:[edx]; jmp stored
    "64678b02eb28"  # mov ax, fs:[edx]; jmp stored
    "6467668b02eb21"  # mov eax, fs:[edx]; jmp stored
    "64670f6f02eb23"  # movq mm0, fs:[edx]; jmp stored64
    "64678802eb14"  # mov fs:[edx], al; jmp stored
    "64678902eb0e"  # mov fs:[edx], ax; jmp stored
    "6467668902eb07"  # mov fs:[edx], eax; jmp stored
    "64670f7f0aeb00"  # movq fs:[edx], mm1; jmp stored
    "2666894508"  # stored: mov es:[di + 8], eax
    "e421eb07"  # in al, 0x21; jmp after
    "260f7f4508e421"  # stored64: movq es:[di + 8], mm0; in al, 0x21
    "83c61883c710e979ff"  # after: add si, 24; add di, 16; jmp next
    "8cc08ed889f931f6"  # done: mov ax, es; mov ds, ax; mov cx, di; xor si, si
    "bae900fcf36e"  # mov dx, 0xe9; cld; rep outsb
    "baf40030c0ee"  # mov dx, 0xf4; xor al, al; out dx, al
    "f4ebfd"  # halt: hlt; jmp halt
    "4e005100540058005b005e00620068006e0075007c00"
    "820088008f00af00"  # table: 15 words
    "0f00ea000f000000000000000000ffff00000092cf00"  # gdtr, gdt: a flat data segment
)
_RESET_VECTOR = bytes.fromhex("ea000000f0")  # jmp 0xf000:0


class Access(NamedTuple):
    """One access: spin ``pause`` times (two instructions each, at least once), then do it."""

    pause: int
    op: Literal["in", "out", "load", "store"]
    address: int
    value: int = 0
    size: int = 1

    def packed(self) -> bytes:
        """As the guest reads it."""
        operation = _OPERATIONS[self.op, self.size]
        return _ACCESS.pack(max(self.pause, 1), 2 * operation, self.address, self.value)


@dataclass(frozen=True)
class Result:
    """What an access saw, and when."""

    time_ns: int
    value: int
    mark_ns: int
    """When the mark behind it was made."""
    trace: tuple[str, ...]
    """The trace events since the mark before."""


def firmware() -> bytes:
    """The guest as a 64 KiB ROM."""
    return _CODE.ljust(0xFFF0, b"\xf4") + _RESET_VECTOR.ljust(16, b"\xf4")


def run(
    qemu: Sequence[str | Path],
    machine: str,
    accesses: Sequence[Access],
    trace: Sequence[str],
    *,
    shift: int = 0,
    options: Sequence[str] = (),
) -> list[Result]:
    """Do the accesses on a fresh machine, recording the trace events of the patterns.

    An instruction takes 2**shift ns.
    """
    if len(accesses) > MAX_ACCESSES:
        raise ValueError(f"{len(accesses)} accesses: one run has room for {MAX_ACCESSES}")
    with tempfile.TemporaryDirectory(prefix="timed-guest-") as name:
        folder = Path(name)
        (folder / "bios.bin").write_bytes(firmware())
        (folder / "accesses.bin").write_bytes(
            b"".join(access.packed() for access in accesses)
            + _ACCESS.pack(1, 2 * _OPERATIONS["end", 0], 0, 0)
        )
        argv = [str(word) for word in qemu]
        argv += ["-M", machine, "-accel", "tcg", "-icount", f"shift={shift},sleep=off"]
        argv += [*options, "-nodefaults", "-display", "none", "-no-reboot"]
        argv += ["-bios", str(folder / "bios.bin")]
        argv += ["-device", f"loader,file={folder}/accesses.bin,addr={_ACCESSES_AT},force-raw=on"]
        argv += ["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
        argv += ["-chardev", f"file,id=results,path={folder}/results.bin"]
        argv += ["-device", "isa-debugcon,iobase=0xe9,chardev=results"]
        argv += ["-D", str(folder / "trace.log"), "-trace", "pic_ioport_read"]
        for pattern in trace:
            argv += ["-trace", pattern]
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            preexec_fn=partial(die_with_parent, os.getpid()),
        )
        if done.returncode != 1:  # isa-debug-exit of 0
            raise QtestError(f"the guest ended with {done.returncode}: {done.stderr[-500:]}")
        results = (folder / "results.bin").read_bytes()
        marks = (folder / "trace.log").read_text().splitlines()
    return _results(accesses, results, marks, shift)


def _results(
    accesses: Sequence[Access], results: bytes, trace: Sequence[str], shift: int
) -> list[Result]:
    windows: list[tuple[str, ...]] = []
    window: list[str] = []
    for line in trace:
        if line.startswith("pic_ioport_read master 1 addr 0x1 "):
            windows.append(tuple(window))
            window = []
        else:
            window.append(line)
    out: list[Result] = []
    unpacked = _RESULT.iter_unpack(results)
    for access, (tsc, value), events in zip(accesses, unpacked, windows, strict=True):
        time_ns = tsc + (_RDTSC_TO_ACCESS << shift)
        value &= (1 << 8 * access.size) - 1
        out.append(Result(time_ns, value, time_ns + (_ACCESS_TO_MARK << shift), events))
    return out
