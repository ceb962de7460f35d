"""``irqmatrix vmm``: a guest whose interrupt controllers are the Python chips, on this /dev/kvm."""

from __future__ import annotations

import sys
from typing import Final

from harness.base.errors import CannotRun
from userspace_chip.kvm import command
from userspace_chip.kvm.errors import KvmError
from userspace_chip.kvm.options import Options

_FIX: Final = "irqmatrix doctor says what this machine can run; --host lab needs no KVM here"
_NOT_COMPARED: Final = (
    "irqmatrix: KVM's chips are not compared with the Python chips here: use --host lab, "
    "or a case with irqchip: pychip-on where tracefs can be read\n"
)


def run(options: Options) -> int:
    """Boot the guest on this machine: its exit status.

    :class:`CannotRun` where this KVM lacks something, or there is none.
    """
    if options.irqchip == "on":
        sys.stderr.write(_NOT_COMPARED)
    try:
        return command.run(options)
    except KvmError as error:
        what = f"no guest can be run with --irqchip {options.irqchip}"
        raise CannotRun(what, str(error), _FIX) from None
