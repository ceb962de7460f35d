"""What a configuration says of a guest, whatever its kind."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Annotated, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, PositiveFloat

from harness.base import yamlfile
from harness.base.yamlfile import Location, Strict, YamlFile
from harness.guests.owned_options import not_refused
from harness.model.case import Guest, Machine

MAX_SMP = 4

Smp: TypeAlias = Annotated[int, Field(ge=1, le=MAX_SMP)]


def as_text(value: object) -> object:
    """A version such as ``10.0`` is a number to YAML; it is meant as it was written."""
    if isinstance(value, yamlfile.WrittenFloat):
        return value.written
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Text: TypeAlias = Annotated[str, Field(min_length=1), BeforeValidator(as_text)]

_T = TypeVar("_T")
Axis: TypeAlias = Annotated[list[_T], BeforeValidator(yamlfile.as_list), Field(min_length=1)]
"""One axis of the matrix: a list, or a single value without its list."""

Name: TypeAlias = Annotated[str, Field(pattern=r"^[\w.-]*$")]
"""A word for a case's id."""
ExpectedVerdict: TypeAlias = Literal[
    "pass",
    "fail",
    "storm",
    "lost",
    "stuck",
    "misrouted",
    "diverged",
    "hang",
    "timeout",
    "crash",
    "skip",
]


class GuestModel(Strict):
    """One of ``guests``; that of a kind has the kind's word as its ``kind``."""

    machine: Machine | None = None
    cpu: Text | None = None
    smp: Smp | None = None
    timeout_s: PositiveFloat | None = None
    memory_mib: Annotated[int, Field(ge=16)] | None = None
    append: str = ""
    devices: list[Text] = []
    options: list[
        Annotated[str, Field(pattern=r"^-\w[\w-]*( \S+)?$"), AfterValidator(not_refused)]
    ] = []
    expect: dict[str, ExpectedVerdict] = {}

    @abstractmethod
    def guests(self, file: YamlFile, location: Location) -> Iterable[Guest]:
        """The guests that are meant, checked; :class:`ConfigError` for what is wrong.

        ``location`` is where in ``file`` it stands.
        """
