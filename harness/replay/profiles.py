"""Which profile of the Python chips stands for the backend of a case, and what none stands for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final, TypeVar

from harness.base.errors import StoreError
from harness.base.versions import VersionRange, parse_version
from harness.model.case import Irqchip, Vmm
from harness.model.manifest import CaseFile
from userspace_chip.kvm.local_msrs import off_profile
from userspace_chip.profile import LINUX_VERSIONS, QEMU_VERSIONS, Profile, profile

_NO_REINJECTION: Final = r"\bkvm-pit\.lost_tick_policy=discard\b"
"""QEMU hw/i386/kvm/i8254.c: kvm_pit_realizefn.  KVM waits for no EOI of the PIT's pin then."""


_NO_VAPIC: Final = r"\b(apic|apic-common|kvm-apic)\.vapic=(off|false|no)\b"
"""QEMU hw/intc/apic_common.c: apic_common_realize.  QEMU does not ask KVM for exits at TPR then."""


_ICR_AND_ICR2: Final = (VersionRange.parse(">=6.12"), VersionRange.parse("6.1, >=6.1.149"))
"""Linux arch/x86/kvm/svm/svm.c: x2apic_icr_is_split (73b42dc69be8)."""


def profile_of(case: CaseFile) -> tuple[Profile, tuple[str, ...]]:
    """The profile for ``case``, and what is not quite right about it.

    A version that the model does not know is taken for the latest one before it.
    :class:`StoreError` for a case that names no version.
    """
    qemu, warnings = _nearest("QEMU", case.qemu, QEMU_VERSIONS)
    if case.irqchip is Irqchip.TCG:
        return profile("tcg", qemu=qemu), warnings
    if case.linux is None:
        raise StoreError("case.json names no kernel", "its guest ran under KVM", "run it again")
    linux, other_linux = _nearest("Linux", case.linux, LINUX_VERSIONS)
    if case.irqchip is Irqchip.OFF:
        qemu = "7.2"  # later ones refuse it
        if case.vmm is Vmm.PYCHIP:
            return off_profile(), (*warnings, *other_linux)
    subject = profile(case.irqchip.value, qemu=qemu, linux=linux)
    if case.kvm_module == "kvm_amd" and any(parse_version(case.linux) in r for r in _ICR_AND_ICR2):
        subject = replace(subject, lapic=replace(subject.lapic, x2apic_icr_split=True))
    if any(re.search(_NO_REINJECTION, argument) for argument in case.arguments):
        subject = replace(subject, pit=replace(subject.pit, reinject=False))
    if any(re.search(_NO_VAPIC, argument) for argument in case.arguments):
        subject = replace(subject, lapic=replace(subject.lapic, tpr_access_exits=False))
    return subject, (*warnings, *other_linux)


_PREEMPTS: Final = VersionRange.parse(">=7.0")
"""x86 has no other choice from there on (``kernel/Kconfig.preempt``, 7dadeaa6e851); earlier ones
are booted with ``preempt=voluntary``."""


def preempts(linux: str) -> bool:
    """Whether a lab's kernel may stop a thread between an event and its effect."""
    try:
        return parse_version(linux) in _PREEMPTS
    except ValueError:
        return False


NOT_MODELLED: Final[Mapping[str, str]] = {
    # QEMU hw/i386/x86-iommu.c: x86_iommu_realize; remapping is on by default but with irqchip on.
    r"^(intel|amd)-iommu\b(?!.*\bintremap=off)": "an IOMMU remaps messages of devices and IOAPIC",
    # Linux arch/x86/kvm/xen.c: kvm_xen_set_evtchn_fast, kvm_xen_inject_timer_irqs.
    r"\bxen-": "Xen's event channels send interrupts of their own",
    # Linux arch/x86/kvm/hyperv.c: synic_set_irq; AutoEOI ends interrupts without an EOI.
    r"\bhv[-_](synic|stimer|passthrough)\b(?!=off)": "Hyper-V's SynIC sends interrupts of its own",
    # QEMU accel/kvm/kvm-all.c: kvm_set_kernel_irqchip; the last one given counts.
    r"\bkernel[-_]irqchip=": "its options choose another irqchip than its irqchip mode says",
    # QEMU hw/i386/microvm.c, pc.c: a machine without one of the chips, or with one more.
    r"^-machine .*\b(pic|pit|ioapic2)=": "its options change which interrupt chips there are",
    r"(^|,)(-apic|apic=off)\b": "its CPUs have no local APIC",
}
"""What no profile stands for: a pattern of a device, an option or the CPU, and why not."""


def not_modelled(case: CaseFile) -> str | None:
    """What ``case`` has that our chips lack: the argument, and why; None for a usual one."""
    for argument in (str(case.axes.get("cpu", "")), *case.arguments):
        for pattern, why in NOT_MODELLED.items():
            if re.search(pattern, argument):
                return f"{argument}: {why}"
    return None


_V = TypeVar("_V", bound=str)


def _nearest(what: str, text: str, known: tuple[_V, ...]) -> tuple[_V, tuple[str, ...]]:
    try:
        version = parse_version(text)
    except ValueError as error:
        raise StoreError(f"the version of {what}", str(error), "run the case again") from None
    earlier = [name for name in known if parse_version(name) <= version]
    chosen = earlier[-1] if earlier else known[0]
    bound = parse_version(chosen)
    if version[: len(bound)] == bound:
        return chosen, ()
    return chosen, (f"{what} {text} is not modelled: taken for {chosen}",)
