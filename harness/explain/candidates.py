"""Catalogue entries beside a VM: which can hit it, which fit what was seen, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Final

from harness.base.versions import Version, VersionRange
from harness.compare.known import AxisMatch
from harness.explain.answer import Candidate, Standing, Vm
from harness.explain.quantities import Amount
from harness.model.case import Irqchip, Machine
from harness.repro.catalogue import Entry
from harness.repro.field_signs import FieldSign, VmNeeds

_STRONG: Final = 10
_WEAK: Final = 3
_SEVERAL: Final = 2
"""Weak symptoms that together fit, in a VM that is known to be able to have it."""
_RARE: Final = 4
"""For a need that few VMs meet, such as an option that was given."""
_COMMON: Final = 1

_Holds = tuple[str, bool | None, int]
"""A condition: its text, whether it holds (None: not known), and what that counts."""


def candidates(
    entries: Iterable[Entry], vm: Vm, quantities: Sequence[Amount]
) -> tuple[Candidate, ...]:
    """Each entry that says what it looks like in the field, the likeliest first."""
    found = [_candidate(entry, vm, quantities) for entry in entries if entry.field is not None]
    order = list(Standing)
    return tuple(
        sorted(found, key=lambda each: (order.index(each.standing), -each.score, each.entry))
    )


def _candidate(entry: Entry, vm: Vm, quantities: Sequence[Amount]) -> Candidate:
    assert entry.field is not None
    conditions = [*_needs(entry.field.needs, vm), *_affected(entry.affected, vm)]
    wrong = [text for text, holds, _ in conditions if holds is False]
    score = sum(worth for _, holds, worth in conditions if holds)
    seen, against, unseen = [], [], []
    is_sure = False
    symptoms = 0
    for sign in entry.field.signs:
        verdict = _met(sign, quantities)
        if verdict is None:
            unseen.append(sign.what)
            continue
        met, text = verdict
        if met:
            seen.append(f"{sign.what}: {text}")
            score += _STRONG if sign.strong else _WEAK
            is_sure |= sign.strong
            symptoms += sign.bounds.min is not None and not sign.context
        elif sign.strong:
            against.append(f"not seen: {sign.what} ({text})")
    if wrong:
        standing = Standing.EXCLUDED
    elif against:
        standing = Standing.AGAINST
    elif is_sure or (symptoms >= _SEVERAL and all(holds for _, holds, _ in conditions)):
        standing = Standing.FITS
    elif symptoms:
        standing = Standing.HINTED
    else:
        standing = Standing.POSSIBLE
    return Candidate(
        entry.id,
        entry.symptom,
        standing,
        score,
        tuple(seen),
        tuple(text for text, holds, _ in conditions if holds),
        tuple(wrong + against),
        tuple(text for text, holds, _ in conditions if holds is None),
        tuple(unseen),
        entry.field.decide,
        entry.links[0],
    )


def _met(sign: FieldSign, quantities: Sequence[Amount]) -> tuple[bool, str] | None:
    """Whether a sign is there, and what was measured; None where nothing measures it."""
    own = [each for each in quantities if fnmatchcase(each.name, sign.quantity)]
    if not own:
        return None
    inside = [each for each in own if each.value in sign.bounds]
    best = max(inside or own, key=lambda each: each.value)
    if sign.bounds.min is None and len(inside) < len(own):  # an upper bound is for all
        best, inside = max(own, key=lambda each: each.value), []
    return bool(inside), shown(best)


def shown(quantity: Amount) -> str:
    """A quantity as it is printed."""
    value = f"{quantity.value:.0f}" if quantity.value >= 10 else f"{quantity.value:.3g}"
    unit = {"a second": " a second", "percent": " %", "times": ""}[quantity.unit]
    return f"{quantity.name} {value}{unit} in {quantity.file}"


# --- Which VMs ----------------------------------------------------------------------------------


def _needs(needs: VmNeeds, vm: Vm) -> Iterator[_Holds]:
    machine = vm.machine
    if needs.irqchip is not None:
        names = " or ".join(sorted(needs.irqchip))
        known = None if vm.irqchip is None else vm.irqchip in needs.irqchip
        shows = f", and it is {vm.irqchip}" if known is False else ""
        yield f"irqchip {names}{shows}", known, _COMMON
    if needs.machine is not None:
        yield _of_family(needs.machine, vm)
    if needs.driftfix is not None:
        known = _driftfix(needs.driftfix, vm)
        yield f"the real-time clock's driftfix={needs.driftfix}", known, _RARE
    if needs.hpet is not None:
        word = "an HPET" if needs.hpet else "no HPET"
        known = None if machine.hpet is None else machine.hpet is needs.hpet
        yield word, known, _COMMON
    if needs.pit is not None:
        known = None if machine.pit is None else machine.pit is needs.pit
        yield "a PIT" if needs.pit else "no PIT", known, _COMMON
    if needs.device is not None:
        yield _with_device(needs.device, vm)
    if needs.min_smp is not None:
        known = None if vm.smp is None else vm.smp >= needs.min_smp
        yield f"{needs.min_smp} CPUs or more", known, _COMMON


def _driftfix(wanted: str, vm: Vm) -> bool | None:
    if vm.machine.driftfix is not None:
        return vm.machine.driftfix == wanted
    # A machine that is described, and does not have the option, has QEMU's default: none.
    return None if vm.machine.machine is None else wanted == "none"


def _of_family(wanted: Iterable[Machine], vm: Vm) -> _Holds:
    names = {each.value for each in wanted}
    known = None if vm.machine.family is None else vm.machine.family in names
    return (
        f"machine {' or '.join(sorted(names))}",
        known,
        _RARE if names == {"microvm"} else _COMMON,
    )


def _with_device(glob: str, vm: Vm) -> _Holds:
    if vm.machine.machine is None and not vm.machine.devices:
        return f"a device {glob}", None, _RARE
    has = any(fnmatchcase(each.model, glob) for each in vm.machine.devices)
    return f"a device {glob}", has, _RARE


def _affected(matches: Sequence[AxisMatch], vm: Vm) -> Iterator[_Holds]:
    """The catalogue's ``affected``: one of them has to hold, as far as is known."""
    if not matches:
        return
    verdicts = [_axis(match, vm) for match in matches]
    about_qemu = any(match.qemu is not None for match in matches)
    text = " or ".join(map(_axis_text, matches)) + (_versions_text(vm) if about_qemu else "")
    if any(verdict is True for verdict in verdicts):
        yield text, True, _COMMON
    elif all(verdict is False for verdict in verdicts):
        yield text, False, _COMMON
    else:
        yield text, None, _COMMON


