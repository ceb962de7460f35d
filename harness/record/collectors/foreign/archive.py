"""The archive of ``irqmatrix collect``: text files in a tar.gz, and ``contents.json``.

An archive comes from another machine: nothing is written under a name that it gives, only plain
files with known names are read, and sizes have limits.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Final, cast

from harness.base import limits
from harness.base.errors import CollectError
from harness.record.collectors.foreign.model import FileKind

CONTENTS: Final = "contents.json"
KINDS: Final[Mapping[str, FileKind]] = {
    "cmdline.txt": FileKind.COMMAND_LINE,
    "libvirt.xml": FileKind.XML,
    "versions.txt": FileKind.VERSIONS,
    "host-interrupts.txt": FileKind.HOST_INTERRUPTS,
    "info-pic.txt": FileKind.INFO_PIC,
    "info-lapic.txt": FileKind.INFO_LAPIC,
    "info-irq-before.txt": FileKind.INFO_IRQ,
    "info-irq.txt": FileKind.INFO_IRQ,
    "query-stats-before.json": FileKind.STATISTICS,
    "query-stats.json": FileKind.STATISTICS,
    "threads.txt": FileKind.THREADS,
    "module-parameters.txt": FileKind.PARAMETERS,
    "trace.txt": FileKind.TRACE,
}
"""What each member is."""
_GUEST: Final = re.compile(r"guest-interrupts-[1-9]\d{0,2}\.txt", re.ASCII)
MEMBER_MIB: Final = 64
TOTAL_MIB: Final = 256
"""Of everything in an archive, unpacked."""
MOST_MEMBERS: Final = 200
_HEAD_BYTES: Final = 512
_MAGIC: Final = slice(257, 262)


def guest_interrupts(number: int) -> str:
    """The name of the member with the guest's snapshots number ``number``, from 1."""
    return f"guest-interrupts-{number}.txt"


def kind_of_member(name: str) -> FileKind | None:
    """What a member is; None where ``explain`` does not read it."""
    return FileKind.INTERRUPTS if _GUEST.fullmatch(name) else KINDS.get(name)


def is_known(name: str) -> bool:
    """Whether a file of this name is one of an archive's."""
    return name == CONTENTS or kind_of_member(name) is not None


def is_archive(path: Path) -> bool:
    """Whether ``path`` begins as a tar does, packed with gzip or not."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as raw:
            head = raw.read(_HEAD_BYTES)
            if head[:2] == b"\x1f\x8b":
                raw.seek(0)
                with gzip.open(raw) as unpacked:
                    head = unpacked.read(_HEAD_BYTES)
    except (OSError, EOFError, zlib.error):
        return False
    return head[_MAGIC] == b"ustar"


def members(path: Path) -> Iterator[tuple[str, str]]:
    """The name and the text of each known file of an archive.

    Others are left out.  Raises :class:`CollectError` where it is no archive, or too large.
    """
    if not path.is_file():
        raise CollectError(f"{path}: no such file")
    try:
        with path.open("rb") as raw, _unpacked(raw) as stream:
            bounded = cast("IO[bytes]", _Bounded(stream, path.name))
            with tarfile.open(fileobj=bounded, mode="r|") as archive:
                yield from _texts(path.name, archive)
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
        raise CollectError(
            f"{path.name}: an archive that cannot be unpacked", str(error)[:200]
        ) from None


def _texts(name: str, archive: tarfile.TarFile) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for number, entry in enumerate(archive):
        if number >= MOST_MEMBERS:
            raise CollectError(f"{name}: more than {MOST_MEMBERS} files in an archive")
        short = entry.name.rpartition("/")[2]
        if not entry.isreg() or entry.issparse() or not is_known(short) or short in seen:
            continue
        if entry.size > MEMBER_MIB * limits.MIB:
            raise CollectError(f"{name}: {short} has more than {MEMBER_MIB} MiB")
        file = archive.extractfile(entry)
        assert file is not None  # a plain file has one
        seen.add(short)
        yield short, file.read().decode("utf-8", errors="replace")


def _unpacked(raw: IO[bytes]) -> IO[bytes]:
    packed = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    return cast("IO[bytes]", gzip.open(raw)) if packed else raw


class _Bounded:
    """A stream that ends with an error after :data:`TOTAL_MIB`: a small file may unpack to any."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream = stream
        self._name = name
        self._left = TOTAL_MIB * limits.MIB

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes."""
        if size > self._left:
            raise CollectError(f"{self._name}: more than {TOTAL_MIB} MiB in an archive")
        data = self._stream.read(size)
        self._left -= len(data)
        return data


def packed(texts: Mapping[str, str]) -> bytes:
    """A tar.gz with these files in their order; nothing in it says who packed it, or when."""
    data = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=data, mtime=0) as gz,
        tarfile.open(fileobj=gz, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, text in texts.items():
            encoded = text.encode("utf-8", errors="replace")
            entry = tarfile.TarInfo(f"irqmatrix/{name}")
            entry.size = len(encoded)
            archive.addfile(entry, io.BytesIO(encoded))
    return data.getvalue()
