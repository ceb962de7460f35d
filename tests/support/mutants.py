"""Models with one wrong rule each, which the scenarios have to tell from the true one."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from harness.scenario.execution import after_prologue
from userspace_chip.chipset import Chipset
from userspace_chip.delivery import KvmBus, QemuBus
from userspace_chip.ioapic import Ioapic
from userspace_chip.lapic import Lapic
from userspace_chip.lapic_icr import Icr
from userspace_chip.lapic_timer import KvmTimer
from userspace_chip.messages import DestMode, Shorthand, Trigger
from userspace_chip.pic import Pic
from userspace_chip.pit import Pit
from userspace_chip.profile import Profile, profile, tune
from userspace_chip.vcpu import Vcpu
from userspace_chip.wiring import IoapicWiring, PitWiring

REMOTE_IRR = 1 << 14
Patch = tuple[type | Any, str, Callable[..., Any]]


@dataclass(frozen=True)
class Mutant:
    """``subject`` with knobs turned or methods replaced; ``files`` of scenarios to try first."""

    name: str
    subject: Profile
    patches: tuple[Patch, ...] = ()
    knobs: Mapping[str, Any] = field(default_factory=dict)
    files: str = ""

    @contextmanager
    def alive(self) -> Iterator[Profile]:
        """The profile to predict with; what is patched is patched meanwhile."""
        with ExitStack() as stack:
            stack.callback(after_prologue.cache_clear)
            for owner, name, replacement in self.patches:
                stack.enter_context(patch.object(owner, name, replacement))
            after_prologue.cache_clear()
            yield tune(self.subject, **self.knobs) if self.knobs else self.subject


# --- local APIC


def ppr_of_tpr_alone(self):
    old, self.state.ppr = self.state.ppr, self.state.tpr
    return self.state.ppr < old


def ppr_of_isr_alone(self):
    isr = (self.state.isr.bit_length() - 1) & 0xF0 if self.state.isr else 0
    old, self.state.ppr = self.state.ppr, isr
    return isr < old


def ppr_keeps_the_subclass(self):
    highest = self.state.isr.bit_length() - 1 if self.state.isr else 0
    old, self.state.ppr = self.state.ppr, max(self.state.tpr, highest)
    return self.state.ppr < old


def class_and_subclass_against_ppr(self):
    self.update_ppr()
    vector = self.state.irr.bit_length() - 1
    return vector if self.state.irr and vector > self.state.ppr else None


def lowest_request_first(self):
    self.update_ppr()
    irr = self.state.irr
    vector = (irr & -irr).bit_length() - 1
    return vector if irr and vector & 0xF0 > self.state.ppr else None


_accept, _set_irq, _ack, _eoi = Lapic.accept, Lapic.set_irq, Lapic.ack, Lapic.eoi


def tmr_of_an_edge_stays(self, message, dest_map=None):
    tmr = self.state.tmr
    result = _accept(self, message, dest_map)
    self.state.tmr |= tmr
    return result


def tmr_of_a_level_is_not_set(self, vector, trigger):
    _set_irq(self, vector, Trigger.EDGE)


def request_stays_in_irr(self, vector):
    _ack(self, vector)
    self.state.irr |= 1 << vector


def eoi_of_the_lowest_vector(self):
    isr = self.state.isr
    lowest = isr & -isr
    self.state.isr = lowest
    vector = _eoi(self)
    self.state.isr |= isr ^ lowest
    return vector


def init_keeps_the_registers(self, *, init=False):
    if not init:
        _reset(self)


_reset = Lapic.reset


def periodic_timer_fires_once(self, now_ns):
    timer = self._lapic.state.timer
    timer.armed_ns = None
    self._expired(kick=True)


# --- bus


def hash_off_by_one(self, vector, slots, numbers):
    return [numbers[(vector + 1) % len(numbers)]] if numbers else numbers


_deliver, _qemu_deliver = KvmBus.deliver, QemuBus.deliver


def self_ipi_is_lost(self, message, source=None, dest_map=None):
    if message.shorthand is Shorthand.SELF:
        return 0
    return _deliver(self, message, source, dest_map)


def all_but_self_means_all(self, message, source=None, dest_map=None):
    if message.shorthand is Shorthand.ALL_BUT_SELF:
        message = message._replace(shorthand=Shorthand.ALL)
    return _deliver(self, message, source, dest_map)


def logical_is_physical(self, message, source=None, dest_map=None):
    return _deliver(self, message._replace(dest_mode=DestMode.PHYSICAL), source, dest_map)


def cluster_is_not_looked_at(self, lapic, dest):
    return bool(dest & lapic.state.ldr >> 24 & 0xF)


def lowest_priority_is_fixed(self, message, source=None, dest_map=None):
    mode = type(message.delivery_mode)(0) if message.delivery_mode == 1 else message.delivery_mode
    return _qemu_deliver(self, message._replace(delivery_mode=mode), source, dest_map)


# --- IOAPIC

_ioapic_eoi = Ioapic.eoi


def remote_irr_is_not_cleared(self, vector, now_ns, **about):
    had = [entry & REMOTE_IRR for entry in self.state.rte]
    _ioapic_eoi(self, vector, now_ns, **about)
    self.state.rte = [entry | old for entry, old in zip(self.state.rte, had, strict=True)]


def pin_is_not_served_again(self, pin, entry, now_ns):
    """At the EOI."""


def eoi_of_the_first_pin_only(self, vector, now_ns, **about):
    for pin, entry in enumerate(self.state.rte):
        if entry & 0xFF == vector:
            others = [(n, e) for n, e in enumerate(self.state.rte) if n > pin]
            for n, e in others:
                self.state.rte[n] = e & ~0xFF
            _ioapic_eoi(self, vector, now_ns, **about)
            for n, e in others:
                self.state.rte[n] = e & 0xFF | self.state.rte[n]
            return


def falling_line_keeps_the_request(self, pin, entry):
    return 1


# --- CPU, PIC


def tpr_is_put_back_alone(self):
    self.lapic.set_cr8(self.lapic.cr8())


def nmi_is_lost(self):
    """Nothing happens."""


def highest_number_first(self, chip):
    requests = chip.irr & ~chip.imr
    return requests.bit_length() - 1 if requests > chip.isr else None


_acknowledge = Pic._acknowledge


def auto_eoi_is_ignored(self, chip, irq):
    auto, chip.auto_eoi = chip.auto_eoi, 0
    _acknowledge(self, chip, irq)
    chip.auto_eoi = auto


def elcr_is_ignored(chip, irq):
    return False


# --- PIT, paravirtual


def latch_again(self, channel, now_ns):
    channel.latched_count = self._counter(channel, now_ns) & 0xFFFF
    channel.count_latched = channel.rw_mode


_read_counter = Pit._read_counter


def high_byte_first(self, port, now_ns):
    channel = self.state.channels[min(port & 3, 2)]
    if channel.count_latched == 3 and not channel.status_latched:
        channel.count_latched = 1
        return channel.latched_count >> 8
    return _read_counter(self, port, now_ns)


def no_nmi_at_a_tick(self):
    """Nothing happens."""


_multi_ipi = KvmBus.multi_ipi


def from_id_0_on(self, message, bitmap, first):
    return _multi_ipi(self, message, bitmap, 0)


_write_x2apic = Icr.write_x2apic


def low_word_alone(self, value):
    return _write_x2apic(self, value & 0xFFFFFFFF)


ON, SPLIT, TCG = profile("on"), profile("split"), profile("tcg")


MUTANTS = (
    Mutant("PPR is TPR alone", ON, ((Lapic, "update_ppr", ppr_of_tpr_alone),), files="lapic-p"),
    Mutant("TPR is ignored", ON, ((Lapic, "update_ppr", ppr_of_isr_alone),), files="lapic-p"),
    Mutant("PPR keeps the subclass", ON, ((Lapic, "update_ppr", ppr_keeps_the_subclass),)),
    Mutant(
        "the subclass decides, too",
        ON,
        ((Lapic, "pending", class_and_subclass_against_ppr),),
        files="lapic-p",
    ),
    Mutant("lowest request first", ON, ((Lapic, "pending", lowest_request_first),)),
    Mutant("TMR of an edge stays", ON, ((Lapic, "accept", tmr_of_an_edge_stays),)),
    Mutant("TMR of a level is not set", TCG, ((Lapic, "set_irq", tmr_of_a_level_is_not_set),)),
    Mutant("IRR is not cleared by ack", SPLIT, ((Lapic, "ack", request_stays_in_irr),)),
    Mutant(
        "EOI ends the lowest vector",
        ON,
        ((Lapic, "eoi", eoi_of_the_lowest_vector),),
        files="lapic-p",
    ),
    Mutant(
        "INIT keeps the registers", ON, ((Lapic, "reset", init_keeps_the_registers),), files="init"
    ),
    Mutant("a disabled APIC accepts", ON, knobs={"lapic__accept_when_sw_disabled": True}),
    Mutant("disabling masks no LVT", ON, knobs={"lapic__sw_disable_masks_lvt": False}),
    Mutant("vectors below 16 are delivered", ON, knobs={"lapic__deliver_vectors_below_16": True}),
    Mutant("a masked expiry is lost", ON, knobs={"lapic__masked_expiry_kept": False}, files="lap"),
    Mutant(
        "a periodic timer fires once",
        ON,
        ((KvmTimer, "expire", periodic_timer_fires_once),),
        files="lapic-timer",
    ),
    Mutant("lowest priority off by one", ON, ((KvmBus, "_arbitrate", hash_off_by_one),)),
    Mutant("lowest priority is for all", TCG, ((QemuBus, "deliver", lowest_priority_is_fixed),)),
    Mutant("self IPI is lost", ON, ((KvmBus, "deliver", self_ipi_is_lost),), files="ipi"),
    Mutant("all but self means all", ON, ((KvmBus, "deliver", all_but_self_means_all),)),
    Mutant("logical means physical", ON, ((KvmBus, "deliver", logical_is_physical),)),
    Mutant(
        "the cluster is not looked at",
        TCG,
        ((QemuBus, "_match_logical", cluster_is_not_looked_at),),
        files="ipi",
    ),
    Mutant("duplicate LDRs are taken", ON, knobs={"delivery__map_strict": False}, files="ipi"),
    Mutant(
        "remote IRR is not cleared", ON, ((Ioapic, "eoi", remote_irr_is_not_cleared),), files="ioa"
    ),
    Mutant("remote IRR stays in split", SPLIT, ((Ioapic, "eoi", remote_irr_is_not_cleared),)),
    Mutant("no service at EOI", TCG, ((Ioapic, "_after_eoi", pin_is_not_served_again),)),
    Mutant("EOI of one pin only", ON, ((Ioapic, "eoi", eoi_of_the_first_pin_only),)),
    Mutant("coalescing is lost", ON, knobs={"ioapic__edge_needs_low_before_rearm": False}),
    Mutant("masked edge is forgotten", ON, knobs={"ioapic__edge_latch_when_masked": False}),
    Mutant("masked edge is latched", TCG, knobs={"ioapic__edge_latch_when_masked": True}),
    Mutant("a fall keeps the request", ON, ((Ioapic, "_lower", falling_line_keeps_the_request),)),
    Mutant("pin 0 is pin 0", SPLIT, knobs={"ioapic__pin0_remap": False}, files="ioapic-edge"),
    Mutant(
        "the RTC is like any other", ON, knobs={"ioapic__rtc_tracking": False}, files="ioapic-edge"
    ),
    Mutant("routes are stale", SPLIT, knobs={"route__update_before_service": False}),
    Mutant("pending EOIs are not scanned", SPLIT, knobs={"eoi__scan_includes_pending": False}),
    Mutant("NMI is lost", ON, ((Vcpu, "queue_nmi", nmi_is_lost),), files="nmi"),
    Mutant("TPR is no exit", ON, knobs={"lapic__tpr_access_exits": False}, files="lapic-priority"),
    Mutant("nobody looks behind TPR", ON, ((Vcpu, "synchronized", tpr_is_put_back_alone),)),
    Mutant("an NMI's IRET is no exit", ON, knobs={"cpu__nmi_iret_exits": False}, files="virtual"),
    Mutant("PIC: IRQ 7 first", ON, ((Pic, "_wanted", highest_number_first),), files="pic"),
    Mutant("PIC: no auto-EOI", ON, ((Pic, "_acknowledge", auto_eoi_is_ignored),), files="pic"),
    Mutant("PIC: no ELCR", TCG, ((Pic, "_is_level", staticmethod(elcr_is_ignored)),), files="pic"),
    Mutant("PIC: special mask ignored", TCG, knobs={"pic__special_mask": False}, files="pic"),
)
"""Random programs tell these, too."""


def eoi_of_the_first_ioapic_alone(self, vector):
    self.ioapics[0].eoi(vector, self.now_ns)


def no_route_of_the_second_ioapic(self, pin, message):
    if self is not self._machine.ioapics[-1].port or len(self._machine.ioapics) == 1:
        self._machine.stage_route(pin, message)


DIRECTED_MUTANTS = (
    Mutant(
        "microvm: EOIs for the first IOAPIC alone",
        TCG,
        ((Chipset, "eoi_broadcast", eoi_of_the_first_ioapic_alone),),
        files="microvm",
    ),
    Mutant(
        "microvm: no routes of the second IOAPIC in split",
        SPLIT,
        ((IoapicWiring, "update_route", no_route_of_the_second_ioapic),),
        files="microvm",
    ),
    Mutant("PIT: a latch is taken again", ON, ((Pit, "_latch_count", latch_again),), files="pit"),
    Mutant(
        "PIT: the high byte first", TCG, ((Pit, "_read_counter", high_byte_first),), files="pit"
    ),
    Mutant(
        "PIT: no NMI at a tick", ON, ((PitWiring, "nmi_watchdog", no_nmi_at_a_tick),), files="pit"
    ),
    Mutant("hypercall: IDs from 0 on", ON, ((KvmBus, "multi_ipi", from_id_0_on),), files="ipi"),
    Mutant(
        "Hyper-V's ICR is ICR's low word", ON, ((Icr, "write_x2apic", low_word_alone),), files="hy"
    ),
)
"""Of what no grammar of random programs writes."""
