"""Chip states: cheap copies, and JSON that any later version can check before it loads it.

A state is a dataclass whose fields are ints, bools, strings, None, enums, or lists, tuples and
dicts of those, or further states.  Nothing else is needed to describe a chip.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

State = TypeVar("State")

_NAMES: dict[type, tuple[str, ...]] = {}


def copy_state(state: State) -> State:
    """An independent copy: lists, dicts and nested states are copied, the rest is immutable."""
    kind = type(state)
    names = _NAMES.get(kind)
    if names is None:
        names = _NAMES[kind] = tuple(field.name for field in fields(kind))  # type: ignore[arg-type]
    new = kind.__new__(kind)
    for name in names:
        value: Any = getattr(state, name)
        if type(value) not in _IMMUTABLE:
            value = _COPIERS.get(type(value), _copy_other)(value)
        setattr(new, name, value)
    return new


def _copy_list(value: list[Any]) -> list[Any]:
    if value and type(value[0]) not in _IMMUTABLE:
        return [_COPIERS.get(type(item), _copy_other)(item) for item in value]
    return value.copy()


def _copy_dict(value: dict[Any, Any]) -> dict[Any, Any]:
    return {key: _COPIERS.get(type(item), _copy_other)(item) for key, item in value.items()}


def _copy_other(value: Any) -> Any:
    return copy_state(value) if hasattr(type(value), "__dataclass_fields__") else value


_IMMUTABLE = frozenset({int, bool, str, type(None)})
_COPIERS: dict[type, Any] = {list: _copy_list, dict: _copy_dict}
