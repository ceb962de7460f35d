"""A reproducer that was run, packed to be mailed: one ``.tar.zst`` with one README.

Unpacked elsewhere, the commands in its README do it again: with irqmatrix, or with QEMU alone on a
machine whose KVM has VMX or SVM.  Our own images are in it; for a distribution's kernel
the README says how to get it.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final

import zstandard

from harness import __version__
from harness.backends.qemu_argv import Channels, command_text, qemu_argv
from harness.base.errors import StoreError
from harness.base.terminal import Printer
from harness.guests.kinds.table import kind_of
from harness.guests.plan import GuestFiles
from harness.images.cache import ImageCache
from harness.model.case import Host
from harness.report.files import ledgers_of
from harness.report.text import repro_report
from harness.report.text.render import show
from harness.report.versions import version_lines
from harness.repro.reproduce import Reproduction
from harness.run import scheduler
from harness.run.waiting import Prepared

_COMPRESSION_LEVEL: Final = 10
_REPORT_COLUMNS: Final = 160
_FIX: Final = "name a file in a directory that can be written"


def check(path: Path) -> None:
    """See, before anything is run, that ``path`` can be written; :class:`StoreError` if not."""
    if path.is_dir():
        raise StoreError(f"cannot write the bundle {path}", "it is a directory", _FIX)
    folder = path.absolute().parent
    if not folder.is_dir():
        raise StoreError(f"cannot write the bundle {path}", f"there is no directory {folder}", _FIX)
    if not os.access(folder, os.W_OK):
        raise StoreError(f"cannot write the bundle {path}", f"{folder} cannot be written", _FIX)


def write(found: Reproduction, path: Path, cache: ImageCache | None = None) -> None:
    """Pack ``found`` into ``path``, whole or not at all; :class:`StoreError` where that fails."""
    preparation = scheduler.prepare(found.config, cache or ImageCache(), None, found.directory)
    prepared = preparation.all()
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as out:
            compressor = zstandard.ZstdCompressor(level=_COMPRESSION_LEVEL)
            with compressor.stream_writer(out, closefd=False) as packed:
                _pack(found, prepared, packed)
        partial.replace(path)
    except OSError as error:
        raise StoreError(f"cannot write the bundle {path}", error.strerror, _FIX) from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _pack(found: Reproduction, prepared: Sequence[Prepared], out: BinaryIO) -> None:
    root = found.entry.id
    with tarfile.open(fileobj=out, mode="w|") as tar:
        for name, text in _texts(found, prepared).items():
            _add_text(tar, f"{root}/{name}", text)
        for name, file in _images(found, prepared).items():
            tar.add(file, f"{root}/{name}", filter=_anonymous)
        tar.add(found.directory, f"{root}/run", filter=_anonymous)


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """The owner of the files is left out."""
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def _add_text(tar: tarfile.TarFile, name: str, text: str) -> None:
    content = text.encode()
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o644
    tar.addfile(info, io.BytesIO(content))


def _texts(found: Reproduction, prepared: Sequence[Prepared]) -> dict[str, str]:
    entry = found.entry
    return {
        "README.md": _readme(found, prepared),
        f"{entry.id}.yaml": entry.file.path.read_text(encoding="utf-8"),
        "report.txt": _report(found),
        **{_script_name(item): _script(found, item) for item in prepared},
    }


def _report(found: Reproduction) -> str:
    text = io.StringIO()
    console = Printer(file=text, width=_REPORT_COLUMNS, no_color=True)
    ledgers = ledgers_of(found.result, found.directory)
    show(console, repro_report.announce(found.entry))
    show(console, repro_report.reproduction_report(found, ledgers))
    return text.getvalue()


# --- Images -------------------------------------------------------------------------------------


def _images(found: Reproduction, prepared: Sequence[Prepared]) -> dict[str, Path]:
    """Everything that is booted, but for what a distribution makes, and the probe's scenarios."""
    paths: dict[Path, str] = {}
    for item in prepared:
        kind = kind_of(item.case.guest)
        if not kind.is_public:
            booted = filter(None, (item.plan.kernel, item.plan.initrd))
            paths |= dict.fromkeys(booted, "images")
        paths |= kind.recipe_files
    return {_place(found, path, folder): path for path, folder in sorted(paths.items())}


def _place(found: Reproduction, path: Path, folder: str = "images") -> str:
    """Where the entry finds a file beside itself; else in ``folder``."""
    beside = found.entry.file.path.absolute().parent
    if path.is_relative_to(beside) and not path.is_relative_to(found.directory):
        return str(path.relative_to(beside))
    return f"{folder}/{path.name}"


# --- By hand ------------------------------------------------------------------------------------

_VARIABLES: Final[Mapping[str, str]] = {
    "IRQMATRIX_QEMU": '"${QEMU:-qemu-system-x86_64}"',
    "IRQMATRIX_VMLINUZ": '"$VMLINUZ"',
    "IRQMATRIX_INITRD": '"$INITRD"',
}
"""Words that no quoting changes, and the shell's variables that take their place."""


def _script_name(item: Prepared) -> str:
    return f"by-hand/{item.case.directory_name}.sh"


