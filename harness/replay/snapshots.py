"""What the monitor showed of the chips, and whether the model's registers are the same.

A look takes a while and the guest runs on, so it lies between two marks of the harness, and a chip
agrees if it showed what the model has at any moment in between.  Counts of running timers and what
follows from other registers (PPR) are not compared.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from pydantic import TypeAdapter, ValidationError

from harness.base.errors import StoreError
from harness.base.files import first_problem, read_json, write_text
from harness.model.layout import CaseDir
from harness.replay.lookahead import NumberedEvent
from userspace_chip.bits import bits
from userspace_chip.errors import StateError
from userspace_chip.events import Event
from userspace_chip.info_lapic import parse_lapic
from userspace_chip.info_pic import InfoPic, parse_info_pic
from userspace_chip.ioapic import IoapicState
from userspace_chip.irqchip import Machine
from userspace_chip.knobs import Model
from userspace_chip.lapic import Lapic
from userspace_chip.lapic_state import LapicState
from userspace_chip.pic import PicChipState


@dataclass(frozen=True)
class Look:
    """One look at all chips, between the marks ``begin`` and ``end``; texts as QEMU gave them."""

    begin: str
    end: str
    controllers: str | None
    """``info pic``."""
    lapics: tuple[str, ...]
    """``info lapic`` of every CPU."""


_ADAPTER: Final = TypeAdapter(tuple[Look, ...])


def write(directory: Path, looks: Iterable[Look]) -> None:
    """Write ``looks.json``; :class:`StoreError` where that cannot be."""
    write_text(
        CaseDir(directory).snapshots, _ADAPTER.dump_json(tuple(looks), indent=1).decode() + "\n"
    )


def read(directory: Path) -> tuple[Look, ...]:
    """The looks of a case: none where it was recorded without; :class:`StoreError` for rubbish."""
    path = CaseDir(directory).snapshots
    try:
        return _ADAPTER.validate_python(read_json(path))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise StoreError(f"cannot read {path}", error.strerror) from None
    except ValueError as error:
        why = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise StoreError(
            f"{path} was not written by irqmatrix", why, "run the case again, or remove it"
        ) from None


Registers: TypeAlias = dict[str, int]
"""By name, what is compared."""


class LookedWrongError(Exception):
    """Chips that showed what the model never had in the meantime; values by chip, as JSON."""

    def __init__(
        self, states: Mapping[str, str], shown: Mapping[str, str], at: NumberedEvent | None = None
    ) -> None:
        self.states = states
        self.shown = shown
        self.at = at
        """The snapshot after an exit, where it is this and not a look of the monitor's."""
        who = "the monitor" if at is None else "KVM"
        super().__init__(f"{who} showed other registers: {', '.join(states)}")


class Looking:
    """Compares looks on the way; ``agreed`` counts the chips that did.

    ``lapics`` has the local APICs, ``others`` IOAPIC and PIC; None where those are not replayed.
    ``unsure`` is there where the APICs are QEMU's: by CPU, the vectors that may be pending or not.
    """

    def __init__(
        self,
        looks: Iterable[Look],
        lapics: Machine,
        others: Machine | None,
        unsure: Callable[[int], int] | None = None,
    ) -> None:
        self._looks = {look.begin: look for look in looks}
        self._lapics = lapics
        self._others = others
        self._unsure = unsure
        self._end: str | None = None
        self.waiting: dict[str, Registers] = {}
        """By chip: what was shown, and was not the model's yet."""
        self.agreed = 0

    def mark(self, event: Event) -> None:
        """A mark of the harness's; :class:`LookedWrongError` where it ends a look in vain."""
        if event.name != "mark":
            return
        text = str(event.args[0])
        if text == self._end:
            self._end, waiting, self.waiting = None, self.waiting, {}
            if waiting:
                states = {chip: self._registers(chip) for chip in waiting}
                raise LookedWrongError(*difference(states, waiting))
        elif (look := self._looks.get(text)) is not None:
            self._end = look.end
            self.waiting = self._shown(look)
            self.compare()

    def compare(self) -> None:
        """See whether the chips that are waited for are now as they were shown."""
        for chip, shown in list(self.waiting.items()):
            if any(mine == shown for mine in self._possible(chip, shown)):
                del self.waiting[chip]
                self.agreed += 1

    def _possible(self, chip: str, shown: Registers) -> Iterator[Registers]:
        """What the registers may be; QEMU's own APICs leave some doubt.

        Whether an interrupt is pending may not be known yet, and what a CPU has pending it may
        have taken: that is seen with the event after it (tcg), or when KVM injects it (off).
        """
        mine = self._registers(chip)
        yield mine
        if self._unsure is None or not chip.startswith("lapic"):
            return
        cpu = int(chip[5:])
        unsure, offered = self._unsure(cpu), self._lapics.lapics[cpu].pending()
        known = mine | {"IRR": mine["IRR"] & ~unsure | shown["IRR"] & unsure}
        yield known
        for vector in bits(unsure | (0 if offered is None else 1 << offered)):
            bit = 1 << vector
            yield known | {"IRR": known["IRR"] & ~bit, "ISR": known["ISR"] | bit}

    def adopt_elcr(self) -> None:
        """Take the trigger modes of the PIC's inputs from the first look.

        Firmware sets them once, and in tcg that is not traced (QEMU ``hw/intc/i8259.c``).
        """
        text = next((look.controllers for look in self._looks.values() if look.controllers), None)
        if text is None or self._others is None:
            return
        for number, chip in _controllers(text).pics.items():
            self._others.pic.state.chips[number].elcr = chip.elcr

    def _registers(self, chip: str) -> Registers:
        if chip.startswith("lapic"):
            lapic = self._lapics.lapics[int(chip[5:])]
            return _lapic_registers(lapic.state) | {"ICR2": _icr2(lapic)}
        assert self._others is not None
        if chip == "ioapic0":
            return _ioapic_registers(self._others.ioapics[0].state)
        return _pic_registers(self._others.pic.state.chips[int(chip[3:])])

    def _shown(self, look: Look) -> dict[str, Registers]:
        shown = {f"lapic{cpu}": _lapic(text) for cpu, text in enumerate(look.lapics)}
        if look.controllers is None or self._others is None or len(self._others.ioapics) > 1:
            return shown  # microvm's PIC is not modelled in on
        info = _controllers(look.controllers)
        if len(info.ioapics) == 1:
            shown["ioapic0"] = _ioapic_registers(info.ioapics[0][1])
        if info.pics.keys() == {0, 1}:
            shown |= {f"pic{number}": _pic_registers(chip) for number, chip in info.pics.items()}
        return shown


