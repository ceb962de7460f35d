"""The command line of a guest, of whichever program runs it: QEMU, or the VMM of the live chips."""

from __future__ import annotations

from harness.backends import qemu_argv
from harness.backends.live_argv import live_argv
from harness.backends.qemu_argv import Channels
from harness.base.versions import Version
from harness.guests.plan import GuestFiles
from harness.model.case import Case, Vmm


def guest_argv(
    python: tuple[str, ...], case: Case, files: GuestFiles, qemu: Version, channels: Channels
) -> tuple[str, ...]:
    """``python`` runs the live chips' VMM, whose chips are those of ``qemu``."""
    if case.backend.vmm is Vmm.PYCHIP:
        return live_argv(python, case, files, qemu, channels)
    return qemu_argv.qemu_argv(case, files, channels)


def trace_path(case: Case, directory: str, qemu: Version) -> str:
    """The file for its trace; the live chips' VMM has one for all of its threads."""
    if case.backend.vmm is Vmm.PYCHIP:
        return f"{directory}/trace"
    return qemu_argv.trace_path(directory, qemu)
