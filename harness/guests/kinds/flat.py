"""A flat image: any multiboot image, such as those of kvm-unit-tests."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from harness.base import paths, suggest
from harness.base.errors import ConfigError, HarnessError, StoreError
from harness.base.yamlfile import Location, YamlFile
from harness.guests import flat, protocol_files
from harness.guests.kinds.base import GuestKind, LiveGuest, Part
from harness.guests.kinds.devices import EXIT_DEVICE, TEST_DEVICES, append, debug_console
from harness.guests.kinds.model import GuestModel, Name, Text
from harness.guests.plan import GuestFiles, GuestPlan, Site
from harness.images import multiboot
from harness.model.case import Accel, Case, FlatGuest, Guest, Irqchip, Machine, Output
from harness.model.layout import RunDir
from harness.model.protocol import Protocol


class FlatModel(GuestModel):
    """``kind: flat``."""

    kind: Literal["flat"]
    path: Text
    name: Name = ""
    protocol: Text | dict[str, Any] = "auto"
    checks: Literal["reported", "none"] = "reported"
    output: Output = Output.COM1

    def guests(self, file: YamlFile, location: Location) -> Iterator[FlatGuest]:
        """One guest."""
        yield FlatGuest(
            path=_path(file, location, self.path),
            append=self.append,
            expect=dict(self.expect),
            label=self.name,
            protocol=_protocol(file, (*location, "protocol"), self.protocol),
            has_checks=self.checks != "none",
            output=self.output,
        )


def _protocol(file: YamlFile, location: Location, said: str | dict[str, Any]) -> Protocol | None:
    """One that stands there itself, one that ships with us, or that of a file."""
    if not isinstance(said, str):
        return protocol_files.of_data(file, location, said)
    shipped = {protocol.name: protocol for protocol in protocol_files.shipped()}
    if said == "auto":
        return None
    if said in shipped:
        return shipped[said]
    here = paths.expanded(said)
    try:
        path = paths.first_file([file.path.parent / here, here])
    except HarnessError as error:
        raise file.error(location, error.what, error.why) from None
    if path is not None:
        return protocol_files.load(path)
    known = ["auto", *shipped]
    fix = suggest.nearest(said, known)
    raise file.error(location, f"no protocol {said!r}", "there is no such file either", fix)


def _path(file: YamlFile, location: Location, text: str) -> Path:
    """The image that ``text`` names, beside the file or below the working directory, checked."""
    here, at = paths.expanded(text), (*location, "path")
    candidates = [here] if here.is_absolute() else [file.path.parent / here, here]
    try:
        path = paths.first_file(candidates)
        if path is None:
            looked = " and ".join(dict.fromkeys(str(path.absolute()) for path in candidates))
            raise file.error(at, f"no flat image {text!r}", f"looked for {looked}")
        why = multiboot.file_defect(path)
    except ConfigError:
        raise
    except HarnessError as error:
        raise file.error(at, error.what, error.why) from None
    except OSError as error:
        raise file.error(at, f"{path} cannot be read", error.strerror) from None
    if why is not None:
        raise file.error(
            at,
            f"{path} is not a bootable multiboot image",
            why,
            "build it as kvm-unit-tests does: an ELF file with a multiboot header",
        )
    return path.absolute()


class FlatKind(GuestKind[FlatGuest]):
    """Its checks and its end are its own; we know only how they are reported."""

    guest_type = FlatGuest
    model = FlatModel
    part = Part.CHECK

    def plan(self, case: Case, site: Site) -> GuestPlan:
        """The image as QEMU loads it.

        Its monitor says whether it reset or powered off; what comes over it comes at any time.
        """
        image = _loadable(self.guest, site.out)
        return GuestPlan(case, image, None, trace_log=True, paused=not case.deterministic)

    def arguments(self, case: Case, files: GuestFiles) -> Sequence[str]:
        """The image, and the devices that kvm-unit-tests' images expect (its ``x86/run``).

        pc-testdev takes the debug console's port, and answers nothing there (tried with QEMU 7.2).
        """
        guest = self.guest
        test_devices = TEST_DEVICES if guest.output is Output.COM1 else EXIT_DEVICE
        pci = ["-device", "pci-testdev"] if case.machine is not Machine.MICROVM else []
        in_kernel_pit = case.backend.accel is Accel.KVM and case.backend.irqchip is Irqchip.ON
        return [
            *test_devices,
            *pci,
            *(("-global", "kvm-pit.lost_tick_policy=discard") if in_kernel_pit else ()),
            *("-kernel", files.kernel, *append(guest.append)),
        ]

    @property
    def live(self) -> LiveGuest:
        """With the console that the configuration says."""
        is_debugcon = self.guest.output is Output.DEBUGCON
        return LiveGuest(self.guest.append, flat.DEBUGCON_PORT if is_debugcon else None)

    def console(self, machine: Machine) -> Sequence[str]:
        """The one that the configuration says."""
        if self.guest.output is Output.DEBUGCON:
            return debug_console(flat.DEBUGCON_PORT)
        return super().console(machine)

    @property
    def own_files(self) -> Mapping[str, Path]:
        """The image."""
        return {self.guest.path.name: self.guest.path}

    def at(self, folder: Path) -> Guest:
        """The image in ``folder``; the guest's name does not change."""
        return replace(self.guest, path=folder / self.guest.path.name)

    @property
    def recipe_files(self) -> Mapping[Path, str]:
        """The image itself: what is booted may have been made of it."""
        return {self.guest.path: "images"}


def _loadable(guest: FlatGuest, out: Path) -> Path:
    """The image as QEMU loads it: itself, or what was made of it, in ``out``."""
    try:
        image = guest.path.read_bytes()
        made = multiboot.loadable(image)
        if made == image:
            return guest.path
        path = RunDir(out).image(guest.name, zlib.crc32(made))
        path.write_bytes(made)
    except OSError as error:
        what = f"cannot make a 32-bit ELF file of {guest.path}"
        raise StoreError(what, error.strerror, "choose another --out") from None
    return path
