"""Whether it shows here, too: the nearest guest run in the lab, and its recordings explained.

What the user's files showed is looked for by the same readers, bands and signs in what was
recorded here.  An entry of the catalogue is also measured by its own signs, in the guest of its
recipe: they are made for a lab, where all work is slower than on hardware.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import yaml

from harness.base import yamlfile
from harness.base.errors import ConfigError, StoreError
from harness.base.files import write_text
from harness.base.terminal import Printer
from harness.base.versions import parse_version
from harness.config import config, lanes
from harness.config.config import RunConfig
from harness.explain.answer import Candidate, Explanation, Standing
from harness.explain.bands import UsualBand
from harness.explain.explain import explain
from harness.explain.nearest.guest import NearestGuest, nearest_guest
from harness.explain.nearest.recipe import LABEL, recipe
from harness.explain.nearest.versions import Offered, VersionsHere
from harness.explain.own_recording import evidence_of
from harness.images.cache import ImageCache
from harness.model.case import Irqchip
from harness.model.layout import RunDir
from harness.model.verdict import CaseResult, Verdict
from harness.record.collectors.foreign.model import Evidence, KernelLog, VmMachine
from harness.repro.catalogue import Entry, EntryKind
from harness.repro.reproduce import Measured, assess
from harness.run import pipeline
from harness.store.result import RunResult

_MOST_RATES: Final = 12
_IDLE: Final = "idle"
"""The workload of a guest that does nothing."""
_IDLE_GUEST: Final = f"linux-{LABEL}/"
"""How the ids of its cases begin, where the entry's guest does something else."""


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
    ``why_not`` is why the mode could not be run.
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
            return f"cannot run here: {self.modes[0].why_not if self.modes else 'no mode is left'}"
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
            return f"the VM's mode {own.mode} cannot be run here: {own.why_not}{also}"
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


# --- What to look for -----------------------------------------------------------------------------


def wanted_of(answer: Explanation) -> Wanted:
    """What of ``answer`` can be looked for in a recording."""
    entries = answer.fitting or answer.standing(Standing.HINTED)
    if not entries:
        entries = tuple(filter(_by_its_options, answer.standing(Standing.POSSIBLE)))[:1]
    rates = dict.fromkeys(each.quantity.name for each in answer.unusual)
    messages = dict.fromkeys(each.name for each in answer.signs if each.name.startswith("log/"))
    return Wanted(
        tuple(each.entry for each in entries), tuple(rates)[:_MOST_RATES], tuple(messages)
    )


def _by_its_options(candidate: Candidate) -> bool:
    """Whether the VM can have it for an option that few VMs have (as in explain)."""
    special = any("driftfix" in need or "microvm" in need for need in candidate.needs)
    return special and not candidate.unknown


def check(evidence: Sequence[Evidence]) -> None:
    """:class:`ConfigError` where no file says which VM it is."""
    if not any(isinstance(each.content, VmMachine) for each in evidence):
        raise ConfigError(
            "--reproduce: the files do not say which VM it is",
            "neither a QEMU command line nor a libvirt XML is among them",
            "give one of them, too: tr '\\0' ' ' </proc/PID/cmdline, or virsh dumpxml NAME",
        )


def versions_here(cache: ImageCache) -> VersionsHere:
    """The versions of the lanes, and those that are cached; nothing is fetched."""
    kernels = dict.fromkeys([*(lane.kernel for lane in _lanes()), *cache.kernel_versions()])
    cached = [".".join(map(str, each.version)) for each in cache.qemus()]
    qemus = dict.fromkeys([*(lane.qemu for lane in _lanes()), *cached])
    return VersionsHere(_offered(qemus), _offered(kernels))


def _lanes() -> list[lanes.Lane]:
    """The lanes, the usual one first."""
    found = lanes.shipped()
    return sorted(found.values(), key=lambda lane: lane is not found.get("stable"))


def _offered(names: Iterable[str]) -> tuple[Offered, ...]:
    """Each name with its version: of a beginning such as 10.0 the newest that is known."""
    texts = list(names)
    known = [(parse_version(text), text) for text in texts]
    return tuple(
        Offered(text, max(each for each, _ in known if each[: len(version)] == version))
        for version, text in known
    )


# --- Running it -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReproduceRequest:
    """An explanation, and where and how it is to be shown again."""

    answer: Explanation
    entries: tuple[Entry, ...]
    bands: tuple[UsualBand, ...]
    out: Path | None
    jobs: int


