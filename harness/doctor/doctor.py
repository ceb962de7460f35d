"""What this machine can run, and why not the rest: found out by asking and by measuring."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.backends.lab import LabPlan, booted_lab
from harness.backends.local import TRACEFS
from harness.base import sockets
from harness.base.errors import CollectError, HarnessError, ImageError
from harness.base.process import owned_process
from harness.config.feasibility import LocalFacts
from harness.guests.linux import BOOT_INSTRUCTIONS
from harness.images import runner
from harness.images.cache import ImageCache
from harness.images.model import QemuImage
from harness.images.qemu import qemu_build
from harness.images.rootfs import BUSYBOX, check_busybox
from harness.model import lab_faults
from harness.model.case import Accel
from harness.record.collectors.qmp import monitor
from userspace_chip.kvm.errors import KvmError
from userspace_chip.kvm.probe import measure_guest_speed, probe_kvm

WORTHWHILE_BOOT_S: Final = 60.0
"""A Linux guest that needs longer than this to boot belongs in the lab."""

_KVM_INSTALL: Final = (
    "load kvm_intel or kvm_amd, and check that you may open /dev/kvm (group kvm); "
    "the lab works without it"
)


@dataclass(frozen=True)
class Capability:
    """One line of the doctor's report.  ``can`` is None for what is neither good nor bad."""

    area: str
    name: str
    can: bool | None
    value: str
    why: str | None = None
    fix: str | None = None


async def examine(cache: ImageCache) -> tuple[Capability, ...]:
    """Everything that the doctor finds; a failure to find out is a finding too."""
    local = local_facts(measure=True)
    findings = [*_kvm(local), _tracefs()]
    for name in _qemu_names(cache):
        try:
            findings += await _qemu(cache.qemu(name))
        except HarnessError as error:
            findings.append(
                Capability(
                    f"qemu {name}", "usable", False, "no", error.what, error.fix or error.why
                )
            )
    findings += _programs()
    findings += _images(cache)
    findings.append(await _lab(cache, local))
    findings += _runner(cache)
    for name in _qemu_names(cache):
        with contextlib.suppress(HarnessError):  # reported above
            findings.append(lab_faults_of(cache.qemu(name), local.lab_accel))
    return tuple(findings)


def local_facts(*, measure: bool) -> LocalFacts:
    """The local KVM, and with ``measure`` the speed of a guest on it."""
    kvm = probe_kvm()
    speed = None
    if measure and kvm.usable:
        with contextlib.suppress(KvmError):
            speed = measure_guest_speed().instructions_per_s
    return LocalFacts(kvm, speed)


def _kvm(local: LocalFacts) -> Iterable[Capability]:
    kvm = local.kvm
    extension = {"svm": "SVM", "vmx": "VMX"}.get(kvm.cpu_flag or "", "neither SVM nor VMX")
    yield Capability("kvm", "CPU", None, extension)
    if not kvm.usable:
        yield Capability("kvm", kvm.path, False, "no", kvm.error, _KVM_INSTALL)
        return
    module = f"module {kvm.module}" if kvm.module is not None else "module unknown"
    yield Capability("kvm", kvm.path, True, f"API {kvm.api_version}, {module}")
    for mode in ("on", "split"):
        problem = kvm.why_not("on" if mode == "on" else "split")
        fix = None if problem is None else "use the other mode, or the lab"
        yield Capability(
            "kvm", f"irqchip {mode}", problem is None, "no" if problem else "yes", problem, fix
        )
    caps = ", ".join(
        name if value == 1 else f"{name}={value}" for name, value in kvm.caps.items() if value
    )
    yield Capability("kvm", "capabilities", None, caps)
    yield Capability(
        "kvm",
        "nested",
        bool(kvm.nested),
        "yes" if kvm.nested else "no",
        None if kvm.nested else "the module's parameter nested is off, or it has none",
        None if kvm.nested else "the lab runs under TCG instead, which has no requirements",
    )
    yield _speed(local)


