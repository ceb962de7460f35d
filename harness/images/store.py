"""The cache folder: entries that are complete or not there, safe between concurrent runs.

An entry is a folder ``KIND/NAME`` with a manifest and the files that it lists. It is built in a
scratch folder and renamed into place under a lock, so that no reader sees half of one. Looking an
entry up compares every file's size and time with the manifest; :meth:`Store.verify` hashes all.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from harness.base.errors import ImageError
from harness.base.files import read_json
from harness.images.archive import file_sha256
from harness.images.model import ImageKind

_MANIFEST: Final = "manifest.json"
_SCHEMA: Final = 1
_SCRATCH: Final = "building-"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file of an entry as it was when the entry was made."""

    path: str
    size_bytes: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Label:
    """What an entry is: ``version`` as its makers count, ``source`` where it came from."""

    kind: ImageKind
    name: str
    version: str
    source: str


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """An entry of the cache; its files are below ``tree``."""

    label: Label
    path: Path
    files: tuple[FileRecord, ...]

    @property
    def tree(self) -> Path:
        """The folder that holds the files."""
        return self.path / "tree"

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(record.size_bytes for record in self.files)


class Store:
    """Entries below ``root``; the folder is made when the first one is."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, kind: ImageKind, name: str) -> CacheEntry | None:
        """The entry if it is there and looks whole, else None: it has to be built (again)."""
        entry = self.entry(self._root / kind / name)
        if entry is None or not all(_unchanged(entry, record) for record in entry.files):
            return None
        return entry

    def entries(self, kind: ImageKind) -> tuple[CacheEntry, ...]:
        """Every entry with a readable manifest, whole or not, by name."""
        return tuple(entry for path in self.folders(kind) if (entry := self.entry(path)))

    def folders(self, kind: ImageKind) -> tuple[Path, ...]:
        """Every folder that is, or should be, an entry, by name."""
        folder = self._root / kind
        return tuple(sorted(folder.iterdir())) if folder.is_dir() else ()

    def entry(self, path: Path) -> CacheEntry | None:
        """The entry in a folder, or None if it has no manifest of this schema."""
        try:
            manifest: dict[str, Any] = read_json(path / _MANIFEST)
            if manifest["schema"] != _SCHEMA:
                return None
            label = Label(*(manifest[key] for key in ("kind", "name", "version", "source")))
            return CacheEntry(
                label, path, tuple(FileRecord(**record) for record in manifest["files"])
            )
        except (OSError, ValueError, KeyError, TypeError):  # of whatever form it is
            return None

    def verify(self, entry: CacheEntry) -> bool:
        """Whether every file still has its hash (reads everything)."""
        return all(
            (entry.tree / record.path).is_file()
            and file_sha256(entry.tree / record.path) == record.sha256
            for record in entry.files
        )

    @contextmanager
    def building(self) -> Iterator[Path]:
        """Hold the cache against other processes that build, with a scratch folder to build in.

        The folder is on the cache's file system and gone afterwards; what a process that was
        killed has left goes too.  The kernel drops the lock if we die.  An :class:`OSError`
        in the block becomes an :class:`ImageError`.
        """
        with self._writable():
            self._root.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                for leftover in self._root.glob(f"{_SCRATCH}*"):
                    shutil.rmtree(leftover, ignore_errors=True)
                with tempfile.TemporaryDirectory(
                    prefix=_SCRATCH, dir=self._root, ignore_cleanup_errors=True
                ) as scratch:
                    yield Path(scratch)
            finally:
                os.close(lock)

    def publish(self, label: Label, tree: Path) -> CacheEntry:
        """Move ``tree``, built in a scratch folder, into place; a damaged entry makes room."""
        path = self._root / label.kind / label.name
        staged = tree.parent / "staged"
        staged.mkdir()
        tree.rename(staged / "tree")
        entry = CacheEntry(label, path, tuple(_records(staged / "tree")))
        _write_manifest(staged / _MANIFEST, entry)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            path.rename(tree.parent / "replaced")
        staged.rename(path)
        return entry

    def discard(self, entry: CacheEntry, scratch: Path) -> None:
        """Move an entry that is no longer of use to a scratch folder, which is gone soon."""
        entry.path.rename(scratch / entry.path.name)

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ImageError(
                f"cannot write to the image cache {self._root}",
                str(error),
                "free some space, or set XDG_CACHE_HOME to a directory that can be written",
            ) from error


def _records(tree: Path) -> Iterator[FileRecord]:
    for path in sorted(tree.rglob("*")):
        if path.is_file() and not path.is_symlink():
            status = path.stat()
            yield FileRecord(
                str(path.relative_to(tree)), status.st_size, status.st_mtime_ns, file_sha256(path)
            )


def _unchanged(entry: CacheEntry, record: FileRecord) -> bool:
    """By size and time; where only the time is another (a cache that was copied), by hash."""
    path = entry.tree / record.path
    try:
        status = path.lstat()
        if status.st_size != record.size_bytes:
            return False
        return status.st_mtime_ns == record.mtime_ns or file_sha256(path) == record.sha256
    except OSError:
        return False


def _write_manifest(path: Path, entry: CacheEntry) -> None:
    manifest = {
        "schema": _SCHEMA,
        **asdict(entry.label),
        "files": [asdict(record) for record in entry.files],
    }
    path.write_text(json.dumps(manifest, indent=1) + "\n")
