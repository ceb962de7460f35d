"""Whether a user's problem shows here, too, as a person reads it, or as data for the JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from harness.base.emphasis import Emphasis
from harness.base.text import shortened
from harness.explain.answer import Explanation
from harness.explain.nearest.changes import VmChange
from harness.explain.nearest.guest import NearestGuest
from harness.explain.shown import InMode, VmReproduction, value_in
from harness.report.page import Column, ColumnKind, Page, Table, TextLine, cells
from harness.repro.reproduce import Measured, value_text

_LONGEST: Final = 200
_MOST: Final = 12


def reproduction_json(found: VmReproduction) -> dict[str, Any]:
    """``found`` as data."""
    guest = found.guest
    return {
        "verdict": found.verdict,
        "exit_status": found.exit_status,
        "notes": list(found.notes),
        "entry": found.entry,
        "wanted": {
            "entries": list(found.wanted.entries),
            "rates": list(found.wanted.rates),
            "messages": list(found.wanted.messages),
        },
        "guest": {
            "machine": guest.machine,
            "cpu": guest.cpu,
            "smp": guest.smp,
            "devices": list(guest.devices),
            "options": list(guest.options),
            "append": guest.append,
            "own_mode": guest.own,
            "qemu": guest.qemu.name,
            "kernel": guest.kernel.name,
            "changes": [
                {"what": each.what, "instead": each.instead or None, "why": each.why}
                for each in guest.changes
            ],
        },
        "modes": [_mode_json(each) for each in found.modes],
        "results": str(found.directory),
    }


def _mode_json(mode: InMode) -> dict[str, Any]:
    return {
        "mode": mode.mode,
        "shown": list(mode.shown),
        "others": list(mode.others),
        "why_not": mode.why_not,
        "parts": [
            {
                "case": part.case,
                "part": part.name,
                "verdict": part.answer.verdict,
                "measured": {
                    each.quantity.name: each.quantity.value for each in part.answer.measured
                },
            }
            for part in mode.parts
        ],
        "signs": [
            {
                "what": each.sign.what,
                "case": each.case.id,
                "value": None if value_text(each.value) == "n/o" else each.value,
            }
            for each in mode.measured
        ],
    }


def reproduction_report(answer: Explanation, found: VmReproduction) -> Page:
    """The verdict, the guest, each mode beside the files, and what is not as in the VM."""
    yield TextLine()
    yield TextLine("In the lab", Emphasis.TITLE)
    yield TextLine(
        f"  {found.verdict}", Emphasis.ALARM if found.exit_status == 1 else Emphasis.TITLE
    )
    for note in found.notes:
        yield TextLine(f"  {note}", Emphasis.NOTICE)
    yield TextLine(f"  {_shape(found.guest)}")
    if found.entry is not None:
        yield TextLine(f"  with the work of irqmatrix repro {found.entry}")
    yield TextLine()
    yield from _modes(found)
    yield from _rates(answer, found)
    yield from _signs(found)
    yield TextLine()
    yield TextLine("Not as in the VM", Emphasis.TITLE)
    for change in found.guest.changes:
        yield TextLine(f"  {_change(change)}")
    yield TextLine()
    yield TextLine(f"results: {found.directory} (irqmatrix run {found.directory}/vm.yaml)")


def _shape(guest: NearestGuest) -> str:
    devices = ", ".join(each.partition(",")[0] for each in guest.devices)
    options = [each for each in guest.options if not each.startswith("-blockdev")]
    parts = [
        f"the nearest guest: QEMU {guest.qemu.name} on Linux {guest.kernel.name}",
        f"machine {guest.machine}",
        f"-cpu {guest.cpu}",
        f"-smp {guest.smp}",
        *options,
        *([devices] if devices else []),
        *([f"kernel's words: {guest.append}"] if guest.append else []),
    ]
    return ", ".join(parts)


def _modes(found: VmReproduction) -> Iterator[TextLine]:
    for mode in found.modes:
        name = f"{mode.mode}{' (its own)' if mode.mode is found.guest.own else ''}"
        if mode.why_not is not None:
            yield TextLine(
                f"  {name}: no answer: {shortened(mode.why_not, _LONGEST)}", Emphasis.NOTICE
            )
            continue
        if mode.shown:
            yield TextLine(f"  {name}: shown: {'; '.join(mode.shown)}", Emphasis.ALARM)
        else:
            said = "; ".join(dict.fromkeys(f"{p.name}: {p.answer.verdict}" for p in mode.parts))
            yield TextLine(f"  {name}: not shown ({said})")
        for text in mode.others:
            yield TextLine(f"      besides: {text}", Emphasis.NOTICE)


def _rates(answer: Explanation, found: VmReproduction) -> Page:
    """The quantities that the answer rests on, as the files have them and as each mode does."""
    names = _quantities(answer, found)
    ran = [each for each in found.modes if each.why_not is None]
    if not names or not ran:
        return
    yield TextLine()
    yield TextLine("The same quantities (n/o: not observable there)", Emphasis.TITLE)
    given = {each.quantity.name: each.quantity for each in answer.measured}
    rows = tuple(
        cells(
            name,
            _number(given[name].value),
            *(_number(value_in(mode, name)) for mode in ran),
            given[name].unit,
        )
        for name in names
    )
    number = ColumnKind.NUMBER
    columns = (
        Column("what", ColumnKind.NAME),
        Column("files", number),
        *(Column(each.mode.value, number) for each in ran),
        Column("unit"),
    )
    yield Table(columns, rows)


def _quantities(answer: Explanation, found: VmReproduction) -> list[str]:
    wanted = [each for each in answer.candidates if each.entry in found.wanted.entries[:1]]
    seen = " ".join(text for each in wanted for text in each.seen)
    names = [
        *found.wanted.rates,
        *(
            each.quantity.name
            for each in answer.measured
            if each.quantity.unit != "times" and f": {each.quantity.name} " in f": {seen} "
        ),
    ]
    return list(dict.fromkeys(names))[:_MOST]


def _signs(found: VmReproduction) -> Iterator[TextLine]:
    """The entry's own signs, by what they are."""
    texts: dict[str, list[str]] = {}
    for mode in found.modes:
        for each in mode.measured:
            texts.setdefault(each.sign.what, []).append(f"{mode.mode} {_value(each)}")
    if texts:
        yield TextLine()
        yield TextLine(f"The signs of {found.entry}", Emphasis.TITLE)
    for what, values in texts.items():
        yield TextLine(f"  {what}: {', '.join(values)}")


def _value(measured: Measured) -> str:
    return shortened(value_text(measured.value), _LONGEST // 4)


def _change(change: VmChange) -> str:
    if change.instead:
        return f"{change.what}: {change.instead} instead: {change.why}"
    return f"{change.what}: left out: {change.why}"


def _number(value: float | None) -> str:
    if value is None:
        return "n/o"
    return f"{value:.0f}" if value >= 10 else f"{value:.3g}"
