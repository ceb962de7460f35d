"""What goes to a worker and what comes back: frozen data, which dask pickles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from harness.config.config import Lab
from harness.model.case import Case
from harness.run.scheduler import Failed

SERVING: Final = "irqmatrix"
"""The name of what records cases, among the extensions of a dask worker."""


@dataclass(frozen=True)
class Pins:
    """The versions that the names of images stand for in a run, on whatever machine."""

    qemus: Mapping[str, str]
    kernels: Mapping[str, str]


@dataclass(frozen=True)
class CaseOrder:
    """One case to record.

    ``run`` names the run; ``files`` are those that the guest needs and no cache has.
    """

    run: str
    case: Case
    lab: Lab
    pins: Pins
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class Delivery:
    """What became of it.

    ``archive`` has the case's folder, and the logs of a host that failed; ``failed`` says why there
    is no recording in it.
    """

    worker: str
    archive: bytes
    sha256: str
    failed: Failed | None
    ends_labs: bool
    """Whether labs died under the case, so that it is not to be run again."""


def topic(run: str) -> str:
    """Of the events by which workers tell what they do for a run."""
    return f"irqmatrix-{run}"


@dataclass(frozen=True)
class WorkerStep:
    """Such an event: what a case is doing; or, where ``case`` is empty, what else happened."""

    by: str
    case: str
    text: str
    starts: bool = False
    """Whether the worker has begun with the case."""
