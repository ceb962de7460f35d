"""The command line: thin commands, and the one place where errors become messages."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

import typer
from typer.core import TyperCommand
from typer.main import get_command_name

from harness.base import ownership
from harness.base.crash import kept, root_of
from harness.base.errors import CannotRun, ConfigError, Interrupted, ReplayRefused
from harness.base.streams import Outlet, open_missing, print_json
from harness.base.text import shortened
from harness.model.layout import RunDir
from harness.report.formats import FORMATS
from userspace_chip.architecture import Board
from userspace_chip.errors import IrqmatrixError
from userspace_chip.kvm.options import MAX_CPUS, Delivery, LiveMode, Options
from userspace_chip.profile import Qemu

if TYPE_CHECKING:
    from harness.base.terminal import Printer
    from harness.model.case import Machine
    from harness.store.entry import StoreRequest

EXIT_BAD_USAGE: Final = 2
EXIT_NOTHING_RUN: Final = 3
EXIT_BUG: Final = 70
"""A bug of irqmatrix (``EX_SOFTWARE`` of sysexits.h)."""
EXIT_INTERRUPTED: Final = 130
DETAIL_CHARACTERS: Final = 300
STOP_S: Final = 2.5
RUN_IS_LEFT: Final = "the cases that had ended are in the run directory"

T = TypeVar("T")

app = typer.Typer(
    name="irqmatrix",
    help="Boot the same guest under every x86 interrupt-controller implementation, account for "
    "every interrupt, explain every difference.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
images_app = typer.Typer(help="Kernels and QEMUs in the image cache.", no_args_is_help=True)
app.add_typer(images_app, name="images")
baseline_app = typer.Typer(help="What is known, for run --baseline.", no_args_is_help=True)
app.add_typer(baseline_app, name="baseline")

Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Also show the tables of what is as expected.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON only.")]
Store = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The store of all runs, or none [default: see docs]."),
]
Lane = Annotated[
    str | None,
    typer.Option(metavar="LANE", help="Versions to run: oldest, stable or newest."),
]


def main() -> None:
    """The entry point: every error is one message and an exit status, without a traceback."""
    if open_missing():
        _say("standard output is closed, so nothing can be shown (redirect it, e.g. to /dev/null)")
        sys.exit(EXIT_BAD_USAGE)
    out, err = Outlet(sys.stdout), Outlet(sys.stderr)
    with contextlib.redirect_stdout(out.stream), contextlib.redirect_stderr(err.stream):
        status = _status_of(app_for(sys.argv[1:]))
        out.flush()
        if out.failure is not None and not out.reader_left:
            _say(f"cannot write to standard output: {out.failure.strerror}")
            status = status or EXIT_BAD_USAGE
        err.flush()
    sys.exit(status)


def printer(*, stderr: bool = False) -> Printer:
    """What prints on standard output, or on standard error; not every command needs one."""
    from harness.base import terminal

    return terminal.printer(stderr=stderr)


def app_for(arguments: Sequence[str]) -> typer.Typer:
    """The command line, with only the command that ``arguments`` name where they begin with one.

    To build all of them takes longer than many a command.
    """
    named = [
        command
        for command in app.registered_commands
        if command.callback is not None
        and [command.name or get_command_name(command.callback.__name__)] == list(arguments[:1])
    ]
    if not named:
        return app
    narrow = copy.copy(app)
    narrow.registered_commands, narrow.registered_groups = named, []
    return narrow


def _status_of(command: Callable[[], object]) -> int:
    """Run ``command``; its exit status, after a message where it failed."""
    try:
        command()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:
        return _failed(root_of(error))
    return 0


def _failed(error: BaseException) -> int:
    """Say what ``error`` is; the exit status for it."""
    if isinstance(error, IrqmatrixError):
        _say(str(error))
        if isinstance(error, Interrupted):
            return EXIT_INTERRUPTED
        nothing_run = isinstance(error, ReplayRefused | CannotRun)
        return EXIT_NOTHING_RUN if nothing_run else EXIT_BAD_USAGE
    if isinstance(error, OSError):
        place = "" if error.filename is None else f"{error.filename}: "
        _say(f"{place}{error.strerror or error}")
        return EXIT_BAD_USAGE
    if isinstance(error, MemoryError):
        _say("out of memory: the input is too large for this machine")
        return EXIT_BAD_USAGE
    _say_bug(error)
    return EXIT_BUG


def _say_bug(error: BaseException) -> None:
    """An internal error, once; its details go to a file, or are shown if none can be written."""
    what = shortened(f"{type(error).__name__}: {error}", DETAIL_CHARACTERS)
    path = kept(error)
    if path is None:
        _say("".join(traceback.format_exception(error)))
    where = "above" if path is None else f"in {path}"
    _say(f"a bug of irqmatrix, not of your input: {what} (details are {where}; please report them)")


def _say(text: str) -> None:
    from harness.base.terminal import Printer

    Printer(stderr=True).print(f"irqmatrix: {text}", markup=False, highlight=False, soft_wrap=True)


def _run_async(work: Coroutine[Any, Any, T], what_is_left: str | None = RUN_IS_LEFT) -> T:
    """Run ``work``; a signal that asks to end takes it down through every ``with``.

    What is not down after :data:`STOP_S`, because something that it waits for stands still, goes
    with the process.
    """
    import asyncio

    from harness.base import stopping

    interrupted = Interrupted("interrupted", None, what_is_left)

    def give_up() -> None:
        """End at once, with all that was started."""
        _say(str(interrupted))
        ownership.end_everything()
        os._exit(EXIT_INTERRUPTED)

    async def supervised() -> T:
        task = asyncio.current_task()
        assert task is not None
        with stopping.on_signals(task, STOP_S, give_up):
            return await work

    try:
        return asyncio.run(supervised())
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise interrupted from None


def _version(wanted: bool) -> None:
    if wanted:
        from harness import __version__

        typer.echo(f"irqmatrix {__version__}")
        raise typer.Exit


@app.callback()
def _irqmatrix(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def doctor(json: Json = False) -> None:
    """Show what this machine can run, and why it cannot run the rest."""
    from harness.doctor import doctor as doctor_module
    from harness.images.cache import ImageCache
    from harness.report.text.doctor_report import doctor_json, doctor_tables
    from harness.report.text.render import show

    findings = _run_async(doctor_module.examine(ImageCache()))
    if json:
        print_json(doctor_json(findings))
    else:
        show(printer(), doctor_tables(findings))


class _BareBaseline(TyperCommand):
    """A command whose option ``--baseline`` may stand without a name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As always, but a ``--baseline`` that no name follows has the empty one."""
        following = [*args[1:], "-"]
        given = [
            "--baseline=" if word == "--baseline" and after.startswith("-") else word
            for word, after in zip(args, following, strict=False)
        ]
        return super().parse_args(ctx, given)


@app.command(cls=_BareBaseline)
def run(
    config: Annotated[str, typer.Argument(help="A matrix file, or the name of a shipped one.")],
    out: Annotated[Path | None, typer.Option(help="Directory for the results.")] = None,
    only: Annotated[
        str | None, typer.Option(help="Run only cases whose id matches this glob.")
    ] = None,
    repeat: Annotated[int | None, typer.Option(min=1, help="Run each case N times.")] = None,
    jobs: Annotated[
        str,
        typer.Option(metavar="N", help="Number of cases run at the same time; auto: as many fit."),
    ] = "auto",
    executor: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Run on the workers of dask://HOST:PORT, a cluster."),
    ] = None,
    known: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Known differences to use instead of the shipped ones."),
    ] = None,
    lane: Lane = None,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic", help="Make TCG runs reproducible; skip the other backends."
        ),
    ] = False,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="[NAME]",
            help="Status 1 only for what is new since a baseline; without NAME: the one of this "
            "configuration, or else the run before.",
        ),
    ] = None,
    coverage: Annotated[
        bool,
        typer.Option("--coverage", help="Record which code of the labs' KVM runs: see coverage."),
    ] = False,
    store: Store = None,
    verbose: Verbose = False,
    json: Json = False,
) -> None:
    """Run a matrix and print what differs.

    Status 0: all as expected, or with --baseline nothing new; 1: otherwise; 3: nothing could be
    run.
    """
    from harness.cluster.executor import on_cluster
    from harness.config import config as config_module
    from harness.report.files import baseline_of, view_of
    from harness.report.text.render import show
    from harness.report.text.run_report import run_report
    from harness.repro import regressions
    from harness.run import pipeline as run_module
    from harness.run import room
    from harness.run.executor import local
    from harness.store.baseline import exit_status
    from harness.store.result import dump

    loaded = config_module.load(config_module.find(config), repeat=repeat, lane=lane)
    if deterministic:
        loaded = config_module.deterministic(loaded)
    if coverage:
        loaded = config_module.with_coverage(loaded)
    console = printer(stderr=json)
    entered = store_request(store, loaded.store, baseline)
    number = number_of_jobs(jobs) or room.fitting_jobs(loaded.cases, loaded.lab)
    where = on_cluster(executor) if executor is not None else local
    known_rules = tuple(known or ())
    job = run_module.RunRequest(loaded, out, only, number, known_rules, entered, where)
    result, directory = _run_async(regressions.run(job, console, quiet=json))
    if json:
        print_json(dump(result))
    else:
        show(console, run_report(view_of(result, directory, verbose=verbose), directory))
    sys.exit(exit_status(result, baseline_of(directory)))


def store_request(
    option: Path | None, configured: Path | None = None, baseline: str | None = None
) -> StoreRequest | None:
    """Where a run is entered, and what it is compared with; None where there is no store."""
    from harness.config import lanes
    from harness.store.database import chosen_path
    from harness.store.entry import StoreRequest

    path = chosen_path(option, configured)
    if path is None and baseline is not None:
        raise ConfigError("--baseline needs a store", "there is none", "name one: --store FILE")
    return None if path is None else StoreRequest(path, lanes.names(), baseline)


def default_jobs() -> int:
    """As many labs as fit on this machine."""
    from harness.run.room import fitting_jobs

    return fitting_jobs()


def number_of_jobs(text: str) -> int | None:
    """What ``--jobs`` says; None for ``auto``."""
    if text == "auto":
        return None
    if not (text.isascii() and text.isdigit() and int(text)):
        what = f"{text!r} is neither auto nor a number from 1 on"
        raise typer.BadParameter(what, param_hint="--jobs")
    return int(text)


@app.command()
def worker(
    executor: Annotated[str, typer.Argument(metavar="ADDRESS", help="dask://HOST:PORT")],
    jobs: Annotated[
        str,
        typer.Option(metavar="N", help="Number of cases run at the same time; auto: as many fit."),
    ] = "auto",
    name: Annotated[str | None, typer.Option(help="What the worker is called in reports.")] = None,
) -> None:
    """Record cases on this machine for runs with --executor.

    Ends with its scheduler. Status 3: no scheduler is there.
    """
    from harness.cluster import worker as worker_module

    request = worker_module.WorkerRequest(executor, number_of_jobs(jobs), name)
    left = "what it was doing is done by others"
    _run_async(worker_module.work(request, printer()), left)


def with_formats(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` with an option for each of the FORMATS, whose values it gets as ``files``."""

    @functools.wraps(command)
    def wrapper(**arguments: Any) -> None:
        files = {name: path for name in FORMATS if (path := arguments.pop(name)) is not None}
        command(**arguments, files=files)

    own = inspect.signature(command, eval_str=True).parameters.values()
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                Path | None,
                typer.Option(metavar="FILE", help=f"Also write {form.title} to FILE."),
            ],
        )
        for name, form in FORMATS.items()
    ]
    shown = [each for each in own if each.name != "files"]
    wrapper.__signature__ = inspect.Signature([*shown, *options])  # type: ignore[attr-defined]
    return wrapper


