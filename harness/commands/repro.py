"""The commands ``repro`` and ``bisect`` after option parsing, and their exit statuses."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import typer

from harness.base.errors import ConfigError, HarnessError, Interrupted
from harness.base.streams import print_json
from harness.base.terminal import Printer
from harness.base.text import plain
from harness.images.cache import ImageCache
from harness.report import bundle
from harness.report.files import ledgers_of
from harness.report.text import bisect_report, repro_report
from harness.report.text.render import show
from harness.repro import catalogue
from harness.repro.bisect import Bisector, BisectRequest
from harness.repro.reproduce import Reproduction, ReproRequest, reproduce

UNTESTABLE: Final = 125
"""For ``git bisect run``: skip this revision."""
ABORT: Final = 128
"""For ``git bisect run``: end the bisection, as every status above 127 does."""

RunAsync: TypeAlias = Callable[[Coroutine[Any, Any, Reproduction]], Reproduction]


@dataclass(frozen=True)
class ReproOptions:
    """The options."""

    name: str | None
    kernel: str | None
    qemu: str | None
    out: Path | None
    bundle: Path | None
    jobs: int
    bisect: bool
    json: bool
    live: bool = False


def show_catalogue(console: Printer, *, json: bool) -> None:
    """Print every entry that is shipped."""
    entries = [catalogue.load(path) for path in catalogue.shipped().values()]
    if json:
        print_json(repro_report.catalogue_json(entries))
    else:
        show(console, repro_report.catalogue_table(entries))


def run(asked: ReproOptions, console: Printer, run_async: RunAsync) -> int:
    """Do what is asked for; the exit status.

    With ``--bisect`` an error is not a status that ``git bisect`` would take for a bad revision:
    what can be another revision's fault is untestable, anything else ends the bisection.
    """
    if not asked.bisect:
        return run_async(_perform(asked, console)).assessment.exit_status
    try:
        return run_async(_perform(asked, console)).assessment.bisect_status
    except Interrupted:
        raise
    except ConfigError as error:
        typer.echo(plain(f"irqmatrix: {error}"), err=True)
        return ABORT
    except HarnessError as error:
        typer.echo(plain(f"irqmatrix: untestable: {error}"), err=True)
        return UNTESTABLE
    except Exception:
        traceback.print_exc()
        return ABORT


async def bisect(plan: BisectRequest, console: Printer, *, json: bool) -> int:
    """Find the versions between which the answer changes; the exit status."""
    found = await Bisector(plan, ImageCache(), console, quiet=json).run()
    if json:
        print_json(bisect_report.bisection_json(found))
    else:
        show(console, bisect_report.bisection_report(found))
    return found.exit_status


async def _perform(asked: ReproOptions, console: Printer) -> Reproduction:
    """Run the reproducer, print what was seen, bundle it."""
    if asked.name is None:
        raise ConfigError("no reproducer given", None, "irqmatrix repro --list shows all")
    entry = catalogue.find(asked.name)
    if asked.bundle is not None:
        bundle.check(asked.bundle)
    request = ReproRequest(
        entry,
        asked.kernel,
        asked.qemu,
        asked.out,
        asked.jobs,
        decisive_only=asked.bisect,
        live=asked.live,
    )
    if not asked.json:
        show(console, repro_report.announce(entry))
    found = await reproduce(request, console, quiet=asked.json)
    if asked.json:
        print_json(repro_report.reproduction_json(found))
    else:
        ledgers = ledgers_of(found.result, found.directory)
        show(console, repro_report.reproduction_report(found, ledgers))
    if asked.bundle is not None:
        bundle.write(found, asked.bundle)
        console.print(f"bundle: {asked.bundle}", markup=False, highlight=False, soft_wrap=True)
    return found
