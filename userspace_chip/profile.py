"""Profiles: what differs between irqchip modes and versions, as one table with a source per entry.

A profile is (mode, QEMU, Linux).  The chips have one implementation each; wherever QEMU 7.2,
10.0 or 11.1, Linux 6.1, 6.12, 6.18 or 7.3, or the two implementations of a chip differ, the chip
asks its profile: ``profile("split", qemu="7.2").route.update_before_service``.

Who emulates what::

    mode    LAPIC   IOAPIC, PIC, PIT   vCPU
    on      KVM     KVM                KVM
    split   KVM     QEMU               KVM
    off     QEMU    QEMU               KVM     (QEMU 7.2 only: later ones refuse)
    tcg     QEMU    QEMU               TCG

What a knob means is its field in :mod:`userspace_chip.knobs`.  Adding one: a documented field there
and a row in :data:`KNOBS`; the import fails where the two disagree.  "KVM" sources are below
``arch/x86/kvm`` of Linux 6.12 unless they say otherwise, QEMU's name their file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, Final, Literal, TypeAlias, get_args

from userspace_chip.errors import ProfileError
from userspace_chip.knobs import (
    ApicBaseRules,
    CpuProfile,
    DefaultRoutes,
    DeliveryProfile,
    EoiProfile,
    HpetArming,
    HpetProfile,
    IoapicProfile,
    LapicProfile,
    LowestPriority,
    Model,
    PicProfile,
    PicWiring,
    PitProfile,
    RegisterTrace,
    RirrRule,
    RouteProfile,
    RtcProfile,
)

Mode: TypeAlias = Literal["on", "split", "off", "tcg"]
Qemu: TypeAlias = Literal["7.2", "10.0", "11.1"]
Linux: TypeAlias = Literal["6.1", "6.12", "6.18", "7.3"]

MODES: Final[tuple[Mode, ...]] = get_args(Mode)
QEMU_VERSIONS: Final[tuple[Qemu, ...]] = get_args(Qemu)
LINUX_VERSIONS: Final[tuple[Linux, ...]] = get_args(Linux)


@dataclass(frozen=True, slots=True)
class Profile:
    """One subject: who emulates what, in which versions."""

    mode: Mode
    qemu: Qemu
    linux: Linux | None
    """None under TCG, where no KVM takes part."""
    ioapic: IoapicProfile
    route: RouteProfile
    lapic: LapicProfile
    delivery: DeliveryProfile
    cpu: CpuProfile
    pic: PicProfile
    pit: PitProfile
    hpet: HpetProfile
    rtc: RtcProfile
    eoi: EoiProfile

    @property
    def kvm_lapic(self) -> bool:
        """Whether the local APICs are KVM's."""
        return self.lapic.model is Model.KVM

    @property
    def kvm_vcpu(self) -> bool:
        """Whether the CPUs run under KVM."""
        return self.linux is not None


@dataclass(frozen=True, slots=True)
class ByLinux:
    """A value that depends on the Linux version: version -> value from that version on."""

    since: Mapping[Linux, Any]


@dataclass(frozen=True, slots=True)
class ByQemu:
    """A value that depends on the QEMU version: version -> value from that version on."""

    since: Mapping[Qemu, Any]


@dataclass(frozen=True, slots=True)
class Knob:
    """One row of the table: the knob's value in each mode, and where that can be read.

    ``split`` defaults to ``on``, ``off`` to ``split``, ``tcg`` to ``off``; each is a value or a
    :class:`ByLinux` / :class:`ByQemu`.
    """

    name: str
    source: str
    on: Any
    split: Any = None
    off: Any = None
    tcg: Any = None

    def value(self, mode: Mode, qemu: Qemu, linux: Linux | None) -> Any:
        """The knob's value in one profile."""
        columns = {"on": self.on, "split": self.split, "off": self.off, "tcg": self.tcg}
        names = MODES[: MODES.index(mode) + 1]
        found = next(v for v in (columns[name] for name in reversed(names)) if v is not None)
        if isinstance(found, ByLinux):
            return _since(found.since, LINUX_VERSIONS, linux)
        if isinstance(found, ByQemu):
            return _since(found.since, QEMU_VERSIONS, qemu)
        return found


