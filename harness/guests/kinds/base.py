"""What the harness asks of a guest, whatever its kind: one class for each, and its defaults.

Those that there are stand in :data:`harness.guests.kinds.table.KINDS`.  How a kind is driven and
what its results are is in two later rooms, :mod:`harness.record.drivers` and
:mod:`harness.analyse.results`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from harness.guests.kinds.model import GuestModel
from harness.guests.plan import GuestFiles, GuestPlan, Site
from harness.model.case import Case, Guest, Machine
from harness.scenario.program import Scenario

GuestT = TypeVar("GuestT", bound=Guest)


@dataclass(frozen=True)
class LiveGuest:
    """What the live chips' machine needs to know of a guest, which it boots itself."""

    append: str = ""
    console_port: int | None = None
    """The port whose bytes are its console; None: COM1, which there is only then."""
    has_virtio: bool = False
    """Whether it talks by a virtio-serial port instead, where there is one."""
    missing: str | None = None
    """What it needs that this machine does not have; None where it has all."""


class Part(StrEnum):
    """What the parts of a guest's results are, and so what is compared of them."""

    WORKLOAD = "workload"
    """Work that is counted: what it caused, and its verdict where both sides ran it."""
    CHECK = "check"
    """A result in the guest's own words: its verdict, and the order of all of them."""
    SCENARIO = "scenario"
    """A program that both sides execute: its log."""


class GuestKind(ABC, Generic[GuestT]):
    """One kind, asked about one guest.  What has a default here need not be said."""

    guest_type: ClassVar[type[Guest]]
    model: ClassVar[type[GuestModel]]
    """What a configuration says of it."""
    part: ClassVar[Part]

    boot_instructions: ClassVar[float | None] = None
    """About what it executes until it is up, where that takes a while."""
    keeps_rules: ClassVar[bool] = False
    """Whether it is known to keep the chips' rules, so that a broken one is the chips' fault."""
    asks_only_chips: ClassVar[bool] = False
    """Whether nothing but the chips decides how it ends: no driver, no timing of its own."""
    is_public: ClassVar[bool] = False
    """Whether its kernel and RAM disk are at hand everywhere, and need not be passed on."""
    spins: ClassVar[bool] = False
    """Whether its CPUs wait for each other in loops with PAUSE."""
    talks_much: ClassVar[bool] = False
    """Whether its console is to be read in large pieces where each write is expensive."""
    loads_module: ClassVar[bool] = False
    """Whether its initial RAM disk is a multiboot module."""
    has_few_exceptions: ClassVar[bool] = False
    """Whether a log of all its exceptions, 1.3 kB each, stays small."""
    kept_apart: ClassVar[str | None] = None
    """The field of the guest that is too large for ``recording.json``, and has its own file."""

    def __init__(self, guest: GuestT) -> None:
        self.guest = guest

    # --- In the matrix

    def fitted(self, machine: Machine, smp: int) -> tuple[Guest, int] | None:
        """The guest for a cell of the matrix, and its number of CPUs; None: nothing to do there."""
        return self.guest, smp

    def why_not(self, machine: Machine, smp: int) -> str | None:
        """Why there is nothing that it could do there; None where there is."""
        return None

    @property
    def is_moved(self) -> bool:
        """Whether it is saved once it is up, and loaded into another QEMU."""
        return False

    @property
    def why_untraced(self) -> str | None:
        """Why the kernel's trace would add nothing; None where it does."""
        return None

    # --- On the command line

    @abstractmethod
    def plan(self, case: Case, site: Site) -> GuestPlan:
        """The files of ``case``, whose guest it is, fetched or made; :class:`HarnessError`."""

    @abstractmethod
    def arguments(self, case: Case, files: GuestFiles) -> Sequence[str]:
        """QEMU's arguments for the guest in ``case``: its files, command line and devices."""

    @property
    def live(self) -> LiveGuest:
        """As the live chips boot it; by default they do not."""
        return LiveGuest(missing="a loader for it")

    def console(self, machine: Machine) -> Sequence[str]:
        """QEMU's arguments for what it talks to, which writes to the chardev ``console``."""
        return ("-serial", "chardev:console")

    # --- In reports

    @property
    def parts(self) -> Sequence[str] | None:
        """The names of its parts; None where only its results tell."""
        return None

    def part_name(self, part: str) -> str:
        """The name of ``part`` among those of all guests."""
        return f"{self.guest.name}: {part}"

    @property
    def scenarios(self) -> tuple[Scenario, ...]:
        """The scenarios that it executes."""
        return ()

    @property
    def recipe_files(self) -> Mapping[Path, str]:
        """What a configuration names and is to be passed on with it, by the folder it goes to."""
        return {}

    @property
    def own_files(self) -> Mapping[str, Path]:
        """What no image cache has, by name: it goes along to another machine that runs a case."""
        return {}

    def at(self, folder: Path) -> Guest:
        """The same guest where :attr:`own_files` are in ``folder``."""
        return self.guest

    @property
    def by_hand(self) -> Sequence[str]:
        """What to type at its prompt to make it do the same."""
        return ()
