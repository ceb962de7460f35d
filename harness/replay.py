"""Replay: a recorded case, event by event, against the Python chips.

``events.jsonl`` is streamed: what KVM recorded of the chips' inputs drives a
:class:`~userspace_chip.irqchip.Machine` in the case's own profile, and everything else that KVM
recorded has to be what the machine predicts (:mod:`harness.stimuli`).  The first event that is not
ends the replay: it is a divergence, unless something is missing from the recording before it.

``off`` and ``tcg`` cannot be replayed: QEMU's trace events of those modes do not say when a CPU
takes an interrupt.  In ``split`` the events of QEMU's own chips are context; what those chips do to
KVM is compared.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from harness import casefile
from harness.case import Irqchip
from harness.case import Machine as MachineType
from harness.casefile import CaseFile
from harness.errors import CollectError, ReplayRefused, StoreError
from harness.eventlog import EventLogReader, LogReport
from harness.stimuli import DisagreementError, Stimuli, What, concerns_chips
from harness.versions import parse_version
from userspace_chip.events import Event, event_type
from userspace_chip.irqchip import Machine
from userspace_chip.profile import LINUX_VERSIONS, QEMU_VERSIONS, profile
from userspace_chip.snapshot import to_json

CONTEXT: Final = 20
"""So many events are shown on either side of a divergence."""
LOOKAHEAD: Final = 1000
"""A thread's next event is looked for so far; what stays away longer does not come."""

RULES: Final[Mapping[str, tuple[str, ...]]] = {
    "kvm_set_irq": ("routing.Router.set_irq",),
    "kvm_ioapic_set_irq": ("ioapic.Ioapic.set_irq",),
    "kvm_ioapic_delayed_eoi_inj": ("ioapic.Ioapic.eoi",),
    "kvm_pic_set_irq": ("pic.Pic.set_irq",),
    "kvm_msi_set_irq": ("routing.Router.decode", "vcpu.Vcpu.scan_ioapic"),
    "kvm_apic": ("lapic.Lapic.read_mmio", "lapic.Lapic.write_mmio", "lapic.Lapic.write_msr"),
    "kvm_apic_ipi": ("lapic.Lapic.write_mmio", "lapic.Lapic.write_msr"),
    "kvm_apic_accept_irq": ("delivery.KvmBus.deliver", "lapic.Lapic.accept"),
    "kvm_eoi": ("lapic.Lapic.eoi",),
    "kvm_pv_eoi": ("vcpu.Vcpu.exit",),
    "kvm_ack_irq": ("ioapic.Ioapic.eoi", "pic.Pic.intack", "irqchip.Machine.notify_ack"),
    "kvm_inj_virq": ("vcpu.Vcpu._enter_kvm",),
    "kvm_userspace_exit": ("vcpu.Vcpu._enter_kvm", "lapic.Lapic.eoi"),
    "kvm_msr": ("irqchip.Machine.msr_write",),
    "kvm_mmio": ("ioapic.Ioapic.read", "ioapic.Ioapic.write"),
    "kvm_pio": ("pic.Pic.read", "pic.Pic.write"),
}
"""Where in ``userspace_chip`` each event is decided; the sources are named there."""

_CHIPS: Final[Mapping[str, tuple[str, ...]]] = {
    "kvm_set_irq": ("ioapic", "pic"),
    "kvm_ioapic_set_irq": ("ioapic",),
    "kvm_ioapic_delayed_eoi_inj": ("ioapic",),
    "kvm_pic_set_irq": ("pic",),
    "kvm_msi_set_irq": ("ioapic", "vcpu"),
    "kvm_ack_irq": ("ioapic", "pic"),
    "kvm_inj_virq": ("lapic", "vcpu"),
    "kvm_userspace_exit": ("lapic", "vcpu", "ioapic"),
    "kvm_mmio": ("ioapic",),
    "kvm_pio": ("pic",),
}
_LAPIC_ONLY: Final = ("lapic",)


