from __future__ import annotations

import base64
import gzip
from pathlib import Path

import pytest

from harness.base import resources
from harness.base.errors import CollectError
from harness.guests import linux
from harness.guests.linux import WorkloadStatus
from harness.model.case import LinuxGuest

INTERRUPTS = "           CPU0       \n  4:         51   IO-APIC   4-edge      ttyS0\n"
STAT = "cpu  1 2 3\nintr 5\n"

SECTIONS = f"""\
irqmatrix: section before/interrupts
{INTERRUPTS}irqmatrix: section before/stat
{STAT}irqmatrix: section after/interrupts
{INTERRUPTS.replace("51", "55")}irqmatrix: section after/stat
{STAT}"""


def packed(text: str) -> str:
    return base64.encodebytes(gzip.compress(text.encode())).decode()


SAID = """\
irqmatrix: begin serial
irqmatrix: payload 0123456789
irqmatr
irqmatrix: end serial ok elapsed_ms=21.147 units=4096 irq=4 count=4 -- \n"""


def test_transcript_has_status_metrics_and_both_snapshots() -> None:
    transcript = linux.parse_transcript(SAID, packed(SECTIONS))

    assert (transcript.name, transcript.status) == ("serial", WorkloadStatus.OK)
    assert transcript.metrics == {"elapsed_ms": 21.147, "units": 4096, "irq": 4, "count": 4}
    assert transcript.before == linux.Snapshot(INTERRUPTS, STAT)
    assert transcript.after == linux.Snapshot(INTERRUPTS.replace("51", "55"), STAT)


def test_transcript_with_carriage_returns_reads_the_same() -> None:
    assert linux.parse_transcript(
        SAID.replace("\n", "\r\n"), packed(SECTIONS).replace("\n", "\r\n")
    ) == linux.parse_transcript(SAID, packed(SECTIONS))


def test_transcript_of_several_interrupts_keeps_their_list_as_text() -> None:
    said = "irqmatrix: end block-msix ok units=200 irq=24,25 count=200 -- \n"

    assert linux.parse_transcript(said, packed(SECTIONS)).metrics["irq"] == "24,25"


def test_transcript_of_a_skip_has_the_reason_not_its_words_as_metrics() -> None:
    said = "irqmatrix: end ipi skip -- needs 2 CPUs, has nproc=1\n"

    transcript = linux.parse_transcript(said, packed(""))

    assert (transcript.status, transcript.metrics) == (WorkloadStatus.SKIP, {})
    assert transcript.reason == "needs 2 CPUs, has nproc=1"
    assert transcript.before is None


def test_transcript_without_an_end_is_an_error_with_the_last_words() -> None:
    with pytest.raises(CollectError, match=r"has no end.*Kernel panic"):
        linux.parse_transcript("irqmatrix: begin idle\nKernel panic - not syncing\n", packed(""))


def test_transcript_that_is_ok_but_lacks_a_snapshot_is_an_error() -> None:
    with pytest.raises(CollectError, match="report of serial is incomplete"):
        linux.parse_transcript(SAID, packed(SECTIONS.partition("irqmatrix: section after")[0]))


@pytest.mark.parametrize("report", ["AAAA", "H4sIAAAAAAAA", "Segmentation fault"])
def test_report_that_is_damaged_is_an_error(report: str) -> None:
    with pytest.raises(CollectError, match="damaged"):
        linux.parse_transcript(SAID, report)


def test_state_is_one_snapshot() -> None:
    text = f"irqmatrix: section now/interrupts\n{INTERRUPTS}irqmatrix: section now/stat\n{STAT}"

    assert linux.parse_state(text) == linux.Snapshot(INTERRUPTS, STAT)


def test_state_that_is_cut_off_is_an_error() -> None:
    with pytest.raises(CollectError, match="state is incomplete"):
        linux.parse_state(f"irqmatrix: section now/interrupts\n{INTERRUPTS}")


def test_command_quotes_what_the_guest_reads_with_a_shell() -> None:
    assert (
        linux.command("serial", {"bytes": 10, "text": "a b;c"})
        == "run serial bytes=10 text='a b;c'"
    )


@pytest.mark.parametrize("name", linux.WORKLOADS)
def test_workload_has_a_file_that_sets_its_parameters_to_the_same_defaults(name: str) -> None:
    text = (resources.images() / "linux" / "workloads" / name).read_text()

    missing = [
        f"{key}={value}"
        for key, value in linux.WORKLOADS[name].parameters.items()
        if f"\n{key}={value}\n" not in text
    ]
    assert missing == []


def test_workload_files_are_all_in_the_table() -> None:
    files = (resources.images() / "linux" / "workloads").iterdir()

    assert {path.name for path in files if not path.name.startswith(".")} == set(linux.WORKLOADS)


@pytest.mark.parametrize(
    ("name", "machine", "smp", "reason"),
    [
        ("ipi", "q35", 1, "needs 2 CPUs, the guest has 1"),
        ("ipi", "q35", 2, None),
        ("block-intx", "microvm", 1, "no PCI bus"),
        ("idle", "microvm", 1, None),
    ],
)
def test_why_not_runnable_says_the_reason_or_nothing(
    name: str, machine: str, smp: int, reason: str | None
) -> None:
    found = linux.why_not_runnable(name, machine, smp)

    assert (found is None) == (reason is None)
    assert (reason or "") in (found or "")


def test_runnable_puts_what_spoils_the_guest_last() -> None:
    names = ["stuck-line", "ipi", "idle", "edu-quiet"]

    assert linux.runnable(names, "pc", 1) == ("idle", "edu-quiet", "stuck-line")


def test_devices_of_a_machine_without_pci_are_none() -> None:
    assert linux.WORKLOADS["stuck-line"].qemu_args("microvm") == ()
    assert linux.WORKLOADS["stuck-line"].qemu_args("q35") != ()


def test_devices_that_share_a_line_are_four_slots_apart() -> None:
    values = [value for option, value in linux.WORKLOADS["stuck-line"].qemu_args("pc")]

    slots = [
        int(value.partition("addr=")[2].split(",")[0], 16) for value in values if "addr" in value
    ]
    assert len(slots) == 2
    assert slots[0] % 4 == slots[1] % 4


def test_clock_of_a_microvm_is_half_the_bogomips() -> None:
    cpuinfo = "processor\t: 0\nbogomips\t: 5199.98\nflags : x\nbogomips\t: 5199.98\n"

    assert linux.clock_args("microvm", linux.tsc_khz(cpuinfo)) == ("tsc_early_khz=2599990",)


@pytest.mark.parametrize(
    ("machine", "cpuinfo"), [("q35", "bogomips\t: 5199.98\n"), ("microvm", "no such line\n")]
)
def test_clock_that_needs_no_help_or_has_none_gives_no_argument(machine: str, cpuinfo: str) -> None:
    assert linux.clock_args(machine, linux.tsc_khz(cpuinfo)) == ()


def test_boot_words_are_the_commands_of_what_can_run_in_their_order() -> None:
    parameters = {"serial": {"bytes": "64"}}
    guest = LinuxGuest(("stuck-line", "ipi", "serial"), parameters=parameters)

    assert linux.boot_words(guest, "q35", smp=1) == (
        *("--", "do:run,serial,bytes=64", "do:report"),
        *("do:run,stuck-line", "do:report", "do:poweroff"),
    )


def test_sources_of_the_guest_are_there() -> None:
    sources: Path = resources.images() / "linux"

    assert (sources / "init").stat().st_mode & 0o111
