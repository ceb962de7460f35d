"""What an interrupt controller can do in more than one way: a knob a difference, and its meaning.

The values by mode and version, each with the function of KVM or QEMU where it can be read, are the
table of :mod:`userspace_chip.profile`, whose rows have the names of the fields here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias


class Model(Enum):
    """Whose implementation of a chip is mirrored."""

    KVM = "kvm"
    QEMU = "qemu"


class RirrRule(Enum):
    """When servicing a level pin sets remote IRR."""

    NONZERO_RESULT = "the delivery's result is not 0 (so also where it is -1)"
    ALWAYS = "always, before delivery"


class LowestPriority(Enum):
    """Who gets a lowest-priority message."""

    VECTOR_HASH = "candidate number vector mod candidates"
    ROUND_ROBIN = "the smallest arbitration counter, ties to the lowest index"
    FIRST_SLOT = "the lowest-numbered APIC of the match set"


class PicWiring(Enum):
    """How the PIC's INTR wire reaches a CPU."""

    LINT0_EXTINT = "every vCPU whose LINT0 is unmasked ExtINT, polled at entry"
    FIRST_CPU = "CPU 0's INTR line, then KVM_INTERRUPT"
    LINT0_ANY = "the LINT0 of every CPU whose LVT0 is unmasked"
    LINT0_OR_FIRST_CPU = "as LINT0_ANY; straight to CPU 0 while its APIC is globally disabled"


class ApicBaseRules(Enum):
    """What a write to IA32_APIC_BASE is checked for."""

    KVM = "reserved bits and illegal transitions #GP"
    UNCHECKED = "nothing is checked, EXTD is dropped, disabling is for ever"
    QEMU_CHECKED = "reserved bits and illegal transitions #GP; the id is reset by every write"


class RegisterTrace(Enum):
    """Which events trace an access to a local APIC's register."""

    KVM_APIC = "kvm_apic, by name"
    APIC_MEM = "apic_mem_readl and apic_mem_writel, by offset"
    APIC_REGISTER = "apic_register_read and apic_register_write, by offset / 16"


class DefaultRoutes(Enum):
    """Which GSI routing table a machine starts with."""

    QEMU_PC = "kvm_pc_setup_irq_routing: GSI 0 to PIC 0 and IOAPIC 2, GSI 2 unrouted"
    KERNEL = "default_routing: GSI n to PIC n and IOAPIC n"
    SPLIT_MSI = "24 MSI routes of address 0, data 0"
    NONE = "there is no table"


class HpetArming(Enum):
    """What an HPET timer is armed for."""

    BY_DISTANCE = "the signed distance from the counter to the comparator; past is a tick from now"
    AT_COMPARATOR = "when the 64-bit counter is at the comparator, extended to 64 bits"


@dataclass(frozen=True, slots=True)
class IoapicProfile:
    """IOAPIC knobs."""

    model: Model
    """Whose chip: KVM ``ioapic.c`` or QEMU ``hw/intc/ioapic.c``."""
    version: int
    """Bits 7:0 of IOAPICVER."""
    eoi_register: bool
    """A write to offset 0x40 ends a vector, where the version is 0x20 (82093AA has none)."""
    unmapped_read: int
    """What IOWIN reads at an index without a register."""
    window_sizes: tuple[int, ...]
    """The access sizes in bytes that reach IOREGSEL's register through IOWIN."""
    decode_mask: int
    """The bits of an offset that are decoded."""
    range_bytes: int
    """Number of bytes from the base that belong to the chip."""
    source_bitmap: bool
    """A pin's level is the OR of its sources' (``irq_states``), not the last that was set."""
    edge_latch_when_masked: bool
    """An edge at a masked pin sets IRR and is delivered at the unmask."""
    edge_needs_low_before_rearm: bool
    """An edge whose pin's IRR is still set is coalesced."""
    lower_clears_edge: bool
    """A falling line clears IRR of an edge pin, too."""
    rirr_set_rule: RirrRule
    """When a level pin's service sets remote IRR."""
    service_all_pins: bool
    """Each line change, write and EOI serves every pin that waits, not just its own."""
    eoi_requires_rte_level: bool
    """An EOI ends pins whose entry is level-triggered now; else TMR says whether it was level."""
    storm_limit: int
    """Number of EOIs of a pin in a row, its line high, after which its service is put off."""
    storm_delay_ns: int
    """How long it is put off."""
    storm_reset_on_rte_write: bool
    """A write to an entry starts the count of EOIs anew."""
    pin0_remap: bool
    """Input 0 of the chip is pin 2 (the PIT's override)."""
    rtc_tracking: bool
    """The RTC's next edge waits for all EOIs of the last one (pin 8)."""
    extint_inta_at_parse: bool
    """An ExtINT entry asks the PIC for its vector while it is read."""
    resampler_on_unmask: bool
    """An unmask kicks the pin's irqfd resampler instead of serving a high line."""


