"""A finding as a folder that can be mailed: a report, the scenario, every backend's log, an entry.

``report.md`` is for people who do not know irqmatrix; ``entry.yaml`` is a draft for the catalogue,
which ``irqmatrix repro`` runs.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from harness import __version__
from harness.analyse.conformance import as_text
from harness.base import files
from harness.base.errors import StoreError
from harness.fuzz import accesses, specification
from harness.fuzz.finish import Finished
from harness.fuzz.oracles import Oracle
from harness.fuzz.placing import Member
from harness.fuzz.touched import words
from harness.images.cache import ImageCache
from harness.images.kernel import kernel_build
from harness.images.model import Build
from harness.images.qemu import qemu_build
from harness.model.case import Irqchip, Machine, Vmm
from harness.repro.bench import Place, Side
from harness.repro.minimise import as_file

REPORT: Final = "report.md"
SCENARIO: Final = "scenario.yaml"
ENTRY: Final = "entry.yaml"
LOGS: Final = "logs"
_SPECIAL: Final = re.compile(r"[][().*+?{}|^$\\]")
"""What means something in a regular expression."""
_SAYS: Final = {
    Oracle.CHIPS: "the Python chips of that backend's versions predict something else",
    Oracle.BACKENDS: "another backend logs something else",
    Oracle.LAWS: "the log breaks a law of the architecture",
    Oracle.TWICE: "the same program logs something else when it is run again",
    Oracle.ENDS: "the program does not come to its end",
}


@dataclass(frozen=True)
class Letter:
    """Writes the folder of a finding; ``machine`` and ``cpu`` are those of the campaign."""

    finding: Finished
    folder: Path
    cache: ImageCache
    machine: Machine
    cpu: str

    def write(self) -> None:
        """All files, the report last; :class:`StoreError` where that cannot be."""
        try:
            (self.folder / LOGS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write {self.folder}", error.strerror) from None
        one = self.finding
        comment = f"Found by irqmatrix {__version__} fuzz: {one.signature}"
        about = f"{one.shown.difference.finding}; found in {one.shown.difference.program}"
        text = as_file(one.id, {**one.data, "about": about}, comment)
        files.write_text(self.folder / SCENARIO, text)
        for member in one.members:
            for what, log in (("", member.log), ("-predicted", member.expected)):
                if log is not None:
                    name = f"{_slug(str(member.side))}{what}.log"
                    files.write_text(self.folder / LOGS / name, as_text(one.scenario, log))
        entry = self.entry()
        if entry is not None:
            head = "# A draft: say what is wrong, where that comes from, and since when.\n"
            body = yaml.safe_dump(entry, sort_keys=False, width=100, default_flow_style=None)
            files.write_text(self.folder / ENTRY, head + body)
        files.write_text(self.folder / REPORT, "\n".join(self._lines(entry is not None)) + "\n")

    # --- the report

    def _lines(self, has_entry: bool) -> Iterator[str]:
        one = self.finding
        difference = one.shown.difference
        yield f"# {difference.finding}"
        yield ""
        yield f"On `{difference.side}`, {_SAYS[difference.oracle]}:"
        yield ""
        yield f"    {self.finding.text}"
        yield ""
        executions = f"{one.shown.shown} of {one.shown.asked} executions show it"
        flaky = " (flaky)" if one.is_flaky else ""
        count = len(one.programs)
        programs = f"{count} random program{' does' if count == 1 else 's do'}"
        yield f"- {executions}{flaky}; {programs}."
        yield f"- What separates the backends that show it from the others: **{one.axis}**."
        if difference.blame:
            yield f"- It looks like the fault of: {difference.blame}."
        if one.rule is not None:
            yield f"- Explained by the known difference `{one.rule.id}`: {one.rule.reason}"
        alike = dict.fromkeys([*one.resembling.rules, *one.resembling.entries])
        if alike:
            yield f"- May be the same as: {', '.join(f'`{name}`' for name in alike)}."
        if one.note:
            yield f"- {one.note}."
        for section in (self._steps, self._where, self._logs, self._specification):
            yield ""
            yield from section()
        yield ""
        yield from self._again(has_entry)

    def _steps(self) -> Iterator[str]:
        program = self.finding.scenario.program
        interrupts = self.finding.data.get("interrupts", "on")
        yield "## Steps"
        yield ""
        yield (
            f"{program.cpus} CPU(s), local APICs in {self.finding.data.get('mode', 'xapic')} mode, "
            f"interrupts {interrupts}; machine {self.machine}, CPU model {self.cpu}. The state "
            "before is the baseline of docs/scenarios.md: all entries masked, nothing pending."
        )
        yield ""
        for line in [*accesses.of_steps(program), *accesses.of_handlers(program)]:
            yield f"    {line}"

    def _where(self) -> Iterator[str]:
        yield "## Versions and modes"
        yield ""
        yield "| backend | QEMU | Linux (whose KVM) | shows it |"
        yield "| --- | --- | --- | --- |"
        for member in self.finding.members:
            qemu, linux = self._builds(member.side)
            shows = {True: "**yes**", False: "no", None: "could not be run"}[member.shows]
            yield f"| `{member.side}` | {qemu} | {linux} | {shows} |"
        if any(member.side.place is Place.LAB for member in self.finding.members):
            yield ""
            runner = _called(qemu_build(self.cache.lab_qemu()))
            yield f"A lab's own CPU is emulated by QEMU {runner}."

    def _builds(self, side: Side) -> tuple[str, str]:
        qemu = _called(qemu_build(self.cache.qemu(side.backend.qemu)))
        if side.place is not Place.LAB:
            is_tcg = side.irqchip is Irqchip.TCG
            return qemu, "none (TCG)" if is_tcg else "this machine's"
        return qemu, _called(kernel_build(self.cache.kernel(side.backend.kernel or "default")))

    def _logs(self) -> Iterator[str]:
        yield "## What was logged"
        yield ""
        texts: dict[str, list[str]] = {}
        for member in self.finding.members:
            if member.log is not None:
                text = as_text(self.finding.scenario, member.log)
                texts.setdefault(text, []).append(f"`{member.side}`")
        for text, sides in texts.items():
            yield f"{', '.join(sides)}:"
            yield ""
            yield from _shown(text)
            yield ""
        own = self._own
        if own is not None and own.expected is not None:
            yield f"Expected of `{own.side}`:"
            yield ""
            yield from _shown(as_text(self.finding.scenario, own.expected))

    def _specification(self) -> Iterator[str]:
        yield "## What the specification says"
        yield ""
        yield "| touched | where | what |"
        yield "| --- | --- | --- |"
        for passage in specification.passages(words(self.finding.data)):
            touched = ", ".join(f"`{word}`" for word in passage.words)
            yield f"| {touched} | {passage.document}: {passage.section} | {passage.says} |"

    def _again(self, has_entry: bool) -> Iterator[str]:
        difference = self.finding.shown.difference
        yield "## Reproduce it"
        yield ""
        if has_entry:
            yield "Here, with irqmatrix installed (its checkout's `make run` does that):"
            yield ""
            yield f"    irqmatrix repro {ENTRY}"
            yield ""
            yield f"`{ENTRY}` is a draft for the catalogue, `{SCENARIO}` the program."
        else:
            yield f"    irqmatrix minimise {self.finding.id} --file {SCENARIO} \\"
            yield f"        --backend {difference.side} --against {difference.against or 'model'}"

    @property
    def _own(self) -> Member | None:
        """The backend on which it was found."""
        side = self.finding.shown.difference.side
        return next((one for one in self.finding.members if str(one.side) == side), None)

    # --- the draft of an entry

    def entry(self) -> dict[str, Any] | None:
        """A draft for the catalogue; None where no line of a log tells it."""
        one, own = self.finding, self._own
        line = None if own is None else self._telling(own)
        if (
            own is None
            or own.side.vmm is not Vmm.QEMU
            or line is None
            or one.shown.difference.oracle in (Oracle.TWICE, Oracle.ENDS)
        ):
            return None
        peers = self._peers(own)
        pattern = "^" + _SPECIAL.sub(r"\\\g<0>", line) + "$"
        counts = {peer.side.irqchip.value: self._count(peer, line) for peer in peers}
        backend = own.side.backend
        matrix: dict[str, Any] = {}
        labs = [peer.side.irqchip.value for peer in peers if peer.side.place is Place.LAB]
        recipe: dict[str, Any] = {}
        local = [
            {"host": "local", "accel": peer.side.backend.accel.value}
            | ({} if peer.side.irqchip is Irqchip.TCG else {"irqchip": peer.side.irqchip.value})
            for peer in peers
            if peer.side.place is Place.LOCAL
        ]
        if labs:
            matrix = {"host": "lab", "irqchip": labs}
            recipe |= {"matrix": matrix}
            recipe |= {"include": local} if local else {}
            recipe |= {"lab": {"kernel": backend.kernel or "default"}}
        else:
            recipe |= {"matrix": local[0]}
        recipe |= {"qemu": backend.qemu} if backend.qemu != "system" else {}
        guest = {"kind": "probe", "scenarios": SCENARIO, "cpu": self.cpu}
        recipe["guests"] = [guest | {"machine": self.machine.value}]
        qemu, linux = self._plain_versions(own.side)
        return {
            "version": 1,
            "id": one.id,
            "symptom": f"{one.shown.difference.finding} on {own.side}"[:160],
            "kind": "known-bug",
            "modes": [own.side.irqchip.value],
            "fixed": "",
            "links": ["https://lore.kernel.org/kvm/"],
            "about": f"Found by random programs: {one.text}",
            "recipe": recipe,
            "signs": [
                {
                    "what": "how often its log has the line that tells it",
                    "log": pattern,
                    "part": one.id,
                    "expect": {
                        mode: {"min": count, "max": count} for mode, count in counts.items()
                    },
                }
            ],
            "seen": [
                {"qemu": qemu}
                | ({} if linux is None else {"linux": linux})
                | {"host": own.side.place.value}
                | {"saw": {mode: str(count) for mode, count in counts.items()}}
            ],
        }

    def _peers(self, own: Member) -> list[Member]:
        """The backends of the same versions: a mode each."""
        found = {own.side.irqchip: own}
        for member in self.finding.members:
            if member.side.vmm is not Vmm.QEMU:
                continue
            same = (member.side.kernel, member.side.qemu) == (own.side.kernel, own.side.qemu)
            is_tcg = member.side.irqchip is Irqchip.TCG and member.side.qemu == own.side.qemu
            if (same or is_tcg) and member.log is not None and member.shows is not None:
                found.setdefault(member.side.irqchip, member)
        return list(found.values())

    def _telling(self, own: Member) -> str | None:
        """A line that one of the two logs has more often: what is seen, or else what is missing."""
        if own.log is None or own.expected is None:
            return None
        seen = as_text(self.finding.scenario, own.log).splitlines()
        expected = as_text(self.finding.scenario, own.expected).splitlines()
        differing = [one for one in seen if seen.count(one) != expected.count(one)]
        differing += [one for one in expected if seen.count(one) != expected.count(one)]
        return differing[0] if differing else None

    def _count(self, member: Member, line: str) -> int:
        log = member.log
        return 0 if log is None else as_text(self.finding.scenario, log).splitlines().count(line)

    def _plain_versions(self, side: Side) -> tuple[str, str | None]:
        qemu = ".".join(map(str, self.cache.qemu(side.backend.qemu).version))
        if side.place is not Place.LAB:
            return qemu, None
        return qemu, self.cache.kernel(side.backend.kernel or "default").version


def _called(build: Build) -> str:
    identity = "" if build.build_id is None else f", build ID {build.build_id}"
    return f"{build.package}{identity}"


def _shown(text: str) -> Iterator[str]:
    """The lines of a log; what comes again and again once, with its number."""
    if not text:
        yield "    (nothing)"
    for line, group in itertools.groupby(text.splitlines()):
        count = len(list(group))
        yield f"    {line}" + (f"  ({count} times)" if count > 1 else "")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def paths(folder: Path) -> Sequence[Path]:
    """The files of a finding's folder, the report first."""
    return (folder / REPORT, folder / SCENARIO, folder / ENTRY, folder / LOGS)
