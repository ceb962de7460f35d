"""The Linux guest on plain TCG: boots on every machine, and every workload does its work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pytest

from harness.guests import linux
from harness.images import ImageCache, KernelImage, QemuImage
from harness.record.collectors.procfs import parse_interrupts

pytestmark = [pytest.mark.live, pytest.mark.slow]

BOOT_TIMEOUT_S = 90
WORKLOAD_TIMEOUT_S = 90


class Guest:
    """A booted guest at its prompt."""

    def __init__(self, process: pexpect.spawn, smp: int) -> None:
        self.process = process
        self.smp = smp

    def run(self, name: str, **parameters: object) -> linux.Transcript:
        self.process.sendline(linux.command(name, parameters))
        self.process.expect_exact(linux.PROMPT, timeout=WORKLOAD_TIMEOUT_S)
        said = self.process.before
        self.process.sendline(linux.REPORT)
        self.process.expect_exact(linux.PROMPT)
        return linux.parse_transcript(said, self.process.before)

    def state(self) -> linux.Snapshot:
        return linux.parse_state(self.ask("state"))

    def ask(self, command: str) -> str:
        self.process.sendline(command)
        self.process.expect_exact(linux.PROMPT, timeout=WORKLOAD_TIMEOUT_S)
        return self.process.before

    def power_off(self) -> int:
        self.process.sendline("poweroff")
        self.process.expect(pexpect.EOF)
        self.process.close()
        return self.process.exitstatus


@contextmanager
def booted(
    kernel: KernelImage, qemu: QemuImage, initrd: Path, machine: str, smp: int
) -> Iterator[Guest]:
    workloads = [linux.WORKLOADS[name] for name in linux.WORKLOADS]
    options = dict.fromkeys(pair for workload in workloads for pair in workload.qemu_args(machine))
    extras = dict.fromkeys(word for workload in workloads for word in workload.kernel_args)
    clock = linux.clock_args(machine, linux.tsc_khz(Path("/proc/cpuinfo").read_text()))
    argv = [
        *qemu.launcher,
        *("-M", f"{machine},accel=tcg", "-cpu", "qemu64", "-m", "256", "-smp", str(smp)),
        *("-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"),
        *("-kernel", str(kernel.vmlinuz), "-initrd", str(initrd)),
        *("-append", " ".join(["console=ttyS0 quiet panic=-1", *extras, *clock])),
        *(word for pair in options for word in pair),
    ]
    process = pexpect.spawn(
        argv[0], argv[1:], timeout=BOOT_TIMEOUT_S, encoding="utf-8", codec_errors="replace"
    )
    try:
        process.expect(linux.READY)
        process.expect_exact(linux.PROMPT)
        yield Guest(process, smp)
    finally:
        process.close(force=True)


@pytest.fixture(scope="module")
def cache() -> ImageCache:
    return ImageCache()


@pytest.fixture(scope="module")
def kernel(cache: ImageCache) -> KernelImage:
    return cache.kernel("default")


@pytest.fixture(scope="module", params=["q35", "pc"])
def machine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module", params=[1, 2], ids=["smp1", "smp2"])
def guest(
    request: pytest.FixtureRequest, cache: ImageCache, kernel: KernelImage, machine: str
) -> Iterator[Guest]:
    initrd = cache.linux_initrd(kernel)
    with booted(kernel, cache.qemu("system"), initrd, machine, request.param) as guest:
        yield guest


@pytest.fixture(scope="module", params=[1, 2], ids=["smp1", "smp2"])
def microvm(
    request: pytest.FixtureRequest, cache: ImageCache, kernel: KernelImage
) -> Iterator[Guest]:
    initrd = cache.linux_initrd(kernel)
    with booted(kernel, cache.qemu("system"), initrd, "microvm", request.param) as guest:
        yield guest


def delivered(transcript: linux.Transcript, irq: str) -> int:
    """By the harness's own reading of the snapshots, not by the guest's."""
    before, after = (
        sum(line.total for line in parse_interrupts(snapshot.interrupts) if line.irq == irq)
        for snapshot in (transcript.before, transcript.after)
    )
    return after - before


def test_guest_state_has_a_column_for_every_cpu(guest: Guest) -> None:
    lines = parse_interrupts(guest.state().interrupts)

    timer = next(line for line in lines if line.irq == "LOC")
    assert list(timer.counts) == list(range(guest.smp))
    assert all(timer.counts.values())


def test_idle_for_a_second_takes_a_second_of_guest_time(guest: Guest) -> None:
    transcript = guest.run("idle", seconds=1)

    assert transcript.status is linux.WorkloadStatus.OK
    assert transcript.metrics["units"] == 1
    assert transcript.metrics["elapsed_ms"] >= 1000


def test_serial_bytes_raise_interrupt_4(guest: Guest) -> None:
    transcript = guest.run("serial", bytes=4096)

    assert transcript.status is linux.WorkloadStatus.OK
    assert transcript.metrics["irq"] == 4
    assert transcript.metrics["count"] == delivered(transcript, "4")
    assert delivered(transcript, "4") > 0


def test_serial_sends_exactly_the_bytes_asked_for(guest: Guest) -> None:
    guest.process.sendline(linux.command("serial", {"bytes": 1000}))
    guest.process.expect(r"irqmatrix: begin serial\r?\n")
    guest.process.expect_exact("irqmatrix: end")
    sent = guest.process.before.replace("\r", "")
    guest.process.expect_exact(linux.PROMPT)

    assert len(sent) == 1000


def test_block_intx_reads_raise_one_level_interrupt_each(guest: Guest) -> None:
    transcript = guest.run("block-intx", reads=100)

    assert transcript.status is linux.WorkloadStatus.OK
    assert delivered(transcript, str(transcript.metrics["irq"])) == 100
    assert transcript.metrics["count"] == 100
    line = next(
        line
        for line in parse_interrupts(transcript.after.interrupts)
        if line.irq == str(transcript.metrics["irq"])
    )
    assert (line.chip, line.flow) == ("IO-APIC", "fasteoi")


def test_block_msix_reads_raise_one_message_each(guest: Guest) -> None:
    transcript = guest.run("block-msix", reads=100)

    assert transcript.status is linux.WorkloadStatus.OK
    assert transcript.metrics["count"] == 100
    assert delivered(transcript, str(transcript.metrics["irq"]).split(",")[-1]) == 100


def test_rtc_ticks_arrive_on_interrupt_8(guest: Guest) -> None:
    transcript = guest.run("rtc", ticks=64)

    assert transcript.status is linux.WorkloadStatus.OK
    assert transcript.metrics["irq"] == 8
    assert transcript.metrics["count"] == delivered(transcript, "8")
    # More than one: the handler has acknowledged.  How many arrive hangs on the machine's load.
    assert delivered(transcript, "8") > 1


@pytest.mark.parametrize("guest", [1], ids=["smp1"], indirect=True)
def test_ipi_on_one_cpu_is_skipped_with_the_reason(guest: Guest) -> None:
    transcript = guest.run("ipi", rounds=100)

    assert (transcript.status, transcript.reason) == ("skip", "needs 2 CPUs, has 1")


@pytest.mark.parametrize("guest", [2], ids=["smp2"], indirect=True)
def test_ipi_on_two_cpus_wakes_across_them(guest: Guest) -> None:
    transcript = guest.run("ipi", rounds=100)

    assert transcript.status is linux.WorkloadStatus.OK
    assert transcript.metrics["units"] == 200
    assert transcript.metrics["count"] > 0


def test_edu_left_alone_raises_nothing(guest: Guest) -> None:
    transcript = guest.run("edu-quiet", seconds=1)

    assert transcript.status is linux.WorkloadStatus.OK
    assert transcript.metrics["nobody_cared"] == 0
    assert transcript.metrics["count"] == 0


def test_unknown_workload_fails_with_the_reason(guest: Guest) -> None:
    transcript = guest.run("nothing-of-the-kind")

    assert (transcript.status, transcript.reason) == ("fail", "unknown workload")


def test_stuck_line_that_was_not_delivered_often_enough_goes_another_round(guest: Guest) -> None:
    """A round of a millisecond is one assertion, which is too little of a slow guest's storm."""
    enough = guest.run("stuck-line", milliseconds=1, deliveries=1)
    short = guest.run("stuck-line", milliseconds=1, deliveries=90_000, rounds=2)
    rest = guest.run("stuck-line")

    assert {run.status for run in (enough, short, rest)} == {linux.WorkloadStatus.OK}
    assert [run.metrics["units"] for run in (enough, short)] == [1, 2]
    assert rest.metrics["nobody_cared"] == 1
    assert rest.metrics["count"] == delivered(rest, str(rest.metrics["irq"]))
    assert rest.metrics["count"] > 1000 * rest.metrics["units"]
    # Linux 6.1 kernel/irq/spurious.c:note_interrupt looks at every 100 000.
    assert sum(int(run.metrics["count"]) for run in (enough, short, rest)) >= 99_900


