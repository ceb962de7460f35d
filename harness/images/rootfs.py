"""The trees of the two initial RAM disks, the guest's and the lab's, as data."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from harness.base.errors import ImageError
from harness.images.cpio import Device, Directory, File, Node, Symlink
from harness.images.elf import interpreter
from harness.images.helper import build_helper, compiler
from harness.images.model import KernelImage, QemuImage
from harness.images.modules import Module, load_order
from harness.images.tcgfixes import fixed_for_tcg

GUEST_MODULES: Final = ("virtio_pci", "virtio_blk")
GUEST_OPTIONAL_MODULES: Final = ("virtio_mmio",)
LAB_MODULES: Final = ("virtio_pci", "virtio_console", "kvm_amd")
LAB_OPTIONAL_MODULES: Final = ("virtio_blk", "qemu_fw_cfg", "kvm_intel")

BUSYBOX: Final = Path("/bin/busybox")
_BUSYBOX_FIX: Final = "install the package busybox-static"
ACPI_FOLDER: Final = "/kernel/firmware/acpi"
"""Where Linux looks for tables to add to the firmware's; they must not be compressed
(``Documentation/admin-guide/acpi/initrd_table_override.rst``)."""
MODULE_FOLDER: Final = "/lib/modules"
MODULE_ORDER: Final = "/etc/modules.order"
TCG_MODULE_FOLDER: Final = "/lib/modules/tcg"
"""Modules for a lab that TCG runs, each with a file beside it that names what was changed."""

_EMPTY_FOLDERS: Final = ("/dev", "/mnt", "/proc", "/root", "/run", "/sys", "/tmp")


def linux_tree(sources: Path, kernel: KernelImage, busybox: Path = BUSYBOX) -> dict[str, Node]:
    """The guest's initial RAM disk: ``sources`` is ``images/linux``.

    Raises :class:`ImageError` if busybox is missing or not static, or a module is missing.
    """
    workloads = sorted(path for path in (sources / "workloads").iterdir() if path.is_file())
    return {
        **_base(busybox),
        "/init": File(sources / "init", 0o755),
        **{f"/workloads/{path.name}": File(path) for path in workloads},
        **_helpers(sources),
        **{f"{ACPI_FOLDER}/{path.name}": File(path) for path in sorted(sources.glob("acpi/*.aml"))},
        **_module_nodes(_modules(kernel, GUEST_MODULES, GUEST_OPTIONAL_MODULES)),
    }


def lab_tree(
    sources: Path, kernel: KernelImage, qemu: QemuImage, busybox: Path = BUSYBOX
) -> dict[str, Node]:
    """The lab's initial RAM disk: ``sources`` is ``images/lab``; errors as :func:`linux_tree`."""
    modules = _modules(kernel, LAB_MODULES, LAB_OPTIONAL_MODULES)
    return {
        **_base(busybox),
        "/init": File(sources / "init", 0o755),
        **_module_nodes(modules),
        **_tcg_nodes(modules),
        **{path: _copy(source) for source, path in qemu.files},
    }


def _base(busybox: Path) -> dict[str, Node]:
    return {
        **{folder: Directory() for folder in _EMPTY_FOLDERS},
        "/dev/console": Device(stat.S_IFCHR, 5, 1),
        "/dev/null": Device(stat.S_IFCHR, 1, 3, 0o666),
        "/bin/busybox": File(busybox, 0o755),
        **{f"/bin/{applet}": Symlink("busybox") for applet in _applets(busybox)},
    }


def _helpers(sources: Path) -> dict[str, Node]:
    cc = compiler()
    if cc is None:
        return {}
    programs = {path.stem: build_helper(cc, path) for path in sorted(sources.glob("*.c"))}
    return {f"/bin/{name}": File(program, 0o755) for name, program in programs.items()}


def check_busybox(busybox: Path = BUSYBOX) -> None:
    """Raises :class:`ImageError` if it is missing or not static."""
    if not busybox.is_file():
        raise ImageError("busybox is missing", f"there is no {busybox}", _BUSYBOX_FIX)
    if interpreter(busybox) is not None:
        raise ImageError(f"{busybox} cannot be used", "it is dynamically linked", _BUSYBOX_FIX)


def _applets(busybox: Path) -> tuple[str, ...]:
    check_busybox(busybox)
    try:
        listed = subprocess.run(
            [busybox, "--list"], check=True, capture_output=True, text=True, timeout=10
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise ImageError(f"{busybox} cannot be used", str(error), _BUSYBOX_FIX) from error
    return tuple(name for name in listed.split() if name != "busybox")


def _modules(
    kernel: KernelImage, wanted: Sequence[str], optional: Sequence[str]
) -> tuple[Module, ...]:
    """None for a kernel without a module folder: it must have them built in."""
    if kernel.modules_dir is None:
        return ()
    return load_order(kernel.modules_dir, wanted, optional)


def _module_nodes(modules: Sequence[Module]) -> dict[str, Node]:
    order = "".join(f"{MODULE_FOLDER}/{module.name}.ko\n" for module in modules)
    return {
        MODULE_ORDER: File(order.encode()),
        **{f"{MODULE_FOLDER}/{module.name}.ko": File(module.content) for module in modules},
    }


def _tcg_nodes(modules: Sequence[Module]) -> dict[str, Node]:
    nodes: dict[str, Node] = {}
    for module, names in filter(None, map(fixed_for_tcg, modules)):
        path = f"{TCG_MODULE_FOLDER}/{module.name}.ko"
        nodes |= {path: File(module.content), f"{path}.fixes": File(",".join(names).encode())}
    return nodes


def _copy(source: Path) -> File:
    return File(source, 0o755 if source.stat().st_mode & 0o100 else 0o644)