def _speed(local: LocalFacts) -> Capability:
    speed = local.instructions_per_s
    if speed is None:
        return Capability("kvm", "guest speed", False, "unknown", "the payload did not run", None)
    boot_s = BOOT_INSTRUCTIONS / speed
    value = f"{speed / 1e6:,.1f} million instructions/s; Linux would boot in about {boot_s:,.1f} s"
    if boot_s <= WORTHWHILE_BOOT_S:
        return Capability("kvm", "guest speed", True, value)
    return Capability(
        "kvm",
        "guest speed",
        False,
        value,
        "so this KVM emulates guests, and Linux is not worth booting on it",
        "run Linux guests with host: lab; flat images are fine here",
    )


def _tracefs() -> Capability:
    name = "tracefs"
    if not Path(TRACEFS, "trace").exists():
        return Capability(
            "kernel trace",
            name,
            False,
            "no",
            f"nothing is mounted at {TRACEFS}, or it cannot be entered",
            f"as root: mount -t tracefs nodev {TRACEFS} (the lab has its own)",
        )
    if not Path(TRACEFS, "events/kvm").is_dir():
        return Capability(
            "kernel trace", name, False, "no", "this kernel has no kvm:* events", "use the lab"
        )
    if not os.access(f"{TRACEFS}/instances", os.W_OK):
        return Capability("kernel trace", name, False, "no", "it cannot be written", "run as root")
    hist = Path(TRACEFS, "events/kvm/kvm_set_irq/hist").exists()
    return Capability(
        "kernel trace", name, True, f"yes, {'with' if hist else 'without'} histograms"
    )


def _qemu_names(cache: ImageCache) -> list[str]:
    cached = [info.name for info in cache.list() if info.kind == "qemu"]
    return ["system", *cached]


async def _qemu(qemu: QemuImage) -> list[Capability]:
    area = f"qemu {qemu.name}"
    version, build = ".".join(map(str, qemu.version)), qemu_build(qemu)
    detail = f"{version} ({qemu.binary}; package {build.package}, build ID {build.build_id})"
    findings = [Capability(area, "version", True, detail)]
    async with _asked(qemu, "none") as commands:
        for command, since in (
            ("query-stats", "7.1"),
            ("x-query-irq", "6.2"),
            ("x-query-interrupt-controllers", "9.1"),
        ):
            has = command in commands
            why = None if has else f"it came with QEMU {since}"
            fix = "info pic over QMP is used instead" if "controllers" in command else None
            findings.append(
                Capability(area, command, has, "yes" if has else "no", why, None if has else fix)
            )
    for accel, modes in (("tcg", ("",)), ("kvm", ("on", "split", "off"))):
        for mode in modes:
            findings.append(await _starts(qemu, area, accel, mode))
    return findings


async def _starts(qemu: QemuImage, area: str, accel: str, mode: str) -> Capability:
    """Whether a machine starts with this accelerator and irqchip mode, by starting one."""
    name = f"{accel}, irqchip {mode}" if mode else accel
    machine = f"q35,accel={accel}" + (f",kernel-irqchip={mode}" if mode else "")
    try:
        async with _asked(qemu, machine):
            return Capability(area, name, True, "yes")
    except HarnessError as error:
        fix = {
            "off": "QEMU 7.2 still has it (irqmatrix images build --qemu 7.2)",
        }.get(mode, "the lab has all modes")
        return Capability(area, name, False, "no", error.why, fix)


@contextlib.asynccontextmanager
async def _asked(qemu: QemuImage, machine: str) -> AsyncIterator[frozenset[str]]:
    """The QMP commands of a QEMU with ``machine``, which is up and stopped meanwhile."""
    with tempfile.TemporaryFile() as errors, sockets.pair() as (ours, theirs):
        argv = (
            *qemu.launcher,
            *("-machine", machine, "-cpu", "qemu64"),
            *("-nodefaults", "-no-user-config", "-display", "none", "-S"),
            *(argument for path in qemu.data_dirs for argument in ("-L", str(path))),
            *("-chardev", f"socket,id=monitor,fd={theirs.fileno()}"),
            *("-mon", "chardev=monitor,mode=control"),
        )
        if machine == "none":
            argv = tuple(argument for argument in argv if argument not in ("-cpu", "qemu64"))
        async with owned_process(argv, stderr=errors, pass_fds=[theirs.fileno()], grace_s=0):
            theirs.close()
            try:
                async with monitor(ours, Path(os.devnull)) as mon:
                    yield mon.commands
            except CollectError as error:
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip().splitlines()
                why = said[-1].split(": ", 1)[-1] if said else str(error)
                raise CollectError(f"{machine} does not start", why) from None


