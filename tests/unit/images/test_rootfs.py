from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.base import resources
from harness.base.errors import ImageError
from harness.images.cpio import File, Symlink
from harness.images.kernel import unpacked_kernel
from harness.images.model import KernelImage, QemuImage
from harness.images.rootfs import BUSYBOX, lab_tree, linux_tree
from support.kernel_files import module_with_code, write_kernel

needs_busybox = pytest.mark.skipif(not BUSYBOX.exists(), reason="busybox-static is not installed")

MODULES = {
    "virtio.ko": "",
    "virtio_pci.ko": "virtio",
    "virtio_blk.ko": "virtio",
    "virtio_console.ko": "virtio",
    "kvm.ko": "",
    "kvm-amd.ko": "kvm",
}


@pytest.fixture
def kernel(tmp_path: Path) -> KernelImage:
    write_kernel(tmp_path / "kernel", MODULES)
    return unpacked_kernel("6.1.192-2", tmp_path / "kernel", "here")


@pytest.fixture
def qemu(tmp_path: Path) -> QemuImage:
    binary = tmp_path / "qemu"
    binary.write_text("binary")
    binary.chmod(0o755)
    rom = tmp_path / "rom"
    rom.write_text("rom")
    files = ((binary, "/usr/bin/qemu-system-x86_64"), (rom, "/usr/share/qemu/bios.bin"))
    return QemuImage("q", (7, 2, 22), binary, (str(binary),), (), files, "here")


@needs_busybox
def test_linux_tree_has_init_workloads_and_applets(kernel: KernelImage) -> None:
    sources = resources.images() / "linux"

    tree = linux_tree(sources, kernel)

    assert tree["/init"] == File(sources / "init", 0o755)
    assert tree["/workloads/idle"] == File(sources / "workloads" / "idle")
    assert tree["/bin/insmod"] == Symlink("busybox")
    assert tree["/bin/busybox"] == File(BUSYBOX, 0o755)


@needs_busybox
def test_linux_tree_lists_its_modules_in_order(kernel: KernelImage) -> None:
    tree = linux_tree(resources.images() / "linux", kernel)

    assert tree["/etc/modules.order"] == File(
        b"/lib/modules/virtio.ko\n/lib/modules/virtio_pci.ko\n/lib/modules/virtio_blk.ko\n"
    )
    assert "/lib/modules/virtio_blk.ko" in tree


@needs_busybox
def test_linux_tree_of_a_kernel_without_modules_has_none(kernel: KernelImage) -> None:
    builtin = KernelImage("x", "6.18", kernel.vmlinuz, None, "here")

    tree = linux_tree(resources.images() / "linux", builtin)

    assert tree["/etc/modules.order"] == File(b"")


@needs_busybox
def test_linux_tree_has_its_acpi_tables_where_linux_looks(kernel: KernelImage) -> None:
    sources = resources.images() / "linux"

    tree = linux_tree(sources, kernel)

    assert tree["/kernel/firmware/acpi/rtc.aml"] == File(sources / "acpi" / "rtc.aml")


def test_acpi_table_has_its_length_and_checksum() -> None:
    table = (resources.images() / "linux" / "acpi" / "rtc.aml").read_bytes()

    assert table[:4] == b"SSDT"
    assert int.from_bytes(table[4:8], "little") == len(table)
    assert sum(table) % 256 == 0


@needs_busybox
def test_lab_tree_has_qemu_at_its_place_and_kvm(kernel: KernelImage, qemu: QemuImage) -> None:
    tree = lab_tree(resources.images() / "lab", kernel, qemu)

    assert tree["/usr/bin/qemu-system-x86_64"] == File(qemu.binary, 0o755)
    assert tree["/usr/share/qemu/bios.bin"] == File(qemu.binary.parent / "rom", 0o644)
    order = tree["/etc/modules.order"]
    assert isinstance(order, File)
    assert order.content.split()[-2:] == [b"/lib/modules/kvm_amd.ko", b"/lib/modules/virtio_blk.ko"]


@needs_busybox
def test_lab_tree_has_a_fixed_module_for_tcg_beside_the_kernels_own(
    kernel: KernelImage, qemu: QemuImage
) -> None:
    assert kernel.modules_dir is not None
    code = bytes.fromhex("f68289000000 07 c3")
    faulty = module_with_code("kvm-amd", {"svm_check_emulate_instruction": code})
    (kernel.modules_dir / "kernel" / "kvm-amd.ko").write_bytes(faulty)

    tree = lab_tree(resources.images() / "lab", kernel, qemu)

    fixed = tree["/lib/modules/tcg/kvm_amd.ko"]
    assert tree["/lib/modules/kvm_amd.ko"] == File(faulty)
    assert isinstance(fixed, File)
    assert fixed.content == faulty.replace(code, bytes.fromhex("f6828b000000 80 c3"))
    assert tree["/lib/modules/tcg/kvm_amd.ko.fixes"] == File(b"svm-stale-exitintinfo")


@needs_busybox
def test_lab_tree_of_a_kernel_without_kvm_is_an_error(tmp_path: Path, qemu: QemuImage) -> None:
    write_kernel(tmp_path / "other", {"virtio_pci.ko": "", "virtio_console.ko": ""})
    kernel = unpacked_kernel("x", tmp_path / "other", "here")

    with pytest.raises(ImageError, match="kernel module kvm_amd is missing"):
        lab_tree(resources.images() / "lab", kernel, qemu)


def test_tree_without_busybox_says_what_to_install(kernel: KernelImage, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"busybox is missing.*\(install the package busybox-stat"):
        linux_tree(resources.images() / "linux", kernel, tmp_path / "gone")


def test_tree_with_a_dynamic_busybox_says_what_to_install(kernel: KernelImage) -> None:
    with pytest.raises(ImageError, match=r"dynamically linked \(install the package busybox-stat"):
        linux_tree(resources.images() / "linux", kernel, Path(sys.executable).resolve())