def qemu_at(version: tuple[int, ...]) -> Qemu:
    """The modelled QEMU for one of that version: the latest that is not later, or the first."""
    earlier = [
        name for name in QEMU_VERSIONS if tuple(int(part) for part in name.split(".")) <= version
    ]
    return earlier[-1] if earlier else QEMU_VERSIONS[0]


def _since(table: Mapping[Any, Any], versions: tuple[Any, ...], version: Any) -> Any:
    upto = versions[: versions.index(version) + 1]
    return table[next(v for v in reversed(upto) if v in table)]


_KVM, _QEMU = Model.KVM, Model.QEMU

KNOBS: Final[tuple[Knob, ...]] = (
    # --- IOAPIC: KVM ioapic.c; QEMU hw/intc/ioapic.c, ioapic_common.c
    Knob("ioapic.model", "kvm-ioapic / ioapic device", _KVM, _QEMU),
    Knob("ioapic.version", "ioapic.h IOAPIC_VERSION_ID; property 'version'", 0x11, 0x20),
    Knob("ioapic.eoi_register", "ioapic_mem_write: version 0x20 only", False, True),
    Knob("ioapic.unmapped_read", "ioapic_read_indirect; ioapic_mem_read", 0xFFFFFFFF, 0),
    Knob("ioapic.window_sizes", "ioapic_mmio_write; ioapic_mem_write", (1, 2, 4, 8), (4,)),
    Knob("ioapic.decode_mask", "ioapic_mmio_read addr &= 0xff; ioapic_mem_read", 0xFF, 0xFF),
    Knob("ioapic.range_bytes", "IOAPIC_MEM_LENGTH; ioapic_realize 0x1000", 0x100, 0x1000),
    Knob("ioapic.source_bitmap", "ioapic.c irq_states; none in QEMU", True, False),
    Knob("ioapic.edge_latch_when_masked", "ioapic_set_irq (both)", True, False),
    Knob("ioapic.edge_needs_low_before_rearm", "ioapic_set_irq: old irr; none", True, False),
    Knob("ioapic.lower_clears_edge", "ioapic_set_irq (both)", True, False),
    Knob(
        "ioapic.rirr_set_rule",
        "ioapic_service 'if (ret) remote_irr'; ioapic_service",
        RirrRule.NONZERO_RESULT,
        RirrRule.ALWAYS,
    ),
    Knob("ioapic.service_all_pins", "ioapic_write_indirect; ioapic_service", False, True),
    Knob("ioapic.eoi_requires_rte_level", "kvm_ioapic_update_eoi_one; ioapic_eoi_broadcast",
         False, True),
    Knob("ioapic.storm_limit", "IOAPIC_SUCCESSIVE_IRQ_MAX_COUNT; SUCCESSIVE_IRQ_MAX_COUNT",
         10000),
    Knob("ioapic.storm_delay_ns", "schedule_delayed_work HZ/100; NANOSECONDS_PER_SECOND / 100",
         10_000_000),
    Knob("ioapic.storm_reset_on_rte_write", "ioapic_mem_write irq_eoi = 0", False, True),
    Knob("ioapic.pin0_remap", "GSI table; ioapic_set_irq 'vector 0 is 2'", False, True),
    Knob("ioapic.rtc_tracking", "ioapic.c rtc_irq_eoi", True, False),
    Knob("ioapic.extint_inta_at_parse", "ioapic_entry_parse", False, True),
    Knob("ioapic.resampler_on_unmask", "ioapic_write_indirect: kvm_notify_irqfd_resampler",
         ByLinux({"6.1": False, "6.12": True}), False),
    # --- routing: QEMU target/i386/kvm/kvm.c, hw/i386/kvm/ioapic.c, hw/i386/x86*.c
    Knob("route.default_routes", "kvm_pc_setup_irq_routing; kvm_arch_init_irq_routing",
         DefaultRoutes.QEMU_PC, DefaultRoutes.SPLIT_MSI, DefaultRoutes.NONE),
    Knob("route.msi_routes", "kvm_arch_irqchip_create KVM_CAP_SPLIT_IRQCHIP args[0]", 0, 24, 0),
    Knob("route.update_before_service", "hw/intc/ioapic.c ioapic_mem_write", False,
         ByQemu({"7.2": False, "10.0": True}), False),
    Knob("route.update_on_any_mmio", "hw/intc/ioapic.c ioapic_mem_write", False,
         ByQemu({"7.2": True, "10.0": False}), False),
    Knob("route.isa_lines_doubled", "gsi_handler: kvm-i8259 and kvm-ioapic both call "
         "kvm_set_irq", True, False),
    # --- LAPIC: KVM lapic.c; QEMU hw/intc/apic.c, apic_common.c
    Knob("lapic.model", "kvm-apic / apic device", _KVM, _KVM, _QEMU),
    Knob("lapic.version", "kvm_apic_set_version; apic_mem_read APIC_VERSION", 0x00050014),
    Knob("lapic.directed_eoi", "kvm_apic_set_version: x2APIC CPUID and no in-kernel IOAPIC",
         False, True, False),
    Knob("lapic.spiv_mask", "kvm_lapic_reg_write APIC_SPIV; apic_mem_write", 0x3FF, 0x3FF, 0x1FF),
    Knob("lapic.lvt_masks", "apic_lvt_mask[]; raw store", True, True, False),
    Knob("lapic.sw_disable_masks_lvt", "kvm_lapic_reg_write APIC_SPIV", True, True, False),
    Knob("lapic.accept_when_sw_disabled", "__apic_accept_irq; apic_set_irq", False, False, True),
    Knob("lapic.deliver_vectors_below_16", "apic_has_interrupt_for_ppr; apic_irq_pending",
         False, False, True),
    Knob("lapic.esr_sticky_illegal_register", "ESR never set; apic_mem_read 'esr |='",
         False, False, True),
    Knob("lapic.spurious_possible", "apic_get_interrupt returns spurious_vec", False, False, True),
    Knob("lapic.icr_busy_stored", "kvm_lapic_reg_write APIC_ICR; apic_mem_write", False, False,
         True),
    Knob("lapic.icr2_mask", "kvm_lapic_reg_write APIC_ICR2; apic_mem_write", 0xFF000000,
         0xFF000000, 0xFFFFFFFF),
    Knob("lapic.x2apic_icr_split", "kvm_x86_ops.x2apic_icr_is_split: not on VMX; tune it for SVM",
         False),
    Knob("lapic.x2apic_id_loaded", "kvm_apic_state_fixup: KVM_SET_LAPIC takes over the page's id",
         ByLinux({"6.1": True, "6.12": False}), None, False),
    Knob("lapic.x2apic", "CPUID; QEMU target/i386/cpu.c TCG_EXT_FEATURES", True, True, False,
         ByQemu({"7.2": False, "10.0": True})),
    Knob("lapic.x2apic_msrs_fault", "kvm_x2apic_msr_write; QEMU 7.2 helper_rdmsr knows no "
         "MSR_APIC_START and lets every unknown MSR read 0", True, True, True,
         ByQemu({"7.2": False, "10.0": True})),
    Knob("lapic.tsc_deadline", "CPUID; QEMU kvm_arch_get_supported_cpuid", True, True, False),
    Knob("lapic.cmci", "MCG_CAP.CMCI: kvm_apic_calc_nr_lvt_entries", False),
    Knob("lapic.timer_plus_one_tick", "apic_next_timer", False, False, True),
    Knob("lapic.timer_min_period_ns", "min_timer_period_us 200; none", 200_000, 200_000, 0),
    Knob("lapic.masked_expiry_kept", "lapic_timer.pending; apic_timer", True, True, False),
    Knob("lapic.divider_1_after_reset", "apic_init_reset count_shift = 0", False, False, True),
    Knob("lapic.page0_store_is_msi", "apic_mem_write: addr > 0xfff or index 0", False, False,
         True),
    Knob("lapic.reads_need_xapic_mode", "apic_mmio_in_range; apic_mem_read, seen in 11.1.3",
         True, True, ByQemu({"7.2": False, "11.1": True})),
    Knob("lapic.writes_need_xapic_mode", "apic_mmio_in_range; none", True, True, False),
    Knob("lapic.apic_base_rules", "kvm_set_apic_base; cpu_set_apic_base", ApicBaseRules.KVM,
         ApicBaseRules.KVM,
         ByQemu({"7.2": ApicBaseRules.UNCHECKED, "10.0": ApicBaseRules.QEMU_CHECKED})),
    Knob("lapic.keeps_id_when_leaving_x2apic", "__kvm_apic_set_base / kvm_lapic_set_base",
         ByLinux({"6.1": True, "6.12": False}), None, False),
    Knob("lapic.lint0_reset_extint", "KVM_X86_QUIRK_LINT0_REENABLED; apic_reset_common",
         True, True, False),
    Knob("lapic.smi_accepted", "__apic_accept_irq APIC_DM_SMI (needs CONFIG_KVM_SMM)", True),
    Knob("lapic.tpr_access_exits", "hw/i386/kvmvapic.c vapic_prepare: KVM_TPR_ACCESS_REPORTING; "
         "lapic.c report_tpr_access", True, True, False),
    Knob("lapic.apicv", "enable_apicv: VMX posted interrupts", False),
    Knob("lapic.register_trace", "trace_kvm_apic; hw/intc/trace-events", RegisterTrace.KVM_APIC,
         None, ByQemu({"7.2": RegisterTrace.APIC_MEM, "10.0": RegisterTrace.APIC_REGISTER})),
    # --- APIC bus: KVM lapic.c, irq_comm.c; QEMU hw/intc/apic.c
    Knob("delivery.model", "kvm_irq_delivery_to_apic; apic_bus_deliver", _KVM, _KVM, _QEMU),
    Knob("delivery.lowest_priority", "vector_hashing=1; apic_get_delivery_bitmask ffs",
         LowestPriority.VECTOR_HASH, LowestPriority.VECTOR_HASH, LowestPriority.FIRST_SLOT),
    Knob("delivery.rh_honoured", "kvm_lowest_prio_delivery; apic_send_msi", True, True, False),
    Knob("delivery.broadcast_quirk", "KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK not set", True, True,
         False),
    Knob("delivery.ids_32bit", "KVM_X2APIC_API_USE_32BIT_IDS not set", False),
    Knob("delivery.map_strict", "kvm_recalculate_apic_map",
         ByLinux({"6.1": False, "6.12": True}), None, False),
    Knob("delivery.scan_stops_at_gap", "apic_find_dest, apic_get_delivery_bitmask", False, False,
         ByQemu({"7.2": True, "10.0": False})),
    Knob("delivery.x2apic_ids", "apic_match_dest", False, False,
         ByQemu({"7.2": False, "10.0": True})),
    Knob("delivery.cluster15_broadcast", "kvm_apic_match_logical_addr; apic_match_dest", False,
         False, ByQemu({"7.2": False, "10.0": True})),
    Knob("delivery.self_by_initial_id", "apic_deliver", False, False,
         ByQemu({"7.2": False, "10.0": True})),
    # --- CPU: KVM svm/svm.c, vmx/vmx.c
    Knob("cpu.nmi_iret_exits", "svm.c iret_interception; VMX has NMI windows: tune it there",
         True, True, False),
    Knob("cpu.nmi_counted", "kvm_inject_nmi; cpu_interrupt, of which kvm_arch_pre_run sees a bit",
         True, True, False),
    Knob("cpu.start_ends_kick", "6.15 x86.h kvm_set_mp_state",
         ByLinux({"6.1": False, "6.18": True}), None, False),
    # --- PIC: KVM i8259.c; QEMU hw/intc/i8259.c
    Knob("pic.model", "kvm-i8259 / isa-i8259", _KVM, _QEMU),
    Knob("pic.to_cpu", "kvm_cpu_has_extint; pic_irq_request", PicWiring.LINT0_EXTINT,
         PicWiring.FIRST_CPU,
         ByQemu({"7.2": PicWiring.LINT0_ANY, "10.0": PicWiring.LINT0_OR_FIRST_CPU})),
    Knob("pic.source_bitmap", "irq_states", True, False),
    Knob("pic.ltim", "pic_ioport_write ICW1 bit 3", False, ByQemu({"7.2": False, "10.0": True})),
    Knob("pic.single_mode", "pic_ioport_write ICW1 bit 1", False, True),
    Knob("pic.special_mask", "pic_get_irq", False, True),
    Knob("pic.icw1_keeps_isr", "pic_ioport_write ICW1; pic_init_reset", True, False),
    Knob("pic.poll_is_inta", "pic_poll_read; pic_ioport_read", False, True),
    Knob("pic.poll_sets_bit7", "pic_poll_read", ByLinux({"6.1": False, "6.12": True}), True),
    Knob("pic.poll_idle", "pic_poll_read returns 0x07; 0", 0x07, 0x00),
    Knob("pic.slave_wire_pulses", "pic_update_irq; slave's output is wired", True, False),
    Knob("pic.slave_acked_first", "kvm_pic_read_irq; pic_read_irq", False, True),
    Knob("pic.auto_eoi_touches_isr", "pic_intack", True, False),
    Knob("pic.acks_notified", "pic_clear_isr", True, False),
    Knob("pic.wake_only_on_rise", "6.18 pic_irq_request", ByLinux({"6.1": False, "6.18": True}),
         False),
    # --- PIT: KVM i8254.c; QEMU hw/timer/i8254.c
    Knob("pit.model", "kvm-pit / isa-pit", _KVM, _QEMU),
    Knob("pit.frequency_hz", "KVM_PIT_FREQ; PIT_FREQ", 1193181, 1193182),
    Knob("pit.pulse_output", "pit_do_work; pit_irq_timer_update", True, False),
    Knob("pit.reinject", "kvm-pit.lost_tick_policy=delay; none", True, False),
    Knob("pit.source_id", "KVM_PIT_IRQ_SOURCE_ID; userspace", 2, 0),
    Knob("pit.min_period_ns", "create_pit_timer min_timer_period_us; none", 200_000, 0),
    Knob("pit.fold_modes_6_7", "pit_ioport_write; stored as is", True, False),
    Knob("pit.mode1_out_after_terminal_count", "pit_get_out", False,
         ByQemu({"7.2": False, "10.0": True})),
    Knob("pit.speaker_in_kernel", "KVM_PIT_SPEAKER_DUMMY: kvm_pit_realizefn passes flags 0", False),
    Knob("pit.speaker_mode1_out_after_terminal_count", "hw/audio/pcspk.c; "
         "hw/timer/i8254_common.c pit_get_out", ByQemu({"7.2": False, "10.0": True})),
    # --- HPET: QEMU hw/timer/hpet.c in every mode; since 9.1 reworked (f0ccf770789e)
    Knob("hpet.period_fs", "HPET_CLK_PERIOD 10 ns", 10_000_000),
    Knob("hpet.timers", "property 'timers'", 3),
    Knob("hpet.one_too_many", "hpet_ram_write 'timer_id > s->num_timers'",
         ByQemu({"7.2": True, "11.1": False})),
    Knob("hpet.fsb", "property 'msi'", False),
    Knob("hpet.capable_routes", "pc_q35.c: pc_basic_device_init(..., 0xff0104)", 0xFF0104),
    Knob("hpet.access_sizes", "hpet_ram_ops.valid", ByQemu({"7.2": (4,), "10.0": (4, 8)})),
    Knob("hpet.arming", "hpet_calculate_diff; hpet_calculate_cmp64", ByQemu({
        "7.2": HpetArming.BY_DISTANCE, "10.0": HpetArming.AT_COMPARATOR})),
    Knob("hpet.min_interval_ns", "hpet_arm 't->last + 1000'", ByQemu({"7.2": 0, "10.0": 1000})),
    Knob("hpet.config_arms", "hpet_ram_write HPET_TN_CFG",
         ByQemu({"7.2": False, "10.0": True})),
    Knob("hpet.rests_at_reset_comparator", "hpet_ram_write HPET_CFG 'cmp != ~0ULL'",
         ByQemu({"7.2": True, "10.0": False})),
    Knob("hpet.keeps_status", "update_irq, hpet_del_timer",
         ByQemu({"7.2": False, "10.0": True})),
    Knob("hpet.lowers_on_edge", "hpet_ram_write HPET_TN_CFG deactivating_bit",
         ByQemu({"7.2": False, "10.0": True})),
    Knob("hpet.lowers_on_fsb", "hpet_ram_write HPET_TN_CFG activating_bit",
         ByQemu({"7.2": True, "10.0": False})),
    Knob("hpet.half_period", "hpet_ram_write HPET_TN_CMP 'new_val &='",
         ByQemu({"7.2": True, "10.0": False})),
    Knob("hpet.clears_upper_comparator", "hpet_ram_write HPET_TN_CMP 'len = 64'",
         ByQemu({"7.2": False, "10.0": True})),
    # --- RTC: QEMU hw/rtc/mc146818rtc.c in every mode
    Knob("rtc.slew", "property 'lost_tick_policy': discard", False),
    Knob("rtc.ns_since_1970", "get_guest_rtc_ns; get_rtc_ns_since_last_update",
         ByQemu({"7.2": True, "10.0": False})),
    Knob("rtc.reinject_on_ack", "RTC_REINJECT_ON_ACK_COUNT", 20),
    # --- EOI forwarding: KVM lapic.c, ioapic.c, irq_comm.c
    Knob("eoi.needs_handled_bitmap", "kvm_ioapic_handles_vector; apic_eoi", True, True, False),
    Knob("eoi.scan_includes_pending", "kvm_ioapic_scan_entry; kvm_scan_ioapic_routes", True,
         ByLinux({"6.1": False, "6.12": True}), False),
    Knob("eoi.scan_tracks_stale", "6.18 kvm_scan_ioapic_irq",
         ByLinux({"6.1": False, "6.18": True}), None, False),
)  # fmt: skip
"""Section by section what differs; None in a column repeats the one before."""

