"""Chip states: cheap copies, and JSON that any later version can check before it loads it.

A state is a dataclass whose fields are ints, bools, strings, None, enums, or lists, tuples and
dicts of those, or further states or named tuples.  Nothing else is needed to describe a chip.

In JSON a state is an object of its fields, an enum its member's name, a named tuple of several
possible kinds an object with the kind as its only key, and a number above 2**53 a string in
hexadecimal, because not every JSON reader keeps all of its digits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

from userspace_chip.errors import StateError

State = TypeVar("State")

SCHEMA: Final = 1
"""Version of the JSON form."""

_EXACT_INT: Final = 1 << 53


# --- copies


def copy_state(state: State) -> State:
    """An independent copy: lists, dicts and nested states are copied, the rest is immutable."""
    kind = type(state)
    values, containers = _fields_of(kind)  # type: ignore[arg-type]
    copied = [*values(state)]
    for at in containers:
        value = copied[at]
        if type(value) not in _IMMUTABLE:
            copied[at] = _COPIERS.get(type(value), _copy_other)(value)
    return kind(*copied)


@cache
def _fields_of(kind: type[Any]) -> tuple[Callable[[Any], tuple[Any, ...]], tuple[int, ...]]:
    """What gives all its fields, and which of them may hold something to be copied."""
    names = [field.name for field in fields(kind)]
    hints = get_type_hints(kind)
    plain = {int, bool, str, NoneType}
    containers = tuple(
        at for at, name in enumerate(names) if not plain.issuperset(_members(hints[name]))
    )
    get = attrgetter(*names) if len(names) > 1 else lambda state: (getattr(state, names[0]),)
    return get, containers


def _members(hint: Any) -> tuple[Any, ...]:
    """The types of a union; a type alone is one."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _copy_list(value: list[Any]) -> list[Any]:
    if value and type(value[0]) not in _IMMUTABLE:
        return [_COPIERS.get(type(item), _copy_other)(item) for item in value]
    return value.copy()


def _copy_dict(value: dict[Any, Any]) -> dict[Any, Any]:
    if value and type(next(iter(value.values()))) not in _IMMUTABLE:
        return {key: _COPIERS.get(type(item), _copy_other)(item) for key, item in value.items()}
    return value.copy()


def _copy_other(value: Any) -> Any:
    return copy_state(value) if hasattr(type(value), "__dataclass_fields__") else value


_IMMUTABLE: Final = frozenset({int, bool, str, NoneType})
_COPIERS: Final[dict[type, Any]] = {list: _copy_list, dict: _copy_dict}


# --- JSON


def to_json(state: object, **head: str | int | None) -> str:
    """``state`` as JSON text; ``head`` are further keys beside it (which profile, which time)."""
    return json.dumps({"schema": SCHEMA, **head, "state": _encode(state)}, indent=1)


def from_json(kind: type[State], text: str) -> State:
    """The state of type ``kind`` in ``text``; :class:`StateError` for anything else."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise StateError("snapshot", f"not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise StateError("snapshot", f"not of schema {SCHEMA}", "it is of another version")
    state: State = _decode(kind, document.get("state"), kind.__name__)
    return state


def head(text: str) -> dict[str, Any]:
    """What stands beside the state."""
    document: dict[str, Any] = json.loads(text)
    return {key: value for key, value in document.items() if key != "state"}


def _encode(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bool | str | NoneType):
        return value
    if isinstance(value, int):
        return value if value < _EXACT_INT else hex(value)
    if is_dataclass(value):
        return {field.name: _encode(getattr(value, field.name)) for field in fields(value)}
    if hasattr(value, "_fields"):
        return {
            type(value).__name__: {name: _encode(getattr(value, name)) for name in value._fields}
        }
    if isinstance(value, Mapping):
        return {str(key): _encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    raise StateError("snapshot", f"{type(value).__name__} is not part of a state")


def _decode(kind: Any, value: Any, where: str) -> Any:
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return _decode_union(get_args(kind), value, where)
    if origin in (list, tuple):
        items = _expect(list, value, where)
        item_kind = get_args(kind)[0]
        return origin(_decode(item_kind, item, f"{where}[{i}]") for i, item in enumerate(items))
    if origin is dict:
        key_kind, item_kind = get_args(kind)
        return {
            key_kind(key): _decode(item_kind, item, f"{where}[{key}]")
            for key, item in _expect(dict, value, where).items()
        }
    if kind is int and isinstance(value, str) and value.startswith("0x"):
        return int(value, 16)
    if kind in _IMMUTABLE:
        return _expect(kind, value, where)
    if issubclass(kind, Enum):
        return _decode_enum(kind, value, where)
    if hasattr(kind, "_fields"):
        value = _expect(dict, value, where).get(kind.__name__)
    return kind(**_decode_fields(kind, value, where))


def _decode_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and NoneType in kinds:
        return None
    rest = [kind for kind in kinds if kind is not NoneType]
    if len(rest) > 1:
        names = _expect(dict, value, where)
        rest = [kind for kind in rest if kind.__name__ in names] or rest
    return _decode(rest[0], value, where)


def _decode_enum(kind: type[Enum], value: Any, where: str) -> Enum:
    try:
        return kind[value]
    except KeyError:
        raise StateError(
            f"snapshot: {where} = {value!r}", None, f"one of {', '.join(kind.__members__)}"
        ) from None


def _decode_fields(kind: type, value: Any, where: str) -> dict[str, Any]:
    hints = _hints(kind)
    given = _expect(dict, value, where)
    if given.keys() != hints.keys():
        wrong = sorted(given.keys() ^ hints.keys())
        raise StateError(f"snapshot: {where}", f"missing or unknown: {', '.join(wrong)}")
    return {name: _decode(hints[name], given[name], f"{where}.{name}") for name in hints}


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _expect(kind: type, value: Any, where: str) -> Any:
    if type(value) is not kind:
        raise StateError(f"snapshot: {where} = {value!r}", f"expected {kind.__name__}")
    return value