@app.command()
@with_formats
def report(
    run_dir: Annotated[Path, typer.Argument(help="The directory of a run.")],
    files: Mapping[str, Path],
    verbose: Verbose = False,
    json: Json = False,
) -> None:
    """Print a recorded run again; write it for other tools."""
    from harness.report import files as report_files
    from harness.report.text.render import show
    from harness.report.text.run_report import run_report
    from harness.store import result as result_module

    result = result_module.read(RunDir(run_dir).result)
    if not json or files:
        view = report_files.view_of(result, run_dir, verbose=verbose, repeats=True)
        report_files.write(view, run_dir, files)
    if json:
        print_json(result_module.dump(result))
    else:
        show(printer(), run_report(view, run_dir, ledgers=True))


@app.command()
def coverage(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Directories of runs or campaigns.")
    ],
    minus: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Also what this run does not reach.")
    ] = None,
    missing: Annotated[
        bool, typer.Option("--missing", help="Also what was not reached, and what cannot be.")
    ] = False,
    lcov: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a tracefile for genhtml.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write pages with each line.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The kernel's source, for both of these.")
    ] = None,
    json: Json = False,
) -> None:
    """Show which lines and functions of KVM's chips runs reached.

    Runs with --coverage record it. What was reached by several runs counts together.
    """
    from harness.commands import coverage as coverage_module

    asked = coverage_module.CoverageOptions(runs, minus, missing, lcov, html, source, json)
    coverage_module.run(asked)


