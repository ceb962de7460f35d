"""Writes random scenarios of a grammar, as data of the scenario language.

The same seed and number mean the same scenario, whatever was written before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from harness.fuzz.grammar import CPU, PLACEHOLDER, Action, Choice, Grammar, Where
from harness.scenario.registers import ApicMode
from harness.scenario.shrink import Data

_LARGE: Final = 32


@dataclass(frozen=True)
class Written:
    """A scenario as its file would have it, and where it comes from."""

    name: str
    number: int
    grammar: Grammar
    data: Data


def write(seed: int, number: int, grammars: Sequence[Grammar]) -> Written:
    """Scenario ``number`` of ``seed``."""
    random = Random(f"{seed}:{number}")
    grammar = random.choices(grammars, [one.weight for one in grammars])[0]
    return Written(f"fuzz-{seed}-{number}", number, grammar, _Author(random, grammar).scenario())


@dataclass
class _Author:
    """Writes one scenario; ``modes`` are those of the CPUs' local APICs at this step."""

    random: Random
    grammar: Grammar
    modes: list[ApicMode] = field(default_factory=list)

    def scenario(self) -> Data:
        grammar = self.grammar
        cpus, mode = int(self._draw(grammar.cpus)), ApicMode(self._draw(grammar.modes))
        self.modes = [mode] * cpus
        data: Data = {"about": f"a random program of the grammar {grammar.name}"}
        data |= {"cpus": cpus, "mode": mode.value}
        data |= {"interrupts": self._draw(grammar.interrupts)}
        data |= {"needs": list(grammar.needs)} if grammar.needs else {}
        data |= {"machines": list(grammar.machines)} if grammar.machines else {}
        data |= {"model": grammar.model} if grammar.model is not None else {}
        data["handlers"] = self._handlers()
        data["steps"] = [self._made([one], {CPU: 0})[0] for one in grammar.begin]
        data["steps"] += [
            step
            for _ in range(self.random.randint(*grammar.steps))
            if (step := self._step()) is not None
        ]
        data["steps"] += [self._made([one], {CPU: 0})[0] for one in grammar.end]
        return data

    def _step(self) -> Any:
        """One step; None where no action fits."""
        cpu = self.random.randrange(len(self.modes))
        action = self._action(Where.STEPS, self.modes[cpu])
        if action is None:
            return None
        actions = self._made(action.templates, {CPU: cpu})
        if action.becomes is not None:
            self.modes[cpu] = action.becomes
        return actions[0] if len(actions) == 1 else {"do": actions}

    def _action(self, where: Where, mode: ApicMode) -> Action | None:
        fitting = [
            action
            for action in self.grammar.actions
            if where in action.where and mode in action.modes and action.cpus <= len(self.modes)
        ]
        if not any(action.weight for action in fitting):
            return None
        return self.random.choices(fitting, [action.weight for action in fitting])[0]

    def _handlers(self) -> dict[int | str, Any]:
        shape = self.grammar.handlers
        vectors = self.grammar.values.get("vector")
        own: dict[int | str, Any] = {
            vector: self._handler()
            for vector in sorted(set(vectors.values if vectors is not None else ()))
            if self.random.random() < shape.probability
        }
        own["default"] = self._filled(shape.default, {CPU: 0})
        if self.random.random() < shape.nmi:
            body = self._body(Where.NMI, self.random.choice((1, 2, 3)))
            own["nmi"] = {"do": body, "limit": self.random.choice((2, 3))}
        return own

    def _handler(self) -> dict[str, Any]:
        shape = self.grammar.handlers
        body = self._body(Where.HANDLERS, int(self._draw(shape.actions)))
        if self.random.random() < shape.sti:
            body.insert(0, "sti")
        handler: dict[str, Any] = {"eoi": self._draw(shape.eoi), "do": body}
        if self.random.random() < shape.first:
            first = self._body(Where.HANDLERS, 1)
            handler["first"] = {"times": 1, "do": first, "eoi": self._draw(shape.eoi)}
        if (log := self._draw(shape.log)) != "full":
            handler["log"] = log
        pins = self.grammar.values.get("pin")
        if pins is not None and (number := int(self._draw(shape.pins))):
            handler["pins"] = sorted({self._draw(pins) for _ in range(number)})
        handler["limit"] = self._draw(shape.limit)
        return handler

    def _body(self, where: Where, number: int) -> list[Any]:
        """Actions of a handler, which runs on whichever CPU takes the interrupt."""
        body: list[Any] = []
        for _ in range(number):
            action = self._action(where, self.modes[0])
            if action is not None:
                for one in self._made(action.templates, {CPU: 0}):
                    body.append(_without_cpu(one))
        return body

    # --- templates

    def _draw(self, choice: Choice) -> Any:
        return self.random.choices(choice.values, choice.weights)[0]

    def _made(self, templates: Sequence[Any], drawn: dict[str, Any]) -> list[Any]:
        """The actions of one step; what is drawn for one of them counts for all."""
        return [self._filled(template, drawn) for template in templates]

    def _filled(self, template: Any, drawn: dict[str, Any]) -> Any:
        if isinstance(template, dict):
            return {
                self._filled(key, drawn): self._filled(value, drawn)
                for key, value in template.items()
            }
        if isinstance(template, list):
            return [self._filled(one, drawn) for one in template]
        if not isinstance(template, str):
            return template
        if (whole := PLACEHOLDER.fullmatch(template)) is not None:
            return self._value(whole[1], drawn)
        return PLACEHOLDER.sub(lambda found: _text(self._value(found[1], drawn)), template)

    def _value(self, name: str, drawn: dict[str, Any]) -> Any:
        if name not in drawn:
            drawn[name] = self._filled(self._draw(self.grammar.values[name]), drawn)
        return drawn[name]


def _text(value: Any) -> str:
    """A value as a part of a word: numbers of pins in decimal, addresses in hexadecimal."""
    return f"{value:#x}" if isinstance(value, int) and value >= _LARGE else str(value)


def _without_cpu(action: Any) -> Any:
    if not isinstance(action, dict) or "cpu" not in action:
        return action
    rest = {key: value for key, value in action.items() if key != "cpu"}
    (key, value), *_ = rest.items()
    return key if value is None else rest