@dataclass(frozen=True, slots=True)
class RouteProfile:
    """GSI routing and split's MSI routes."""

    default_routes: DefaultRoutes
    """The table that a machine starts with."""
    msi_routes: int
    """Number of GSIs that are reserved for the pins of IOAPICs in user space."""
    update_before_service: bool
    """A write to an entry commits its route before the pin is served."""
    update_on_any_mmio: bool
    """Every write to the chip commits all routes, after the service."""
    isa_lines_doubled: bool
    """An ISA line is two KVM_IRQ_LINE of one GSI: the PIC's and the IOAPIC's."""


@dataclass(frozen=True, slots=True)
class LapicProfile:
    """Local APIC knobs."""

    model: Model
    """Whose chip: KVM ``lapic.c`` or QEMU ``hw/intc/apic.c``."""
    version: int
    """The version register, without the bits that follow from other knobs."""
    directed_eoi: bool
    """SPIV bit 12 and version bit 24 are there (EOI broadcast suppression)."""
    spiv_mask: int
    """The bits of SPIV that are stored."""
    lvt_masks: bool
    """An LVT entry stores its defined bits alone."""
    sw_disable_masks_lvt: bool
    """Clearing SPIV bit 8 masks all LVT entries (SDM 3A, "Spurious Interrupt")."""
    accept_when_sw_disabled: bool
    """A fixed message is taken though SPIV bit 8 is clear."""
    deliver_vectors_below_16: bool
    """A vector of class 0 is given to the CPU where PPR is 0."""
    esr_sticky_illegal_register: bool
    """An access where there is no register sets ESR bit 7 at once."""
    spurious_possible: bool
    """An INTR whose vector PPR blocks gives the spurious vector."""
    icr_busy_stored: bool
    """ICR's delivery status is stored as written."""
    icr2_mask: int
    """The bits of ICR2 that are stored."""
    x2apic_icr_split: bool
    """The x2APIC ICR is stored as ICR and ICR2 (SVM), not as one of 64 bits (VMX)."""
    x2apic_id_loaded: bool
    """KVM_SET_LAPIC in x2APIC mode takes over the page's id."""
    x2apic: bool
    """The CPU has x2APIC mode (CPUID 1, ECX bit 21)."""
    x2apic_msrs_fault: bool
    """Outside x2APIC mode its MSRs are #GP; where this is off they read 0."""
    tsc_deadline: bool
    """The timer has TSC-deadline mode (CPUID 1, ECX bit 24)."""
    cmci: bool
    """The seventh LVT entry is there (MCG_CAP.CMCI)."""
    timer_plus_one_tick: bool
    """A period is TMICT + 1 ticks."""
    timer_min_period_ns: int
    """A shorter period is stretched to this one."""
    masked_expiry_kept: bool
    """An expiry while LVTT is masked is delivered at the unmask."""
    divider_1_after_reset: bool
    """After reset the timer divides by 1, although TDCR reads 0, which means 2."""
    page0_store_is_msi: bool
    """A store to the page's first 16 bytes is a message, not a register access."""
    reads_need_xapic_mode: bool
    """The page gives registers in xAPIC mode only, and all ones in another one."""
    writes_need_xapic_mode: bool
    """The page takes a write in xAPIC mode only."""
    apic_base_rules: ApicBaseRules
    """What a write to IA32_APIC_BASE is checked for."""
    keeps_id_when_leaving_x2apic: bool
    """The id register is not rewritten when the host leaves x2APIC mode for xAPIC mode."""
    lint0_reset_extint: bool
    """After reset the boot CPU's LINT0 is an unmasked ExtINT."""
    smi_accepted: bool
    """An SMI message is taken (CONFIG_KVM_SMM)."""
    tpr_access_exits: bool
    """Once the firmware has run QEMU's kvmvapic ROM an access of TPR is an exit."""
    apicv: bool
    """Virtual interrupt delivery: hardware ends interrupts and takes posted ones."""
    register_trace: RegisterTrace
    """Which events trace register accesses."""


