from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest
import zstandard

from harness.images.vmlinux import startable_vmlinux
from support.kernel_files import bzimage, vmlinux

ZSTD = zstandard.ZstdCompressor().compress
SIZE = (1234).to_bytes(4, "little")
"""What a compressed kernel has at its end."""


def unpacked(tmp_path: Path, payload: bytes) -> bytes | None:
    vmlinuz = tmp_path / "vmlinuz"
    vmlinuz.write_bytes(bzimage(payload=payload))
    return startable_vmlinux(vmlinuz)


@pytest.mark.parametrize("compress", [ZSTD, lzma.compress, gzip.compress])
def test_vmlinux_with_a_pvh_entry_is_unpacked(compress, tmp_path: Path) -> None:
    assert unpacked(tmp_path, compress(vmlinux()) + SIZE) == vmlinux()


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(ZSTD(vmlinux(note_type=3)), id="no entry"),
        pytest.param(ZSTD(b"no ELF file"), id="no ELF file"),
        pytest.param(ZSTD(vmlinux())[:40], id="cut"),
        pytest.param(b"\x02\x21\x4c\x18" + bytes(100), id="LZ4"),
        pytest.param(b"", id="none"),
    ],
)
def test_vmlinux_that_cannot_be_started_is_none(payload, tmp_path: Path) -> None:
    assert unpacked(tmp_path, payload) is None