def _script(found: Reproduction, item: Prepared) -> str:
    """The guest under a QEMU of the machine where this is unpacked, its console on the terminal."""
    plan = item.plan
    kernel = _place(found, plan.kernel)
    initrd = None if plan.initrd is None else _place(found, plan.initrd)
    needs = ""
    if kind_of(item.case.guest).is_public:
        kernel, initrd = "IRQMATRIX_VMLINUZ", "IRQMATRIX_INITRD"
        needs = ': "${VMLINUZ:?a guest kernel}" "${INITRD:?its initial RAM disk}"\n'
    case = replace(item.case, backend=replace(item.case.backend, host=Host.LOCAL))
    files = GuestFiles(("IRQMATRIX_QEMU",), (), kernel, initrd)
    command = command_text(qemu_argv(case, files, Channels(console="stdio")))
    for word, variable in _VARIABLES.items():
        command = command.replace(word, variable)
    return f'cd "$(dirname "$0")/.." || exit\n{needs}{command}'


# --- The README ---------------------------------------------------------------------------------


def _readme(found: Reproduction, prepared: Sequence[Prepared]) -> str:
    entry, assessment = found.entry, found.assessment
    links = "\n".join(f"- {link}" for link in entry.links)
    return f"""# {entry.id}: {entry.symptom}

{assessment.outcome}: {assessment.reason}

{entry.about}

{links}

Affected: {entry.affected_text}. {f"Fixed: {entry.fixed}." if entry.fixed else ""}

## What it was run with

{_versions(found)}

`report.txt` is what was printed; `run/` holds all that was recorded: of each case its command line
(`command.txt`), console, monitor, events, counters and ledger.

## Do it again

In this directory, on any x86 machine with Debian's QEMU (no VMX or SVM is needed):

```sh
{_commands(found)}
```

It says "{assessment.outcome}" and why.

## Do it by hand

{_by_hand(prepared)}
"""


def _versions(found: Reproduction) -> str:
    environment = found.result.environment
    rows = [f"- irqmatrix {__version__}, on Linux {environment.get('kernel')}"]
    rows += [f"- {line}" for line in version_lines(environment)]
    return "\n".join(rows)


def _dict(environment: Mapping[str, object], key: str) -> Iterator[tuple[str, str]]:
    value = environment.get(key)
    if isinstance(value, dict):
        yield from ((str(name), str(version)) for name, version in value.items())


def _commands(found: Reproduction) -> str:
    """Install, get the images, run; versions are named where the run had one of each."""
    environment = found.result.environment
    qemus, kernels = list(_dict(environment, "qemu")), list(_dict(environment, "lab_kernel"))
    options = ""
    if len(kernels) == 1:
        options += f" --kernel {_named(*kernels[0], 'PATH_OF_YOUR_KERNEL')}"
    if len(qemus) == 1:
        options += f" --qemu {_named(*qemus[0], 'PATH_OF_YOUR_QEMU')}"
    lines = ["pip install irqmatrix"]
    if options and "PATH_OF_YOUR" not in options:
        lines.append(f"irqmatrix images build{options}")
    lines.append(f"irqmatrix repro ./{found.entry.id}.yaml{options}")
    return "\n".join(lines)


def _named(name: str, version: str, placeholder: str) -> str:
    """A version as other machines can get it: archives keep a series, not each of its versions."""
    return placeholder if "/" in name else ".".join(version.split(".")[:2])


_OWN_IMAGES: Final = """\
The images are here; the probe's source is in irqmatrix' `images/probe`. Each line that the probe
prints is a step of the scenario, a CPU and what happened there, in hexadecimal: see irqmatrix'
`docs/scenarios.md`."""


_STAYS: Final = """\
irqmatrix moves the guest to another QEMU once it is up: `stop` and `migrate exec:cat>FILE` in the
monitor, then the same command with `-incoming "exec:cat FILE"`. These scripts do not."""


def _by_hand(prepared: Sequence[Prepared]) -> str:
    scripts = "\n".join(f"sh {_script_name(item)}" for item in prepared if item.skip is None)
    text = (
        "On a machine with VMX or SVM, with QEMU alone; the guest's console is on the terminal "
        "(`QEMU=` names another binary):\n\n"
        f"```sh\n{scripts}\n```\n"
    )
    kinds = [kind for item in prepared if (kind := kind_of(item.case.guest)).is_public]
    if not kinds:
        return f"{text}\n{_OWN_IMAGES}\n"
    if any(kind.is_moved for kind in kinds):
        text += f"\n{_STAYS}\n"
    runs = "\n".join(dict.fromkeys(line for kind in kinds for line in kind.by_hand))
    return (
        f"{text}\nThe guest's kernel and initial RAM disk are a distribution's and irqmatrix' own; "
        "after `irqmatrix images build` they are\n\n"
        "```sh\n"
        "export VMLINUZ=$(ls ~/.cache/irqmatrix/kernel/*/tree/boot/vmlinuz-* | head -n 1)\n"
        "export INITRD=$(ls ~/.cache/irqmatrix/initrd/linux-*/tree/initrd.cpio | head -n 1)\n"
        "```\n\n"
        "(both of the same version). At the guest's prompt say, one after the other,\n\n"
        f"```\n{runs}\npoweroff\n```\n\n"
        "and count on the host, as root: `perf stat -a -e kvm:kvm_set_irq,kvm:kvm_msi_set_irq`.\n"
    )
