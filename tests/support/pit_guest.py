"""A guest that does port accesses at exactly known times, for what a stopped machine cannot show.

Where the qtest accelerator is absent nothing can step the virtual clock of a stopped machine.
So a few bytes of real-mode code stand in for the firmware: they do a list of port accesses with
pauses between, under ``-icount shift=0,sleep=off``, where every instruction takes exactly one
nanosecond of virtual time and the time stamp counter *is* that time.  Two runs give the same
numbers.

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
MAX_ACCESSES = 4000

_ACCESS = struct.Struct("<IBBH")  # pause, operation, value, port
_RESULT = struct.Struct("<QB7x")  # time stamp, value
_IN, _OUT, _END = range(3)
_ACCESSES_AT = 0x10000
_RDTSC_TO_ACCESS_NS = 7
_ACCESS_TO_MARK_NS = 3

# Assembled from the instructions beside it.  DS:SI are the accesses, ES:DI the results.
_CODE = bytes.fromhex(
    "fa"  # ..............  cli
    "b80010 8ed8"  # .....  mov ax, 0x1000; mov ds, ax
    "b80020 8ec0"  # .....  mov ax, 0x2000; mov es, ax
    "31f6 31ff"  # .......  xor si, si; xor di, di
    "668b0c"  # ......next: mov ecx, [si]
    "8b5c04"  # ..........  mov bx, [si + 4]
    "80fb02 742c"  # .....  cmp bl, END; je done
    "6649 75fc"  # ...spin: dec ecx; jnz spin
    "0f31"  # ............  rdtsc
    "26668905"  # ........  mov es:[di], eax
    "2666895504"  # ......  mov es:[di + 4], edx
    "8b5406"  # ..........  mov dx, [si + 6]
    "88f8"  # ............  mov al, bh
    "84db 7503"  # .......  test bl, bl; jnz write
    "ec eb03"  # .........  in al, dx; jmp stored
    "ee eb00"  # ....write: out dx, al; jmp stored
    "26884508"  # ..stored: mov es:[di + 8], al
    "e421"  # ............  in al, 0x21
    "83c608 83c710 ebc9"  # add si, 8; add di, 16; jmp next
    "8cc0 8ed8"  # ...done: mov ax, es; mov ds, ax
    "89f9 31f6"  # .......  mov cx, di; xor si, si
    "bae900 fc f36e"  # ..  mov dx, 0xe9; cld; rep outsb
    "baf400 30c0 ee"  # ..  mov dx, 0xf4; xor al, al; out dx, al
    "f4 ebfd"  # .....halt: hlt; jmp halt
)
_RESET_VECTOR = bytes.fromhex("ea000000f0")  # jmp 0xf000:0


class Access(NamedTuple):
    """One access: spin ``pause`` times (2 ns each, at least once), then do it."""

    pause: int
    op: Literal["in", "out"]
    port: int
    value: int = 0


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
    qemu: Sequence[str | Path], machine: str, accesses: Sequence[Access], trace: Sequence[str]
) -> list[Result]:
    """Do the accesses on a fresh machine, recording the trace events of the patterns."""
    if len(accesses) > MAX_ACCESSES:
        raise ValueError(f"{len(accesses)} accesses: one run has room for {MAX_ACCESSES}")
    with tempfile.TemporaryDirectory(prefix="pit-guest-") as name:
        folder = Path(name)
        (folder / "bios.bin").write_bytes(firmware())
        (folder / "accesses.bin").write_bytes(
            b"".join(
                _ACCESS.pack(max(a.pause, 1), _OUT if a.op == "out" else _IN, a.value, a.port)
                for a in accesses
            )
            + _ACCESS.pack(0, _END, 0, 0)
        )
        argv = [str(word) for word in qemu]
        argv += ["-M", machine, "-accel", "tcg", "-icount", "shift=0,sleep=off"]
        argv += ["-nodefaults", "-display", "none", "-no-reboot"]
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
    return _results(results, marks)


def _results(results: bytes, trace: Sequence[str]) -> list[Result]:
    windows: list[tuple[str, ...]] = []
    window: list[str] = []
    for line in trace:
        if line.startswith("pic_ioport_read master 1 addr 0x1 "):
            windows.append(tuple(window))
            window = []
        else:
            window.append(line)
    out: list[Result] = []
    for (tsc, value), events in zip(_RESULT.iter_unpack(results), windows, strict=True):
        time_ns = tsc + _RDTSC_TO_ACCESS_NS
        out.append(Result(time_ns, value, time_ns + _ACCESS_TO_MARK_NS, events))
    return out
