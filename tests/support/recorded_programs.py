"""Random programs in which a model was wrong once, with what a real backend logged.

``tests/golden/programs/*.json``: each file has the backend, the program as numbers (the prologue
is that of every scenario) and the log as text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.scenario.baseline import prologue
from harness.scenario.log import Log
from harness.scenario.program import Feature, Handler, Op, Opcode, OpFlag, Program
from harness.scenario.registers import ApicMode
from userspace_chip.profile import Profile, profile

FOLDER = Path(__file__).parents[1] / "golden" / "programs"


@dataclass(frozen=True)
class RecordedProgram:
    """``cpus``: of the machine; ``log``: the events as the probe wrote them."""

    program: Program
    subject: Profile
    cpus: int
    log: tuple[str, ...]


def recorded() -> list[RecordedProgram]:
    """All that there are."""
    return [load(path) for path in sorted(FOLDER.glob("*.json"))]


def load(path: Path) -> RecordedProgram:
    data = json.loads(path.read_text(encoding="utf-8"))
    mode, backend = ApicMode(data["mode"]), data["backend"]
    needs = Feature.X2APIC if mode is ApicMode.X2APIC else Feature.NONE
    first = prologue(data["cpus"], mode, interrupts=True, needs=needs)
    blocks = (first, *(tuple(_op(words) for words in block) for block in data["blocks"]))
    handlers = tuple(
        Handler(v, block, pins=pins, limit=n) for v, block, pins, n in data["handlers"]
    )
    program = Program(path.stem, data["cpus"], blocks, handlers, needs)
    subject = profile(backend["irqchip"], qemu=backend["qemu"], linux=backend["linux"])
    return RecordedProgram(program, subject, data["machine_cpus"], tuple(data["log"]))


def write(program: Program, subject: Profile, cpus: int, log: Log) -> Path:
    """A random program of one or two CPUs, and what ``subject``'s backend logged."""
    x2apic = Feature.X2APIC in program.needs
    data: dict[str, Any] = {
        "backend": {"irqchip": subject.mode, "qemu": subject.qemu, "linux": subject.linux},
        "machine_cpus": cpus,
        "cpus": program.cpus,
        "mode": (ApicMode.X2APIC if x2apic else ApicMode.XAPIC).value,
        "handlers": [[h.vector, h.block, h.pins, h.limit] for h in program.handlers],
        "blocks": [[_words(op) for op in block] for block in program.blocks[1:]],
        "log": [str(event) for event in log.events],
    }
    path = FOLDER / f"{program.name}-{subject.mode}.json"
    path.parent.mkdir(exist_ok=True)
    rows = (f"{json.dumps(key)}: {_compact(value)}" for key, value in data.items())
    path.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
    return path


def _compact(value: object) -> str:
    """Operations, handlers and events one a line."""
    if not isinstance(value, list):
        return json.dumps(value)
    return "[\n" + ",\n".join(json.dumps(row) for row in value) + "\n]"


def _words(op: Op) -> list[int]:
    return [op.opcode, op.a, op.b, op.c, op.cpu, op.target, op.flags, op.size, op.step]


def _op(words: list[int]) -> Op:
    opcode, a, b, c, cpu, target, flags, size, step = words
    flag = OpFlag(flags)
    return Op(Opcode(opcode), a, b, c, cpu=cpu, target=target, flags=flag, size=size, step=step)
