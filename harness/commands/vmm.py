"""``irqmatrix vmm``: a guest whose interrupt controllers are the Python chips, on /dev/kvm."""

from __future__ import annotations

from harness.base.errors import CannotRun
from userspace_chip.kvm import command
from userspace_chip.kvm.errors import KvmError


def run(options: command.Options) -> int:
    """Boot it: its exit status.

    :class:`CannotRun` where this KVM lacks something, or there is none.
    """
    try:
        return command.run(options)
    except KvmError as error:
        why = str(error)
        raise CannotRun(
            f"no guest can be run with --irqchip {options.irqchip}",
            why,
            "irqmatrix doctor says what this machine can run",
        ) from None
