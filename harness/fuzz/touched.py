"""What a scenario touches: registers without their numbers, stimuli, handlers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from harness.scenario.shrink import Data

_INDEX = re.compile(r"\.(?:0x[0-9a-f]+|[0-9]+)(?=\.|$)")
_GROUPS = ("do", "repeat", "parallel")


def words(data: Data) -> tuple[str, ...]:
    """What a scenario touches: registers without their numbers, stimuli, handlers."""
    found = set(_of_actions(data.get("steps", ())))
    for vector, handler in data.get("handlers", {}).items():
        inside = set(_of_actions((handler or {}).get("do", ())))
        if first := (handler or {}).get("first"):
            inside |= set(_of_actions(first.get("do", ())))
        kind = "nmi handler" if vector == "nmi" else "handler"
        found |= {f"{kind}: {word}" for word in inside}
    if data.get("mode") == "x2apic":
        found.add("x2apic mode")
    return tuple(sorted(found))


def _of_actions(actions: Any) -> Iterator[str]:
    if isinstance(actions, dict):  # of parallel, or of one action
        for value in actions.values():
            yield from _of_actions(value)
        return
    for action in actions:
        if isinstance(action, str):
            yield action
            continue
        for key, value in action.items():
            if key in ("cpu", "label"):
                continue
            if key == "repeat":
                yield from _of_actions(value["do"])
            elif key in _GROUPS:
                yield from _of_actions(value)
            elif key in ("read", "discard"):
                yield from (f"read {_register(one)}" for one in _targets(value))
            else:
                yield _verb(key, value)


def _targets(value: Any) -> Iterator[str]:
    for one in value if isinstance(value, list) else [value]:
        yield next(iter(one)) if isinstance(one, dict) else str(one)


def _verb(key: str, value: Any) -> str:
    """A register or a stimulus, with its delivery mode where that is a special one."""
    mode = value.get("mode") if isinstance(value, dict) else None
    special = f" {mode}" if isinstance(mode, str) and mode != "fixed" else ""
    return f"{_register(key)}{special}"


def _register(name: str) -> str:
    """Without index and half: ``ioapic.redir``; addresses, ports and MSRs are what they are."""
    if name.split(".")[0] in ("io", "mem", "msr"):
        return name
    return _INDEX.sub("", name).removesuffix(".low").removesuffix(".high")