@app.command()
def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="The directory of a run or a case.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The directory to compare it with.")],
    known: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Known differences to use instead of the shipped ones."),
    ] = None,
    json: Json = False,
) -> None:
    """Compare two recorded cases, or two recorded runs.

    What the guests did, counters and ledgers are compared.
    Status 0: no difference, or all are explained; 1: unexplained difference; 2: bad input.
    """
    from harness.compare.known import KnownDifferences
    from harness.compare.recordings import diff_recorded
    from harness.report.text.diff_report import diff_json, diff_report
    from harness.report.text.render import show

    rules = KnownDifferences.in_folders(known) if known else KnownDifferences.shipped()
    found = diff_recorded(a, b, rules)
    if json:
        print_json(diff_json(found))
    else:
        show(printer(), diff_report(found))
    sys.exit(found.exit_status)


@app.command()
def collect(
    pid: Annotated[int | None, typer.Option(min=1, help="The process of the VM's QEMU.")] = None,
    qmp: Annotated[
        Path | None, typer.Option(metavar="SOCKET", help="The UNIX socket of its QMP monitor.")
    ] = None,
    domain: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its name in libvirt, for its XML.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=3600, help="How long to look at it.")
    ] = 5.0,
    guest_interrupts: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Snapshots of the guest's /proc/interrupts; repeatable."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The archive.")] = None,
    no_redact: Annotated[
        bool, typer.Option("--no-redact", help="Leave names, addresses and paths in it.")
    ] = False,
    redact: Annotated[
        Path | None,
        typer.Option(metavar="ARCHIVE", help="Only make a redacted copy of an archive."),
    ] = None,
    print_script: Annotated[
        bool,
        typer.Option("--print-script", help="Only print a shell script that does it elsewhere."),
    ] = False,
) -> None:
    """Collect what can be read of a running VM, in an archive for explain.

    Each source is optional: what was not read is reported, with the reason. Names of persons and
    hosts, addresses, serial numbers and paths are replaced.
    """
    from harness.commands import collect as command

    if print_script:
        sys.stdout.write(command.script())
        return
    if redact is not None:
        lines = command.run_redact(redact, out)
    else:
        asked = command.CollectOptions(
            pid, qmp, domain, seconds, tuple(guest_interrupts or ()), out, not no_redact
        )
        lines = _run_async(command.run(asked), None)
    for line in lines:
        printer().print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def explain(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE...", help="Snapshots, logs, traces, command line, XML ..."),
    ] = None,
    as_: Annotated[
        list[str] | None,
        typer.Option("--as", metavar="KIND:FILE", help="A file, and what it is."),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.001, help="Time between two snapshots, or that a table counted."),
    ] = None,
    events: Annotated[
        int | None,
        typer.Option(min=1, help="Keep the account of only the first N events of a trace."),
    ] = None,
    reproduce: Annotated[
        bool,
        typer.Option("--reproduce", help="Run the nearest guest in the lab: does the same show?"),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Directory for what --reproduce runs.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Number of cases run at the same time.")
    ] = None,
    verbose: Verbose = False,
    json: Json = False,
) -> None:
    """Explain a machine from what its user has at hand.

    /proc/interrupts, dmesg, perf kvm stat, perf stat, kvm_stat, traces, info pic/lapic/irq,
    query-stats, QEMU's command line, libvirt's XML, lspci. No QEMU or KVM is needed, but for
    --reproduce.
    Status 0: nothing unusual; 1: something is; 2: no file could be read. With --reproduce 0: it
    does not show here; 1: it does; 3: the VM's mode gives no answer here.
    """
    from harness.commands import explain as command
    from harness.report.text.explain_report import explain_json, explain_report
    from harness.report.text.render import show

    asked = command.ExplainOptions(tuple(files or ()), tuple(as_ or ()), seconds, events)
    if not reproduce and (out is not None or jobs is not None):
        raise typer.BadParameter("it goes with --reproduce", param_hint="--out/--jobs")
    answer = command.run(asked)
    if reproduce:
        from harness.commands import explain_here

        here = explain_here.HereOptions(out, jobs or default_jobs(), verbose, json)
        err = printer(stderr=True)
        sys.exit(explain_here.run(answer, here, printer(), err, _run_async))
    if json:
        print_json(explain_json(answer))
    else:
        show(printer(), explain_report(answer, verbose=verbose))
    sys.exit(0 if answer.is_quiet else 1)


