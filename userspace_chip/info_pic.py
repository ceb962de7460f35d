"""The text of the monitor's ``info pic``, both ways: a recorded state loads and prints the same.

QEMU ``hw/intc/ioapic_common.c:ioapic_print_redtbl`` and ``i8259_common.c:pic_print_info``; the text
is the same in 7.2 and 10.0, and QMP's ``x-query-interrupt-controllers`` (9.1) returns it too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from userspace_chip.architecture import IOAPIC_PINS, IOREDTBL
from userspace_chip.bits import bits
from userspace_chip.errors import StateError
from userspace_chip.ioapic import RTE, IoapicState
from userspace_chip.messages import DELIVERY_MODES, DeliveryMode
from userspace_chip.pic import ELCR_MASKS, PicChipState

_MODES: Final = {
    DeliveryMode.FIXED: "fixed",
    DeliveryMode.LOWEST: "lowest",
    DeliveryMode.SMI: "SMI",
    DeliveryMode.NMI: "NMI",
    DeliveryMode.INIT: "INIT",
    DeliveryMode.EXTINT: "extINT",
}

_IOAPIC: Final = re.compile(
    r"ioapic0: ver=0x([0-9a-f]+) id=0x([0-9a-f]+) sel=0x([0-9a-f]+)(?: \(redir\[\d+\]\))?"
)
_PIN: Final = re.compile(r"  pin (\d+) +0x([0-9a-f]{16}) .*")
_IRR: Final = re.compile(r"  IRR +(\(none\)|[\d ]+)")
_REMOTE_IRR: Final = re.compile(r"  Remote IRR +(\(none\)|[\d ]+)")
_PIC: Final = re.compile(
    r"pic([01]): irr=([0-9a-f]{2}) imr=([0-9a-f]{2}) isr=([0-9a-f]{2}) hprio=(\d+) "
    r"irq_base=([0-9a-f]{2}) rr_sel=(\d+) elcr=([0-9a-f]{2}) fnm=(\d+)"
)


@dataclass
class InfoPic:
    """What the text tells: (version, state) an IOAPIC, and the PICs by number (0 is the master).

    The PICs are printed in this order: QEMU's is that of its object tree, and varies.
    """

    ioapics: list[tuple[int, IoapicState]] = field(default_factory=list)
    pics: dict[int, PicChipState] = field(default_factory=dict)


def _pins(name: str, mask: int) -> str:
    numbers = "".join(f"{pin:<2} " for pin in bits(mask)) if mask else "(none)"
    return f"{name:<10} {numbers}"


def format_ioapic(version: int, state: IoapicState) -> str:
    """One IOAPIC's part.  QEMU calls every one ``ioapic0``."""
    lines = [f"ioapic0: ver={version:#x} id=0x{state.id:02x} sel=0x{state.ioregsel:02x}"]
    if state.ioregsel:
        # An int that is negative for sel 1 to 15, printed as unsigned.
        lines[0] += f" (redir[{((state.ioregsel - IOREDTBL) >> 1) & 0xFFFFFFFF}])"
    remote_irr = 0
    for pin, entry in enumerate(state.rte):
        logical = RTE.dest_mode.get(entry)
        level = RTE.trigger.get(entry)
        dest = RTE.dest.get(entry) & (0xFF if logical else 0xF)
        lines.append(
            f"  pin {pin:<2} 0x{entry:016x} dest={dest:x}"
            f" vec={RTE.vector.get(entry):<3} active-{'lo' if RTE.polarity.get(entry) else 'hi'}"
            f" {'level' if level else 'edge':<5} {'masked' if RTE.masked.get(entry) else '':<6}"
            f" {_MODES.get(DELIVERY_MODES[RTE.delivery_mode.get(entry)], '...'):<6}"
            f" {'logical' if logical else 'physical'}"
        )
        if level and RTE.remote_irr.get(entry):
            remote_irr |= 1 << pin
    lines += [_pins("  IRR", state.irr), _pins("  Remote IRR", remote_irr)]
    return "\n".join(lines) + "\n"


def format_pic(number: int, chip: PicChipState) -> str:
    """One PIC's line; the master is number 0."""
    return (
        f"pic{number}: irr={chip.irr:02x} imr={chip.imr:02x} isr={chip.isr:02x} "
        f"hprio={chip.priority_add} irq_base={chip.irq_base:02x} "
        f"rr_sel={chip.read_reg_select} elcr={chip.elcr:02x} "
        f"fnm={chip.special_fully_nested_mode}\n"
    )


def format_info_pic(info: InfoPic) -> str:
    """The whole text as the PC boards print it: IOAPICs, then PICs."""
    parts = [format_ioapic(version, state) for version, state in info.ioapics]
    parts += [format_pic(number, chip) for number, chip in info.pics.items()]
    return "".join(parts)


def parse_info_pic(text: str) -> InfoPic:
    """The states that the text shows, the rest as after reset.

    Raises :class:`StateError` for a line that is not of ``info pic``.
    """
    info = InfoPic()
    for line in text.splitlines():
        if match := _IOAPIC.fullmatch(line):
            version, chip_id, selected = (int(word, 16) for word in match.groups())
            info.ioapics.append((version, IoapicState(ioregsel=selected, id=chip_id)))
        elif match := _PIC.fullmatch(line):
            number = int(match[1])
            info.pics[number] = PicChipState(
                irr=int(match[2], 16),
                imr=int(match[3], 16),
                isr=int(match[4], 16),
                priority_add=int(match[5]),
                irq_base=int(match[6], 16),
                read_reg_select=int(match[7]),
                elcr=int(match[8], 16),
                special_fully_nested_mode=int(match[9]),
                elcr_mask=ELCR_MASKS[number],
            )
        elif info.ioapics and (match := _PIN.fullmatch(line)) and int(match[1]) < IOAPIC_PINS:
            info.ioapics[-1][1].rte[int(match[1])] = int(match[2], 16)
        elif info.ioapics and (match := _IRR.fullmatch(line)):
            pins = () if match[1] == "(none)" else match[1].split()
            info.ioapics[-1][1].irr = sum(1 << int(pin) for pin in pins)
        elif not _REMOTE_IRR.fullmatch(line):
            raise StateError(f"info pic: {line!r}", "not a line of it")
    return info
