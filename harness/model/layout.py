"""The files and folders of a run: every name once.

::

    RUN/                     RunDir: one run, or several into the same folder
      result.json            what the run gave
      baseline.json          what of it is new
      CASE/                  CaseDir: a case as it was recorded, and what was made of that
      earlier/N/             what an earlier run left
      first-time/CASE/       a case that was run again, as it was before

On the class an attribute is the name, on a folder it is the path: ``CaseDir.events`` is
``"events.jsonl"``, ``CaseDir(path).events`` the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, overload


class FileEntry:
    """A file or a folder in the folder that it is an attribute of."""

    def __init__(self, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, folder: None, owner: type[Any]) -> str: ...
    @overload
    def __get__(self, folder: CaseDir | RunDir, owner: type[Any]) -> Path: ...
    def __get__(self, folder: CaseDir | RunDir | None, owner: type[Any]) -> str | Path:
        """The name where there is no folder, else the path."""
        return self._name if folder is None else folder.path / self._name


@dataclass(frozen=True)
class CaseDir:
    """The folder of one case."""

    path: Path

    # Before it runs.
    manifest = FileEntry("case.json")
    command = FileEntry("command.txt")

    # What was recorded of it.
    console = FileEntry("console.log")
    stderr = FileEntry("stderr.log")
    monitor = FileEntry("qmp.jsonl")
    kernel_trace = FileEntry("kernel.trace")
    qemu_trace = FileEntry("qemu.trace")
    qemu_trace_part = FileEntry("qemu.trace.part")
    """Of one boot, until it is appended to those before it."""
    guest_state = FileEntry("guest.state")
    """Of a guest that moves, until it is loaded."""
    scenarios_run = FileEntry("probe.json.zst")
    executed = FileEntry("executed.json.zst")
    """Which instructions of the lab's KVM ran for the first time in that lab."""
    recording = FileEntry("recording.json")

    # What it says.
    events = FileEntry("events.jsonl")
    moving = FileEntry("moving.jsonl")
    """What a QEMU that a guest moved to did with its own chips, before they became the guest's."""
    counters = FileEntry("counters.json")
    snapshots = FileEntry("looks.json")
    ledger = FileEntry("ledger.json")
    evidence = FileEntry("evidence.json")
    scenarios = FileEntry("scenarios.json")
    """What a probe logged."""

    # What is thought of it.
    verdict = FileEntry("verdict.json")
    bug = FileEntry("error.txt")
    """The traceback of a mistake of irqmatrix."""


@dataclass(frozen=True)
class RunDir:
    """The folder of a run."""

    path: Path

    result = FileEntry("result.json")
    baseline = FileEntry("baseline.json")
    """What is new in it."""
    lock = FileEntry("run.lock")
    """Locked (``flock(2)``) while a run is in the folder; it stays when the run has ended."""
    floor = FileEntry("floor.json.zst")
    """Which instructions of KVM run whatever the guest does, where coverage was recorded."""
    cluster_log = FileEntry("cluster.log")
    """What dask said, of a run on many machines."""
    bug = FileEntry("error.txt")
    earlier = FileEntry("earlier")
    """Here is, in a numbered folder each, what earlier runs into the same folder left."""
    first_time = FileEntry("first-time")
    """For cases that were run again, as they were before."""
    nearest = FileEntry("vm.yaml")
    """The guest nearest to a user's VM, as a configuration."""
    again = FileEntry("again")
    """For reproducers that were run again."""

    def case(self, name: str) -> CaseDir:
        """The folder of a case."""
        return CaseDir(self.path / name)

    def attempt(self, number: int) -> Path:
        """The folder of an attempt at a reproducer, from the second on."""
        return self.path / f"again-{number}"

    def host_log(self, host: str, number: int, machine: str = "") -> Path:
        """What a host that was booted printed; with the suffix ``.stderr`` what its QEMU said.

        ``machine`` is the name of the one that it ran on, where that is another one.
        """
        return self.path / ("-".join(filter(None, (host, machine, str(number)))) + ".log")

    @property
    def lab_logs(self) -> list[Path]:
        """Those of all labs, and what their QEMUs said."""
        return sorted((*self.path.glob("lab-*.log"), *self.path.glob("lab-*.stderr")))

    def arriving(self, name: str) -> Path:
        """A case's folder until all of it is there, when another machine has recorded it."""
        return self.path / f".arriving-{name}"

    def program(self, name: str) -> Path:
        """What a probe executes."""
        return self.path / f"{name}.program"

    def image(self, name: str, checksum: int) -> Path:
        """A flat image in the form that QEMU loads."""
        return self.path / f"{name}-{checksum:08x}.elf32"


OF_A_RUN: Final = (
    *(
        f"{RunDir.result}*",
        f"{RunDir.baseline}*",
        RunDir.bug,
        RunDir.cluster_log,
        RunDir.nearest,
        RunDir.floor,
        "*.program",
        "lab-*.log",
        "lab-*.stderr",
    ),
    *(RunDir.first_time, RunDir.again, "again-*"),
)
"""Globs for what is a run's, apart from its cases' folders."""
OF_A_CASE: Final = (CaseDir.manifest, CaseDir.command, CaseDir.verdict)
"""A folder with one of these is a case's."""
