"""``explain --reproduce`` with a real lab: what a user's files show, shown again, or not."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness.base.errors import ImageError
from harness.base.terminal import Printer
from harness.commands.explain import ExplainOptions
from harness.commands.explain import run as explain
from harness.explain import bands
from harness.explain.nearest import cpu, devices
from harness.explain.nearest.guest import nearest_guest
from harness.explain.reproduction import ReproduceRequest, run_guest, versions_here
from harness.explain.shown import value_in
from harness.images import ImageCache
from harness.model.case import Irqchip
from harness.repro import catalogue

pytestmark = [pytest.mark.live, pytest.mark.lab]

FIELD = Path(__file__).parents[1] / "golden" / "field"
KICKS = """
             VM-EXIT    Samples  Samples%     Time%    Min Time    Max Time         Avg time

  EXTERNAL_INTERRUPT      18304    93.14%     6.20%      0.55us     36.94us      1.11us ( +- 0.1% )
                 HLT        800     4.07%    93.70%      3.10us   3994.01us   2100.00us ( +- 9.0% )
      IO_INSTRUCTION        548     2.79%     0.10%      5.10us     44.01us     11.00us ( +- 4.0% )
"""


def nightly(test):
    """Several boots of a guest in a lab: minutes."""
    for mark in (pytest.mark.nightly, pytest.mark.slow, pytest.mark.timeout(1200)):
        test = mark(test)
    return test


def reproduced(tmp_path, *files, **texts):
    """The exit status, and the ``reproduction`` of ``--json``; texts by their files' names."""
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    given = [*files, *(tmp_path / name for name in texts)]
    options = ["--seconds", "10", "--reproduce", "--json", "--jobs", "1"]
    options += ["--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "harness", "explain", *map(str, given), *options],
        capture_output=True,
        text=True,
        timeout=1100,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)["reproduction"]


def shown(found) -> dict[str, bool]:
    """By mode, whether it is shown; only those that ran."""
    return {each["mode"]: bool(each["shown"]) for each in found["modes"] if not each["why_not"]}


@pytest.fixture
def recent():
    """A QEMU that has the HPET's ghost ticks, fetched before."""
    try:
        cache = ImageCache(offline=True)
        cache.kernel("6.12"), cache.qemu("10.0")
    except ImageError as error:
        pytest.skip(str(error))


@pytest.mark.timeout(900)  # 20 s, or minutes where many labs share a CPU
def test_quiet_vm_is_quiet_here_in_its_shape(tmp_path):
    """In one of its modes: a single boot of a lab."""
    (tmp_path / "vm").write_text(
        "qemu-system-x86_64 -M q35,hpet=off -accel kvm,kernel-irqchip=split -cpu host "
        "-drive file=/etc/shadow,if=virtio -device virtio-net-pci -device vfio-pci,host=01:00.0"
    )
    (tmp_path / "versions").write_text("QEMU emulator version 7.2.22\nLinux h 6.1.192 x86_64\n")
    answer = explain(ExplainOptions((tmp_path / "vm", tmp_path / "versions"), (), None, None))
    out = tmp_path / "out"
    request = ReproduceRequest(answer, catalogue.shipped_entries(), bands.shipped(), out, 1)
    guest = replace(nearest_guest(answer.vm, versions_here(ImageCache())), modes=(Irqchip.SPLIT,))

    found = asyncio.run(run_guest(request, guest, None, Printer(stderr=True), quiet=True))

    (split,) = found.modes
    assert (found.exit_status, split.shown, split.why_not) == (0, (), None)
    assert value_in(split, "gsi/8/high") == 0
    assert value_in(split, "irq/LOC") > 0
    assert value_in(split, "exit/halt") > 0
    (part,) = split.parts
    assert part.answer.vm.irqchip is Irqchip.SPLIT
    assert part.answer.vm.machine.hpet is False
    assert "null-co" in (out / "vm.yaml").read_text()


@nightly
@pytest.mark.parametrize("hpet", [True, False])
def test_ghost_ticks_show_with_the_hpet_alone(hpet, tmp_path, recent):
    line = (FIELD / "cmdline-on-qemu10.0.txt").read_text()
    if hpet:
        status, found = reproduced(
            tmp_path, FIELD / "trace-cmd-on-qemu10.0.txt", FIELD / "hmp-on-qemu10.0.txt", vm=line
        )
        assert found["entry"] == "hpet-ghost-ticks"
    else:
        status, found = reproduced(
            tmp_path, FIELD / "hmp-on-qemu10.0.txt", vm=line.replace("q35,", "q35,hpet=off,")
        )
        assert found["entry"] is None

    assert status == int(hpet)
    assert shown(found) == {"on": hpet, "split": False, "tcg": False}


@nightly
def test_slew_that_only_an_xml_has_shows_in_split(tmp_path, recent):
    status, found = reproduced(tmp_path, FIELD / "slew.xml")

    assert (status, found["entry"]) == (1, "rtc-slew-storm")
    assert shown(found) == {"split": True, "on": False, "tcg": False}


@nightly
def test_kicks_of_the_pit_show_in_split_with_the_entrys_firmware(tmp_path, recent):
    line = "qemu-system-x86_64 -M q35 -accel kvm,kernel-irqchip=split -cpu host\n"

    status, found = reproduced(tmp_path, kicks=KICKS, vm=line)

    assert (status, found["entry"]) == (1, "split-pit-kicks-lint0-masked")
    assert shown(found) == {"split": True, "on": False, "tcg": False}
    assert "an idle guest in the shape of the VM does not show it" in found["notes"][0]


@nightly
def test_stuck_line_shows_in_every_mode_and_its_cause_is_not_claimed(tmp_path, recent):
    line = "qemu-system-x86_64 -M q35 -accel kvm,kernel-irqchip=split -cpu host\n"

    status, found = reproduced(tmp_path, FIELD / "nobody-cared.txt", vm=line)

    assert (status, found["entry"]) == (1, "stuck-line-storms")
    assert shown(found) == {"split": True, "on": True, "tcg": True}
    assert "says nothing of why the VM has it" in found["notes"][0]


DISK = "null-co,node-name=disk{},size=67108864,read-zeroes=on"


def started(cache, *arguments):
    """What the QEMU says that starts with ``arguments`` and ends at once; its exit status."""
    image = cache.qemu()
    done = subprocess.run(
        [*image.launcher, "-nodefaults", "-display", "none", "-S", "-monitor", "stdio", *arguments],
        input="quit\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("machine", "plain", "disks", "more"),
    [
        ("q35", devices.PCI, devices.DISKS, devices.USB),
        ("microvm", devices.MMIO, devices.MMIO_DISKS, {}),
    ],
    ids=["q35", "microvm"],
)
def test_qemu_starts_with_every_device_that_a_guest_may_have(machine, plain, disks, more):
    wanted = [*plain.values(), *more.values()]
    empty = []
    for number, template in enumerate(disks.values()):
        empty += ["-blockdev", DISK.format(number)]
        wanted.append(template.format(f"disk{number}"))
    words = [word for each in wanted for word in ("-device", each)]

    status, said = started(ImageCache(), "-M", f"{machine},accel=tcg", *empty, *words)

    assert status == 0, said


@pytest.mark.parametrize("model", devices.REMAPPING)
def test_qemu_starts_with_every_flag_and_an_iommu(model):
    flags = ",".join(f"+{each}" for each in sorted(cpu.FLAGS))

    status, said = started(
        ImageCache(), "-M", "q35,accel=tcg", "-cpu", f"qemu64,{flags}", "-device", model
    )

    assert status == 0, said
