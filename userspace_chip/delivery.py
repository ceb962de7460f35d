"""The APIC bus: which local APICs a message reaches, and what the sender gets back.

Spec: SDM volume 3A, "Determining IPI Destination" (edition 081, 2023).  :class:`KvmBus` is Linux
``arch/x86/kvm/lapic.c`` (``kvm_recalculate_apic_map``, ``kvm_irq_delivery_to_apic_fast``,
``kvm_apic_match_dest``) and ``irq_comm.c:kvm_irq_delivery_to_apic``; :class:`QemuBus` is QEMU
``hw/intc/apic.c`` (``apic_get_delivery_bitmask``, ``apic_bus_deliver``, ``apic_deliver``).

Not modelled: Hyper-V's multi-IPI hypercalls, APIC timer posting, the I/O MMU's remapping.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from userspace_chip.knobs import LowestPriority, Model
from userspace_chip.lapic import Lapic
from userspace_chip.messages import DeliveryMode, DestMode, LapicMessage, Shorthand
from userspace_chip.ports import DestMap, Emit
from userspace_chip.profile import Profile

XAPIC_BROADCAST: Final = 0xFF
X2APIC_BROADCAST: Final = 0xFFFFFFFF
DFR_FLAT: Final = 0xFFFFFFFF
DFR_CLUSTER: Final = 0x0FFFFFFF

_SW_DISABLED, _CLUSTER, _FLAT, _X2APIC, _DISABLED = range(5)
"""``enum kvm_apic_logical_mode``."""


class ApicBus(Protocol):
    """What carries messages between the chips and the local APICs."""

    emit: Emit | None

    def deliver(
        self, message: LapicMessage, source: Lapic | None = None, dest_map: DestMap | None = None
    ) -> int:
        """Send; ``source`` is the sender of an IPI, None for an IOAPIC or a device.

        -1 no CPU matched, 0 dropped, n accepted by n CPUs (QEMU: always the number of targets).
        """

    def targets(self, message: LapicMessage) -> list[Lapic]:
        """Whom a message without sender would reach, without sending it."""

    def recalculate(self) -> None:
        """An id, a logical id, a mode or an enable bit changed."""


def apic_bus(profile: Profile, lapics: Sequence[Lapic]) -> ApicBus:
    """The bus of a profile."""
    return (KvmBus if profile.delivery.model is Model.KVM else QemuBus)(profile, lapics)


def matches(
    lapic: Lapic,
    dest: int,
    dest_mode: int,
    *,
    ipi: bool = False,
    broadcast_quirk: bool = True,
) -> bool:
    """``kvm_apic_match_dest`` without shorthand.

    The quirk: to an x2APIC target a message that is no IPI means everyone by 0xff.
    """
    x2apic = lapic.x2apic_mode
    if x2apic and broadcast_quirk and not ipi and dest == XAPIC_BROADCAST:
        return True
    if dest == (X2APIC_BROADCAST if x2apic else XAPIC_BROADCAST):
        return True
    if dest_mode == DestMode.PHYSICAL:
        return dest == (lapic.vcpu_id if x2apic or dest > 0xFF else lapic.xapic_id)
    ldr = lapic.state.ldr
    if x2apic:
        return ldr >> 16 == dest >> 16 and bool(ldr & dest & 0xFFFF)
    ldr >>= 24
    if lapic.state.dfr == DFR_FLAT:
        return bool(ldr & dest)
    if lapic.state.dfr == DFR_CLUSTER:
        return ldr >> 4 == dest >> 4 and bool(ldr & dest & 0xF)
    return False


class _ApicMap:
    """``struct kvm_apic_map``."""

    __slots__ = ("clusters", "flat", "max_id", "mode", "physical")

    def __init__(self, max_id: int) -> None:
        self.max_id = max_id
        self.mode = _SW_DISABLED
        self.physical: dict[int, Lapic] = {}
        self.flat: list[Lapic | None] = [None] * 8
        self.clusters: list[list[Lapic | None]] = [[None] * 4 for _ in range(16)]

    def logical(self, dest: int) -> tuple[Sequence[Lapic | None], int]:
        """``kvm_apic_map_get_logical_dest``: the members of a cluster, and which are meant."""
        if self.mode == _FLAT:
            return self.flat, dest & 0xFF
        if self.mode == _CLUSTER:
            return self.clusters[dest >> 4 & 0xF], dest & 0xF
        if self.mode == _SW_DISABLED:
            return self.flat, 0
        offset = (dest >> 16) * 16
        if offset > self.max_id:
            return self.flat, 0
        size = min(self.max_id - offset + 1, 16)
        members = [self.physical.get(offset + i) for i in range(16)]
        return members, dest & 0xFFFF >> 16 - size


class KvmBus:
    """KVM's fast map and slow path."""

    def __init__(self, profile: Profile, lapics: Sequence[Lapic]) -> None:
        self.emit: Emit | None = None
        self._lapics = lapics
        self._knobs = profile.delivery
        self._hashing = self._knobs.lowest_priority is LowestPriority.VECTOR_HASH
        self._map: _ApicMap | None = None
        self.recalculate()

    # ------------------------------------------------------------------ the map

    def recalculate(self) -> None:
        """``kvm_recalculate_apic_map``."""
        present = [lapic for lapic in self._lapics if lapic.hw_enabled]
        new = _ApicMap(max([255, *(lapic.vcpu_id for lapic in present)]))
        if self._knobs.map_strict:
            ok = all(self._map_physical(new, lapic) for lapic in present)
            for lapic in present if ok else ():
                self._map_logical(new, lapic)
            self._map = new if ok else None
        else:
            self._map_relaxed(new, present)
            self._map = new

    def _map_physical(self, new: _ApicMap, lapic: Lapic) -> bool:
        """False where an alias disables the whole map."""
        x2apic = lapic.x2apic_mode
        if self._knobs.ids_32bit:
            self._map_hotplug(new, lapic)
            return True
        number = lapic.vcpu_id if x2apic else lapic.xapic_id
        if number in new.physical:
            return False
        new.physical[number] = lapic
        return True

    @staticmethod
    def _map_hotplug(new: _ApicMap, lapic: Lapic) -> None:
        if lapic.x2apic_mode or lapic.vcpu_id > 0xFF:
            new.physical[lapic.vcpu_id] = lapic
        if not lapic.x2apic_mode:
            new.physical.setdefault(lapic.xapic_id, lapic)

    @staticmethod
    def _map_logical(new: _ApicMap, lapic: Lapic) -> None:
        """``kvm_recalculate_logical_map`` (6.12)."""
        ldr = lapic.state.ldr
        if new.mode == _DISABLED or not lapic.sw_enabled or not ldr:
            return
        mode = _logical_mode(lapic)
        if new.mode == _SW_DISABLED:
            new.mode = mode
        elif new.mode != mode:
            new.mode = _DISABLED
            return
        if mode == _X2APIC:
            return
        slots = new.flat if mode == _FLAT else new.clusters[ldr >> 28]
        members = ldr >> 24 & (0xFF if mode == _FLAT else 0xF)
        if not members:
            return
        slot = members.bit_length() - 1
        if members & members - 1 or slots[slot] is not None:
            new.mode = _DISABLED
        else:
            slots[slot] = lapic

    def _map_relaxed(self, new: _ApicMap, present: Sequence[Lapic]) -> None:
        """6.1: modes are ORed, the last of two equal LDRs wins, the first of two equal ids."""
        modes: set[int] = set()
        for lapic in present:
            self._map_hotplug(new, lapic)
            ldr = lapic.state.ldr
            if not lapic.sw_enabled:
                continue
            if ldr or lapic.x2apic_mode:
                modes.add(_logical_mode(lapic))
            if len(modes) != 1 or not ldr:
                continue
            if _X2APIC in modes:
                # The LDR is that of a loaded page's id, which need not be the CPU's own.
                cluster, members = ldr >> 16, ldr & 0xFFFF
                if members and cluster * 16 <= new.max_id:
                    new.physical[cluster * 16 + (members & -members).bit_length() - 1] = lapic
                continue
            flat = _FLAT in modes
            slots = new.flat if flat else new.clusters[ldr >> 28]
            members = ldr >> 24 & (0xFF if flat else 0xF)
            if members:
                slots[(members & -members).bit_length() - 1] = lapic
        new.mode = modes.pop() if len(modes) == 1 else _DISABLED

    # ------------------------------------------------------------------ delivery

    def deliver(
        self, message: LapicMessage, source: Lapic | None = None, dest_map: DestMap | None = None
    ) -> int:
        """``kvm_irq_delivery_to_apic``."""
        if message.shorthand == Shorthand.SELF and source is not None:
            return source.accept(message, dest_map)
        targets = self._fast(message, source)
        if targets is not None:
            result = 0
            for lapic in targets:
                result += lapic.accept(message, dest_map)
            return result
        return self._slow(message, source, dest_map)

    def deliver_fast(self, message: LapicMessage) -> int | None:
        """``kvm_irq_delivery_to_apic_fast`` alone (irqfd's wake-up path); None: not fast."""
        targets = self._fast(message, None)
        return None if targets is None else sum(lapic.accept(message) for lapic in targets)

    def multi_ipi(self, message: LapicMessage, bitmap: int, first: int) -> int | None:
        """``kvm_pv_send_ipi``: to the CPUs of ``bitmap``, whose bit 0 is the APIC ID ``first``.

        How many accepted it; None while there is no map.
        """
        apic_map, count = self._map, 0
        if apic_map is None:
            return None
        for bit in range(bitmap.bit_length()):
            target = apic_map.physical.get(first + bit) if bitmap >> bit & 1 else None
            if target is not None:
                count += target.accept(message)
        return count

    def targets(self, message: LapicMessage) -> list[Lapic]:
        """``kvm_bitmap_or_dest_vcpus``."""
        fast = self._fast(message, None)
        if fast is not None:
            return list(fast)
        return [lapic for lapic in self._lapics if lapic.hw_enabled and self._match(lapic, message)]

    def _fast(self, message: LapicMessage, source: Lapic | None) -> Sequence[Lapic] | None:
        """``kvm_apic_map_get_dest_lapic``; None where the map cannot tell."""
        vector, mode, dest_mode, dest, _, _, shorthand, rh = message
        apic_map = self._map
        if shorthand or apic_map is None or self._is_broadcast(dest, source, apic_map):
            return None
        if not dest_mode:
            target = apic_map.physical.get(dest)
            return () if target is None else (target,)
        if apic_map.mode == _DISABLED:
            return None
        slots, members = apic_map.logical(dest)
        numbers = [i for i in range(16) if members >> i & 1]
        if mode == DeliveryMode.LOWEST or (rh and self._knobs.rh_honoured):
            numbers = self._arbitrate(vector, slots, numbers)
        return [lapic for i in numbers if (lapic := slots[i]) is not None]

    def _is_broadcast(self, dest: int, source: Lapic | None, apic_map: _ApicMap) -> bool:
        if not self._knobs.broadcast_quirk:
            xapic = dest == XAPIC_BROADCAST and apic_map.mode != _X2APIC
            return xapic or dest == X2APIC_BROADCAST
        x2apic_ipi = source is not None and source.x2apic_mode
        return dest == (X2APIC_BROADCAST if x2apic_ipi else XAPIC_BROADCAST)

    def _arbitrate(
        self, vector: int, slots: Sequence[Lapic | None], numbers: list[int]
    ) -> list[int]:
        """One of ``numbers``; hashing also counts members that are not there, and may hit one."""
        if not numbers:
            return numbers
        if self._hashing:
            return [numbers[vector % len(numbers)]]
        there = [(lapic.state.arbitration, i) for i in numbers if (lapic := slots[i]) is not None]
        return [min(there)[1]] if there else []

    def _match(self, lapic: Lapic, message: LapicMessage, ipi: bool = False) -> bool:
        return matches(
            lapic,
            message.dest,
            message.dest_mode,
            ipi=ipi,
            broadcast_quirk=self._knobs.broadcast_quirk,
        )

    def _slow(self, message: LapicMessage, source: Lapic | None, dest_map: DestMap | None) -> int:
        """Every CPU is asked; lowest priority takes software-enabled ones only."""
        _, mode, dest_mode, dest, _, _, shorthand, rh = message
        rh = rh and self._knobs.rh_honoured
        lowest = mode == DeliveryMode.LOWEST or rh
        if lowest and not dest_mode and dest == XAPIC_BROADCAST:
            message = message._replace(delivery_mode=DeliveryMode.FIXED)
            lowest = rh
        result = -1
        candidates: list[Lapic] = []
        for lapic in self._lapics:
            if not lapic.hw_enabled:
                continue
            if shorthand:
                if shorthand == Shorthand.ALL_BUT_SELF and lapic is source:
                    continue
            elif not self._match(lapic, message, source is not None):
                continue
            if not lowest:
                result = max(result, 0) + lapic.accept(message, dest_map)
            elif lapic.sw_enabled:
                candidates.append(lapic)
        if candidates:
            winner = self._slow_winner(message.vector, candidates)
            result = winner.accept(message, dest_map)
        return result

    def _slow_winner(self, vector: int, candidates: list[Lapic]) -> Lapic:
        if self._hashing:
            return candidates[vector % len(candidates)]
        return min(candidates, key=lambda lapic: lapic.state.arbitration)


