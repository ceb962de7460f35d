"""An explanation, as a person reads it, or as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from harness.base.emphasis import Emphasis
from harness.base.text import shortened
from harness.explain.answer import Candidate, Explanation, Laws, Standing, Vm
from harness.explain.quantities import Amount
from harness.record.collectors.foreign.model import TraceTally
from harness.report.page import Column, ColumnKind, Page, Table, TextLine, cells

_MOST: Final = 12
_LONGEST: Final = 200
SCHEMA: Final = "irqmatrix-explanation"


def explain_json(answer: Explanation, reproduction: Mapping[str, Any] | None = None) -> str:
    """An explanation as JSON; of evidence only what it is and what was not understood.

    ``reproduction`` is what came of ``--reproduce``, as data.
    """
    data: dict[str, Any] = {"schema": SCHEMA, "version": 1, "verdict": answer.verdict}
    data["files"] = [
        {"file": each.file, "kind": each.kind, "notes": list(each.notes)}
        for each in answer.evidence
    ]
    data["refused"] = list(answer.refused)
    vm = answer.vm
    data["vm"] = {
        "irqchip": vm.irqchip,
        "irqchip_why": vm.irqchip_why,
        "qemu": _dotted(vm.qemu),
        "qemu_at_least": _dotted(vm.qemu_at_least),
        "linux": _dotted(vm.linux),
        "smp": vm.smp,
        "apicv": vm.apicv,
        "machine": dataclasses.asdict(vm.machine),
    }
    data["measured"] = [
        {
            **dataclasses.asdict(each.quantity),
            "band": None
            if each.band is None
            else {key: getattr(each.band, key) for key in ("idle", "loaded", "limit")},
        }
        for each in answer.measured
    ]
    data["unusual"] = [
        {"name": each.quantity.name, "value": each.per_cpu, "limit": each.band.limit}
        for each in answer.unusual
    ]
    for key in ("signs", "sources", "laws", "candidates", "decide"):
        data[key] = [dataclasses.asdict(each) for each in getattr(answer, key)]
    data["not_observable"] = list(answer.not_observable)
    if reproduction is not None:
        data["reproduction"] = reproduction
    return json.dumps(data, indent=1)


def explain_report(answer: Explanation, *, verbose: bool = False) -> Page:
    """The verdict first, then what it rests on, and what to run next."""
    is_quiet = answer.verdict == "nothing unusual"
    yield TextLine(answer.verdict, Emphasis.GOOD if is_quiet else Emphasis.TITLE)
    yield TextLine()
    yield from _files(answer)
    yield TextLine()
    yield from _machine(answer.vm)
    yield from _rates(answer, verbose=verbose)
    yield from _signs(answer)
    for laws in answer.laws:
        yield from _laws(laws)
    yield from _candidates(answer, verbose=verbose)
    yield from _next(answer)


def _files(answer: Explanation) -> Page:
    for each in answer.evidence:
        yield TextLine(f"{each.file}: {each.kind}")
        for note in each.notes:
            yield TextLine(f"    {note}", Emphasis.NOTICE)
        if isinstance(each.content, TraceTally):
            tally = each.content
            events = sum(tally.events.values())
            yield TextLine(f"    {events} events in {tally.duration_s:.1f} s, {tally.lost} lost")
    for refusal in answer.refused:
        yield TextLine(refusal, Emphasis.ALARM)


def _machine(vm: Vm) -> Page:
    machine = vm.machine
    known = [
        machine.machine or (f"{machine.family} (from the guest's log)" if machine.family else None),
        None if machine.accel is None else f"accel {machine.accel}",
        None if vm.smp is None else f"{vm.smp} CPUs",
        None if vm.qemu is None else f"QEMU {_dotted(vm.qemu)}",
        None if vm.linux is None else f"host Linux {_dotted(vm.linux)}",
        {True: "HPET", False: "no HPET"}.get(machine.hpet),  # type: ignore[arg-type]
        None if machine.driftfix is None else f"driftfix={machine.driftfix}",
        None if machine.pit_policy is None else f"kvm-pit {machine.pit_policy}",
        {True: "APICv or AVIC", False: "no APICv"}.get(vm.apicv),  # type: ignore[arg-type]
    ]
    told = ", ".join(each for each in known if each)
    yield TextLine(f"VM: {told or 'nothing says which'}")
    mode = vm.irqchip or "not known"
    yield TextLine(f"irqchip mode: {mode} ({vm.irqchip_why})")


def _rates(answer: Explanation, *, verbose: bool) -> Page:
    odd = {id(each.quantity) for each in answer.unusual}
    shown = [
        each
        for each in answer.measured
        if each.band is not None and (verbose or id(each.quantity) in odd)
    ]
    if not shown:
        return
    yield TextLine()
    yield TextLine("Rates beside the bands of our own runs, a second", Emphasis.TITLE)
    rows = [
        cells(
            each.quantity.name,
            _number(each.quantity.value),
            _number(each.band.idle),
            _number(each.band.loaded),
            f"unusual above {_number(each.band.limit)}: {each.band.why}"
            if id(each.quantity) in odd
            else "",
            shortened(each.quantity.detail or each.band.name, _LONGEST),
        )
        for each in shown
        if each.band is not None
    ]
    number = ColumnKind.NUMBER
    yield Table(
        (
            Column("what", ColumnKind.NAME),
            Column("seen", number),
            Column("idle", number),
            Column("loaded", number),
            Column("unusual"),
            Column("is"),
        ),
        tuple(rows),
    )


def _signs(answer: Explanation) -> Page:
    if answer.signs:
        yield TextLine()
        yield TextLine("Messages and states", Emphasis.TITLE)
        for each in answer.signs[:_MOST]:
            yield TextLine(f"  {_quantity(each)}")
    if answer.sources:
        yield TextLine()
        yield TextLine("Devices of these lines", Emphasis.TITLE)
        for one in answer.sources[:_MOST]:
            yield TextLine(f"  {one.line}: {shortened(one.device, _LONGEST)} ({one.why})")


def _laws(laws: Laws) -> Page:
    yield TextLine()
    yield TextLine(f"Account of {laws.file}", Emphasis.TITLE)
    for broken in laws.broken:
        yield TextLine(f"  broken: {broken.name}: {'; '.join(broken.rows)}", Emphasis.ALARM)
        if broken.first is not None:
            yield TextLine(f"    first: {broken.first}")
    if laws.checked:
        kept = len(laws.checked) - len(laws.broken)
        yield TextLine(f"  {kept} of {len(laws.checked)} laws that can be checked hold")
    for reason in laws.unseen:
        yield TextLine(f"  not checked: {reason}")


def _candidates(answer: Explanation, *, verbose: bool) -> Page:
    for title, found in (
        ("Fits what was seen", answer.fitting),
        ("Hints only: other things look like that, too", answer.standing(Standing.HINTED)),
    ):
        if found:
            yield TextLine()
            yield TextLine(title, Emphasis.TITLE)
        for number, each in enumerate(found[:_MOST], 1):
            yield TextLine(f"  {number}. {each.entry}: {each.symptom}")
            yield from _reasons(each)
    possible = answer.standing(Standing.POSSIBLE)
    known = [each for each in possible if each.needs]
    if known:
        yield TextLine()
        yield TextLine("Can hit this VM, but was not seen", Emphasis.TITLE)
        for each in known:
            unknown = f"; not known: {'; '.join(each.unknown)}" if each.unknown else ""
            yield TextLine(f"  {each.entry}: {'; '.join(each.needs)}{unknown}")
    rest = [each.entry for each in possible if not each.needs]
    if rest:
        yield TextLine()
        yield TextLine(f"Nothing says whether this VM can have {', '.join(rest)}")
    if verbose:
        yield from _others(answer)


def _reasons(candidate: Candidate) -> Iterator[TextLine]:
    for text in candidate.seen:
        yield TextLine(f"       seen: {text}")
    for text in candidate.needs:
        yield TextLine(f"       holds: {text}")
    for text in candidate.unknown:
        yield TextLine(f"       not known: {text}")
    for text in candidate.unseen:
        yield TextLine(f"       not observable: {text}")
    yield TextLine(f"       {candidate.link}")


def _others(answer: Explanation) -> Page:
    rest = [
        each for each in answer.candidates if each.standing in (Standing.AGAINST, Standing.EXCLUDED)
    ]
    if rest:
        yield TextLine()
        yield TextLine("Not this", Emphasis.TITLE)
        for each in rest:
            yield TextLine(f"  {each.entry}: {'; '.join(each.against)}")


def _next(answer: Explanation) -> Page:
    if answer.decide:
        yield TextLine()
        yield TextLine("What would decide it", Emphasis.TITLE)
        for each in answer.decide:
            yield TextLine(f"  $ {each.command}")
            yield TextLine(f"      {each.tells}")
    if answer.not_observable:
        yield TextLine()
        yield TextLine("Not observable in these files", Emphasis.TITLE)
        for text in answer.not_observable:
            yield TextLine(f"  {text}")


def _quantity(quantity: Amount) -> str:
    times = f"{quantity.value:.0f} times" if quantity.unit == "times" else _number(quantity.value)
    return f"{quantity.name}: {times}: {shortened(quantity.detail, _LONGEST)} ({quantity.file})"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.3g}"


def _dotted(version: tuple[int, ...] | None) -> str | None:
    return None if version is None else ".".join(map(str, version))
