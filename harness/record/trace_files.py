"""Raw traces as they are kept: text, compressed with zstandard (``kernel.trace.zst``)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import zstandard

from harness.base.errors import CollectError

SUFFIX: Final = ".zst"
_LEVEL: Final = 3
_CHUNK_BYTES: Final = 1 << 20
_PACKED_BYTES: Final = 1 << 16


def compressed(path: Path) -> Path:
    """Compress ``path`` in place, whole or not at all; its new name.

    :class:`OSError` where that cannot be: it is as it was.
    """
    kept = path.with_name(path.name + SUFFIX)
    partial = path.with_name(path.name + ".partial")
    try:
        with path.open("rb") as source, partial.open("wb") as out:
            zstandard.ZstdCompressor(level=_LEVEL).copy_stream(source, out)
        partial.replace(kept)
    finally:
        partial.unlink(missing_ok=True)
    path.unlink()
    return kept


@contextmanager
def lines_of(path: Path) -> Iterator[IO[str]]:
    """The text of a trace, compressed or not, to be read line by line.

    :class:`CollectError` where it cannot be read, also while it is.
    """
    try:
        with _opened(path) as lines:
            yield lines
    except (OSError, zstandard.ZstdError) as error:
        raise CollectError(f"cannot read {path}", str(error)) from None


def _opened(path: Path) -> IO[str]:
    if path.suffix != SUFFIX:
        return path.open(encoding="utf-8", errors="replace")
    unpacked = io.BufferedReader(_Unpacked(path), _CHUNK_BYTES)
    return io.TextIOWrapper(unpacked, encoding="utf-8", errors="replace")


class _Unpacked(io.RawIOBase):
    """A compressed file as it was; :class:`zstandard.ZstdError` where its end is missing.

    (The library's own readers take a file that was cut off for one that ends.)
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left and not self._frame.eof:
            if not (packed := self._file.read(_PACKED_BYTES)):
                raise zstandard.ZstdError("it is cut off")
            self._left = memoryview(self._frame.decompress(packed))
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


def has_text(path: Path) -> bool:
    """Whether there is anything in a trace."""
    with lines_of(path) as lines:
        return bool(lines.read(1))
