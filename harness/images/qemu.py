"""QEMUs: inspected where they are, or gathered from unpacked packages."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from harness.base.errors import ImageError
from harness.images.elf import build_id, interpreter, libraries
from harness.images.model import LAB_DATA_DIRS, LAB_QEMU, Build, QemuImage

BINARY_NAME: Final = "qemu-system-x86_64"

_FIRMWARE: Final = (
    "bios*.bin",
    "qboot.rom",
    "vgabios*.bin",
    "kvmvapic.bin",
    "linuxboot*.bin",
    "multiboot*.bin",
    "pvh.bin",
    "efi-virtio.rom",
    "efi-e1000*.rom",
)
"""Everything that our x86 machines can ask for; the other targets' blobs stay out."""

_LIBRARY_FOLDER: Final = "usr/lib/x86_64-linux-gnu"
_MODULES: Final = "accel-*-x86_64.so"
_LOADER_COPY: Final = "usr/bin/ld.so"
_BUNDLE: Final = "usr/bin/qemu-bundle"
"""A foreign QEMU looks for firmware and modules below the folder ``qemu-bundle`` beside
``/proc/self/exe`` (QEMU 10.0 ``util/cutils.c:get_relocated_path``); that is its loader, so the
loader lies beside the binary, and the bundle is the tree itself."""


def inspect_qemu(name: str, binary: Path, source: str) -> QemuImage:
    """A QEMU that runs on this machine as it is, such as the system's.

    Raises :class:`ImageError` if it does not run or lacks a library.
    """
    launcher = (str(binary),)
    version = qemu_version(launcher)
    data_dirs = _data_dirs(launcher)
    loader = interpreter(binary)
    files = [(binary, LAB_QEMU), *_firmware_files(data_dirs)]
    if loader is not None:
        modules = sorted((binary.resolve().parent.parent / "lib").glob(f"*/qemu/{_MODULES}"))
        files += [(module, str(module)) for module in modules]
        files += [(Path(loader).resolve(), loader)]
        files += [(path, str(path)) for path in _closure((loader,), (binary, *modules)).values()]
    return QemuImage(name, version, binary, launcher, data_dirs, tuple(files), source)


def cached_qemu(name: str, version: tuple[int, ...], tree: Path, source: str) -> QemuImage:
    """A QEMU that :func:`gather` put into ``tree``; it needs nothing of this machine."""
    binary = tree / LAB_QEMU.lstrip("/")
    library_path = str(tree / _LIBRARY_FOLDER)
    launcher = (str(tree / _LOADER_COPY), "--library-path", library_path, str(binary))
    loader = interpreter(binary)
    files = [
        (path, loader if path == tree / _LOADER_COPY and loader else f"/{path.relative_to(tree)}")
        for path in sorted(tree.rglob("*"))
        if path.is_file()
    ]
    data_dirs = tuple(tree / folder.lstrip("/") for folder in LAB_DATA_DIRS)
    return QemuImage(name, version, binary, launcher, data_dirs, tuple(files), source)


