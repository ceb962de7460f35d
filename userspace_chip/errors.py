"""The root of the exception tree, and the part of it that the chips raise.

::

    IrqmatrixError
    ├── ChipError               an input that no hardware could see (this file)
    │   ├── PinRangeError       an input pin or GSI that is not there
    │   ├── AccessError         an access size or alignment that the bus cannot do
    │   ├── VectorRangeError    a vector outside 0..255
    │   ├── FieldRangeError     a value that does not fit its register or field
    │   ├── RouteError          a GSI routing table that KVM_SET_GSI_ROUTING refuses
    │   ├── ProfileError        a combination of mode and versions that does not exist
    │   └── StateError          a snapshot that is not one of this chip's
    ├── EventError              an event that does not fit its type
    └── HarnessError            everything at the edges: harness/base/errors.py
"""

from __future__ import annotations


class IrqmatrixError(Exception):
    """Root of every error that is not our own bug.

    ``what`` happened, ``why`` (what was found, what was expected) and what to do about it
    (``fix``): all three are shown to the user, in this order.
    """

    def __init__(self, what: str, why: str | None = None, fix: str | None = None) -> None:
        self.what = what
        self.why = why
        self.fix = fix
        super().__init__(what, why, fix)

    def __str__(self) -> str:
        text = self.what
        if self.why is not None:
            text += f": {self.why}"
        if self.fix is not None:
            text += f" ({self.fix})"
        return text


class ChipError(IrqmatrixError, ValueError):
    """An input that no hardware could ever see; what hardware ignores raises nothing."""


class PinRangeError(ChipError):
    """An input pin or GSI that the chip does not have."""


class AccessError(ChipError):
    """An access of a size or alignment that the bus cannot do."""


class VectorRangeError(ChipError):
    """A vector outside 0..255."""


class FieldRangeError(ChipError):
    """A value that does not fit the register or field that it is written to."""


class RouteError(ChipError):
    """A GSI routing table, or an MSI, that KVM refuses with EINVAL."""


class ProfileError(ChipError):
    """A combination of irqchip mode, QEMU and Linux version that does not exist."""


class StateError(ChipError):
    """A snapshot that does not describe a state of this chip."""


class EventError(IrqmatrixError, ValueError):
    """An event whose text or fields do not fit its type."""
