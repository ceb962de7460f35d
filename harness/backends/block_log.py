"""Which instructions of KVM a lab executes, from the log of the QEMU that runs it.

TCG translates code in blocks, right before it executes them for the first time, and with ``-d
in_asm`` logs every instruction that it translates (QEMU ``accel/tcg/translator.c``
``translator_loop``).  The log is a pipe that is read as it comes: tens of megabytes, of which only
the addresses are kept.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import fcntl
import os
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from harness.base.errors import HostError
from harness.images.elf import build_id, code_sections
from harness.images.kernel import kvm_module
from harness.images.model import KernelImage
from harness.model.coverage import MODULE, Executed

MODULES: Final = (0xFFFF_FFFF_C000_0000, 0xFFFF_FFFF_FFFF_FFFF)
"""Where Linux loads modules (``Documentation/arch/x86/x86_64/mm.rst``): KVM is not at one place."""
_INSTRUCTION: Final = re.compile(rb"^0x([0-9a-f]{16}): ", re.MULTILINE)
_UNREADABLE: Final = b"OBJD-T:"
"""Begins the code of a block where QEMU has no disassembler (``disas/disas-mon.c``)."""
_READ_BYTES: Final = 1 << 20
_PIPE_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class Section:
    """A section of the module's code in a lab: its first address, and its size in bytes."""

    name: str
    start: int
    size_bytes: int


class BlockLog:
    """The log of one QEMU; :func:`block_log` opens one.

    ``descriptor`` is what that QEMU is to inherit, and write to.
    """

    def __init__(self, reading: int, descriptor: int) -> None:
        self._reading = reading
        self.descriptor = descriptor
        self._held = b""
        self._seen: dict[bytes, None] = {}
        """Addresses, in the order in which they were first executed."""
        self._taken = 0
        self._sections: tuple[Section, ...] = ()
        self._build = ("", "")
        self._is_unreadable = False

    @property
    def arguments(self) -> tuple[str, ...]:
        """What has QEMU write it."""
        first, last = MODULES
        path = f"/dev/fd/{self.descriptor}"
        return ("-d", "in_asm", "-D", path, "-dfilter", f"{first:#x}..{last:#x}")

    def loaded(self, kernel: str, build_id: str, sections: tuple[Section, ...]) -> None:
        """Where the module of that build is in this lab."""
        self._build = (kernel, build_id)
        self._sections = sections

    def read(self) -> None:
        """Take in what is there; returns at once."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._reading, _READ_BYTES):
                self._take(data)

    def _take(self, data: bytes) -> None:
        text = self._held + data
        whole = text.rfind(b"\n") + 1
        self._held = text[whole:]
        found = _INSTRUCTION.findall(text, 0, whole)
        self._seen |= dict.fromkeys(found)
        self._is_unreadable |= not found and _UNREADABLE in text

    def executed(self) -> Executed:
        """What of the module ran that had not before the last call.

        :class:`HostError` where the log does not say it.
        """
        self.read()
        if self._is_unreadable:
            raise HostError(
                "coverage cannot be recorded",
                "the lab's QEMU was built without its disassembler (capstone)",
                "run the lab with a QEMU of the archive: lab: {qemu: ...}",
            )
        new = list(self._seen)[self._taken :]
        self._taken += len(new)
        return Executed(*self._build, _offsets((int(text, 16) for text in new), self._sections))


def _offsets(
    addresses: Iterator[int], sections: tuple[Section, ...]
) -> Mapping[str, frozenset[int]]:
    """By section, the offsets of the addresses that are in one."""
    ordered = sorted(sections, key=lambda section: section.start)
    starts = [section.start for section in ordered]
    found: dict[str, set[int]] = {}
    for address in addresses:
        place = bisect.bisect_right(starts, address) - 1
        if place >= 0 and address - starts[place] < ordered[place].size_bytes:
            found.setdefault(ordered[place].name, set()).add(address - starts[place])
    return {name: frozenset(offsets) for name, offsets in found.items()}


@contextlib.contextmanager
def block_log() -> Iterator[BlockLog]:
    """A log that is read, in the running event loop, for as long as the block lasts."""
    reading, writing = os.pipe()
    try:
        with contextlib.suppress(OSError):  # a smaller one costs time, nothing else
            fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        os.set_blocking(reading, False)
        log = BlockLog(reading, writing)
        loop = asyncio.get_running_loop()
        loop.add_reader(reading, log.read)
        try:
            yield log
        finally:
            loop.remove_reader(reading)
    finally:
        os.close(reading)
        os.close(writing)


async def find_module(
    log: BlockLog, kernel: KernelImage, run: Callable[[str], Awaitable[tuple[int, str]]]
) -> None:
    """Have ``log`` know where KVM is in the lab whose shell is ``run``.

    :class:`HostError` where the lab does not say it.
    """
    module = await asyncio.to_thread(kvm_module, kernel)
    sizes = {} if module is None else code_sections(module)
    _, said = await run(f"cd /sys/module/{MODULE}/sections && grep -H . .[a-z]*")
    starts = dict(line.split(":", 1) for line in said.splitlines() if ":0x" in line)
    sections = tuple(
        Section(name, int(starts[name], 16), size) for name, size in sizes.items() if name in starts
    )
    if module is None or not sections:
        raise HostError(
            "coverage cannot be recorded",
            f"the kernel {kernel.version} has no module {MODULE}, or does not say where it is",
            "use a kernel with modules, such as the distribution's cloud kernel",
        )
    log.loaded(kernel.name, build_id(module) or "", sections)
