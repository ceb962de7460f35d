"""Kernels: inspected where they are, or found in an unpacked package."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from harness.base.errors import ImageError
from harness.images.elf import build_id
from harness.images.model import Build, KernelImage
from harness.images.modules import BUILTIN_LIST, read_module

_HEADER_BYTES: Final = 0x10000
_MAGIC_OFFSET: Final = 0x202
_VERSION_POINTER_OFFSET: Final = 0x20E
_SETUP_START: Final = 0x200


def inspect_kernel(name: str, vmlinuz: Path, modules_dir: Path | None, source: str) -> KernelImage:
    """A kernel at a path; modules are looked for beside it unless they are given.

    Raises :class:`ImageError` if it is no bzImage or the given modules are not its own.
    """
    banner = _banner(vmlinuz)
    release = banner.split()[0]
    if modules_dir is None:
        modules_dir = _modules_beside(vmlinuz, release)
    elif not modules_dir.is_dir():
        raise ImageError(
            f"no kernel modules at {modules_dir}",
            "there is no such directory",
            f"give the directory lib/modules/{release} of that kernel",
        )
    return KernelImage(name, _version(banner), vmlinuz, modules_dir, source)


def kernel_build(image: KernelImage) -> Build:
    """Debian's banner names the package's version; another's, who built it and when.

    :class:`ImageError` where kernel or module cannot be read.
    """
    banner = _banner(image.vmlinuz)
    package = re.search(r"Debian (\d\S+)", banner)
    module = kvm_module(image)
    return Build(package[1] if package else banner, build_id(module) if module else None)


def kvm_module(image: KernelImage) -> bytes | None:
    """Its module ``kvm``, decompressed; None where it has none.

    :class:`ImageError` where it cannot be read.
    """
    path = image.modules_dir and next(iter(image.modules_dir.rglob("kvm.ko*")), None)
    return read_module(path) if path else None


def unpacked_kernel(name: str, tree: Path, source: str) -> KernelImage:
    """The kernel in an unpacked package, with its modules; :class:`ImageError` if not both."""
    # Debian's packages of Linux 7 have the kernel beside its modules.
    places = ("boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz")
    found = [path for place in places for path in sorted(tree.glob(place))]
    if len(found) != 1:
        raise ImageError(
            f"{tree} is not a kernel package", f"it holds {len(found)} kernels, not one"
        )
    image = inspect_kernel(name, found[0], None, source)
    if image.modules_dir is None or not image.modules_dir.is_relative_to(tree):
        raise ImageError(f"{tree} is not a kernel package", "it holds no modules of its kernel")
    if not (image.modules_dir / BUILTIN_LIST).is_file():
        raise ImageError(
            f"the kernel package in {tree} is incomplete",
            f"it has no {BUILTIN_LIST}, so which modules are built in is not known",
            "delete that directory: the kernel is fetched again",
        )
    return image


def _banner(vmlinuz: Path) -> str:
    """The version string of a bzImage (Linux ``Documentation/arch/x86/boot.rst``)."""
    try:
        with vmlinuz.open("rb") as stream:
            header = stream.read(_HEADER_BYTES)
    except OSError as error:
        raise ImageError(f"cannot read the kernel {vmlinuz}", error.strerror) from error
    if header[_MAGIC_OFFSET : _MAGIC_OFFSET + 4] != b"HdrS":
        raise ImageError(
            f"{vmlinuz} is not a kernel",
            "a bzImage has 'HdrS' at offset 0x202",
            "give a vmlinuz (bzImage), not a vmlinux or another file",
        )
    pointer = int.from_bytes(
        header[_VERSION_POINTER_OFFSET : _VERSION_POINTER_OFFSET + 2], "little"
    )
    start = _SETUP_START + pointer
    banner = header[start : start + 256].split(b"\0")[0].decode("ascii", "replace")
    if not re.match(r"\d+\.\d+", banner):
        raise ImageError(f"{vmlinuz} does not contain its version", f"found {banner[:40]!r}")
    return banner


def _version(banner: str) -> str:
    """Debian's release is an ABI name (``6.1.0-54``); what it was built from comes later."""
    packaged = re.search(r"Debian (\d+(?:\.\d+)+)", banner)
    match = packaged or re.match(r"(\d+(?:\.\d+)+)", banner)
    assert match is not None, banner
    return match[1]


def _modules_beside(vmlinuz: Path, release: str) -> Path | None:
    absolute = vmlinuz.absolute()
    roots = (absolute.parent, absolute.parent.parent, vmlinuz.resolve().parent.parent)
    libs = ("lib/modules", "usr/lib/modules")
    candidates = [root / lib / release for root in roots for lib in libs]
    if (absolute.parent / "kernel").is_dir():
        candidates.insert(0, absolute.parent)
    return next((folder for folder in candidates if folder.is_dir()), None)
