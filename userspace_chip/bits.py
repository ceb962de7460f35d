"""Registers as declarative tables: fields in datasheet names, access kinds as data.

A register is written down as its datasheet prints it, highest bit first or last as one likes::

    RTE = Register(
        "RTE",
        64,
        Field("vector", 7, 0),
        Field("delivery_mode", 10, 8, enum=DeliveryMode),
        Field("delivery_status", 12, 12, RO),
        ...
    )
    RTE.write(old, new)          # RW bits from new, RO bits from old, RES0 bits 0
    RTE.vector.get(value)        # RTE["vector"] for names that only a program knows
    RTE.vector.put(value, 0x31)  # raises FieldRangeError for 0x131

Bits that no field names are RES0.  Write-merging is here and nowhere else; a chip whose hot path
cannot afford a call takes ``RTE.write_mask`` or ``RTE.vector.mask`` into a module constant.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, IntEnum
from typing import Final

from userspace_chip.errors import FieldRangeError


class Access(Enum):
    """What software may do with a field."""

    RO = "read-only: writes are ignored"
    RW = "read/write"
    WO = "write-only: reads give 0"
    W1C = "read; writing 1 clears, writing 0 keeps"
    RES0 = "reserved: writes are ignored, reads give 0"


RO: Final = Access.RO
RW: Final = Access.RW
WO: Final = Access.WO
W1C: Final = Access.W1C
RES0: Final = Access.RES0


class Field:
    """Bits ``high`` to ``low`` (inclusive, as datasheets write them) of a register."""

    __slots__ = ("access", "enum", "high", "low", "mask", "max", "name")

    def __init__(
        self,
        name: str,
        high: int,
        low: int,
        access: Access = RW,
        *,
        enum: type[IntEnum] | None = None,
    ) -> None:
        if not 0 <= low <= high:
            raise FieldRangeError(f"field {name}", f"bits {high}:{low}", "write high before low")
        self.name = name
        self.high = high
        self.low = low
        self.access = access
        self.enum = enum
        self.max = (1 << (high - low + 1)) - 1
        self.mask = self.max << low

    def get(self, value: int) -> int:
        """The field's value in a register's ``value``."""
        return (value & self.mask) >> self.low

    def put(self, value: int, field: int) -> int:
        """``value`` with this field replaced; :class:`FieldRangeError` where it does not fit."""
        if not 0 <= field <= self.max:
            raise FieldRangeError(
                f"{self.name} = {field:#x}", f"the field has bits {self.high}:{self.low}"
            )
        return (value & ~self.mask) | field << self.low

    def __repr__(self) -> str:
        return f"Field({self.name!r}, {self.high}, {self.low}, {self.access.name})"


class Register:
    """A register of ``width`` bits: its fields, its reset value, its masks.

    ``write_mask`` are the bits that a write replaces (RW and WO), ``read_mask`` those that a read
    shows (everything but WO and RES0).
    """

    __slots__ = (
        "_fields",
        "_w1c_mask",
        "keep_mask",
        "name",
        "read_mask",
        "reset",
        "width",
        "write_mask",
    )

    def __init__(self, name: str, width: int, *fields: Field, reset: int = 0) -> None:
        self.name = name
        self.width = width
        self._fields = {field.name: field for field in fields}
        taken = 0
        for field in fields:
            if field.high >= width or taken & field.mask:
                raise FieldRangeError(f"{name}.{field.name}", "beyond the register or overlapping")
            taken |= field.mask
        self.write_mask = self._mask_of(RW, WO)
        self.read_mask = self._mask_of(RO, RW, W1C)
        self.keep_mask = self._mask_of(RO, W1C)
        self._w1c_mask = self._mask_of(W1C)
        self.reset = self.check(reset)

    def _mask_of(self, *kinds: Access) -> int:
        return sum(field.mask for field in self if field.access in kinds)

    def check(self, value: int) -> int:
        """``value`` itself; :class:`FieldRangeError` where it needs more bits than there are."""
        if not 0 <= value < 1 << self.width:
            raise FieldRangeError(
                f"{self.name} = {value:#x}", f"the register has {self.width} bits"
            )
        return value

    def write(self, old: int, new: int) -> int:
        """The register after a write of ``new`` over ``old``."""
        self.check(new)
        keep = old & self.keep_mask
        if self._w1c_mask:
            keep &= ~(new & self._w1c_mask)
        return keep | (new & self.write_mask)

    def read(self, value: int) -> int:
        """What a read of the stored ``value`` shows."""
        return value & self.read_mask

    def pack(self, **fields: int) -> int:
        """A value made from fields by name, the rest 0; :class:`FieldRangeError` as ``put``."""
        value = 0
        for name, field in fields.items():
            value = self[name].put(value, field)
        return value

    def unpack(self, value: int) -> dict[str, int]:
        """Every field by name; enumerated ones as members of their enum."""
        out: dict[str, int] = {}
        for field in self:
            number = field.get(value)
            out[field.name] = number if field.enum is None else field.enum(number)
        return out

    def __getitem__(self, name: str) -> Field:
        try:
            return self._fields[name]
        except KeyError:
            raise FieldRangeError(
                f"{self.name} has no field {name!r}", None, f"it has {', '.join(self._fields)}"
            ) from None

    def __getattr__(self, name: str) -> Field:
        fields: dict[str, Field] = object.__getattribute__(self, "_fields")
        try:
            return fields[name]
        except KeyError:
            raise AttributeError(f"register {self.name} has no field {name!r}") from None

    def __iter__(self) -> Iterator[Field]:
        return iter(self._fields.values())

    def __repr__(self) -> str:
        return f"Register({self.name!r}, {self.width})"


def bits(value: int) -> list[int]:
    """The numbers of the set bits, lowest first."""
    out: list[int] = []
    while value:
        low = value & -value
        out.append(low.bit_length() - 1)
        value ^= low
    return out


def mask(*numbers: int) -> int:
    """The value in which exactly these bits are set."""
    value = 0
    for number in numbers:
        value |= 1 << number
    return value