class Outcome(StrEnum):
    """What a replay found."""

    AGREED = "agreed"
    DIVERGED = "diverged"
    INCOMPLETE = "incomplete"
    """The recording has gaps or ends too early: nothing can be said of what follows them."""


class Line(NamedTuple):
    """An event and its line in the log, from 1."""

    number: int
    event: Event


@dataclass(frozen=True)
class Divergence:
    """The first disagreement.  ``recorded`` is None where the recording ended instead."""

    why: str
    recorded: Line | None
    predicted: tuple[str, ...]
    """What the model expected in that thread, as the tracer would print it."""
    before: tuple[Line, ...]
    after: tuple[Line, ...]
    states: Mapping[str, str]
    """The model's state of the chips concerned, each as a line of JSON."""
    rules: tuple[str, ...]
    """The functions of ``userspace_chip`` that decided."""


@dataclass(frozen=True)
class Replayed:
    """``predicted`` events came out of the machine, which was fed with ``stimuli``.

    ``skipped`` ones came before the first CPU's first; QEMU's own are ``not_compared``.
    """

    outcome: Outcome
    predicted: int
    stimuli: int
    skipped: int
    not_compared: int
    divergence: Divergence | None
    warnings: tuple[str, ...]

    @property
    def compared(self) -> int:
        """Events of KVM that were fed or predicted."""
        return self.predicted + self.stimuli


def replay_case(directory: Path, *, max_lines: int | None = None) -> Replayed:
    """Replay the case in ``directory``, or the first ``max_lines`` of its log.

    :class:`ReplayRefused` where nothing can be said, :class:`StoreError` and :class:`CollectError`
    for a folder or a log that cannot be used.
    """
    case = casefile.read(directory)
    machine, warnings = machine_of(case)
    path = directory / "events.jsonl"
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return Replay(machine, warnings).run(islice(file, max_lines))
    except OSError as error:
        raise StoreError(f"cannot read {path}", error.strerror, "run the case again") from None


def machine_of(case: CaseFile) -> tuple[Machine, tuple[str, ...]]:
    """The machine that ``case`` ran on, and what is not quite right about it.

    A version that the model does not know is taken for the latest one before it.
    """
    if case.irqchip is Irqchip.OFF or case.irqchip is Irqchip.TCG or case.linux is None:
        raise ReplayRefused(
            f"a case of irqchip mode {case.irqchip} cannot be replayed",
            "QEMU's trace events of this mode do not show when a CPU takes an interrupt",
            "on and split can be",
        )
    qemu, other_qemu = _nearest("QEMU", case.qemu, QEMU_VERSIONS)
    linux, other_linux = _nearest("Linux", case.linux, LINUX_VERSIONS)
    subject = profile("on" if case.irqchip is Irqchip.ON else "split", qemu=qemu, linux=linux)
    is_microvm = case.machine is MachineType.MICROVM
    machine = Machine(subject, case.smp, board="microvm" if is_microvm else "pc")
    return machine, (*other_qemu, *other_linux)


_V = TypeVar("_V", bound=str)


def _nearest(what: str, text: str, known: tuple[_V, ...]) -> tuple[_V, tuple[str, ...]]:
    try:
        version = parse_version(text)
    except ValueError as error:
        raise StoreError(f"the version of {what}", str(error), "run the case again") from None
    earlier = [name for name in known if parse_version(name) <= version]
    chosen = earlier[-1] if earlier else known[0]
    bound = parse_version(chosen)
    if version[: len(bound)] == bound:
        return chosen, ()
    return chosen, (f"{what} {text} is not modelled: taken for {chosen}",)