def _controllers(text: str) -> InfoPic:
    """:class:`StoreError` for a text that is none of the monitor's."""
    try:
        return parse_info_pic(text)
    except StateError as error:
        raise _unusable(error) from None


def _lapic(text: str) -> Registers:
    try:
        return _lapic_registers(parse_lapic(text).state)
    except StateError as error:
        raise _unusable(error) from None


def _unusable(error: StateError) -> StoreError:
    return StoreError(
        f"{CaseDir.snapshots} cannot be used", str(error), "run the case again, or remove it"
    )


def _icr2(lapic: Lapic) -> int:
    """What KVM_GET_LAPIC makes of x2APIC's 64-bit ICR (Linux ``lapic.c``: kvm_apic_state_fixup)."""
    knobs = lapic.profile.lapic
    whole = knobs.model is Model.KVM and lapic.x2apic_mode and not knobs.x2apic_icr_split
    return lapic.state.icr_high if whole else lapic.state.icr2


def _lapic_registers(state: LapicState) -> Registers:
    """Of DFR, LDR and TMR no more than the text tells."""
    return {
        "TPR": state.tpr,
        "LDR": state.ldr >> 24 & 0xFF,
        "DFR": state.dfr >> 28,
        "SPIV": state.spiv,
        "ESR": state.esr,
        "ICR": state.icr,
        "ICR2": state.icr2,
        "ISR": state.isr,
        "IRR": state.irr,
        "TMR": state.tmr & (state.irr | state.isr),
        "TMICT": state.tmict,
        "TDCR": state.tdcr & 0xB,
        **{f"LVT{number}": value for number, value in enumerate(state.lvt)},
    }


def _ioapic_registers(state: IoapicState) -> Registers:
    return {
        "ID": state.id,
        "IOREGSEL": state.ioregsel,
        "IRR": state.irr,
        **{f"IOREDTBL{pin}": entry for pin, entry in enumerate(state.rte)},
    }


def _pic_registers(chip: PicChipState) -> Registers:
    return {
        "IRR": chip.irr,
        "IMR": chip.imr,
        "ISR": chip.isr,
        "priority": chip.priority_add,
        "base": chip.irq_base,
        "read select": chip.read_reg_select,
        "ELCR": chip.elcr,
    }


def difference(
    states: Mapping[str, Registers], shown: Mapping[str, Registers]
) -> tuple[dict[str, str], dict[str, str]]:
    """Of both, the registers that are not the same, as JSON in hexadecimal; others are 0."""

    def text(mine: Registers, other: Registers) -> str:
        return json.dumps(
            {name: hex(value) for name, value in mine.items() if value != other.get(name, 0)}
        )

    return (
        {chip: text(states[chip], shown[chip]) for chip in shown},
        {chip: text(shown[chip], states[chip]) for chip in shown},
    )
