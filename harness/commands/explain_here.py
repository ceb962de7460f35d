"""The command ``explain --reproduce`` after its files were explained: shown again in the lab."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from harness.base.streams import print_json
from harness.base.terminal import Printer
from harness.explain import bands
from harness.explain.answer import Explanation
from harness.explain.reproduction import ReproduceRequest, check, reproduce
from harness.explain.shown import VmReproduction
from harness.report.text.explain_report import explain_json, explain_report
from harness.report.text.render import show
from harness.report.text.reproduction_report import reproduction_json, reproduction_report
from harness.repro import catalogue

RunAsync: TypeAlias = Callable[[Coroutine[Any, Any, VmReproduction]], VmReproduction]


@dataclass(frozen=True)
class HereOptions:
    """The options."""

    out: Path | None
    jobs: int
    verbose: bool
    json: bool


def run(
    answer: Explanation,
    asked: HereOptions,
    console: Printer,
    progress: Printer,
    run_async: RunAsync,
) -> int:
    """Print ``answer``, reproduce it, print what came of that; the exit status.

    Errors as of :func:`harness.explain.reproduction.reproduce`.
    """
    check(answer.evidence)
    if not asked.json:
        show(console, explain_report(answer, verbose=asked.verbose))
    request = ReproduceRequest(
        answer, catalogue.shipped_entries(), bands.shipped(), asked.out, asked.jobs
    )
    found = run_async(reproduce(request, progress, quiet=asked.json))
    if asked.json:
        print_json(explain_json(answer, reproduction_json(found)))
    else:
        show(console, reproduction_report(answer, found))
    return found.exit_status
