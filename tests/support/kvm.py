"""Whether the local KVM can do what a test needs; asked once a session."""

from functools import cache

import pytest

from userspace_chip.kvm.probe import KvmProbe, probe_kvm


@cache
def local_kvm() -> KvmProbe:
    return probe_kvm()


def skip_without_irqchip(mode: str) -> None:
    """Skip the test, with the reason, where no irqchip of this mode (on, split) can be made."""
    reason = local_kvm().why_not(mode)
    if reason is not None:
        pytest.skip(reason)