@app.command()
def judge(
    path: Annotated[Path, typer.Argument(metavar="DIR", help="The directory of a run or a case.")],
    known: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Known differences to use instead of the shipped ones."),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Replace the run's verdicts and findings.")
    ] = False,
    json: Json = False,
) -> None:
    """Judge recorded cases again and show what changes.

    Only the recordings are read: no QEMU or KVM is needed. Status 0: the results of the run are
    confirmed; 1: some differ; 2: no recording.
    """
    from harness.commands import judge as judge_module
    from harness.compare.known import KnownDifferences
    from harness.report.text.judge_report import judge_json, judge_report
    from harness.report.text.render import show

    rules = KnownDifferences.in_folders(known) if known else KnownDifferences.shipped()
    found = judge_module.judge(path, rules, write=write)
    if json:
        print_json(judge_json(found))
    else:
        show(printer(), judge_report(found))
    sys.exit(found.exit_status)


@app.command()
def replay(
    case_dir: Annotated[
        Path, typer.Argument(help="The directory of a case, inside that of a run.")
    ],
    json: Json = False,
) -> None:
    """Replay a recorded case on the Python chips.

    Every event is compared with what the chips predict. Status 0: no divergence; 1: diverged;
    2: bad or incomplete input; 3: cannot be replayed.
    """
    from harness.replay.replay import ReplayOutcome, replay_case
    from harness.report.text.render import show
    from harness.report.text.replay_report import replay_json, replay_report

    replayed = replay_case(case_dir)
    if json:
        print_json(replay_json(replayed))
    else:
        show(printer(), replay_report(replayed))
    status = {
        ReplayOutcome.AGREED: 0,
        ReplayOutcome.DIVERGED: 1,
        ReplayOutcome.INCOMPLETE: EXIT_BAD_USAGE,
    }
    sys.exit(status[replayed.outcome])


