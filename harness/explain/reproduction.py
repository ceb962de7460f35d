"""Whether it shows here, too: the nearest guest run in the lab, and its recordings explained.

What the user's files showed is looked for by the same readers, bands and signs in what was
recorded here.  An entry of the catalogue is also measured by its own signs, in the guest of its
recipe: they are made for a lab, where all work is slower than on hardware.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
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
from harness.explain.answer import Explanation
from harness.explain.bands import UsualBand
from harness.explain.explain import explain
from harness.explain.nearest.guest import NearestGuest, nearest_guest
from harness.explain.nearest.recipe import LABEL, recipe
from harness.explain.nearest.versions import Offered, VersionsHere
from harness.explain.own_recording import evidence_of
from harness.explain.shown import InMode, PartHere, VmReproduction, Wanted, wanted_of
from harness.images.cache import ImageCache
from harness.model.case import Irqchip
from harness.model.layout import RunDir
from harness.model.verdict import CaseResult, Verdict
from harness.record.collectors.foreign.model import Evidence, KernelLog, VmMachine
from harness.repro.catalogue import Entry, EntryKind
from harness.repro.reproduce import Measured, Unknown, assess
from harness.run import pipeline
from harness.store.result import RunResult

_IDLE: Final = "idle"
"""The workload of a guest that does nothing."""
_DID_NOT_RUN: Final = frozenset(
    (
        *(Verdict.SKIP, Verdict.ERROR, Verdict.INCOMPLETE),
        *(Verdict.CRASH, Verdict.HANG, Verdict.TIMEOUT),
    )
)
"""Of a case that counted nothing: it was not quiet, it did not do its work."""
_IDLE_GUEST: Final = f"linux-{LABEL}/"
"""How the ids of its cases begin, where the entry's guest does something else."""


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
    return await run_guest(request, guest, entry, console, quiet=quiet)


async def run_guest(
    request: ReproduceRequest,
    guest: NearestGuest,
    entry: Entry | None,
    console: Printer,
    *,
    quiet: bool,
) -> VmReproduction:
    """Run ``guest``, with the work of ``entry``; errors as of :func:`harness.run.pipeline.run`."""
    wanted = wanted_of(request.answer)
    modes: dict[Irqchip, InMode] = {}
    out = request.out
    attempts = 1 if entry is None else len(entry.again) + 1
    for attempt in range(attempts):
        plan = planned(guest, entry, attempt)
        job = pipeline.RunRequest(plan, out, None, request.jobs, expects=False)
        result, directory = await pipeline.run(job, console, quiet=quiet)
        write_text(RunDir(directory).nearest, _text(guest, entry, attempt))
        seen = seen_in_modes(request, wanted, entry, result, directory)
        modes |= {each.mode: each for each in seen}
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


def seen_in_modes(
    request: ReproduceRequest,
    wanted: Wanted,
    entry: Entry | None,
    result: RunResult,
    directory: Path,
) -> Iterator[InMode]:
    """What the run in ``directory`` says of each mode that was in it."""
    measured = () if entry is None else _measured(entry, result, directory)
    for mode in dict.fromkeys(Irqchip(str(case.axes["irqchip"])) for case in result.cases):
        cases = [case for case in result.cases if case.axes["irqchip"] == mode]
        parts = tuple(part for case in cases for part in _parts(request, case, directory))
        own = tuple(each for each in measured if each.mode is mode)
        shown = tuple(_shown(wanted, entry, parts, own))
        idle = [part for part in parts if part.name == _IDLE]
        is_idle_alone = not any(case.id.startswith(_IDLE_GUEST) for case in cases)
        yield InMode(
            mode,
            parts,
            own,
            shown,
            tuple(_others(wanted, parts)),
            None if shown else _why_unknown(cases, parts, own),
            bool(shown) if is_idle_alone else any(_shown(wanted, None, idle, ())),
        )


def _why_unknown(
    cases: Iterable[CaseResult], parts: Sequence[PartHere], measured: Sequence[Measured]
) -> str | None:
    """Why a mode that did not show it may have it; None where it was measured.

    Each guest has to have done its work: an idle one says nothing of the work of an entry.
    """
    for case in cases:
        own = [each for each in measured if each.case.id == case.id]
        counted = (
            any(map(_is_known, own))
            if own
            else any(_measures(part) for part in parts if part.case == case.id)
        )
        if not counted and (own or case.verdict in _DID_NOT_RUN):
            return f"{case.verdict}: {case.detail}"
    return None


def _measures(part: PartHere) -> bool:
    """Whether anything was counted: of what was not, nothing can be said."""
    return any(each.quantity.unit != "times" for each in part.answer.measured)


def _is_known(measured: Measured) -> bool:
    return not isinstance(measured.value, Unknown)


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
    """Whether all signs are what the entry says of a mode that has it; an unknown one is not."""
    verdicts = []
    for each in measured:
        deciding = each.mode if each.mode in entry.modes else entry.modes[0]
        expected = each.sign.expect.get(deciding)
        if expected is not None:
            verdicts.append(not isinstance(each.value, Unknown) and expected.met_by(each.value))
    return bool(verdicts) and all(verdicts)


def _others(wanted: Wanted, parts: Sequence[PartHere]) -> Iterator[str]:
    if wanted.is_nothing:
        return
    names = {each.entry for part in parts for each in part.answer.fitting}
    for name in sorted(names - set(wanted.entries)):
        yield f"explain names {name}, which the files do not"