def _axis(match: AxisMatch, vm: Vm) -> bool | None:
    parts: list[bool | None] = []
    if match.irqchip is not None:
        parts.append(None if vm.irqchip is None else vm.irqchip in match.irqchip)
    if match.machine is not None:
        family = vm.machine.family
        parts.append(None if family is None else family in {each.value for each in match.machine})
    if match.qemu is not None:
        parts.append(_in_range(match.qemu, vm.qemu, vm.qemu_at_least))
    if match.linux is not None and vm.irqchip is not Irqchip.TCG:
        parts.append(_in_range(match.linux, vm.linux, None))
    if any(part is False for part in parts):
        return False
    return None if any(part is None for part in parts) else True


def _in_range(wanted: VersionRange, known: Version | None, least: Version | None) -> bool | None:
    """Whether a version is in a range, where only a lower bound may be known."""
    if known is not None:
        return known in wanted
    if least is None:
        return None
    below = [term for term in wanted.terms if term[0] in ("<", "<=")]
    if any(least not in VersionRange((term,)) for term in below):
        return False
    if any(term[0] not in (">=", ">") for term in wanted.terms):
        return None
    return True if least in wanted else None


def _axis_text(match: AxisMatch) -> str:
    parts = [
        *([] if match.qemu is None else [f"QEMU {match.qemu}"]),
        *([] if match.linux is None else [f"Linux {match.linux}"]),
        *([] if match.machine is None else sorted(each.value for each in match.machine)),
        *([] if match.irqchip is None else sorted(match.irqchip)),
    ]
    return " and ".join(parts)


def _versions_text(vm: Vm) -> str:
    if vm.qemu is not None:
        return f" (it is QEMU {'.'.join(map(str, vm.qemu))})"
    if vm.qemu_at_least is not None:
        return f" (its machine type needs QEMU {'.'.join(map(str, vm.qemu_at_least))} or later)"
    return ""