@app.command()
def repro(
    name: Annotated[
        str | None,
        typer.Argument(help="A reproducer of the catalogue, or a path to a YAML file."),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Print the catalogue.")] = False,
    kernel: Annotated[
        str | None, typer.Option(help="Kernel of the lab: a version or a path.")
    ] = None,
    qemu: Annotated[str | None, typer.Option(help="QEMU: system, a version or a path.")] = None,
    lane: Lane = None,
    out: Annotated[Path | None, typer.Option(help="Directory for the results.")] = None,
    bundle: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Pack everything into this .tar.zst.")
    ] = None,
    bisect: Annotated[
        bool, typer.Option("--bisect", help="For git bisect run: 0 good, 1 bad, 125 untestable.")
    ] = False,
    live: Annotated[
        bool, typer.Option("--live", help="With the live Python chips in place of QEMU.")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Number of cases run at the same time.")
    ] = None,
    json: Json = False,
) -> None:
    """Reproduce a difference of the catalogue.

    Status 0: as the catalogue says for these versions; 1: otherwise; 3: cannot run here.
    """
    from harness.commands import repro
    from harness.config import lanes

    console = printer(stderr=json)
    if list_:
        repro.show_catalogue(printer(), json=json)
        return
    if lane is not None:
        versions = lanes.named(lane)
        kernel, qemu = kernel or versions.kernel, qemu or versions.qemu
    asked = repro.ReproOptions(
        name, kernel, qemu, out, bundle, jobs or default_jobs(), bisect, json, live
    )
    sys.exit(repro.run(asked, console, _run_async))


