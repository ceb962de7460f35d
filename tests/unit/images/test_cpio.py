from __future__ import annotations

import io
import stat
import subprocess
from pathlib import Path

import pytest

from harness.base.errors import ImageError
from harness.images.cpio import Device, Directory, File, Symlink, Tree, write_cpio

BUSYBOX = Path("/bin/busybox")
needs_busybox = pytest.mark.skipif(not BUSYBOX.exists(), reason="no busybox to read it back")


def packed(tree: Tree) -> bytes:
    out = io.BytesIO()
    write_cpio(tree, out)
    return out.getvalue()


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    source = tmp_path / "source"
    source.write_bytes(b"from a file\n" * 1000)
    return {
        "/init": File(b"#!/bin/sh\n", 0o755),
        "/bin/tool": File(source, 0o755),
        "/bin/alias": Symlink("tool"),
        "/dev/console": Device(stat.S_IFCHR, 5, 1),
        "/empty": Directory(0o700),
    }


def test_file_header_has_the_fields_of_newc_in_order() -> None:
    archive = packed({"/ab": File(b"xyz", 0o644)})

    fields = ["00000001", "000081A4", "00000000", "00000000", "00000001", "00000000", "00000003"]
    fields += ["00000000", "00000000", "00000000", "00000000", "00000003", "00000000"]
    header = ("070701" + "".join(fields)).encode() + b"ab\0"
    assert archive.startswith(header + b"\0" * (-len(header) % 4) + b"xyz\0" + b"070701")


def test_archive_ends_with_the_trailer_in_whole_blocks(tree: Tree) -> None:
    archive = packed(tree)

    assert archive.rstrip(b"\0").endswith(b"TRAILER!!!")
    assert len(archive) % 512 == 0


@needs_busybox
def test_archive_read_by_busybox_lists_the_tree_folders_first(tree: Tree) -> None:
    listed = subprocess.run(
        [BUSYBOX, "cpio", "-t"], input=packed(tree), capture_output=True, check=True
    ).stdout

    assert listed.decode().split() == [
        *("bin", "bin/alias", "bin/tool", "dev", "dev/console", "empty", "init")
    ]


@needs_busybox
def test_archive_unpacked_by_busybox_gives_contents_modes_and_links(
    tree: Tree, tmp_path: Path
) -> None:
    target = tmp_path / "unpacked"
    target.mkdir()
    plain = {path: node for path, node in tree.items() if not isinstance(node, Device)}

    subprocess.run(
        [BUSYBOX, "cpio", "-idm"], input=packed(plain), cwd=target, capture_output=True, check=True
    )

    assert (target / "bin/tool").read_bytes() == b"from a file\n" * 1000
    assert (target / "bin/alias").readlink() == Path("tool")
    assert stat.S_IMODE((target / "init").stat().st_mode) == 0o755
    assert stat.S_IMODE((target / "empty").stat().st_mode) == 0o700
    assert (target / "init").stat().st_mtime == 0


def test_device_has_its_type_and_numbers() -> None:
    archive = packed({"/console": Device(stat.S_IFCHR, 5, 1, 0o600)})

    assert archive[14:22] == b"00002180"
    assert archive[78:94] == b"0000000500000001"


def test_same_tree_in_another_order_gives_the_same_bytes(tree: Tree) -> None:
    assert packed(dict(reversed(tree.items()))) == packed(tree)


@pytest.mark.parametrize("path", ["relative", "/", "/a/../b", "/a//b", "/a/", "/./a"])
def test_path_that_is_not_absolute_and_normal_is_refused(path: str) -> None:
    with pytest.raises(ImageError, match="cannot hold"):
        packed({path: File(b"")})


def test_file_below_a_file_is_refused() -> None:
    with pytest.raises(ImageError, match="'/a' is not a directory"):
        packed({"/a": File(b""), "/a/b": File(b"")})


def test_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=f"cannot pack {tmp_path}/gone as /x: .*No such file"):
        packed({"/x": File(tmp_path / "gone")})


def test_file_larger_than_the_format_can_say_is_refused(tmp_path: Path) -> None:
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(1 << 32)

    with pytest.raises(ImageError, match="4294967296 bytes are more than 4 GiB - 1"):
        packed({"/x": File(sparse)})
