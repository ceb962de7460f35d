"""Random programs that can be compared: those that compile and whose log is defined.

A program whose log depends on the order between CPUs or on speed is none
(:func:`~harness.scenario.authoring.authoring_problems`), and neither is one that waits in vain or
leaves a machine that only a new boot can reset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from harness.base.errors import CannotRun, ConfigError, PredictionError
from harness.base.yamlfile import YamlFile
from harness.fuzz.author import Written, write
from harness.fuzz.grammar import Grammar
from harness.fuzz.laws import LEAST_VECTOR
from harness.scenario import compile as scenario_compile
from harness.scenario import language
from harness.scenario.authoring import authoring_problems
from harness.scenario.execution import Execution
from harness.scenario.log import Log
from harness.scenario.predict import features
from harness.scenario.program import Scenario
from harness.scenario.shrink import Data
from userspace_chip.architecture import Board
from userspace_chip.irqchip import Machine
from userspace_chip.profile import Profile

BARREN: Final = 200
"""Number of refused programs in a row after which a grammar generates nothing."""
NO_BACKEND: Final = "no backend has what it needs"
"""A refusal that says nothing of a grammar, while another one generates something."""


@dataclass(frozen=True)
class Program:
    """A random program, and what is predicted of it on each profile that was asked for."""

    written: Written
    scenario: Scenario
    predicted: Mapping[Profile, Log | None]
    """Empty where the Python chips cannot tell; None for a backend that lacks what it needs."""

    @property
    def name(self) -> str:
        """Its id in every report."""
        return self.written.name


@dataclass(frozen=True)
class Refused:
    """A random program that cannot be compared."""

    grammar: str
    why: str


@dataclass
class Source:
    """The programs of a seed, one number after the other.

    ``refused``: how many programs of a grammar were refused, and why.
    """

    seed: int
    grammars: Sequence[Grammar]
    profiles: Sequence[Profile]
    board: Board = "pc"
    machine: str = "q35"
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    _in_a_row: Counter[str] = field(default_factory=Counter)
    _all_in_a_row: int = 0

    def programs(self, first: int = 0) -> Iterator[Program]:
        """Programs from number ``first`` on, without end.

        :class:`CannotRun` where a grammar gives none.
        """
        number = first
        while True:
            program = self.program(number)
            if program is not None:
                yield program
            number += 1

    def program(self, number: int) -> Program | None:
        """The program of that number; None where there is none that can be compared."""
        return self.take(self.examine(number))

    def examine(self, number: int) -> Program | Refused:
        """The program of that number, or why there is none; remembers nothing."""
        written = write(self.seed, number, self.grammars)
        found = self._checked(written)
        return found if isinstance(found, Program) else Refused(written.grammar.name, found)

    def take(self, found: Program | Refused) -> Program | None:
        """What was examined next, in the order of the numbers; refusals are counted.

        :class:`CannotRun` where a grammar gives none.
        """
        if isinstance(found, Program):
            self._in_a_row[found.written.grammar.name] = self._all_in_a_row = 0
            return found
        name = found.grammar
        self.refused[name, found.why] += 1
        self._all_in_a_row += 1
        self._in_a_row[name] += found.why != NO_BACKEND
        if self._in_a_row[name] >= BARREN or self._all_in_a_row >= BARREN * len(self.grammars):
            counts = ((why, n) for (of, why), n in self.refused.most_common() if of == name)
            raise CannotRun(
                f"the grammar {name} generates nothing",
                f"{max(self._in_a_row[name], self._all_in_a_row)} programs in a row were refused",
                "; ".join(f"{n} times: {why}" for why, n in counts),
            )
        return None

    def _checked(self, written: Written) -> Program | str:
        """The program, or why there is none."""
        if written.grammar.machines and self.machine not in written.grammar.machines:
            return f"it is not for the machine {self.machine}"
        try:
            scenario = compiled(written.name, written.data)
        except ConfigError as error:
            return error.what.rpartition(": ")[2]
        if scenario.no_model is not None:
            return Program(written, scenario, {})
        predicted: dict[Profile, Log | None] = {}
        for profile in dict.fromkeys(self.profiles):
            log = self._sound(scenario, profile)
            if isinstance(log, str):
                return log
            predicted[profile] = log
        if predicted and all(log is None for log in predicted.values()):
            return NO_BACKEND
        return Program(written, scenario, predicted)

    def _sound(self, scenario: Scenario, profile: Profile) -> Log | str | None:
        """The program's log on ``profile``, or why it is not defined; None: it would be skipped."""
        program = scenario.program
        if program.needs & ~features(profile, self.board):
            return None
        try:
            execution = Execution(
                program, profile, board=self.board, cpus=program.cpus, look_ahead=True
            )
            log = execution.run()
            if _stops_the_clock(execution.machine):
                return "it stops the RTC's pin until the next boot"
            problems = authoring_problems(program, profile, log, board=self.board, first=execution)
        except PredictionError as error:
            return error.what.partition(", ")[2] or error.what
        return problems[0].kind if problems else log


def examined(source: Source, numbers: Sequence[int]) -> list[Program | Refused]:
    """:meth:`Source.examine` of each: what a process of its own is asked for."""
    return [source.examine(number) for number in numbers]


def compiled(name: str, data: Data, path: Path = Path("fuzz")) -> Scenario:
    """A scenario that is data; :class:`ConfigError` where it is impossible."""
    file = YamlFile(path, {"version": 1, "scenarios": {name: data}}, {})
    (text,) = language.read(file)
    return scenario_compile.compile_text(text)


def _stops_the_clock(machine: Machine) -> bool:
    """Whether KVM waits for more EOIs of the RTC's pin than will come: a new boot would help.

    None comes for an NMI, after an INIT, and of a vector that no CPU takes.
    """
    state = machine.ioapics[0].state
    coming = sum(
        vector >= LEAST_VECTOR and (lapic.state.irr | lapic.state.isr) >> vector & 1
        for cpu, vector in state.rtc_dest_map.items()
        for lapic in (machine.lapics[cpu],)
    )
    return state.rtc_pending_eoi > coming