@app.command()
def bisect(
    name: Annotated[str, typer.Argument(help="A reproducer, or a path to a YAML file.")],
    kernels: Annotated[
        str | None,
        typer.Option(help="Kernels of the lab: a range (6.1..6.12, oldest..newest) or a list."),
    ] = None,
    qemus: Annotated[str | None, typer.Option(help="QEMUs: a list (7.2,10.0) or a range.")] = None,
    out: Annotated[Path | None, typer.Option(help="Directory for the steps.")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Number of cases run at the same time.")
    ] = None,
    json: Json = False,
) -> None:
    """Find the versions between which a reproducer's answer changes.

    An interrupted search is resumed. Status 0: found; 3: both ends give the same answer.
    """
    from harness.commands import repro
    from harness.repro import bisect as bisect_module
    from harness.repro import catalogue

    plan = bisect_module.BisectRequest(
        catalogue.find(name), kernels, qemus, out, jobs or default_jobs()
    )
    sys.exit(_run_async(repro.bisect(plan, printer(stderr=json), json=json)))


@app.command()
def minimise(
    scenario: Annotated[str, typer.Argument(help="A scenario, or a reproducer with a scenario.")],
    backend: Annotated[
        str,
        typer.Option(
            metavar="SIDE",
            help="Backend that shows the difference: [PLACE:]MODE[,kernel=V][,qemu=V].",
        ),
    ],
    against: Annotated[
        str, typer.Option(metavar="SIDE", help="Reference backend, or `model`.")
    ] = "model",
    file: Annotated[
        Path | None, typer.Option(help="The file of the scenario, if it is not a shipped one.")
    ] = None,
    finding: Annotated[
        int, typer.Option(min=1, help="Number of the difference, if there are several.")
    ] = 1,
    machine: Annotated[Board | None, typer.Option(help="QEMU's machine type.")] = None,
    cpu: Annotated[str, typer.Option(help="QEMU's CPU model.")] = "qemu64",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the result here, not to SCENARIO-minimised.yaml."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Number of backends run at the same time.")
    ] = None,
    json: Json = False,
) -> None:
    """Shorten a scenario as much as possible while it still shows the same difference.

    Status 0: the result is written; 3: no difference, or the backend is not available here.
    """
    from harness.report.text.minimise_report import minimised_json, minimised_report
    from harness.report.text.render import show
    from harness.repro import minimise as minimise_module

    console = printer(stderr=json)
    count, board = jobs or default_jobs(), _machine(machine)
    request = minimise_module.MinimiseRequest(
        scenario, backend, against, file, finding, board, cpu, out, count
    )
    tell = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    found = _run_async(minimise_module.minimise(request, (lambda _: None) if json else tell))
    if json:
        print_json(minimised_json(found))
    else:
        show(console, minimised_report(found))


@app.command()
def fuzz(
    config: Annotated[
        str | None,
        typer.Argument(metavar="CONFIG", help="A campaign: a file, or a shipped one: campaign."),
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SIDE",
            help="Backend to run on: [PLACE:]MODE[,kernel=V][,qemu=V]; several are compared.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Which programs; 1, or the configuration's.")
    ] = None,
    programs: Annotated[int | None, typer.Option(min=1, help="How many, in all.")] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="For how long, before findings are finished.")
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="GRAMMAR", help="One grammar: a shipped one, or a file.")
    ] = None,
    machine: Annotated[
        Board | None, typer.Option(help="QEMU's machine type; q35, or the configuration's.")
    ] = None,
    cpu: Annotated[str | None, typer.Option(help="QEMU's CPU model.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Journal and findings; runs/NAME-SEED.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Go on with the campaign in DIR.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Number of labs up at the same time.")
    ] = None,
    coverage: Annotated[
        bool,
        typer.Option("--coverage", help="Keep the programs that reach new lines of KVM's chips."),
    ] = False,
    json: Json = False,
) -> None:
    """Run random programs and finish what differs.

    Options override CONFIG; --programs or --minutes replaces its limits.

    Status 0: nothing unexplained; 1: findings, each with a report to mail; 3: cannot run here.
    """
    from harness.commands import fuzz as fuzz_module
    from harness.fuzz import campaign_file

    request = campaign_file.overridden(
        campaign_file.asked_for(config, backend or ()),
        seed=seed,
        programs=programs,
        minutes=minutes,
        only=only,
        machine=_machine(machine),
        cpu=cpu,
    )
    asked = fuzz_module.FuzzOptions(request, out, resume, jobs or default_jobs(), json, coverage)
    sys.exit(_run_async(fuzz_module.run(asked, printer(stderr=json))))


