"""What is looked for in the lab, what came of it in each mode, and what that means."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from harness.explain.answer import Explanation, Standing
from harness.explain.explain import is_by_its_options
from harness.explain.nearest.guest import NearestGuest
from harness.model.case import Irqchip
from harness.repro.reproduce import Measured

_MOST_RATES: Final = 12


@dataclass(frozen=True)
class Wanted:
    """What the files showed, and is looked for here.

    ``entries`` are those of the catalogue that fit, or else are hinted at, or whose options the VM
    has, the likeliest first; ``rates`` are names of quantities; ``messages`` of ``log/...``.
    """

    entries: tuple[str, ...]
    rates: tuple[str, ...]
    messages: tuple[str, ...]

    @property
    def is_nothing(self) -> bool:
        """Whether the files showed nothing to look for."""
        return not (self.entries or self.rates or self.messages)


@dataclass(frozen=True)
class PartHere:
    """One thing that a guest did here, and what its recording says by the same code."""

    case: str
    name: str
    answer: Explanation


@dataclass(frozen=True)
class InMode:
    """What was seen in one irqchip mode.

    ``shown`` says what of the wanted is there, ``others`` what is there and was not wanted;
    ``why_not`` is why there is no answer.
    """

    mode: Irqchip
    parts: tuple[PartHere, ...]
    measured: tuple[Measured, ...]
    """The entry's own signs."""
    shown: tuple[str, ...]
    others: tuple[str, ...]
    why_not: str | None
    in_idle: bool = False
    """Whether an idle guest shows it, too, without the work of an entry's recipe."""

    @property
    def is_shown(self) -> bool:
        """Whether the same is there."""
        return bool(self.shown)


@dataclass(frozen=True)
class VmReproduction:
    """What came of it: the guest, what was looked for, and every mode."""

    guest: NearestGuest
    entry: str | None
    """The entry whose recipe was run in the guest's shape, too."""
    is_control: bool
    """Whether that entry is a control: a symptom made on purpose, in every mode alike."""
    wanted: Wanted
    modes: tuple[InMode, ...]
    directory: Path
    """The folder of the last run; ``vm.yaml`` in it is the guest as a configuration."""

    @property
    def own(self) -> InMode | None:
        """The VM's own mode; None where it is not known."""
        return next((each for each in self.modes if each.mode is self.guest.own), None)

    @property
    def exit_status(self) -> int:
        """1 where it shows in the VM's own mode, or in any where that is not known; 0, 3."""
        asked = self.modes if self.own is None else (self.own,)
        if any(each.is_shown for each in asked):
            return 1
        return 3 if all(each.why_not is not None for each in asked) else 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What the verdict does not mean."""
        found = []
        if self.is_control and any(each.is_shown for each in self.modes):
            found.append(
                f"{self.entry} makes the symptom with a device of its own, in every mode alike: "
                "that it shows says nothing of why the VM has it; no device or driver of the VM "
                "that could be the cause was run"
            )
        elif self.entry is not None and any(
            each.is_shown and not each.in_idle for each in self.modes
        ):
            found.append(
                f"it takes the work of {self.entry}: an idle guest in the shape of the VM does not "
                "show it"
            )
        return tuple(found)

    @property
    def verdict(self) -> str:
        """One sentence."""
        own = self.own
        ran = [each for each in self.modes if each.why_not is None]
        if not ran:
            return f"no answer here: {self.modes[0].why_not if self.modes else 'no mode is left'}"
        shown = _names(each for each in ran if each.is_shown)
        rest = _names(each for each in ran if not each.is_shown)
        if own is None:
            unknown = "the VM's mode is not known"
            if not shown:
                return f"{_absent(self.wanted)} in any mode that was run ({rest}); {unknown}"
            others = f", not in {rest}" if rest else ""
            return f"{_there(self.wanted)} in {shown}{others}; {unknown}"
        also = f"; it shows in {shown}" if shown else ""
        if own.why_not is not None:
            return f"the VM's mode {own.mode} gives no answer here: {own.why_not}{also}"
        if not own.is_shown:
            return f"{_absent(self.wanted)} in {own.mode}, the VM's mode{also}"
        also_in = _names(each for each in ran if each.is_shown and each is not own)
        also = f", and in {also_in}" if also_in else ""
        others = f"; not in {rest}" if rest else ""
        return f"{_there(self.wanted)} in {own.mode}, the VM's mode{also}{others}"


def _there(wanted: Wanted) -> str:
    if wanted.is_nothing:
        return "the files show nothing to look for, but here something is unusual"
    return f"{_what(wanted)} shows here, too,"


def _absent(wanted: Wanted) -> str:
    if wanted.is_nothing:
        return "the files show nothing to look for, and here nothing is unusual"
    return f"{_what(wanted)} does not show here"


def _what(wanted: Wanted) -> str:
    return wanted.entries[0] if wanted.entries else "what the files show"


def _names(modes: Iterable[InMode]) -> str:
    return ", ".join(each.mode.value for each in modes)


def wanted_of(answer: Explanation) -> Wanted:
    """What of ``answer`` can be looked for in a recording."""
    entries = answer.fitting or answer.standing(Standing.HINTED)
    if not entries:
        entries = tuple(filter(is_by_its_options, answer.standing(Standing.POSSIBLE)))[:1]
    rates = dict.fromkeys(each.quantity.name for each in answer.unusual)
    messages = dict.fromkeys(each.name for each in answer.signs if each.name.startswith("log/"))
    return Wanted(
        tuple(each.entry for each in entries), tuple(rates)[:_MOST_RATES], tuple(messages)
    )


def value_in(mode: InMode, name: str) -> float | None:
    """The most that any part measured of quantity ``name``; None where nothing measures it."""
    return max(
        (
            each.quantity.value
            for part in mode.parts
            for each in part.answer.measured
            if fnmatchcase(each.quantity.name, name)
        ),
        default=None,
    )
