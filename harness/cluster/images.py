"""Images by name on the machine that asks, and by version on the one that records."""

from __future__ import annotations

from collections.abc import Iterable

from harness.base.errors import CannotRun
from harness.cluster.order import Pins
from harness.images.cache import ImageCache
from harness.images.model import KernelImage, QemuImage


def dotted(version: Iterable[int]) -> str:
    """``7.2.22``."""
    return ".".join(map(str, version))


class NotedImages(ImageCache):
    """A cache that notes which version each name stood for that it was asked for.

    :class:`CannotRun` for a path: the file is on this machine only.
    """

    def __init__(self) -> None:
        super().__init__()
        self._qemus: dict[str, str] = {}
        self._kernels: dict[str, str] = {}

    def taken(self) -> Pins:
        """What was asked for since the last time."""
        pins = Pins(dict(self._qemus), dict(self._kernels))
        self._qemus.clear()
        self._kernels.clear()
        return pins

    def kernel(self, name: str = "default") -> KernelImage:
        """As :meth:`ImageCache.kernel`."""
        _check(name)
        found = super().kernel(name)
        self._kernels[name] = found.version
        return found

    def qemu(self, name: str = "system") -> QemuImage:
        """As :meth:`ImageCache.qemu`."""
        _check(name)
        found = super().qemu(name)
        self._qemus[name] = dotted(found.version)
        return found

    def lab_qemu(self, name: str = "default") -> QemuImage:
        """As :meth:`ImageCache.lab_qemu`; noted as the version itself."""
        _check(name)
        found = super().lab_qemu(name)
        version = dotted(found.version)
        self._qemus[version] = version
        return found


def _check(name: str) -> None:
    if "/" in name:
        raise CannotRun(
            f"{name} is a file of this machine",
            "the machines of a cluster know kernels and QEMUs by their versions only",
            "name a version, or run it without --executor",
        )


class PinnedImages(ImageCache):
    """A cache that gives the versions that were meant; it has them, or :class:`ImageError`."""

    def __init__(self, pins: Pins) -> None:
        super().__init__(offline=True)
        self._pins = pins

    def kernel(self, name: str = "default") -> KernelImage:
        """The one of the version that ``name`` stands for."""
        return super().kernel(self._pins.kernels.get(name, name))

    def qemu(self, name: str = "system") -> QemuImage:
        """The one of the version that ``name`` stands for."""
        return super().qemu(self._pins.qemus.get(name, name))
