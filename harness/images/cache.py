"""The image cache: names in, usable kernels, QEMUs and initial RAM disks out.

Whatever was fetched once works without a network. Nothing of the system is changed; all is below
``$XDG_CACHE_HOME/irqmatrix``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import zstandard

from harness.base import resources
from harness.base.errors import ImageError
from harness.images import cpio, dwarf, elf, rootfs, runner
from harness.images.archive import version_key
from harness.images.helper import compiler
from harness.images.kernel import inspect_kernel, kvm_module, unpacked_kernel
from harness.images.model import Choice, ImageInfo, ImageKind, KernelImage, Offer, QemuImage
from harness.images.packages import KINDS, PackageKind, Packages, matches
from harness.images.probe import PREBUILT, build_probe
from harness.images.probe import sources as probe_sources
from harness.images.qemu import BINARY_NAME, cached_qemu, inspect_qemu
from harness.images.store import CacheEntry, Label, Store
from harness.images.vmlinux import startable_vmlinux
from harness.model.coverage import CHIPS, MODULE, LineTable

_KINDS: Final[tuple[ImageKind, ...]] = (
    "kernel",
    "vmlinux",
    "qemu",
    "initrd",
    "probe",
    "lines",
    "floor",
)
_INITRD_NAME: Final = "initrd.cpio"
_VMLINUX_NAME: Final = "vmlinux"
_LINES_NAME: Final = "lines.json.zst"
_FLOOR_NAME: Final = "ran.json.zst"
_DERIVED_KEPT: Final = 12
_DERIVED_KEPT_S: Final = 24 * 3600.0


def default_root() -> Path:
    """``$XDG_CACHE_HOME/irqmatrix``, by default ``~/.cache/irqmatrix``.

    :class:`ImageError` for a user without a home.
    """
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "irqmatrix"
    try:
        return Path.home() / ".cache" / "irqmatrix"
    except RuntimeError:
        raise ImageError(
            "there is no place for the image cache",
            f"HOME is not set, and user {os.getuid()} has no entry in the password database",
            "set XDG_CACHE_HOME to a directory that can be written",
        ) from None


class ImageCache:
    """Kernels, QEMUs and initial RAM disks; safe to use from several processes at once.

    ``offline`` never asks the network. Every method raises :class:`ImageError` for what cannot be
    had, naming what can.
    """

    def __init__(self, root: Path | None = None, *, offline: bool = False) -> None:
        self.root = default_root() if root is None else root
        self._store = Store(self.root)
        self._packages = Packages(self._store, self.root, offline=offline)
        self._inspected: dict[Path, QemuImage] = {}

    def kernel(self, name: str = "default") -> KernelImage:
        """``default``, a version or its beginning (``6.1``), or a path, ``path:modules_dir``."""
        if "/" in name:
            path, _, modules = name.partition(":")
            return inspect_kernel(name, Path(path), Path(modules) if modules else None, path)
        if name == "default":
            return _kernel_image(self._packages.default_kernel())
        return _kernel_image(self._packages.get("kernel", name))

    def qemu(self, name: str = "system") -> QemuImage:
        """``system``, a version or its beginning (``10.0``), or a path."""
        if "/" in name:
            return self._inspect(name, Path(name))
        found = shutil.which(BINARY_NAME)
        if name == "system" and found is None:
            raise ImageError(
                "the system has no QEMU",
                f"there is no {BINARY_NAME} in PATH",
                "install the package qemu-system-x86, or name a version such as 10.0",
            )
        if found is not None:
            system = self._inspect("system", Path(found))
            if name == "system" or matches(_dotted(system.version), name):
                return system
        return _qemu_image(self._packages.get("qemu", name))

    def lab_qemu(self, name: str = "default") -> QemuImage:
        """What runs a lab: ``default`` is the soundest one here, else as :meth:`qemu`."""
        if name != "default":
            return self.qemu(name)
        there = self.qemus()
        return runner.soundest(there).qemu if there else self.qemu()

    def qemus(self) -> tuple[QemuImage, ...]:
        """The system's and those that are cached, without asking the network."""
        with suppress(ImageError):
            return (self.qemu(), *self._cached_qemus())
        return self._cached_qemus()

    def kernel_versions(self) -> tuple[str, ...]:
        """Of the kernels that are cached."""
        return tuple(dict.fromkeys(entry.label.version for entry in self._store.entries("kernel")))

    def _cached_qemus(self) -> tuple[QemuImage, ...]:
        names = (entry.label.name for entry in self._store.entries("qemu"))
        entries = (self._store.find("qemu", name) for name in names)
        return tuple(_qemu_image(entry) for entry in entries if entry is not None)

    def linux_initrd(self, kernel: KernelImage) -> Path:
        """The guest's initial RAM disk for ``kernel``: busybox, init, workloads, modules."""
        sources = resources.images() / "linux"
        return self._initrd(
            Label("initrd", f"linux-{kernel.version}", kernel.version, "linux guest"),
            # With a compiler there are helpers in it; without, there are none.
            [*_files_below(sources), *_kernel_inputs(kernel), compiler() or Path("cc")],
            lambda: rootfs.linux_tree(sources, kernel),
        )

    def lab_initrd(self, kernel: KernelImage, qemu: QemuImage) -> Path:
        """The lab's: busybox, QEMU with all it needs, the modules of KVM and virtio."""
        sources = resources.images() / "lab"
        version = f"{kernel.version}-{_dotted(qemu.version)}"
        return self._initrd(
            Label("initrd", f"lab-{version}", version, "lab"),
            [*_files_below(sources), *_kernel_inputs(kernel), *(path for path, _ in qemu.files)],
            lambda: rootfs.lab_tree(sources, kernel, qemu),
        )

    def lab_kernel(self, kernel: KernelImage) -> Path:
        """What a lab boots: a cached kernel unpacked, where it can be and QEMU can start it so.

        Otherwise the ``vmlinuz``, which only takes longer: for a kernel that was given by its path,
        which is seldom booted often, and in a cache that cannot be written.
        """
        if kernel.vmlinuz.is_relative_to(self.root):
            with suppress(ImageError, OSError):
                return self._vmlinux(kernel) or kernel.vmlinuz
        return kernel.vmlinuz

    def _vmlinux(self, kernel: KernelImage) -> Path | None:
        name = f"{kernel.version}-{_fingerprint([kernel.vmlinuz])}"
        entry = self._store.find("vmlinux", name)
        if entry is None:
            content = startable_vmlinux(kernel.vmlinuz)
            if content is None:
                return None
            with self._store.building() as scratch:
                entry = self._store.find("vmlinux", name)
                if entry is None:
                    (scratch / "tree").mkdir()
                    (scratch / "tree" / _VMLINUX_NAME).write_bytes(content)
                    label = Label("vmlinux", name, kernel.version, "lab's kernel")
                    entry = self._store.publish(label, scratch / "tree")
                self._discard_old("vmlinux", scratch)
        _used_now(entry)
        return entry.tree / _VMLINUX_NAME

    def probe(self) -> Path:
        """The probe guest: as it came with the package, or built with the system's compiler."""
        folder = resources.images() / "probe"
        if (folder / PREBUILT).is_file():
            return folder / PREBUILT
        cc = compiler()
        if cc is None:
            fix = "install the package gcc, or irqmatrix from a wheel"
            raise ImageError("the probe cannot be built", "there is no C compiler", fix)
        digest = _content_fingerprint([*probe_sources(folder), cc])
        entry = self._store.find("probe", digest)
        if entry is None:
            with self._store.building() as scratch:
                entry = self._store.find("probe", digest)
                if entry is None:
                    (scratch / "tree").mkdir()
                    build_probe(cc, folder, scratch / "tree" / PREBUILT)
                    label = Label("probe", digest, "", "images/probe")
                    entry = self._store.publish(label, scratch / "tree")
        return entry.tree / PREBUILT

    def line_table(self, kernel: str, build_id: str) -> LineTable:
        """The lines and functions of the chips in that build of KVM, of the kernel of that name.

        From the module itself, or from the debug package of exactly that kernel, which is
        downloaded (about 300 MB) and not kept.
        """
        entry = self._store.find("lines", build_id)
        if entry is None:
            image = self.kernel(kernel)
            module = _module_of(image, build_id)
            with self._store.building() as scratch:
                entry = self._store.find("lines", build_id)
                entry = entry or self._lines(image, module, build_id, scratch)
        data = zstandard.decompress((entry.tree / _LINES_NAME).read_bytes())
        return LineTable.of_json(json.loads(data))

    def _lines(
        self, kernel: KernelImage, module: bytes, build_id: str, scratch: Path
    ) -> CacheEntry:
        if not dwarf.has_lines(module):
            module = self._packages.debug_module(kernel, MODULE, scratch)
        table = dwarf.line_table(module, kernel.name, CHIPS)
        if table.build_id != build_id:
            raise ImageError(
                f"the debug package of {kernel.name} is of another build",
                f"its module is {table.build_id}, the kernel's {build_id}",
            )
        (scratch / "tree").mkdir()
        text = json.dumps(table.as_json()).encode()
        (scratch / "tree" / _LINES_NAME).write_bytes(zstandard.compress(text))
        label = Label("lines", build_id, kernel.version, "debug information")
        return self._store.publish(label, scratch / "tree")

    def floor(self, name: str) -> Path | None:
        """What ran whatever the guest was asked to do, if it was kept under that name."""
        entry = self._store.find("floor", name)
        return None if entry is None else entry.tree / _FLOOR_NAME

    def keep_floor(self, name: str, version: str, recorded: Path) -> Path:
        """Keep it for the runs to come."""
        with self._store.building() as scratch:
            (scratch / "tree").mkdir()
            shutil.copy(recorded, scratch / "tree" / _FLOOR_NAME)
            entry = self._store.publish(Label("floor", name, version, "lab"), scratch / "tree")
        return entry.tree / _FLOOR_NAME

    def list(self) -> tuple[ImageInfo, ...]:
        """Everything in the cache; reads all of it to check the hashes."""
        return tuple(
            self._info(kind, path) for kind in _KINDS for path in self._store.folders(kind)
        )

    def names(self) -> frozenset[str]:
        """Of the kernels and QEMUs that are cached, whole or not."""
        return frozenset(path.name for kind in KINDS for path in self._store.folders(kind))

    def series(self, kind: PackageKind) -> tuple[str, ...]:
        """The series that are cached, such as ``6.12``, oldest first."""
        return self._packages.series(kind)

    def available(self) -> tuple[Offer, ...]:
        """What the archives can deliver, the running release's own suite first."""
        return self._packages.available()

    def choices(self, kind: PackageKind) -> tuple[Choice, ...]:
        """The available versions, oldest first: in the cache, from the archives, the system's."""
        found = self._packages.choices(kind)
        binary = shutil.which(BINARY_NAME) if kind == "qemu" else None
        if binary is None:
            return found
        version = _dotted(self._inspect("system", Path(binary)).version)
        others = [choice for choice in found if not matches(version, choice.version)]
        system = Choice("system", version, True, "this system")
        return tuple(sorted((system, *others), key=lambda choice: version_key(choice.version)))

    def build(self, kernels: Iterable[str], qemus: Iterable[str]) -> None:
        """Have everything for these ready, so that a run needs no network: labs of each pair."""
        self.probe()
        kernel_images = [self.kernel(name) for name in kernels]
        qemu_images = [self.qemu(name) for name in qemus]
        for kernel in kernel_images:
            self.linux_initrd(kernel)
            self.lab_kernel(kernel)
            for qemu in qemu_images:
                self.lab_initrd(kernel, qemu)

    def refresh(self, kernels: Iterable[str], qemus: Iterable[str]) -> tuple[ImageInfo, ...]:
        """Fetch what the archives have that is newer than the cached ones; old ones stay.

        Without names, of every series that is cached. Returns what is the newest of each now.
        """
        names = {"kernel": tuple(kernels), "qemu": tuple(qemus)}
        if not any(names.values()):
            names = {kind: self._packages.series(kind) for kind in KINDS}
            names["kernel"] = ("default", *names["kernel"])
        entries = {
            entry.path: entry
            for kind in KINDS
            for name in names[kind]
            if (entry := self._newest(kind, name)) is not None
        }
        return tuple(self._info(entry.label.kind, entry.path) for entry in entries.values())

    def _newest(self, kind: PackageKind, name: str) -> CacheEntry | None:
        """None for what is not of the archives: a path, the system's QEMU."""
        if "/" in name or (kind, name) == ("qemu", "system"):
            return None
        if (kind, name) == ("kernel", "default"):
            return self._packages.default_kernel(refresh=True)
        return self._packages.newest(kind, name)

    def _inspect(self, name: str, binary: Path) -> QemuImage:
        if binary not in self._inspected:
            self._inspected[binary] = inspect_qemu(name, binary, str(binary))
        return self._inspected[binary]

    def _initrd(
        self,
        label: Label,
        inputs: Iterable[Path],
        tree: Callable[[], Mapping[str, cpio.Node]],
    ) -> Path:
        label = Label("initrd", f"{label.name}-{_fingerprint(inputs)}", label.version, label.source)
        entry = self._store.find("initrd", label.name)
        if entry is None:
            with self._store.building() as scratch:
                entry = self._store.find("initrd", label.name)
                entry = entry or self._pack(label, tree(), scratch)
                self._discard_old("initrd", scratch)
        _used_now(entry)
        return entry.tree / _INITRD_NAME

    def _pack(self, label: Label, tree: Mapping[str, cpio.Node], scratch: Path) -> CacheEntry:
        (scratch / "tree").mkdir()
        with (scratch / "tree" / _INITRD_NAME).open("wb") as out:
            cpio.write_cpio(tree, out)
        return self._store.publish(label, scratch / "tree")

    def _discard_old(self, kind: ImageKind, scratch: Path) -> None:
        """The least recently used ones, but none that a run of today may be about to boot."""
        entries = sorted(
            self._store.entries(kind), key=lambda e: e.path.stat().st_mtime, reverse=True
        )
        for entry in entries[_DERIVED_KEPT:]:
            if time.time() - entry.path.stat().st_mtime > _DERIVED_KEPT_S:
                self._store.discard(entry, scratch)

    def _info(self, kind: ImageKind, path: Path) -> ImageInfo:
        entry = self._store.entry(path)
        if entry is None:
            return ImageInfo(kind, path.name, "", "", 0, intact=False, path=path)
        label, intact = entry.label, self._store.verify(entry)
        return ImageInfo(
            kind, label.name, label.version, label.source, entry.size_bytes, intact, path
        )


