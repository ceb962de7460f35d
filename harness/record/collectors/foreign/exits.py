"""Exit reasons under one name: Intel's, AMD's and the tools' spellings of the same thing.

Intel: Linux ``arch/x86/include/uapi/asm/vmx.h`` (VMX_EXIT_REASONS); AMD: ``svm.h``
(SVM_EXIT_REASONS).  The canonical words are ours; a reason that is in no table keeps its name, in
lower case.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_SAME: Final[Mapping[str, str]] = {
    # the vCPU was interrupted by the host, e.g. to be kicked
    "external_interrupt": "host-interrupt",
    "interrupt": "host-interrupt",
    "intr": "host-interrupt",
    # the guest can take an interrupt now
    "pending_interrupt": "interrupt-window",
    "interrupt_window": "interrupt-window",
    "vintr": "interrupt-window",
    "nmi_window": "nmi-window",
    "pending_nmi": "nmi-window",
    "hlt": "halt",
    "io_instruction": "io",
    "io": "io",
    "ioio": "io",
    "msr_read": "msr-read",
    "msr_write": "msr-write",
    "msr": "msr",
    "ept_violation": "page-fault",
    "npf": "page-fault",
    "ept_misconfig": "mmio",
    "apic_access": "apic-access",
    "apic_write": "apic-write",
    "eoi_induced": "eoi",
    "avic_incomplete_ipi": "avic-ipi",
    "avic_unaccelerated_access": "avic-access",
    "preemption_timer": "preemption-timer",
    "tpr_below_threshold": "tpr-threshold",
    "cr8_write": "tpr-write",
    "write_cr8": "tpr-write",
    "pause_instruction": "pause",
    "pause": "pause",
    "cpuid": "cpuid",
    "exception_nmi": "exception",
    "vmcall": "hypercall",
    "vmmcall": "hypercall",
}


def canonical(reason: str) -> str:
    """One name for ``reason``, as any tool writes it."""
    word = reason.strip().lower().removeprefix("exit_reason_").removeprefix("svm_exit_")
    return _SAME.get(word.replace(" ", "_"), word.replace(" ", "-").replace("_", "-"))