def _machine(board: Board | None) -> Machine | None:
    """The machine type of that name, whose module takes a while to import."""
    from harness.model.case import Machine

    return None if board is None else Machine(board)


@app.command()
def vmm(
    image: Annotated[Path, typer.Argument(help="A multiboot image, or a Linux kernel (bzImage).")],
    irqchip: Annotated[
        LiveMode, typer.Option(help="on: KVM has all chips; split: the local APICs; off: none.")
    ],
    smp: Annotated[int, typer.Option(min=1, max=MAX_CPUS, help="Number of CPUs.")] = 1,
    append: Annotated[str, typer.Option(help="The guest's command line.")] = "",
    module: Annotated[
        list[Path] | None,
        typer.Option(
            "--module",
            "--initrd",
            metavar="FILE",
            help="A file beside the image, of Linux its initial RAM disk; may be repeated.",
        ),
    ] = None,
    memory: Annotated[int, typer.Option(metavar="MIB", help="Memory of the guest.")] = 256,
    timeout: Annotated[
        float | None, typer.Option(min=0.0, metavar="S", help="End the guest after S seconds.")
    ] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Print the chips' events to standard error.")
    ] = False,
    raw_status: Annotated[
        bool, typer.Option("--raw-status", help="Exit as QEMU would: (value << 1) | 1.")
    ] = False,
    debug_port: Annotated[
        list[str] | None,
        typer.Option(metavar="PORT", help="A port whose bytes are text [default: 0xe9]."),
    ] = None,
    delivery: Annotated[
        Delivery, typer.Option(help="split: by a pin's route and KVM_IRQ_LINE, or KVM_SIGNAL_MSI.")
    ] = "route",
    qemu: Annotated[Qemu, typer.Option(help="split: whose chips these are.")] = "7.2",
    x2apic: Annotated[
        bool, typer.Option("--x2apic", help="off: local APICs with x2APIC, which QEMU's lack.")
    ] = False,
    tsc_deadline: Annotated[
        bool, typer.Option("--tsc-deadline", help="CPUs with the TSC deadline timer.")
    ] = False,
    device: Annotated[str, typer.Option(metavar="FILE", help="KVM's device.")] = "/dev/kvm",
    host: Annotated[
        Literal["local", "lab"],
        typer.Option(help="local: the KVM of this machine; lab: a real one."),
    ] = "local",
    kernel: Annotated[str, typer.Option(help="lab: its kernel, a version or a path.")] = "default",
) -> None:
    """Run a guest on KVM with the Python chips as its interrupt controllers.

    Status 0: it passed, or ended by itself; 1: a check failed, or it cannot go on; 77: it skipped;
    124: out of time; 3: this machine cannot run it.
    """
    ports = tuple(port_number(text) for text in debug_port or ["0xe9"])
    options = Options(
        image=image,
        irqchip=irqchip,
        modules=tuple(module or ()),
        smp=smp,
        append=append,
        memory_mib=memory,
        timeout_s=timeout,
        trace=trace,
        raw_status=raw_status,
        debug_ports=ports,
        delivery=delivery,
        qemu=qemu,
        x2apic=x2apic,
        tsc_deadline=tsc_deadline,
        kvm=device,
    )
    if host == "lab":
        from harness.commands import vmm_lab

        sys.exit(_run_async(vmm_lab.run(options, vmm_lab.LabChoice(kernel))))
    from harness.commands import vmm

    sys.exit(vmm.run(options))


def port_number(text: str) -> int:
    """An I/O port as written, decimal or with 0x."""
    try:
        port = int(text, 0)
    except ValueError:
        port = -1
    if not 0 <= port <= 0xFFFF:
        raise typer.BadParameter(f"{text!r} is no I/O port: 0 to 0xffff", param_hint="--debug-port")
    return port


