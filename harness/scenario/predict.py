"""The model as the expectation: what a program logs on the Python chips of a profile."""

from __future__ import annotations

from typing import Final

from harness.scenario.execution import Execution, Order
from harness.scenario.log import Log, LogEvent
from harness.scenario.program import Feature, Program
from userspace_chip.architecture import Board
from userspace_chip.profile import Profile


def features(profile: Profile, board: Board = "pc") -> Feature:
    """What a machine of this profile has, with the devices that the probe drives."""
    found = Feature.LINES | Feature.PIC | Feature.PIT | Feature.CR8 | Feature.MONITOR
    if profile.lapic.x2apic:
        found |= Feature.X2APIC
    if profile.kvm_lapic:
        found |= Feature.KVM_APIC
    if profile.kvm_vcpu:
        found |= Feature.HYPERV
    if profile.lapic.tsc_deadline:
        found |= Feature.TSC_DEADLINE
    if board == "microvm":  # it has no PCI bus by default, but a second IOAPIC
        return found | Feature.IOAPIC2 | Feature.LINES2
    return found | Feature.MSI | Feature.HPET | Feature.RTC


def predict(
    program: Program,
    profile: Profile,
    *,
    board: Board = "pc",
    cpus: int | None = None,
    has: Feature | None = None,
    order: Order = Order.EAGER,
) -> Log:
    """What ``program`` logs on a machine of ``profile``.

    ``cpus``: of the machine, by default as many as the program uses.  ``has``: what the backend
    has, by default :func:`features`.  A program that needs more is skipped, as the probe does it.
    ``order`` is the order between CPUs, which a good program's log does not show.
    :class:`~harness.base.errors.PredictionError` for an access where no chip is.
    """
    number = program.cpus if cpus is None else cpus
    missing = program.needs & ~(features(profile, board) if has is None else has)
    if program.cpus > number:
        return _skipped("cpus")
    if missing:
        return _skipped(_FEATURE_NAMES[min(missing)])
    return Execution(program, profile, board=board, cpus=number, order=order).run()


def _skipped(feature: str) -> Log:
    return Log((LogEvent(0, 0, "skip", (feature,)),))


_FEATURE_NAMES: Final = {feature: (feature.name or "").lower() for feature in Feature}