class Replay:
    """One replay of one log, with memory for a window of it."""

    def __init__(self, machine: Machine, warnings: Iterable[str] = ()) -> None:
        self._stimuli = Stimuli(machine)
        self._machine = machine
        self._warnings = list(warnings)
        self._reader = EventLogReader()
        self._skipped = self._not_compared = 0
        self._doubt: tuple[int, str] | None = None
        """From which line on nothing is sure, and why."""
        self._touched: dict[int | None, int] = {}
        """By thread, the line after which something has been outstanding."""

    def run(self, lines: Iterable[str]) -> Replayed:
        """Replay the log in ``lines``, which have their line ends."""
        window = _Window(self._of_chips(lines))
        number = 0
        for number, event in window:
            if event.source != "kvm":
                self._not_compared += event.source == "qemu"
                continue
            self._check_thread(number, event)
            try:
                if not self._stimuli.feed(event, window.following):
                    self._touched[event.vcpu] = number
            except DisagreementError as error:
                self._refuse_virtualised(event)
                return self._ended(self._divergence(error, Line(number, event), window))
        if not self._stimuli.count:
            raise ReplayRefused(
                "there is nothing to replay",
                "KVM traced no CPU's events",
                "see why in the case's counters.json, under missing",
            )
        return self._ended(self._missing_at_end(number, window))

    def _of_chips(self, lines: Iterable[str]) -> Iterator[Line]:
        """The events that matter, from the first CPU's first of KVM's on."""
        reader, started, last_ns = self._reader, False, 0
        for event in reader.events(lines):
            if event.time_ns < last_ns:
                self._note_doubt(reader.lines, "the times go back")
            last_ns = event.time_ns
            if event.name == "lost":
                self._note_doubt(reader.lines, f"{event.text}: the tracer says so")
            elif event.source == "kvm" and not concerns_chips(event):
                continue
            if not started:
                started = event.source == "kvm" and event.vcpu is not None
                if not started:
                    self._skipped += 1
                    continue
            yield Line(reader.lines, event)

    def _note_doubt(self, number: int, why: str) -> None:
        if self._doubt is None:
            self._doubt = number, why

    def _check_thread(self, number: int, event: Event) -> None:
        if event.vcpu is not None and event.vcpu >= len(self._machine.vcpus):
            raise CollectError(
                f"line {number} is of vCPU {event.vcpu}",
                f"the case has {len(self._machine.vcpus)}",
                "events.jsonl and case.json are not of the same case",
            )

    @staticmethod
    def _refuse_virtualised(event: Event) -> None:
        if event.name == "kvm_apicv_accept_irq":
            raise ReplayRefused(
                "the case cannot be replayed",
                "its APIC is virtualised by the processor (APICv, AVIC), which injects by itself",
                "reload kvm_intel with enable_apicv=0, or kvm_amd with avic=0, and run it again",
            )

    def _divergence(self, error: DisagreementError, found: Line, window: _Window) -> Divergence:
        name, vcpu = found.event.name, found.event.vcpu
        wanted = error.predicted[0][0] if error.predicted else name
        names = (wanted, name) if wanted != name else (name,)
        return Divergence(
            why=error.why,
            recorded=found,
            predicted=tuple(map(_text, error.predicted)),
            before=window.before(),
            after=window.after(),
            states=self._states(names, vcpu),
            rules=_rules(names),
        )

    def _missing_at_end(self, last: int, window: _Window) -> Divergence | None:
        """What never came; where the log ends meanwhile it may just have been cut off."""
        for vcpu, rest in self._stimuli.outstanding.items():
            if last - self._touched[vcpu] < LOOKAHEAD:
                self._note_doubt(last, "the recording ends where more was to come")
            where = "another thread" if vcpu is None else f"the thread of vCPU {vcpu}"
            names = (rest[0][0],)
            return Divergence(
                why=f"it never came in {where}, since line {self._touched[vcpu]}",
                recorded=None,
                predicted=tuple(map(_text, rest)),
                before=window.last(),
                after=(),
                states=self._states(names, vcpu),
                rules=_rules(names),
            )
        return None

    def _states(self, names: Iterable[str], vcpu: int | None) -> dict[str, str]:
        cpu, machine = vcpu or 0, self._machine
        chips: dict[str, tuple[str, Any]] = {
            "lapic": (f"lapic{cpu}", machine.lapics[cpu]),
            "vcpu": (f"vcpu{cpu}", machine.vcpus[cpu]),
            "ioapic": ("ioapic0", machine.ioapics[0]),
            "pic": ("pic", machine.pic),
        }
        kinds = dict.fromkeys(kind for name in names for kind in _CHIPS.get(name, _LAPIC_ONLY))
        return {chips[kind][0]: _one_line(chips[kind][1].state) for kind in kinds}

    def _ended(self, divergence: Divergence | None) -> Replayed:
        report = self._reader.report
        self._note_damage(report)
        at = None if divergence is None else divergence.recorded
        outcome = Outcome.AGREED
        if divergence is not None:
            line = report.lines if at is None else at.number
            doubted = self._doubt is not None and self._doubt[0] <= line
            outcome = Outcome.INCOMPLETE if doubted else Outcome.DIVERGED
        elif report.truncated:
            outcome = Outcome.INCOMPLETE
        count = self._stimuli.count
        return Replayed(
            outcome=outcome,
            predicted=count["predicted"],
            stimuli=count["stimuli"],
            skipped=self._skipped,
            not_compared=self._not_compared,
            divergence=divergence,
            warnings=tuple(self._warnings),
        )

    def _note_damage(self, report: LogReport) -> None:
        if report.truncated:
            self._warnings.append(f"the log is cut off in line {report.lines}")
            self._note_doubt(report.lines, "the log is cut off")
        if report.damaged:
            first = report.examples[0].number
            self._warnings.append(f"{report.damaged} damaged lines, the first is {first}")
            if self._doubt is None or first < self._doubt[0]:
                self._doubt = first, "a damaged line"
        if report.unknown:
            names = ", ".join(sorted(report.unknown))
            self._warnings.append(
                f"{sum(report.unknown.values())} events of unknown types: {names}"
            )
        if self._doubt is not None:
            number, why = self._doubt
            self._warnings.append(f"from line {number} on a disagreement proves nothing: {why}")


