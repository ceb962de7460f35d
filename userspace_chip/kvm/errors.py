"""What goes wrong at /dev/kvm, as a part of the exception tree.

::

    IrqmatrixError
    ├── KvmError                     an ioctl that the kernel refused: its name and errno
    │   └── KvmUnavailableError      no usable KVM here at all: what callers skip on
    ├── BootError                    an image, or a size of memory, that no guest can be made of
    └── UnexpectedExitError          KVM_RUN came back with something that the caller cannot use
"""

from __future__ import annotations

import errno as errno_module
import os
from collections.abc import Mapping
from typing import Final

from userspace_chip.errors import IrqmatrixError

_FIXES: Final[Mapping[int, str]] = {
    errno_module.EEXIST: "it is already there: create an irqchip, a vCPU or a slot only once",
    errno_module.EFAULT: "the kernel cannot reach the buffer: this is a bug in userspace_chip.kvm",
    errno_module.EINVAL: "an argument is out of range, or the VM is not in the state that this "
    "ioctl needs (irqchip before vCPUs, no irqchip routes in split mode)",
    errno_module.EMFILE: "raise the limit of open files (ulimit -n)",
    errno_module.ENOMEM: "free some memory, or give the guest less",
    errno_module.ENOTTY: "this kernel does not know the ioctl: probe its capability first",
    errno_module.ENXIO: "the chip that this ioctl talks to is not in the kernel in this mode",
    errno_module.EPERM: "check the permissions, and what a security module or container forbids",
}

_OPEN_FIXES: Final[Mapping[int, str]] = {
    errno_module.EACCES: "join the group that owns it (usually kvm), or run as root",
    errno_module.ENODEV: "load kvm_intel or kvm_amd; a VM needs nested virtualisation enabled",
    errno_module.ENOENT: "load kvm_intel or kvm_amd; a container needs --device /dev/kvm",
    errno_module.EPERM: "the device is there but a cgroup or security module forbids it",
}


class KvmError(IrqmatrixError):
    """An ioctl that failed: ``ioctl`` is its name, ``errno`` the reason."""

    def __init__(self, ioctl: str, errno: int, fix: str | None = None) -> None:
        self.ioctl = ioctl
        why = f"{errno_module.errorcode.get(errno, errno)}, {os.strerror(errno)}"
        super().__init__(f"{ioctl} failed", why, fix or _FIXES.get(errno))
        self.errno = errno


class KvmUnavailableError(KvmError):
    """There is no KVM to talk to: the device is missing, forbidden, or of another API version."""

    def __init__(self, path: str, errno: int, fix: str | None = None) -> None:
        super().__init__(f"open {path}", errno, fix or _OPEN_FIXES.get(errno))


class BootError(IrqmatrixError):
    """An image that cannot be booted, or does not fit into its guest."""


class UnexpectedExitError(IrqmatrixError):
    """A vCPU left the guest for a reason that its owner has no use for."""

    def __init__(self, reason: str, where: str) -> None:
        self.reason = reason
        super().__init__(f"{where}: the vCPU stopped", reason)