_GROUPS: Final[Mapping[str, type[Any]]] = {
    "ioapic": IoapicProfile,
    "route": RouteProfile,
    "lapic": LapicProfile,
    "delivery": DeliveryProfile,
    "cpu": CpuProfile,
    "pic": PicProfile,
    "pit": PitProfile,
    "hpet": HpetProfile,
    "rtc": RtcProfile,
    "eoi": EoiProfile,
}


def knob(name: str) -> Knob:
    """The row of that name; :class:`ProfileError` where there is none."""
    for row in KNOBS:
        if row.name == name:
            return row
    raise ProfileError(f"no knob {name!r}", None, "the known ones are in userspace_chip.profile")


@cache
def profile(mode: Mode, *, qemu: Qemu | None = None, linux: Linux = "6.12") -> Profile:
    """The profile of a mode and the versions that take part in it.

    ``qemu`` defaults to 10.0, for ``off`` to 7.2: later versions do not have it.
    :class:`ProfileError` for an unknown name, or for ``off`` with a later QEMU
    (``target/i386/cpu-apic.c:apic_get_class`` refuses it).
    """
    if qemu is None:
        qemu = "7.2" if mode == "off" else "10.0"
    if mode not in MODES or qemu not in QEMU_VERSIONS or linux not in LINUX_VERSIONS:
        raise ProfileError(
            f"profile ({mode}, QEMU {qemu}, Linux {linux})",
            "unknown mode or version",
            f"modes {MODES}, QEMU {QEMU_VERSIONS}, Linux {LINUX_VERSIONS}",
        )
    if mode == "off" and qemu != "7.2":
        raise ProfileError(
            f"profile (off, QEMU {qemu})",
            "KVM does not support userspace APIC",
            'use qemu="7.2", or mode "tcg"',
        )
    version = None if mode == "tcg" else linux
    values: dict[str, dict[str, Any]] = {group: {} for group in _GROUPS}
    for row in KNOBS:
        group, name = row.name.split(".")
        values[group][name] = row.value(mode, qemu, version)
    groups = {group: kind(**values[group]) for group, kind in _GROUPS.items()}
    return Profile(mode=mode, qemu=qemu, linux=version, **groups)


def tune(base: Profile, **knobs: Any) -> Profile:
    """``base`` with single knobs changed: ``tune(p, lapic__apicv=True, ioapic__version=0x11)``.

    For what the machine's owner can set: device properties, module parameters, CPUID bits.
    :class:`ProfileError` for a knob that does not exist.
    """
    for name, value in knobs.items():
        group, _, knob_name = name.partition("__")
        if group not in _GROUPS or knob_name not in {f.name for f in fields(_GROUPS[group])}:
            raise ProfileError(f"no knob {name!r}", None, "write group__knob, as in lapic__apicv")
        changed = replace(getattr(base, group), **{knob_name: value})
        base = replace(base, **{group: changed})
    return base