@dataclass(frozen=True, slots=True)
class DeliveryProfile:
    """APIC bus: destination matching and arbitration."""

    model: Model
    """Whose bus: KVM ``kvm_irq_delivery_to_apic`` or QEMU ``apic_bus_deliver``."""
    lowest_priority: LowestPriority
    """Who gets a lowest-priority message."""
    rh_honoured: bool
    """An MSI's redirection hint makes it one of lowest priority."""
    broadcast_quirk: bool
    """0xff is a broadcast for an x2APIC, too, if it comes from an MSI."""
    ids_32bit: bool
    """MSIs carry 32-bit ids (KVM_X2APIC_API_USE_32BIT_IDS)."""
    map_strict: bool
    """Two CPUs with one physical id: there is no fast map, all messages take the slow path."""
    scan_stops_at_gap: bool
    """The search for a CPU ends at the first number that has none."""
    x2apic_ids: bool
    """A message's destination has more than 8 bits."""
    cluster15_broadcast: bool
    """In the cluster model cluster 15 is all clusters."""
    self_by_initial_id: bool
    """The shorthands find the sender by its initial id, not by its register."""


@dataclass(frozen=True, slots=True)
class CpuProfile:
    """What KVM makes of the CPU's own part."""

    nmi_iret_exits: bool
    """SVM without vNMI: the IRET after an NMI is intercepted, and KVM looks for interrupts."""
    nmi_counted: bool
    """Of NMIs that come before the CPU leaves its guest none is lost; else they are one bit."""
    start_ends_kick: bool
    """A CPU that starts after an INIT has lost a paravirtual kick from before."""


@dataclass(frozen=True, slots=True)
class PicProfile:
    """8259 pair knobs."""

    model: Model
    """Whose pair: KVM ``i8259.c`` or QEMU ``hw/intc/i8259.c``."""
    to_cpu: PicWiring
    """How the INTR wire reaches a CPU."""
    source_bitmap: bool
    """An input's level is the OR of its sources' (``irq_states``)."""
    ltim: bool
    """ICW1 bit 3 makes all inputs level-triggered."""
    single_mode: bool
    """ICW1 bit 1 (no cascade, no ICW3) is obeyed."""
    special_mask: bool
    """OCW3's special mask mode is obeyed."""
    icw1_keeps_isr: bool
    """ICW1 leaves ISR, vector base, poll and auto-EOI rotation as they are; else it resets all."""
    poll_is_inta: bool
    """A poll acknowledges as INTA does."""
    poll_sets_bit7: bool
    """A poll's answer says in bit 7 that there was an interrupt."""
    poll_idle: int
    """What a poll reads where there is none."""
    slave_wire_pulses: bool
    """The slave's output goes up and down at the master at each update."""
    slave_acked_first: bool
    """INTA acknowledges at the slave before the master."""
    auto_eoi_touches_isr: bool
    """In auto-EOI mode INTA sets the ISR bit and clears it again."""
    acks_notified: bool
    """A cleared ISR bit is notified (``kvm_notify_acked_irq``)."""
    wake_only_on_rise: bool
    """A CPU is woken only when INTR rises, not at every update."""