async def reproduce(
    request: ReproduceRequest, console: Printer, *, quiet: bool, cache: ImageCache | None = None
) -> VmReproduction:
    """Run the nearest guest in every mode, and say whether the same shows.

    :class:`ConfigError` without a VM, :class:`CannotRun` where there is no guest near to it; errors
    are those of :func:`harness.run.pipeline.run`.
    """
    answer = request.answer
    check(answer.evidence)
    wanted = wanted_of(answer)
    entry = next((each for each in request.entries if each.id in wanted.entries[:1]), None)
    guest = nearest_guest(
        answer.vm, versions_here(cache or ImageCache()), entry, command_line=_booted_with(answer)
    )
    modes: dict[Irqchip, InMode] = {}
    out = request.out
    attempts = 1 if entry is None else len(entry.again) + 1
    for attempt in range(attempts):
        plan = planned(guest, entry, attempt)
        job = pipeline.RunRequest(plan, out, None, request.jobs)
        result, directory = await pipeline.run(job, console, quiet=quiet)
        write_text(RunDir(directory).nearest, _text(guest, entry, attempt))
        modes |= {each.mode: each for each in _modes(request, wanted, entry, result, directory)}
        found = VmReproduction(
            guest,
            None if entry is None else entry.id,
            entry is not None and entry.kind is EntryKind.CONTROL,
            wanted,
            tuple(modes.values()),
            directory,
        )
        if found.exit_status != 0 or attempt == attempts - 1:
            break
        out = RunDir(directory if attempt == 0 else directory.parent).attempt(attempt + 1)
        if not quiet:
            console.print("it did not show: trying again, as the entry says", highlight=False)
    return found


def planned(guest: NearestGuest, entry: Entry | None, attempt: int = 0) -> RunConfig:
    """The run of an attempt, through the language of every configuration."""
    file = yamlfile.parse(_text(guest, entry, attempt), Path(RunDir.nearest))
    return config.expand(file)


def _text(guest: NearestGuest, entry: Entry | None, attempt: int) -> str:
    return yaml.safe_dump(recipe(guest, entry, attempt=attempt), sort_keys=False, width=100)


def _booted_with(answer: Explanation) -> str:
    """The command line of the user's guest, where its log says it."""
    logs = [each.content for each in answer.evidence if isinstance(each.content, KernelLog)]
    return next((log.facts["command line"] for log in logs if "command line" in log.facts), "")


# --- What it showed -------------------------------------------------------------------------------


def _modes(
    request: ReproduceRequest,
    wanted: Wanted,
    entry: Entry | None,
    result: RunResult,
    directory: Path,
) -> Iterator[InMode]:
    measured = () if entry is None else _measured(entry, result, directory)
    modes = dict.fromkeys(Irqchip(str(case.axes["irqchip"])) for case in result.cases)
    for mode in modes:
        cases = [case for case in result.cases if case.axes["irqchip"] == mode]
        parts = tuple(part for case in cases for part in _parts(request, case, directory))
        own = tuple(each for each in measured if each.mode is mode)
        reason = next((f"{case.verdict}: {case.detail}" for case in cases), "it was not run")
        shown = tuple(_shown(wanted, entry, parts, own))
        idle = [part for part in parts if part.name == _IDLE]
        is_idle_alone = not any(case.id.startswith(_IDLE_GUEST) for case in cases)
        yield InMode(
            mode,
            parts,
            own,
            shown,
            tuple(_others(wanted, parts)),
            None if parts else reason,
            bool(shown) if is_idle_alone else any(_shown(wanted, None, idle, ())),
        )


def _parts(request: ReproduceRequest, case: CaseResult, directory: Path) -> Iterator[PartHere]:
    if case.verdict is Verdict.SKIP and not case.parts:
        return
    try:
        found = evidence_of(directory / case.dir)
    except StoreError:
        return
    for name, evidence in found.items():
        yield PartHere(case.id, name, explain(evidence, request.entries, request.bands))


def _measured(entry: Entry, result: RunResult, directory: Path) -> tuple[Measured, ...]:
    """The entry's signs in the guest of its recipe: the idle one beside it does other work."""
    cases = tuple(case for case in result.cases if not case.id.startswith(_IDLE_GUEST))
    return assess(entry, dataclasses.replace(result, cases=cases), directory).measured


def _shown(
    wanted: Wanted, entry: Entry | None, parts: Sequence[PartHere], measured: Sequence[Measured]
) -> Iterator[str]:
    """What of the wanted is there; rates and messages count where no entry is wanted."""
    for part in parts:
        fitting = {each.entry for each in part.answer.fitting}
        for name in wanted.entries:
            if name in fitting:
                yield f"explain names {name} in the part {part.name}"
    if entry is not None and _is_as_in_the_entry(entry, measured):
        yield f"the signs of {entry.id} are there"
    if wanted.entries:
        return
    for part in parts:
        odd = {each.quantity.name for each in part.answer.unusual}
        logged = {each.name for each in part.answer.signs}
        for name in (*wanted.rates, *wanted.messages):
            if name in odd | logged:
                yield f"{name} in the part {part.name}"
        if wanted.is_nothing and not part.answer.is_quiet:
            yield f"{part.answer.verdict} in the part {part.name}, which the files do not show"


def _is_as_in_the_entry(entry: Entry, measured: Sequence[Measured]) -> bool:
    """Whether all signs are what the entry says of a mode that has it."""
    verdicts = []
    for each in measured:
        deciding = each.mode if each.mode in entry.modes else entry.modes[0]
        expected = each.sign.expect.get(deciding)
        if expected is not None and isinstance(each.value, int | float | str):
            verdicts.append(expected.met_by(each.value))
    return bool(verdicts) and all(verdicts)


def _others(wanted: Wanted, parts: Sequence[PartHere]) -> Iterator[str]:
    if wanted.is_nothing:
        return
    names = {each.entry for part in parts for each in part.answer.fitting}
    for name in sorted(names - set(wanted.entries)):
        yield f"explain names {name}, which the files do not"


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