def _module_of(kernel: KernelImage, build_id: str) -> bytes:
    module = kvm_module(kernel)
    found = None if module is None else elf.build_id(module)
    if module is None or found != build_id:
        raise ImageError(
            f"the kernel {kernel.name} is not the one that was recorded",
            f"its module {MODULE} is {found}, and {build_id} was recorded",
            "get that kernel, or record again",
        )
    return module


def _used_now(entry: CacheEntry) -> None:
    """A cache that may only be read works as well."""
    with suppress(OSError):
        os.utime(entry.path)


def _qemu_image(entry: CacheEntry) -> QemuImage:
    version = tuple(int(part) for part in entry.label.version.split("."))
    return cached_qemu(entry.label.name, version, entry.tree, entry.label.source)


def _kernel_image(entry: CacheEntry) -> KernelImage:
    return unpacked_kernel(entry.label.name, entry.tree, entry.label.source)


def _dotted(version: Iterable[int]) -> str:
    return ".".join(map(str, version))


def _files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _kernel_inputs(kernel: KernelImage) -> list[Path]:
    """What tells one kernel's modules from another's."""
    modules = kernel.modules_dir
    return [kernel.vmlinuz, *([modules / "modules.builtin"] if modules is not None else [])]


def _content_fingerprint(inputs: Iterable[Path]) -> str:
    """Of small files, whatever their dates, and of the code that uses them."""
    digest = hashlib.sha256()
    for path in (*inputs, Path(__file__).with_name("probe.py")):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _fingerprint(inputs: Iterable[Path]) -> str:
    """Of the files that an initial RAM disk is made of, and of the code that makes it.

    Size and time stand for a file's content: hashing a QEMU's 100 MB each time would cost more
    than a guest's boot.
    """
    code = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256()
    for path in (*inputs, rootfs.BUSYBOX, *code):
        try:
            status = path.stat()
            line = f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n"
        except OSError:
            line = f"{path}\0missing\n"
        digest.update(line.encode())
    return digest.hexdigest()[:16]
