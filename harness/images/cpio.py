"""A writer of ``newc`` cpio archives, the format of a kernel's initial RAM disk.

Source: Linux ``Documentation/driver-api/early-userspace/buffer-format.rst`` and
``usr/gen_init_cpio.c``. The output depends on the tree alone: entries are sorted, times are 0,
everything belongs to root, inode numbers count up. Not modelled: hard links, checksums (070702).
"""

from __future__ import annotations

import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from harness.base.errors import ImageError

_MAX_FILE_BYTES = 0xFFFF_FFFF
_TRAILER = "TRAILER!!!"
_BLOCK_BYTES = 512


@dataclass(frozen=True, slots=True)
class Directory:
    """A folder."""

    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class File:
    """A regular file: its bytes, or the path of a file to copy them from."""

    content: bytes | Path
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link."""

    target: str


@dataclass(frozen=True, slots=True)
class Device:
    """A character or block device node."""

    kind: int
    """``stat.S_IFCHR`` or ``stat.S_IFBLK``."""
    major: int
    minor: int
    mode: int = 0o600


Node = Directory | File | Symlink | Device
Tree = Mapping[str, Node]
"""Absolute path in the archive to node; missing parent folders are added by the writer."""


def write_cpio(tree: Tree, out: BinaryIO) -> None:
    """Write ``tree`` as one newc archive, streaming file contents.

    Raises :class:`ImageError` for a path that is not absolute and normal, for a file below
    something that is not a folder, and for a file that cannot be read or is larger than 4 GiB - 1.
    """
    written = 0
    for inode, (path, node) in enumerate(_with_parents(tree), start=1):
        written += _write_entry(out, path.lstrip("/"), node, inode)
    written += _write_header(out, _TRAILER, inode=0, mode=0, links=1, size=0, device=(0, 0))
    out.write(bytes(-written % _BLOCK_BYTES))


def _with_parents(tree: Tree) -> list[tuple[str, Node]]:
    nodes: dict[str, Node] = {}
    for path, node in tree.items():
        if not path.startswith("/") or path != "/" + "/".join(_parts(path)) or path == "/":
            raise ImageError(
                f"an archive cannot hold {path!r}",
                "paths are absolute and without '.', '..' or empty parts",
            )
        nodes[path] = node
    for path in tree:
        parts = _parts(path)
        for depth in range(1, len(parts)):
            parent = "/" + "/".join(parts[:depth])
            if not isinstance(nodes.setdefault(parent, Directory()), Directory):
                raise ImageError(
                    f"an archive cannot hold {path!r}", f"{parent!r} is not a directory"
                )
    # Sorted by parts, so that a folder comes before what it holds.
    return sorted(nodes.items(), key=lambda item: _parts(item[0]))


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part not in ("", ".", ".."))


def _write_entry(out: BinaryIO, name: str, node: Node, inode: int) -> int:
    match node:
        case Directory(mode):
            return _write_header(out, name, inode, stat.S_IFDIR | mode, 2, 0, (0, 0))
        case Device(kind, major, minor, mode):
            return _write_header(out, name, inode, kind | mode, 1, 0, (major, minor))
        case Symlink(target):
            return _write_bytes(out, name, inode, stat.S_IFLNK | 0o777, target.encode())
        case File(content, mode):
            if isinstance(content, bytes):
                return _write_bytes(out, name, inode, stat.S_IFREG | mode, content)
            return _write_file(out, name, inode, stat.S_IFREG | mode, content)


def _write_bytes(out: BinaryIO, name: str, inode: int, mode: int, content: bytes) -> int:
    written = _write_header(out, name, inode, mode, 1, len(content), (0, 0))
    return written + out.write(content) + out.write(bytes(-len(content) % 4))


def _write_file(out: BinaryIO, name: str, inode: int, mode: int, source: Path) -> int:
    try:
        with source.open("rb") as stream:
            size = source.stat().st_size
            written = _write_header(out, name, inode, mode, 1, size, (0, 0))
            start = out.tell()
            shutil.copyfileobj(stream, out, 1 << 20)
            if out.tell() - start != size:
                raise ImageError(f"{source} changed while it was being packed")
    except OSError as error:
        raise ImageError(f"cannot pack {source} as /{name}", str(error)) from error
    return written + size + out.write(bytes(-size % 4))


def _write_header(
    out: BinaryIO,
    name: str,
    inode: int,
    mode: int,
    links: int,
    size: int,
    device: tuple[int, int],
) -> int:
    if size > _MAX_FILE_BYTES:
        raise ImageError(f"an archive cannot hold /{name}", f"{size} bytes are more than 4 GiB - 1")
    raw_name = name.encode() + b"\0"
    uid = gid = mtime = device_major = device_minor = check = 0
    fields = (
        *(inode, mode, uid, gid, links, mtime, size),
        *(device_major, device_minor, *device, len(raw_name), check),
    )
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + raw_name
    return out.write(header) + out.write(bytes(-len(header) % 4))
