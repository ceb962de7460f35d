"""A kind of guest that irqmatrix does not have: a boot sector, which prints lines and exits.

Plugged in, it is a guest as any other: ``kind: sector`` in a configuration.  Each of its lines is
``ok NAME`` or ``bad NAME``; the last one is ``bye``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from harness.analyse.results.base import Results
from harness.analyse.results.table import RESULTS
from harness.guests.kinds.base import GuestKind, Part
from harness.guests.kinds.devices import EXIT_DEVICE, debug_console
from harness.guests.kinds.model import GuestModel
from harness.guests.kinds.table import KINDS
from harness.guests.plan import GuestPlan
from harness.model.verdict import PartResult, Verdict
from harness.record.drivers.base import Driver
from harness.record.drivers.table import DRIVERS

DEBUGCON = 0xE9
SECTOR_BYTES = 512
STATUS_DONE = 1
"""QEMU's exit status for a 0 that was written to the exit device."""

CODE = bytes.fromhex(
    """
    31 c0     8e d8     be 17 7c
    ac        84 c0     74 04
    e6 e9     eb f7
    b0 00     e6 f4
    f4        eb fd
    """
)
"""ds = 0, si = text at 0x7c17; print bytes up to a 0; write 0 to the exit device; halt."""


def build(path: Path, words: str) -> Path:
    """A boot sector that says ``words``."""
    content = CODE + words.encode() + b"\0"
    path.write_bytes(content.ljust(SECTOR_BYTES - 2, b"\0") + b"\x55\xaa")
    return path


@dataclass(frozen=True)
class Sector:
    """A boot sector, and how often it is to be listened to."""

    kind: ClassVar[str] = "sector"
    image: Path
    boots: tuple[int, ...]
    expect: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """After its file."""
        return f"sector-{self.image.stem}"


class SectorModel(GuestModel):
    """``kind: sector``."""

    kind: Literal["sector"]
    image: str
    boots: int = 1

    def guests(self, file, location) -> Iterable[Sector]:
        """One guest, whose image lies beside the file."""
        path = file.path.parent / self.image
        if not path.is_file():
            raise file.error((*location, "image"), f"no boot sector {self.image!r}")
        yield Sector(path, tuple(range(self.boots)), dict(self.expect))


class SectorKind(GuestKind[Sector]):
    """Booted from a disk, which no other kind is."""

    guest_type = Sector
    model = SectorModel
    part = Part.CHECK
    kept_apart = "boots"

    def why_not(self, machine, smp) -> str | None:
        """The firmware of microvm boots no disk."""
        return "a boot sector needs a BIOS with disks" if machine == "microvm" else None

    def plan(self, case, site) -> GuestPlan:
        """The image as it is."""
        return GuestPlan(case, self.guest.image, None, trace_log=True, paused=False)

    def arguments(self, case, files) -> Sequence[str]:
        """The disk, and a way out."""
        disk = f"file={files.kernel},format=raw,if=ide,snapshot=on"
        return ["-drive", disk, *EXIT_DEVICE]

    def console(self, machine) -> Sequence[str]:
        """Bochs' port."""
        return debug_console(DEBUGCON)


class SectorDriver(Driver[Sector]):
    """Listens, in each of its boots."""

    async def drive(self, boot, mon) -> bool:
        """Until it says good-bye."""
        boot.step("listening")
        await boot.console.expect(r"bye\r?\n")
        return True

    def next_boot(self, plan, seen) -> GuestPlan | None:
        """Another one, until it was listened to so many times."""
        seen.boots += 1
        return plan if seen.boots < len(self.guest.boots) and seen.failure is None else None


class SectorResults(Results[Sector]):
    """A part for each line."""

    def ending(self, words, refusal):
        """By the exit device."""
        return None if self.recording.status == STATUS_DONE else super().ending(words, refusal)

    def parts(self, evidence, failure) -> tuple[PartResult, ...]:
        """In the order in which it says them."""
        lines = re.findall(r"(?m)^(ok|bad) (\w+)\r?$", self.recording.console)
        words = {"ok": Verdict.PASS, "bad": Verdict.FAIL}
        found = {
            name: PartResult(name, words[word], "", self.expected(name)) for word, name in lines
        }
        return tuple(found.values())


def plug_in(monkeypatch) -> None:
    """All that it takes."""
    monkeypatch.setitem(KINDS, Sector.kind, SectorKind)
    monkeypatch.setitem(DRIVERS, Sector.kind, SectorDriver)
    monkeypatch.setitem(RESULTS, Sector.kind, SectorResults)
