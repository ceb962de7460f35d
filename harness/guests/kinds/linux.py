"""Linux: a distribution's kernel with our initial RAM disk, and its workloads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field

from harness.base import suggest
from harness.base.yamlfile import Location, YamlFile
from harness.guests import linux
from harness.guests.kinds.base import GuestKind, LiveGuest, Part
from harness.guests.kinds.model import GuestModel, Name, Text, as_text
from harness.guests.linux import WORKLOADS, Workload
from harness.guests.plan import GuestFiles, GuestPlan, Site
from harness.model.case import WHOLE_CASE, Accel, Case, LinuxGuest, Machine

COMMAND_LINE: Final = ("console=ttyS0", "quiet", "panic=-1")
ICOUNT_TSC_KHZ: Final = 1_000_000
"""With -icount the time-stamp counter counts nanoseconds (QEMU ``softmmu/cpu-timers.c``,
``cpu_get_ticks``)."""


class LinuxModel(GuestModel):
    """``kind: linux``."""

    kind: Literal["linux"]
    workloads: Annotated[list[str], Field(min_length=1)]
    kernel: Text = "default"
    name: Name = ""
    parameters: dict[str, dict[str, Annotated[str, BeforeValidator(as_text)]]] = {}
    migrate: bool = False

    def guests(self, file: YamlFile, location: Location) -> Iterator[LinuxGuest]:
        """One guest."""
        for index, name in enumerate(self.workloads):
            _check_workload(file, (*location, "workloads", index), name)
        for name, parameters in self.parameters.items():
            _check_workload(file, (*location, "parameters", name), name)
            for key in parameters:
                known = sorted(WORKLOADS[name].parameters)
                if key not in known:
                    raise file.error(
                        (*location, "parameters", name, key),
                        f"workload {name} has no parameter {key!r}",
                        None,
                        f"it has: {', '.join(known) or 'none'}",
                    )
        for name in self.expect:
            if name != WHOLE_CASE:
                _check_workload(file, (*location, "expect", name), name)
        yield LinuxGuest(
            workloads=tuple(self.workloads),
            kernel=self.kernel,
            migrate=self.migrate,
            parameters=self.parameters,
            expect=dict(self.expect),
            append=self.append,
            label=self.name,
        )


def _check_workload(file: YamlFile, location: Location, name: str) -> None:
    if name not in WORKLOADS:
        fix = suggest.nearest(name, WORKLOADS)
        raise file.error(location, f"unknown workload {name!r}", None, fix)


class LinuxKind(GuestKind[LinuxGuest]):
    """It is known to keep the rules, and everything that its interrupts do is traced."""

    guest_type = LinuxGuest
    model = LinuxModel
    part = Part.WORKLOAD
    boot_instructions = linux.BOOT_INSTRUCTIONS
    keeps_rules = True
    is_public = True
    has_few_exceptions = True

    def why_not(self, machine: Machine, smp: int) -> str | None:
        """Why none of its workloads can run there."""
        names = self.guest.workloads
        if linux.runnable(names, machine.value, smp):
            return None
        return "; ".join(
            f"{name}: {linux.why_not_runnable(name, machine.value, smp)}" for name in names
        )

    @property
    def is_moved(self) -> bool:
        """Where the configuration says so."""
        return self.guest.migrate

    def plan(self, case: Case, site: Site) -> GuestPlan:
        """The kernel, and the RAM disk with its modules.

        On the local KVM it waits until its own CPUs are traced.
        """
        image = site.images.kernel(self.guest.kernel)
        initrd = site.images.linux_initrd(image)
        return GuestPlan(case, image.vmlinuz, initrd, trace_log=True, paused=site.is_local_kvm)

    def arguments(self, case: Case, files: GuestFiles) -> Sequence[str]:
        """Kernel, RAM disk and command line, and the devices of the workloads."""
        guest, machine = self.guest, case.machine.value
        words = [*self._words, *_clock(case, files), guest.append]
        if case.deterministic:
            words += linux.boot_words(guest, machine, case.smp)
        command_line = " ".join(filter(None, words))
        initrd = ("-initrd", files.initrd) if files.initrd is not None else ()
        # Two workloads may need the same device: it is there once.
        devices = dict.fromkeys(
            arguments for workload in self._workloads for arguments in workload.qemu_args(machine)
        )
        return [
            *("-kernel", files.kernel, *initrd, "-append", command_line),
            *(argument for pair in devices for argument in pair),
        ]

    @property
    def live(self) -> LiveGuest:
        """Kernel and RAM disk; its machine has no disk.

        Where a character takes milliseconds, what prints much is no lockup.
        """
        append = " ".join(filter(None, (*self._words, "nosoftlockup", self.guest.append)))
        needs = [f"the devices of {one.name}" for one in self._workloads if one.devices]
        needs += ["saved states"] * self.guest.migrate
        return LiveGuest(append, missing=needs[0] if needs else None)

    @property
    def _workloads(self) -> Sequence[Workload]:
        return [WORKLOADS[name] for name in self.guest.workloads]

    @property
    def _words(self) -> Sequence[str]:
        """Of the command line, wherever it runs."""
        extras = (word for workload in self._workloads for word in workload.kernel_args)
        return [*COMMAND_LINE, *dict.fromkeys(extras)]

    @property
    def parts(self) -> Sequence[str] | None:
        """Its workloads."""
        return self.guest.workloads

    def part_name(self, part: str) -> str:
        """A workload is the same in every Linux guest."""
        return f"linux: {part}"

    @property
    def by_hand(self) -> Sequence[str]:
        """The commands of its workloads, with their defaults."""
        return [linux.command(name, {}) for name in self.guest.workloads]


def _clock(case: Case, files: GuestFiles) -> tuple[str, ...]:
    """What Linux learns of its time-stamp counter, which is the machine's own under TCG."""
    if case.backend.accel is not Accel.TCG:
        return ()
    tsc_khz = ICOUNT_TSC_KHZ if case.deterministic else linux.tsc_khz(files.cpuinfo)
    return linux.clock_args(case.machine.value, tsc_khz)