@dataclass(frozen=True, slots=True)
class PitProfile:
    """8254 knobs."""

    model: Model
    """Whose timer: KVM ``i8254.c`` or QEMU ``hw/timer/i8254.c``."""
    frequency_hz: int
    """The input clock."""
    pulse_output: bool
    """Channel 0's interrupt is a pulse at each expiry, not the level of OUT."""
    reinject: bool
    """Ticks that the guest missed are delivered later (``lost_tick_policy=delay``)."""
    source_id: int
    """Channel 0's interrupt source id."""
    min_period_ns: int
    """A shorter period is stretched to this one."""
    fold_modes_6_7: bool
    """Modes 6 and 7 are stored as 2 and 3."""
    mode1_out_after_terminal_count: bool
    """In mode 1 OUT is high once the count has run out, not before."""
    speaker_in_kernel: bool
    """Port 0x61 is the chip's own (KVM_PIT_SPEAKER_DUMMY), not QEMU's."""
    speaker_mode1_out_after_terminal_count: bool
    """The same for QEMU's port 0x61, which computes channel 2's OUT itself."""


@dataclass(frozen=True, slots=True)
class HpetProfile:
    """HPET knobs; QEMU's chip in every mode."""

    period_fs: int
    """The main counter's tick (COUNTER_CLK_PERIOD)."""
    timers: int
    """Number of timers that the capabilities say."""
    one_too_many: bool
    """There is one timer more; a reset, a stop and the status register pass it by."""
    fsb: bool
    """The timers say that they can deliver by FSB."""
    capable_routes: int
    """INT_ROUTE_CAP: a bit a GSI."""
    access_sizes: tuple[int, ...]
    """The access sizes in bytes that reach a register; they must be aligned."""
    arming: HpetArming
    """What a timer is armed for."""
    min_interval_ns: int
    """A periodic timer expires at least so long after what was armed before."""
    config_arms: bool
    """Any write to a timer's configuration arms it, and none stops it; else INT_ENB_CNF does."""
    rests_at_reset_comparator: bool
    """The counter's start does not arm a timer whose comparator is all ones."""
    keeps_status: bool
    """A level timer's status is set without INT_ENB_CNF, too, and a stop does not clear it."""
    lowers_on_edge: bool
    """The line is lowered where a level timer becomes an edge one."""
    lowers_on_fsb: bool
    """The line is lowered where a timer is switched to FSB."""
    half_period: bool
    """A 32-bit period has 31 bits, and a write to the upper half is of one of comparator and
    period."""
    clears_upper_comparator: bool
    """In 32-bit mode a write clears the comparator's upper half, which itself cannot be written."""


@dataclass(frozen=True, slots=True)
class RtcProfile:
    """MC146818 knobs; QEMU's chip in every mode."""

    slew: bool
    """Ticks that no CPU took are delivered later (``lost_tick_policy=slew``)."""
    ns_since_1970: bool
    """The time is a number of ns since 1970 in 64 bits, which wraps in 2262."""
    reinject_on_ack: int
    """How many of them may follow a read of register C before the next tick."""


@dataclass(frozen=True, slots=True)
class EoiProfile:
    """How an EOI finds the IOAPIC."""

    needs_handled_bitmap: bool
    """Only vectors of the CPU's EOI exit bitmap reach the IOAPIC."""
    scan_includes_pending: bool
    """A vector that is still pending or in service stays in that bitmap."""
    scan_tracks_stale: bool
    """The highest vector kept only for that is remembered, and its EOI requests a new scan."""


Group: TypeAlias = (
    IoapicProfile
    | RouteProfile
    | LapicProfile
    | DeliveryProfile
    | CpuProfile
    | PicProfile
    | PitProfile
    | HpetProfile
    | RtcProfile
    | EoiProfile
)
