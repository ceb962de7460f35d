import json
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import pytest

from userspace_chip.errors import StateError
from userspace_chip.snapshot import copy_state, from_json, head, to_json


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Square(NamedTuple):
    side: int


class Circle(NamedTuple):
    radius: int


@dataclass
class Inner:
    bits: list[int] = field(default_factory=lambda: [0, 1])


@dataclass
class Outer:
    number: int = 1 << 255
    name: str | None = None
    colour: Colour = Colour.RED
    inner: Inner = field(default_factory=Inner)
    inners: list[Inner] = field(default_factory=lambda: [Inner(), Inner([7])])
    by_cpu: dict[int, int] = field(default_factory=lambda: {0: 0x31})
    shapes: tuple[Square | Circle, ...] = (Square(2), Circle(3))
    on: bool = False


def test_copy_is_equal_and_independent():
    state = Outer()
    other = copy_state(state)
    assert other == state
    other.inner.bits[0] = 9
    other.inners[1].bits.append(8)
    other.by_cpu[1] = 0x32
    assert state == Outer()


def test_json_and_back_is_the_same_state():
    state = Outer(colour=Colour.BLUE, name="x", inner=Inner([]))
    assert from_json(Outer, to_json(state)) == state


def test_json_writes_wide_numbers_as_hexadecimal_strings():
    assert json.loads(to_json(Outer()))["state"]["number"] == hex(1 << 255)


def test_json_head_stands_beside_the_state():
    assert head(to_json(Outer(), mode="on")) == {"schema": 1, "mode": "on"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"number": "many"}, "number"),
        ({"number": True}, "expected int"),
        ({"colour": "GREEN"}, "RED, BLUE"),
        ({"inner": {"bits": [0, "x"]}}, r"bits\[1\]"),
        ({"shapes": [{"Oval": {}}]}, r"shapes\[0\]"),
        ({"extra": 1}, "unknown: extra"),
    ],
)
def test_json_that_is_no_such_state_is_refused_with_the_place(change, message):
    document = json.loads(to_json(Outer()))
    document["state"].update(change)
    with pytest.raises(StateError, match=message):
        from_json(Outer, json.dumps(document))


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 2, "state": {}}'])
def test_json_of_another_kind_is_refused(text):
    with pytest.raises(StateError, match="snapshot"):
        from_json(Outer, text)


def test_json_of_what_is_no_state_is_refused():
    with pytest.raises(StateError, match="object"):
        to_json(Inner([object()]))
