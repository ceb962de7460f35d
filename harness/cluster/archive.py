"""Flat folders in one compressed archive: small to send, checked before a file of it is written."""

from __future__ import annotations

import fnmatch
import hashlib
import io
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import zstandard

from harness.base import limits
from harness.base.errors import StoreError

MAX_FILES: Final = 1000
_READ_BYTES: Final = 1 << 20


def pack(folders: Mapping[str, Iterable[Path]]) -> bytes:
    """Files, each as ``FOLDER/NAME``; :class:`StoreError` where that is larger than its limit."""
    limit_bytes = limits.current().archive_mib * limits.MIB
    packed = _Bounded(limit_bytes)
    try:
        with (
            zstandard.ZstdCompressor().stream_writer(packed, closefd=False) as stream,
            tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar,
        ):
            for folder, paths in folders.items():
                for path in paths:
                    tar.add(path, f"{folder}/{path.name}", recursive=False, filter=_anonymous)
    except OSError as error:
        raise StoreError("cannot pack what was recorded", str(error)) from None
    return packed.getvalue()


class _Bounded(io.BytesIO):
    """Takes no more than its limit."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__()
        self._limit_bytes = limit_bytes

    def write(self, data: object, /) -> int:
        """Append, or :class:`StoreError`."""
        written = super().write(data)  # type: ignore[arg-type]
        if self.tell() > self._limit_bytes:
            hint = limits.hint("archive_mib")
            raise StoreError("what was recorded is too large to be sent", None, hint)
        return written


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def digest(archive: bytes) -> str:
    """To verify it with."""
    return hashlib.sha256(archive).hexdigest()


@dataclass(frozen=True)
class Folder:
    """Where the files of a folder go; ``names`` is a glob for what they may be called."""

    path: Path
    names: str = "*"


def unpack(archive: bytes, sha256: str, folders: Mapping[str, Folder]) -> None:
    """Write the files of :func:`pack` to ``folders``, which are made where they have files.

    :class:`StoreError` for an archive that is damaged, over its limits, or has anything but plain
    files directly in these folders; some may have been written then.
    """
    if digest(archive) != sha256:
        raise StoreError("an archive was damaged on its way", "it has another checksum")
    left_bytes = limits.current().unpacked_mib * limits.MIB
    try:
        with (
            zstandard.ZstdDecompressor().stream_reader(archive) as stream,
            tarfile.open(fileobj=stream, mode="r|") as tar,
        ):
            for count, member in enumerate(tar, start=1):
                left_bytes -= member.size
                if left_bytes < 0 or count > MAX_FILES:
                    what = f"it has more than {MAX_FILES} files, or too much in them"
                    raise StoreError("an archive is refused", what, limits.hint("unpacked_mib"))
                _write(tar, member, _place(member, folders))
    except (tarfile.TarError, zstandard.ZstdError, OSError) as error:
        raise StoreError("cannot unpack an archive", str(error)) from None


def _place(member: tarfile.TarInfo, folders: Mapping[str, Folder]) -> Path:
    """Where a file goes: nowhere but directly into one of the folders."""
    name = member.name.partition("/")[2]
    folder = folders.get(member.name.partition("/")[0])
    is_plain = member.isreg() and name not in ("", ".", "..") and not {"/", "\0"} & set(name)
    if folder is None or not is_plain or not fnmatch.fnmatchcase(name, folder.names):
        raise StoreError("an archive is refused", f"it has {member.name!r}")
    return folder.path / name


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    source = tar.extractfile(member)
    assert source is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        while data := source.read(_READ_BYTES):
            file.write(data)
