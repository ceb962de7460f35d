"""Whether KVM's trace of a case has one order, so that what comes first also happened first."""

from __future__ import annotations

from harness.model.case import Accel, Case, Host
from harness.model.manifest import CaseFile
from harness.replay.profiles import preempts


def unordered(case: Case, recorded: CaseFile) -> str | None:
    """Why two events of different threads that are close prove nothing; None where they do."""
    if case.backend.accel is not Accel.KVM:
        return None
    if case.backend.host is Host.LOCAL:
        return "the host's CPUs trace concurrently"
    if recorded.lab_cpus > 1:
        return "the lab's CPUs trace concurrently"
    if recorded.linux is not None and preempts(recorded.linux):
        return f"Linux {recorded.linux} may stop a thread between an event and its trace"
    return None