def test_stuck_line_after_a_storm_is_refused_because_the_kernel_does_not_listen(
    guest: Guest,
) -> None:
    transcript = guest.run("stuck-line")

    assert transcript.status is linux.WorkloadStatus.FAIL
    assert "disabled in an earlier storm" in transcript.reason


def test_guest_powers_off_with_status_0(guest: Guest) -> None:
    assert guest.power_off() == 0


def test_microvm_serial_raises_pin_4(microvm: Guest) -> None:
    transcript = microvm.run("serial")

    assert transcript.status is linux.WorkloadStatus.OK
    irq = str(transcript.metrics["irq"])
    line = next(line for line in parse_interrupts(transcript.after.interrupts) if line.irq == irq)
    assert (line.chip, line.pin) == ("IO-APIC", 4)
    assert delivered(transcript, irq) > 0


def test_microvm_rtc_ticks_arrive(microvm: Guest) -> None:
    transcript = microvm.run("rtc", ticks=64)

    assert transcript.status is linux.WorkloadStatus.OK
    assert transcript.metrics["count"] > 1


def test_microvm_block_is_skipped_with_the_reason(microvm: Guest) -> None:
    transcript = microvm.run("block-intx")

    assert transcript.status is linux.WorkloadStatus.SKIP
    assert "no disk" in transcript.reason


def test_microvm_powers_off_with_status_0(microvm: Guest) -> None:
    assert microvm.power_off() == 0
