"""The nearest guest as a configuration, idle and with the work of an entry of the catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from harness.explain.nearest.changes import MEMORY_MIB
from harness.explain.nearest.guest import NearestGuest
from harness.guests.kinds.table import kind_named
from harness.model.case import Irqchip
from harness.repro.catalogue import Entry

IDLE_S: Final = 5
TIMEOUT_S: Final = 240
"""A guest with several CPUs on a busy machine takes two minutes; a recipe's time is for one."""
LABEL: Final = "vm"
"""Of the idle guest, in the ids of its cases."""


def recipe(guest: NearestGuest, entry: Entry | None, *, attempt: int = 0) -> dict[str, Any]:
    """``guest`` as a configuration: idle, and with what ``entry`` of the catalogue has a guest do.

    ``attempt`` counts from 0, as in :meth:`Entry.config`.  After the first only the VM's own mode
    is run, where it is known.
    """
    modes = guest.modes if attempt == 0 or guest.own is None else (guest.own,)
    kvm = [mode.value for mode in modes if mode is not Irqchip.TCG]
    matrix: dict[str, Any] = {"host": "lab", "irqchip": kvm}
    tcg = {"host": "local", "accel": "tcg"}
    include = [tcg] if len(kvm) < len(modes) else []
    if not kvm:
        matrix, include = tcg, []
    shape: dict[str, Any] = {
        "devices": list(guest.devices),
        "options": list(guest.options),
    }
    return {
        "version": 1,
        "name": "explain",
        "matrix": matrix | {"machine": guest.machine.value, "cpu": guest.cpu, "smp": guest.smp},
        "include": include,
        "lab": {"kernel": guest.kernel.name},
        "qemu": guest.qemu.name,
        "defaults": {"timeout_s": TIMEOUT_S, "memory_mib": MEMORY_MIB},
        "guests": [_in_shape(each, shape, guest.append) for each in _guests(entry, attempt)],
    }


_IDLE: Final[Mapping[str, Any]] = {
    "kind": "linux",
    "name": LABEL,
    "workloads": ["idle"],
    "parameters": {"idle": {"seconds": IDLE_S}},
}
_OF_THE_WORK: Final = (
    *("kind", "name", "workloads", "parameters", "migrate"),
    *("scenarios", "only", "trace"),
)
"""What is taken of a recipe's guest: its work.  Its shape is the VM's."""


def _guests(entry: Entry | None, attempt: int) -> Iterator[Mapping[str, Any]]:
    """The idle guest, and those of the entry's recipe; one where they do the same."""
    if entry is None:
        yield _IDLE
        return
    guests = entry.guests(attempt)
    if attempt == 0 and not any(each.get("workloads") == ["idle"] for each in guests):
        yield _IDLE
    yield from guests


def _in_shape(work: Mapping[str, Any], shape: dict[str, Any], append: str) -> dict[str, Any]:
    guest: dict[str, Any] = {key: work[key] for key in _OF_THE_WORK if key in work}
    if kind_named(str(work["kind"])).asks_only_chips:  # no disk or network of a VM is one
        return guest | {"options": [each for each in shape["options"] if _is_of_chips(each)]}
    words = " ".join(filter(None, (str(work.get("append", "")), append)))
    return guest | shape | ({"append": words} if words else {})


def _is_of_chips(option: str) -> bool:
    return not option.startswith("-blockdev")
