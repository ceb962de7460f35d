from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from harness.base.errors import ImageError
from harness.images.modules import load_order, read_module
from support.kernel_files import RELEASE, module, write_kernel

MODULES = {
    "irqbypass.ko": "",
    "kvm.ko.xz": "irqbypass",
    "kvm-amd.ko.xz": "kvm,ccp",
    "ccp.ko": "",
    "virtio_pci.ko": "virtio_ring,virtio",
    "virtio_ring.ko": "virtio",
    "virtio.ko": "",
}


@pytest.fixture
def modules_dir(tmp_path: Path) -> Path:
    write_kernel(tmp_path, MODULES, builtin="kernel/drivers/char/hw-random.ko\n")
    return tmp_path / "lib" / "modules" / RELEASE


def test_load_order_puts_dependencies_first(modules_dir: Path) -> None:
    order = [found.name for found in load_order(modules_dir, ["kvm_amd", "virtio_pci"])]

    assert order == ["irqbypass", "kvm", "ccp", "kvm_amd", "virtio", "virtio_ring", "virtio_pci"]


def test_load_order_gives_modules_decompressed(modules_dir: Path) -> None:
    found = {found.name: found.content for found in load_order(modules_dir, ["kvm_amd"])}

    assert found["kvm"] == module("kvm", "irqbypass")


def test_load_order_leaves_out_what_is_built_in(modules_dir: Path) -> None:
    assert load_order(modules_dir, ["hw_random"]) == ()


def test_load_order_reads_what_is_built_in_from_modinfo_where_there_is_no_list(
    modules_dir: Path,
) -> None:
    (modules_dir / "modules.builtin").unlink()
    info = (
        b"hw-random.license=GPL\0hw-random.file=drivers/char/hw-random\0virtio_mmio.license=GPL\0"
    )
    (modules_dir / "modules.builtin.modinfo").write_bytes(info)

    assert load_order(modules_dir, ["hw_random", "virtio_mmio"]) == ()


def test_load_order_without_any_list_of_what_is_built_in_says_so(modules_dir: Path) -> None:
    (modules_dir / "modules.builtin").unlink()

    with pytest.raises(ImageError, match=r"nor below .*, which has no modules\.builtin"):
        load_order(modules_dir, ["hw_random"])


def test_load_order_leaves_out_an_optional_module_that_is_missing(modules_dir: Path) -> None:
    order = load_order(modules_dir, ["virtio"], optional=["kvm_intel", "ccp"])

    assert [found.name for found in order] == ["virtio", "ccp"]


def test_load_order_without_a_wanted_module_is_an_error(modules_dir: Path) -> None:
    with pytest.raises(ImageError, match=r"kernel module kvm_intel is missing.*neither built in"):
        load_order(modules_dir, ["kvm_intel"])


def test_module_compressed_with_gzip_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.ko.gz"
    path.write_bytes(gzip.compress(b"module"))

    assert read_module(path) == b"module"


def test_module_cut_short_is_an_error_that_names_it(modules_dir: Path) -> None:
    path = modules_dir / "kernel" / "kvm.ko.xz"
    path.write_bytes(path.read_bytes()[:100])

    with pytest.raises(ImageError, match=r"cannot read kernel module .*kvm\.ko\.xz"):
        read_module(path)
