"""The command ``fuzz`` after option parsing, and its exit status."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.base import ownership
from harness.base.errors import CannotRun, ConfigError
from harness.base.streams import print_json
from harness.base.terminal import Printer, printer
from harness.compare.known import KnownDifferences
from harness.config.config import Lab
from harness.fuzz.campaign import Fuzzer, FuzzRequest, campaign_of, sides_of
from harness.fuzz.finish import Finished, Finisher
from harness.fuzz.journal import Journal
from harness.fuzz.reach import Reach
from harness.images.cache import ImageCache
from harness.model.case import Machine
from harness.report.letter import Letter
from harness.report.text.fuzz_report import fuzz_json, fuzz_report
from harness.report.text.render import show
from harness.repro.bench import Bench, Place, Stage
from harness.run import floor

FINDINGS: Final = "findings"
_LOCK: Final = ".lock"


@dataclass(frozen=True)
class FuzzOptions:
    """The options; ``resume`` takes the place of ``request`` and ``out``."""

    request: FuzzRequest
    out: Path | None
    resume: Path | None
    jobs: int
    json: bool
    coverage: bool = False
    """Whether to keep the programs that reach lines of KVM that none had reached."""


async def run(asked: FuzzOptions, console: Printer) -> int:
    """Run, finish and report; 0 where nothing is unexplained, else 1.

    :class:`CannotRun` for what this machine cannot run, :class:`ConfigError` for a mistake.
    """
    journal = _journal(asked)
    folder = asked.resume or _folder(asked)
    tell = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    quiet: Callable[[str], None] = (lambda _: None) if asked.json else tell
    known, cache = KnownDifferences.shipped(), ImageCache()
    campaign = journal.history.campaign
    machine = Machine(campaign.machine)
    quiet(f"seed {campaign.seed} on {', '.join(campaign.sides)}")
    try:
        with (
            ownership.locked(folder / _LOCK),
            tempfile.TemporaryDirectory(prefix="irqmatrix-fuzz-") as scratch,
        ):
            stage = Stage(machine, campaign.cpu, asked.jobs, Path(scratch), asked.coverage)
            reach = await _reach(folder, stage, journal, cache, quiet) if asked.coverage else None
            fuzzer = Fuzzer(journal, _bench(stage, cache), quiet, reach)

            def publish(finding: Finished) -> None:
                place = folder / FINDINGS / finding.id
                Letter(finding, place, cache, machine, campaign.cpu).write()
                quiet(f"finding {finding.id}: {finding.text}")

            request = asked.request
            await fuzzer.run(_number(asked, journal), request.minutes, request.runs)
            await Finisher(fuzzer, cache, known, quiet, publish).run()
    except BlockingIOError:
        fix = "wait for it, or name another directory: --out"
        raise ConfigError(f"{folder} is in use", "another campaign writes there", fix) from None
    if asked.json:
        print_json(fuzz_json(journal.history, folder / FINDINGS))
    else:
        show(printer(), fuzz_report(journal.history, folder / FINDINGS, fuzzer.source.refused))
    open_ = [one for one in journal.history.finished.values() if not one["explained"]]
    return 1 if open_ else 0


async def _reach(
    folder: Path, stage: Stage, journal: Journal, cache: ImageCache, tell: Callable[[str], None]
) -> Reach:
    """What the campaign has reached so far; :class:`ConfigError` where no backend is in a lab."""
    sides = sides_of(journal.history.campaign.sides)
    backends = [side.backend for side in sides if side.place is Place.LAB]
    if not backends:
        fix = "name a backend in a lab: lab:on, lab:split"
        raise ConfigError("--coverage has nothing to record", "no backend is in a lab", fix)
    floors = [one for each in backends for one in await floor.of(each, Lab(), cache, tell)]
    for one in floors:  # before any lab is up: it may have to be downloaded
        await asyncio.to_thread(cache.line_table, one.kernel, one.build_id)
    alone = dataclasses.replace(stage, jobs=1, folder=stage.folder / "reach")
    return Reach(folder, _bench(alone, cache), floors, cache.line_table)


def _number(asked: FuzzOptions, journal: Journal) -> int | None:
    """How many programs in all; a campaign that is resumed without a word is only finished."""
    request = asked.request
    ends = (request.programs, request.minutes, request.runs)
    if asked.resume is None or ends != (None, None, None):
        return request.programs
    return journal.history.programs or None


def _bench(stage: Stage, cache: ImageCache) -> Bench:
    return Bench(stage, cache)


def _folder(asked: FuzzOptions) -> Path:
    return asked.out or Path("runs") / f"{asked.request.name}-{asked.request.seed}"


def _journal(asked: FuzzOptions) -> Journal:
    """A new one, or that of the folder to resume.

    :class:`CannotRun` where its grammars are others by now.
    """
    if asked.resume is None:
        return Journal.begun(_folder(asked), campaign_of(asked.request))
    journal = Journal.resumed(asked.resume)
    campaign = journal.history.campaign
    request = FuzzRequest(
        campaign.sides, campaign.seed, only=campaign.only, machine=Machine(campaign.machine)
    )
    if campaign_of(request).grammars != campaign.grammars:
        raise CannotRun(
            f"{asked.resume} cannot be resumed",
            "the grammars have changed since: the same numbers mean other programs",
            "begin a new campaign",
        )
    return journal
