"""The backends, by the word that a configuration calls them (``host:``)."""

from __future__ import annotations

from typing import Final

from harness.backends.base import HostBackend
from harness.backends.lab import LabBackend
from harness.backends.local import LocalBackend
from harness.model.case import Host

BACKENDS: Final[dict[Host, HostBackend]] = {
    Host.LOCAL: LocalBackend(),
    Host.LAB: LabBackend(),
}