def _logical_mode(lapic: Lapic) -> int:
    if lapic.x2apic_mode:
        return _X2APIC
    return _FLAT if lapic.state.dfr == DFR_FLAT else _CLUSTER


class QemuBus:
    """QEMU's bit mask of slots; a slot's number is an initial APIC id."""

    def __init__(self, profile: Profile, lapics: Sequence[Lapic]) -> None:
        self.emit: Emit | None = None
        self._knobs = profile.delivery
        self._lapics = lapics
        self._slots: dict[int, Lapic] = {}
        self.recalculate()

    def recalculate(self) -> None:
        """The slots; QEMU looks at the registers at every message."""
        self._slots = {lapic.vcpu_id: lapic for lapic in self._lapics}

    def deliver(
        self, message: LapicMessage, source: Lapic | None = None, dest_map: DestMap | None = None
    ) -> int:
        """``apic_deliver_irq`` for an MSI, ``apic_deliver`` for an IPI."""
        mode = message.delivery_mode
        if source is None:
            self._trace(message)
            slots = self._slots_of(message)
        else:
            slots = self._slots_of_ipi(message, source)
            if mode is DeliveryMode.INIT and message.trigger and not message.level:
                for slot in slots:
                    if (lapic := self._slots.get(slot)) is not None:
                        lapic.state.arbitration = lapic.xapic_id
                return 0
            if mode is DeliveryMode.SIPI:
                return self._each(slots, message)
        if mode in (DeliveryMode.SIPI, DeliveryMode.RESERVED3):
            return 0
        if mode is DeliveryMode.LOWEST:
            slots = slots[:1]
        return self._each(slots, message)

    def targets(self, message: LapicMessage) -> list[Lapic]:
        """The APICs of the bit mask."""
        return [self._slots[slot] for slot in self._slots_of(message) if slot in self._slots]

    def _each(self, slots: Sequence[int], message: LapicMessage) -> int:
        count = 0
        for slot in slots:
            lapic = self._slots.get(slot)
            if lapic is None:
                continue
            count += 1
            self._one(lapic, message)
        return count

    @staticmethod
    def _one(lapic: Lapic, message: LapicMessage) -> None:
        mode = message.delivery_mode
        if mode is DeliveryMode.NMI:
            lapic.port.nmi()
        elif mode is DeliveryMode.SMI:
            lapic.port.smi()
        elif mode is DeliveryMode.INIT:
            lapic.port.init()
        elif mode is DeliveryMode.SIPI:
            lapic.state.sipi_vector = message.vector
            lapic.port.sipi(message.vector)
        else:  # fixed, lowest, and ExtINT, whose vector the IOAPIC has already fetched
            lapic.set_irq(message.vector, message.trigger)

    def _trace(self, message: LapicMessage) -> None:
        if self.emit is not None:
            self.emit(
                "apic_deliver_irq",
                message.dest & 0xFF,
                int(message.dest_mode),
                int(message.delivery_mode),
                message.vector,
                int(message.trigger),
            )

    def _all(self) -> list[int]:
        return list(range(max(self._slots) + 1))

    def _slots_of_ipi(self, message: LapicMessage, source: Lapic) -> list[int]:
        shorthand = message.shorthand
        if shorthand is Shorthand.NONE:
            return self._slots_of(message)
        if shorthand is Shorthand.ALL:
            return self._all()
        by_initial = self._knobs.self_by_initial_id or source.x2apic_mode
        me = source.vcpu_id if by_initial else source.xapic_id
        if shorthand is Shorthand.SELF:
            return [me]
        return [slot for slot in self._all() if slot != me]

    def _slots_of(self, message: LapicMessage) -> list[int]:
        """``apic_get_delivery_bitmask``, ascending."""
        dest = message.dest if self._knobs.x2apic_ids else message.dest & 0xFF
        if message.dest_mode is DestMode.PHYSICAL:
            return self._physical(dest)
        return self._logical(dest)

    def _physical(self, dest: int) -> list[int]:
        if not self._knobs.x2apic_ids:
            return self._all() if dest == XAPIC_BROADCAST else self._find_first(dest)
        if dest == X2APIC_BROADCAST:
            return self._all()
        return [
            slot
            for slot, lapic in sorted(self._slots.items())
            if (
                lapic.vcpu_id == dest
                if lapic.x2apic_mode
                else lapic.xapic_id == dest & 0xFF or dest == XAPIC_BROADCAST
            )
        ]

    def _find_first(self, dest: int) -> list[int]:
        """QEMU 7.2 ``apic_find_dest``: the slot of that number, else a scan up to a gap."""
        lapic = self._slots.get(dest)
        if lapic is not None and lapic.xapic_id == dest:
            return [dest]
        for slot in self._scanned():
            if self._slots[slot].xapic_id == dest:
                return [slot]
        return []

    def _scanned(self) -> list[int]:
        """The slots that a scan sees: all, or in 7.2 those before the first empty one."""
        slots = sorted(self._slots)
        if not self._knobs.scan_stops_at_gap:
            return slots
        return [slot for number, slot in enumerate(slots) if slot == number]

    def _logical(self, dest: int) -> list[int]:
        return [slot for slot in self._scanned() if self._match_logical(self._slots[slot], dest)]

    def _match_logical(self, lapic: Lapic, dest: int) -> bool:
        if lapic.x2apic_mode:
            if dest == X2APIC_BROADCAST:
                return True
            ldr = lapic.x2apic_ldr
            return dest >> 16 == ldr >> 16 and bool(dest & ldr & 0xFFFF)
        dest &= 0xFF
        ldr = lapic.state.ldr >> 24
        model = lapic.state.dfr >> 28
        if model == 0xF:
            return bool(dest & ldr)
        if model != 0:
            return False
        everyone = self._knobs.cluster15_broadcast and dest & 0xF0 == 0xF0
        return (everyone or dest & 0xF0 == ldr & 0xF0) and bool(dest & ldr & 0xF)