def busybox_finding(busybox: Path = BUSYBOX) -> Capability:
    """Whether the one that images are made of can be used, rather than any on PATH."""
    try:
        check_busybox(busybox)
    except ImageError as error:
        why = f"{error.why}; it is the guest's and the lab's user space"
        return Capability("programs", "busybox", False, "no", why, error.fix)
    return Capability("programs", "busybox", True, str(busybox))


def _programs() -> Iterable[Capability]:
    yield busybox_finding()
    for program, package, purpose in (
        ("dpkg-deb", "dpkg", "unpacking kernels and QEMUs"),
        ("apt-get", "apt", "fetching kernels and QEMUs"),
        ("setpriv", "util-linux", "a QEMU that dies with its parent"),
        ("gcc", "gcc", "the guest's program that holds a line high"),
    ):
        path = shutil.which(program)
        yield Capability(
            "programs",
            program,
            path is not None,
            path or "no",
            None if path else f"it is needed for {purpose}",
            None if path else f"apt-get install {package}",
        )


def _images(cache: ImageCache) -> Iterable[Capability]:
    infos = cache.list()
    size_mib = sum(info.size_bytes for info in infos) / 2**20
    yield Capability(
        "images", "cache", None, f"{cache.root}: {len(infos)} entries, {size_mib:.0f} MiB"
    )
    for info in infos:
        if not info.intact:
            yield Capability(
                "images",
                f"{info.kind} {info.name}",
                False,
                "damaged",
                "a file is not what was stored",
                "it is fetched again by the next run, or by irqmatrix images build",
            )


def _runner(cache: ImageCache) -> Iterator[Capability]:
    """Which QEMU runs labs where a configuration names none, and why."""
    qemus = cache.qemus()
    if not qemus:
        return
    ratings = sorted(map(runner.rating, qemus), key=lambda each: each.key)
    best, *others = (f"{each.qemu.name}: {each}" for each in ratings)
    rest = f"; after it {'; '.join(others)}" if others else ""
    yield Capability("lab", "run by default", True, f"QEMU {best}{rest}")


def lab_faults_of(qemu: QemuImage, accel: Accel) -> Capability:
    """How many of the known faults a lab has that this QEMU runs, by its version."""
    name = f"faults, run by QEMU {qemu.name}"
    if accel is not Accel.TCG:
        return Capability("lab", name, True, "none known: a KVM that nests runs labs here")
    known = lab_faults.shipped()
    there = [fault for fault in known if fault.is_of(qemu.version)]
    ids = ", ".join(
        fault.id if fault.linux is None else f"{fault.id} (Linux {fault.linux})" for fault in there
    )
    return Capability(
        "lab",
        name,
        None,
        f"{len(there)} of {len(known)} known (configs/known/lab.yaml): {ids}",
    )


async def _lab(cache: ImageCache, local: LocalFacts) -> Capability:
    """Boot one, if its images are there."""
    try:
        offline = ImageCache(cache.root, offline=True)
        kernel, qemu, emulator = offline.kernel(), offline.qemu(), offline.lab_qemu()
        initrd = offline.lab_initrd(kernel, qemu)
    except ImageError as error:
        return Capability("lab", "boots", None, "not tried", str(error), "irqmatrix images build")
    accel = local.lab_accel
    boots = offline.lab_kernel(kernel)
    plan = LabPlan(kernel, qemu, initrd, emulator, (), accel, vmlinux=boots)
    with tempfile.TemporaryDirectory(prefix="irqmatrix-") as directory:
        started = time.monotonic()
        try:
            async with asyncio.timeout(60), booted_lab(plan, Path(directory, "lab.log")) as lab:
                took_s = time.monotonic() - started
                return Capability(
                    "lab", "boots", True, f"in {took_s:.1f} s under {accel}: {lab.description}"
                )
        except (HarnessError, TimeoutError) as error:
            return Capability("lab", "boots", False, "no", str(error) or "it takes over 60 s", None)