def gather(unpacked: Path, tree: Path) -> tuple[int, ...]:
    """Copy a QEMU, its loader, libraries, modules and firmware out of ``unpacked`` packages.

    ``tree`` gets the layout of a lab's root; the loader is at ``usr/bin/ld.so``. Returns the
    version. Raises :class:`ImageError` if a part is missing or the result does not run.
    """
    source = unpacked / LAB_QEMU.lstrip("/")
    loader = interpreter(source)
    if loader is None:
        raise ImageError(f"{source} is static", "a dynamically linked QEMU was expected")
    # A package may hold the loader below /lib64, /usr/lib64 or the library folder.
    loader_file = next(path for path in unpacked.rglob(Path(loader).name) if path.is_file())
    folders = [unpacked / prefix for prefix in (_LIBRARY_FOLDER, "lib/x86_64-linux-gnu")]
    library_path = ":".join(str(folder) for folder in folders if folder.is_dir())
    modules = sorted((unpacked / _LIBRARY_FOLDER / "qemu").glob(_MODULES))
    command = (str(loader_file), "--library-path", library_path)
    data_dirs = [unpacked / path for path in ("usr/share/qemu", "usr/share/seabios")]
    data_dirs += [unpacked / "usr/lib/ipxe/qemu"]

    parts = [(source, LAB_QEMU.lstrip("/")), (loader_file, _LOADER_COPY)]
    parts += [(module, f"{_LIBRARY_FOLDER}/qemu/{module.name}") for module in modules]
    parts += [
        (path, f"{_LIBRARY_FOLDER}/{soname}")
        for soname, path in _closure(command, (source, *modules)).items()
    ]
    parts += [(path, target.lstrip("/")) for path, target in _firmware_files(data_dirs)]
    for path, target in parts:
        destination = tree / target
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, destination)
    (tree / _BUNDLE).symlink_to(Path("..", ".."))
    return qemu_version(cached_qemu("", (), tree, "").launcher)


def qemu_version(launcher: Sequence[str]) -> tuple[int, ...]:
    """What ``--version`` says; :class:`ImageError` if it does not run or is no QEMU."""
    said = _ask(launcher, "--version")
    match = re.match(r"QEMU emulator version (\d+(?:\.\d+)+)", said)
    if match is None:
        raise ImageError(f"{launcher[-1]} is not a QEMU", f"--version says {said[:80]!r}")
    return tuple(int(part) for part in match[1].split("."))


def qemu_build(image: QemuImage) -> Build:
    """``--version`` names the package's version, or the commit, in parentheses.

    :class:`ImageError` where the binary does not run.
    """
    said = _ask(image.launcher, "--version").splitlines()[0]
    match = re.search(r"\((?:Debian )?(.+)\)$", said)
    package = match[1] if match else said.removeprefix("QEMU emulator version ")
    return Build(package, build_id(image.binary.read_bytes()))


def _data_dirs(launcher: Sequence[str]) -> tuple[Path, ...]:
    lines = _ask(launcher, "-L", "help").splitlines()
    return tuple(folder for folder in map(Path, lines) if folder.is_dir())


def _firmware_files(data_dirs: Sequence[Path]) -> list[tuple[Path, str]]:
    """In the lab all lie in one folder; of files of one name QEMU would take the first, too."""
    found: dict[str, Path] = {}
    for folder in data_dirs:
        for pattern in _FIRMWARE:
            for path in sorted(folder.glob(pattern)):
                if path.is_file():
                    found.setdefault(path.name, path)
    return [(path, f"{LAB_DATA_DIRS[0]}/{name}") for name, path in sorted(found.items())]


def _closure(loader: Sequence[str], programs: Sequence[Path]) -> dict[str, Path]:
    closure: dict[str, Path] = {}
    for program in programs:
        closure |= libraries(loader, program)
    return dict(sorted(closure.items()))


ANSWER_TIMEOUT_S: Final = 15
MAX_ANSWER_BYTES: Final = 1 << 20


def _ask(launcher: Sequence[str], *arguments: str) -> str:
    """What it prints; more than :data:`MAX_ANSWER_BYTES` ends it (``prlimit``, util-linux)."""
    limited = ("prlimit", f"--fsize={MAX_ANSWER_BYTES}", "--core=0", "--", *launcher, *arguments)
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        try:
            ended = subprocess.run(
                limited,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                timeout=ANSWER_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise ImageError(f"{launcher[-1]} does not run", str(error)) from error
        said, complaint = (_text(file) for file in (output, errors))
    if ended.returncode != 0:
        why = complaint.strip().splitlines()[-1:] or [f"exit status {ended.returncode}"]
        raise ImageError(f"{launcher[-1]} does not run", why[0])
    return said


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="backslashreplace")