@app.command()
def history(
    what: Annotated[
        str | None,
        typer.Argument(metavar="CASE|FINDING", help="The id of a case, or the key of a finding."),
    ] = None,
    last: Annotated[int, typer.Option(min=1, metavar="N", help="Show the last N runs.")] = 30,
    store: Store = None,
    json: Json = False,
    add: Annotated[
        list[Path] | None, typer.Option(metavar="RUN", help="Enter the run in this directory.")
    ] = None,
    prune: Annotated[
        int | None,
        typer.Option(min=0, metavar="DAYS", help="Remove runs that are older, but baselines."),
    ] = None,
    export: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a table to FILE: .csv or .parquet.")
    ] = None,
    table: Annotated[
        Literal["runs", "cases", "findings", "values"], typer.Option(help="Which one to export.")
    ] = "cases",
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Plot counters over time: .svg, .png or .pdf."),
    ] = None,
    counter: Annotated[
        str | None,
        typer.Option(metavar="GLOB", help="Which counters to plot [default: rates of storms]."),
    ] = None,
) -> None:
    """Show the runs in the store, or what became of a case or a finding.

    Since when, in which versions, how often flaky.
    """
    from harness.commands import history as history_module

    path = history_module.path_of(store)
    if export is not None:
        typer.echo(f"{history_module.export(path, table, export)} rows in {export}")
    if plot is not None:
        shown, there = history_module.plot(path, what, counter, plot)
        typer.echo(f"{shown} of {there} counters in {plot}")
    if add:
        numbers = history_module.add(path, add)
        typer.echo(f"entered as run {', '.join(map(str, numbers))}")
    if prune is not None:
        removed = history_module.prune(path, prune)
        typer.echo(f"{len(removed)} runs removed")
    if not add and prune is None and export is None and plot is None:
        history_module.show_history(path, what, last, json=json)


@app.command()
def serve(
    store: Store = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8017,
    host: Annotated[str, typer.Option(help="The address to serve at.")] = "127.0.0.1",
    public: Annotated[
        bool, typer.Option("--public", help="Allow an address that others can reach.")
    ] = False,
) -> None:
    """Show the store as pages on this machine: runs, trends, findings. Ctrl-C ends it."""
    from harness.commands import history as history_module
    from harness.commands import serve as serve_module

    options = serve_module.ServeOptions(history_module.path_of(store), host, port, public)
    serve_module.serve(options, typer.echo)


@baseline_app.command("accept")
def baseline_accept(
    run: Annotated[str, typer.Argument(help="The number of a run, or its directory.")],
    name: Annotated[
        str | None, typer.Argument(help="What to call it [default: the configuration's name].")
    ] = None,
    store: Store = None,
) -> None:
    """Accept what a run saw as known."""
    from harness.commands import history as history_module

    found = history_module.accept(history_module.path_of(store), run, name)
    typer.echo(f"run {found.run} is the baseline {found.name!r}")


@images_app.command("list")
def images_list(
    available: Annotated[
        bool, typer.Option("--available", help="List what the archives offer instead.")
    ] = False,
    json: Json = False,
) -> None:
    """List the image cache, checked by hash, or what can be downloaded."""
    from harness.images.cache import ImageCache
    from harness.report.text.images_report import (
        images_json,
        images_table,
        offers_json,
        offers_table,
    )
    from harness.report.text.render import show

    cache = ImageCache()
    if available:
        offers, cached = cache.available(), cache.names()
        if json:
            print_json(offers_json(offers, cached))
        else:
            show(printer(), offers_table(offers, cached))
    elif json:
        print_json(images_json(cache.list()))
    else:
        show(printer(), images_table(cache.list()))


@images_app.command("build")
def images_build(
    kernel: Annotated[
        list[str] | None, typer.Option(help="A kernel: default, a version or a path.")
    ] = None,
    qemu: Annotated[
        list[str] | None, typer.Option(help="A QEMU: system, a version or a path.")
    ] = None,
    lane: Annotated[
        list[str] | None, typer.Option(help="The kernel and the QEMU of a lane: newest.")
    ] = None,
    refresh: Annotated[
        bool,
        typer.Option(
            "--refresh",
            help="Fetch newer versions of these, or of every cached series; keep the old ones.",
        ),
    ] = False,
) -> None:
    """Fetch kernels and QEMUs, and build the images of guests and labs."""
    from harness.config import lanes
    from harness.images.cache import ImageCache
    from harness.report.text.images_report import images_table
    from harness.report.text.render import show

    cache = ImageCache()
    of_lanes = [lanes.named(name) for name in lane or ()]
    kernels = [*(kernel or ()), *(each.kernel for each in of_lanes)]
    qemus = [*(qemu or ()), *(each.qemu for each in of_lanes)]
    if refresh:
        show(printer(), images_table(cache.refresh(kernels, qemus)))
        if not kernels and not qemus:
            return
    cache.build(kernels or ["default"], qemus or ["system"])
