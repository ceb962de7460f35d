"""The QEMUs that the differential tests run against, by name; a test skips where one is absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.base.errors import ImageError
from harness.images.cache import ImageCache
from userspace_chip.profile import QEMU_VERSIONS, Profile, Qemu, profile

QEMUS = ("system", "10.0", "11.1")
"""The one on the search path, and those from the image cache."""


def find_qemu(name: str) -> tuple[tuple[str | Path, ...], Profile]:
    """The command that starts that QEMU, and the TCG profile of its version; or skip."""
    try:
        image = ImageCache(offline=True).qemu(name)
    except ImageError as error:
        pytest.skip(f"QEMU {name}: {error}")
    version = ".".join(map(str, image.version[:2]))
    known: Qemu | None = next((known for known in QEMU_VERSIONS if known == version), None)
    if known is None:
        pytest.skip(f"QEMU {name} is {version}: profiles exist for {', '.join(QEMU_VERSIONS)}")
    return image.launcher, profile("tcg", qemu=known)


def require_kvm() -> None:
    """Skip where /dev/kvm cannot be opened."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR))
    except OSError as error:
        pytest.skip(f"/dev/kvm: {error.strerror}")
