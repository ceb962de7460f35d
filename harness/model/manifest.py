"""``case.json``: what a case is, so that its folder can be read alone.

Ids are for people; what a case is stands in fields of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from harness.base.errors import StoreError
from harness.base.files import Document, read_typed, write_text
from harness.model.case import Accel, Case, Irqchip, Machine, Vmm, mode_word
from harness.model.layout import CaseDir

SCHEMA: Final = 2


@dataclass(frozen=True)
class CaseFile:
    """A case, and the versions that the names of its axes stood for when it ran."""

    schema: int
    id: str
    kind: str
    """The guest's kind, as a configuration calls it: ``linux``."""
    guest: str
    """The guest's name, for the globs of rules: ``linux``, ``flat-ioapic``."""
    subject: str
    """What has to be equal for two cases to be compared."""
    backend: str
    """The backend's name: ``lab-kvm-split``."""
    group: str
    """What it is judged by where that is not the matrix: a reproducer; else empty."""
    irqchip: Irqchip
    machine: Machine
    smp: int
    qemu: str
    """QEMU's version: ``7.2.22``."""
    linux: str | None
    """The version of the kernel whose KVM ran the guest; None under TCG."""
    axes: Mapping[str, str | int | None]
    kvm: str | None = None
    """The KVM module of the local host, where the guest runs on it: ``kvm_intel``."""
    arguments: tuple[str, ...] = ()
    """What the case adds to QEMU's command line: its devices and options."""
    lab_cpus: int = 1
    """How many CPUs the lab has, if it ran in one: those of several trace concurrently."""
    lab_qemu: str | None = None
    """The version of the QEMU whose TCG is the lab's hardware; None without such a lab."""
    vmm: Vmm = Vmm.QEMU
    """Who runs the machine; where it is not QEMU, ``qemu`` says whose chips are mirrored."""

    @property
    def kvm_module(self) -> str | None:
        """The KVM module that ran the guest, where it is known; what TCG emulates is SVM."""
        return self.kvm if self.lab_qemu is None else "kvm_amd"

    @property
    def mode(self) -> str:
        """The irqchip mode as it is written: ``split``, ``pychip-split``."""
        return mode_word(self.vmm, self.irqchip)


_ADAPTER: Final = TypeAdapter(CaseFile)


def describe(
    case: Case,
    *,
    qemu: str,
    linux: str,
    kvm: str | None = None,
    lab_cpus: int = 1,
    lab_qemu: str | None = None,
) -> CaseFile:
    """``case`` on these versions; ``linux`` is that of the host on which QEMU runs."""
    return CaseFile(
        schema=SCHEMA,
        id=case.id,
        kind=case.guest.kind,
        guest=case.guest.name,
        subject=case.subject,
        backend=case.backend.name,
        group=case.group,
        irqchip=case.backend.irqchip,
        machine=case.machine,
        smp=case.smp,
        qemu=qemu,
        linux=None if case.backend.accel is Accel.TCG else linux,
        axes=case.axes,
        kvm=kvm,
        arguments=(*case.devices, *case.options),
        lab_cpus=lab_cpus,
        lab_qemu=lab_qemu,
        vmm=case.backend.vmm,
    )


def write(directory: Path, described: CaseFile) -> None:
    """Write ``case.json``, whole or not at all; :class:`StoreError` where that cannot be."""
    text = _ADAPTER.dump_json(described, indent=1).decode() + "\n"
    write_text(CaseDir(directory).manifest, text)


def read(directory: Path) -> CaseFile:
    """The ``case.json`` of a case's folder; :class:`StoreError` where it is missing or not ours."""
    path = CaseDir(directory).manifest
    if not path.exists():
        raise StoreError(
            f"{directory} has no {CaseDir.manifest}",
            "it is not the directory of a case, or it was recorded by an older version",
            "name the directory of a case below a run's directory, or run it again",
        )
    return read_typed(path, _ADAPTER, SCHEMA, "does not describe a case", {1: _from_schema_1})


_KINDS_OF_SCHEMA_1: Final = ("linux", "flat", "probe")


def _from_schema_1(data: Document) -> Document:
    """Schema 1 said what a case is in its id alone: ``[GROUP/]GUEST/MACHINE/.../BACKEND[#N]``."""
    subject, _, backend = str(data["id"]).rpartition("/")
    first, _, rest = subject.partition("/")
    is_grouped = first.startswith("repro-")
    guest = rest.partition("/")[0] if is_grouped else first
    told = {
        "kind": next((kind for kind in _KINDS_OF_SCHEMA_1 if guest.startswith(kind)), None),
        "guest": guest,
        "subject": subject,
        "backend": backend.partition("#")[0],
        "group": first if is_grouped else "",
    }
    return data | told
