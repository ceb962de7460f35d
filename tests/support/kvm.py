"""Whether the local KVM can do what a test needs, and which version it is; asked once a session."""

import os
from functools import cache

import pytest

from userspace_chip.kvm.probe import KvmProbe, probe_kvm
from userspace_chip.profile import LINUX_VERSIONS, Linux


@cache
def local_kvm() -> KvmProbe:
    return probe_kvm()


def skip_without_irqchip(mode: str) -> None:
    """Skip the test, with the reason, where no irqchip of this mode (on, split) can be made."""
    reason = local_kvm().why_not(mode)
    if reason is not None:
        pytest.skip(reason)


def local_linux() -> Linux:
    """The newest version of the profiles that is not newer than the running kernel."""
    release = _numbers(os.uname().release.split("-")[0])
    return [linux for linux in LINUX_VERSIONS if _numbers(linux) <= release][-1]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split(".")[:2])