class _Window:
    """A stream of lines with a view of what is before and behind."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._ahead: deque[Line] = deque()
        self._behind: deque[Line] = deque(maxlen=CONTEXT + 1)

    def __iter__(self) -> Iterator[Line]:
        ahead, behind = self._ahead, self._behind
        while True:
            line = ahead.popleft() if ahead else next(self._lines, None)
            if line is None:
                return
            behind.append(line)
            yield line

    def following(self, vcpu: int) -> Iterator[Event]:
        """The next events of KVM's in the thread of ``vcpu``, within :data:`LOOKAHEAD`."""
        for line in self._next(LOOKAHEAD):
            if line.event.vcpu == vcpu and line.event.source == "kvm":
                yield line.event

    def _next(self, count: int) -> Iterator[Line]:
        for index in range(count):
            if index == len(self._ahead):
                line = next(self._lines, None)
                if line is None:
                    return
                self._ahead.append(line)
            yield self._ahead[index]

    def before(self) -> tuple[Line, ...]:
        """What came before the current line."""
        return tuple(self._behind)[:-1]

    def last(self) -> tuple[Line, ...]:
        """The last lines, the current one among them."""
        return tuple(self._behind)[-CONTEXT:]

    def after(self) -> tuple[Line, ...]:
        """What comes after the current line."""
        return tuple(islice(self._next(CONTEXT), CONTEXT))


def _text(what: What) -> str:
    name, args = what
    return f"{name}: {event_type(name).format(args)}"


def _rules(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(rule for name in names for rule in RULES.get(name, ())))


def _one_line(state: object) -> str:
    return json.dumps(json.loads(to_json(state))["state"])
