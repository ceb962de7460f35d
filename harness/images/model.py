"""What the image cache hands out: frozen descriptions of files that are there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ImageKind = Literal["kernel", "vmlinux", "qemu", "initrd", "probe", "lines", "floor"]


@dataclass(frozen=True, slots=True)
class KernelImage:
    """A bootable kernel; ``modules_dir`` is the folder ``lib/modules/RELEASE`` or None."""

    name: str
    version: str
    """As its makers count it, such as ``6.1.192``."""
    vmlinuz: Path
    modules_dir: Path | None
    source: str
    """Where it comes from: a suite of the archive, or a path."""


@dataclass(frozen=True, slots=True)
class QemuImage:
    """A ``qemu-system-x86_64`` with everything that it needs to run, here or inside a lab."""

    name: str
    version: tuple[int, ...]
    """Such as ``(7, 2, 22)``."""
    binary: Path
    launcher: tuple[str, ...]
    """What to start on this machine; a foreign QEMU runs under its own dynamic loader."""
    data_dirs: tuple[Path, ...]
    """Firmware folders on this machine, for ``-L``; the binary finds them by itself too."""
    files: tuple[tuple[Path, str], ...]
    """``(file here, path in a lab's root)``: binary, loader, libraries, modules, firmware."""
    source: str

    @property
    def lab_binary(self) -> str:
        """Where the binary is inside a lab."""
        return LAB_QEMU

    @property
    def lab_data_dirs(self) -> tuple[str, ...]:
        """Where the firmware is inside a lab, for ``-L``."""
        return LAB_DATA_DIRS


@dataclass(frozen=True, slots=True)
class Build:
    """Which build of a kernel or a QEMU it is, apart from every other of the same version."""

    package: str
    """The package's full version, or what a local build says of itself."""
    build_id: str | None
    """The linker's, in hexadecimal: of QEMU's binary, and of the kernel's module ``kvm``."""


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """One entry of the cache, as ``irqmatrix images list`` shows it."""

    kind: ImageKind
    name: str
    version: str
    source: str
    size_bytes: int
    intact: bool
    """Every file has the hash that it was stored with."""
    path: Path


@dataclass(frozen=True, slots=True)
class Offer:
    """A version of a package that an archive lists."""

    kind: Literal["kernel", "qemu"]
    version: str
    """Upstream's version, such as ``6.12.107`` or ``10.0.13``."""
    package: str
    package_version: str
    suite: str
    missing: tuple[str, ...] = ()
    """Parts, as ``package=version``, that have gone from the archive: it cannot be downloaded."""

    @property
    def name(self) -> str:
        """The package version without its epoch: colons separate a loader's library path."""
        return self.package_version.rpartition(":")[2]


@dataclass(frozen=True, slots=True)
class Choice:
    """A version that can be had: the name to ask for it, and whether it is there already."""

    name: str
    version: str
    cached: bool
    source: str


# A QEMU finds its firmware beside its binary's folder, wherever it was built for.
LAB_QEMU = "/usr/bin/qemu-system-x86_64"
LAB_DATA_DIRS = ("/usr/share/qemu",)
