"""The probe: our own interpreter of scenarios, without an operating system."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator

from harness.base import resources, suggest, yamlfile
from harness.base.errors import HarnessError, StoreError
from harness.base.yamlfile import Location, YamlFile
from harness.guests import probe
from harness.guests.kinds.base import GuestKind, LiveGuest, Part
from harness.guests.kinds.devices import (
    MICROVM_LINES,
    TEST_DEVICES,
    VIRTIO_PORT,
    append,
    debug_console,
)
from harness.guests.kinds.model import Axis, GuestModel, Name, Text
from harness.guests.plan import GuestFiles, GuestPlan, Site
from harness.model.case import WHOLE_CASE, Case, Guest, Machine, ProbeGuest, folder_name
from harness.model.layout import RunDir
from harness.scenario import choice
from harness.scenario.program import Feature, Scenario, encode


class ProbeModel(GuestModel):
    """``kind: probe``."""

    kind: Literal["probe"]
    scenarios: Axis[Text]
    only: Annotated[list[Text], BeforeValidator(yamlfile.as_list)] = []
    name: Name = ""
    trace: bool = False

    def guests(self, file: YamlFile, location: Location) -> Iterator[ProbeGuest]:
        """A guest for each number of CPUs that scenarios need."""
        if self.smp is not None or self.append:
            name = "smp" if self.append == "" else "append"
            raise file.error(
                (*location, name), f"a probe takes no {name}", "its scenarios determine it"
            )
        scenarios = choice.selected(choice.load(self._sources(file, location)), self.only)
        if not scenarios:
            at = (*location, "only")
            raise file.error(at, "no scenario is left", f"none matches {self.only}")
        names = {scenario.name for scenario in scenarios} | {WHOLE_CASE}
        for name in self.expect:
            if name not in names:
                fix = suggest.close(name, names)
                raise file.error((*location, "expect", name), f"no scenario {name!r}", None, fix)
        for group in choice.by_cpus(scenarios).values():
            yield ProbeGuest(group, self.name, dict(self.expect), trace=self.trace)

    def _sources(self, file: YamlFile, location: Location) -> list[Path]:
        sources: list[Path] = []
        for index, pattern in enumerate(self.scenarios):
            at = (*location, "scenarios", index)
            try:
                found = choice.find(pattern, file.path.parent)
            except HarnessError as error:
                raise file.error(at, error.what, error.why) from None
            if not found:
                raise file.error(at, f"no file of scenarios matches {pattern!r}")
            sources += found
        return sources


class ProbeKind(GuestKind[ProbeGuest]):
    """It logs what it sees itself, by a port that raises no interrupt."""

    guest_type = ProbeGuest
    model = ProbeModel
    part = Part.SCENARIO
    asks_only_chips = True
    spins = True
    talks_much = True
    loads_module = True
    kept_apart = "scenarios"

    def fitted(self, machine: Machine, smp: int) -> tuple[Guest, int] | None:
        """With the scenarios for that machine, and the CPUs that they need."""
        runnable = tuple(s for s in self.scenarios if not s.machines or machine in s.machines)
        if not runnable:
            return None
        return replace(self.guest, scenarios=runnable), runnable[0].program.cpus

    @property
    def why_untraced(self) -> str | None:
        """It is traced only where a configuration asks for it."""
        return None if self.guest.trace else "the probe logs what it sees itself (trace: true)"

    def plan(self, case: Case, site: Site) -> GuestPlan:
        """The probe, and its scenarios as a program in the run's folder."""
        case = replace(case, guest=replace(self.guest, far_return=site.emulates))
        files = site.images.probe(), _program(self.guest, case, site.out)
        shows_chips = self.guest.trace and case.backend.is_shadowed
        return GuestPlan(case, *files, trace_log=shows_chips, paused=False)

    def arguments(self, case: Case, files: GuestFiles) -> Sequence[str]:
        """What drives lines and sends messages for the probe, its way out, and its program."""
        assert files.initrd is not None
        if case.machine is not Machine.MICROVM:
            devices: Sequence[str] = ("-device", "edu")
        else:
            devices = MICROVM_LINES if self._needs(Feature.LINES2) else ()
        program = ("-kernel", files.kernel, "-initrd", files.initrd)
        words = [self._command_line]
        if self._needs(Feature.MONITOR) and not case.deterministic:
            words.append("monitor")
        return [*TEST_DEVICES, *devices, *program, *append(" ".join(filter(None, words)))]

    @property
    def _command_line(self) -> str:
        guest = self.guest
        words = [f"from={guest.first}"] if guest.first else []
        words += ["lret"] if guest.far_return else []
        return " ".join(words)

    def _needs(self, feature: Feature) -> bool:
        """Whether a scenario of this boot does."""
        return any(feature in scenario.program.needs for scenario in self.scenarios)

    @property
    def live(self) -> LiveGuest:
        """With its console, and the port that it takes without one."""
        return LiveGuest(self._command_line, probe.CONSOLE_PORT, has_virtio=True)

    def console(self, machine: Machine) -> Sequence[str]:
        """What takes a text of any length with one access; on microvm, which has no PCI, bytes."""
        if machine is Machine.MICROVM:
            return debug_console(probe.CONSOLE_PORT)
        return VIRTIO_PORT

    @property
    def parts(self) -> Sequence[str] | None:
        """Its scenarios."""
        return [scenario.name for scenario in self.scenarios]

    def part_name(self, part: str) -> str:
        """A scenario is the same in every probe."""
        return part

    @property
    def scenarios(self) -> tuple[Scenario, ...]:
        """Of this boot."""
        return self.guest.scenarios

    @property
    def recipe_files(self) -> Mapping[Path, str]:
        """The files of its scenarios."""
        return {scenario.path: _folder(scenario.path) for scenario in self.scenarios}


def _folder(path: Path) -> str:
    """Where a recipe that says ``configs/scenarios/FILE`` finds it before the one that travels."""
    shipped = resources.configs().resolve()
    if not path.is_relative_to(shipped):
        return "scenarios"
    return str("configs" / path.relative_to(shipped).parent)


def _program(guest: ProbeGuest, case: Case, out: Path) -> Path:
    """The multiboot module with the scenarios of ``guest``; the same for every backend.

    A name with a comma would be two modules to QEMU.
    """
    path = RunDir(out).program(folder_name(case.subject).replace(",", "_"))
    try:
        path.write_bytes(encode([scenario.program for scenario in guest.scenarios]))
    except OSError as error:
        raise StoreError(f"cannot write {path}", error.strerror, "choose another --out") from None
    return path
