"""Evidence -> an answer.  Pure: the same evidence gives the same answer, anywhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from harness.explain.answer import AmountInBand, Candidate, Explanation, Laws, Standing, Vm
from harness.explain.bands import Unusual, UsualBand, band_of, unusual
from harness.explain.candidates import candidates
from harness.explain.devices import line_sources
from harness.explain.laws import laws_of
from harness.explain.quantities import Amount, quantities
from harness.explain.vm import vm_of
from harness.model.case import Irqchip
from harness.record.collectors.foreign.model import (
    EventCounts,
    Evidence,
    ExitTable,
    KernelLog,
    LapicTexts,
    Registers,
    Snapshots,
    TraceTally,
    VmMachine,
)
from harness.repro.catalogue import Entry
from harness.repro.field_signs import Deciding

MOST_COMMANDS: Final = 3
_LINE: Final = re.compile(r"(?:irq/ioapic|irq/pic|gsi)/(\d{1,5})")


def explain(
    evidence: Sequence[Evidence],
    entries: Iterable[Entry],
    bands: tuple[UsualBand, ...],
    *,
    refused: tuple[str, ...] = (),
    seconds: float | None = None,
) -> Explanation:
    """What ``evidence`` says, beside ``entries`` of the catalogue and ``bands`` of usual rates.

    ``seconds`` is the time between two snapshots that have none; ``refused`` are files that could
    not be read.
    """
    vm = vm_of(evidence)
    measured = quantities(evidence, seconds=seconds)
    odd = unusual(measured, bands, vm.smp or 1)
    signs = tuple(each for each in measured if each.name.startswith(("log/", "state/remote")))
    laws = laws_of(evidence)
    found = candidates(entries, vm, measured)
    return Explanation(
        verdict=_verdict(found, odd, signs, laws, measured),
        evidence=tuple(evidence),
        refused=refused,
        vm=vm,
        measured=tuple(AmountInBand(each, band_of(each, bands)) for each in measured),
        unusual=odd,
        signs=signs,
        sources=line_sources(_lines(odd, evidence), _irqs(evidence), evidence, vm),
        laws=laws,
        candidates=found,
        decide=_decide(found, odd, signs, evidence, measured, vm),
        not_observable=tuple(_not_observable(evidence, measured, vm)),
    )


def _verdict(
    found: Sequence[Candidate],
    odd: Sequence[Unusual],
    signs: Sequence[Amount],
    laws: Sequence[Laws],
    measured: Sequence[Amount],
) -> str:
    fitting = [each for each in found if each.standing is Standing.FITS]
    leaders = [each for each in fitting if each.score == fitting[0].score]
    broken = sum(len(each.broken) for each in laws)
    if len(leaders) == 1:
        others = f"; {len(fitting) - 1} more fit less well" if len(fitting) > 1 else ""
        return f"it looks like {leaders[0].entry}{others}"
    if leaders:
        names = ", ".join(each.entry for each in leaders)
        return f"several entries fit alike: {names}"
    hinted = [each.entry for each in found if each.standing is Standing.HINTED]
    if hinted:
        several = "candidates" if len(hinted) > 1 else "a candidate"
        return f"not enough to say what it is; {several}: {', '.join(hinted)}"
    if odd or signs or broken:
        parts = [
            *([f"{len(odd)} unusual rates"] if odd else []),
            *([f"{len(signs)} kinds of messages or states to look at"] if signs else []),
            *([f"{broken} laws broken"] if broken else []),
        ]
        return f"{', '.join(parts)}; no entry of the catalogue fits"
    if not any(each.unit != "times" for each in measured):
        given = [each for each in found if is_by_its_options(each)]
        if given:
            return f"nothing was measured; this VM has the options of {given[0].entry}"
        return "nothing was measured: the files say which VM it is, and not what it does"
    return "nothing unusual"


_GIVEN: Final = ("driftfix", "machine microvm")


def is_by_its_options(candidate: Candidate) -> bool:
    """Whether a VM can have it for an option that few VMs have, and all else is known to hold."""
    special = any(_rare in need for need in candidate.needs for _rare in _GIVEN)
    return candidate.standing is Standing.POSSIBLE and special and not candidate.unknown


def _lines(odd: Iterable[Unusual], evidence: Iterable[Evidence]) -> list[int]:
    lines = [
        int(match[1]) for each in odd if (match := _LINE.match(each.quantity.name)) is not None
    ]
    for one in evidence:
        if isinstance(one.content, Registers):
            lines += [pin for ioapic in one.content.pending.ioapics for pin in ioapic.remote_irr]
    return list(dict.fromkeys(lines))


def _irqs(evidence: Iterable[Evidence]) -> list[int]:
    return [
        int(sign.subject)
        for each in evidence
        if isinstance(each.content, KernelLog)
        for sign in each.content.signs
        if sign.sign in ("nobody-cared", "irq-disabled") and sign.subject.isdecimal()
    ]


# --- What next ------------------------------------------------------------------------------------

_FIRST: Final = (
    Deciding(
        "cat /proc/interrupts; sleep 10; cat /proc/interrupts   (in the guest)",
        "how often each line and each CPU's timer fires, in the guest's own count",
    ),
    Deciding(
        "tr '\\0' ' ' </proc/$(pgrep -o qemu)/cmdline   (on the host; or: virsh dumpxml NAME)",
        "which VM it is, and so which entries of the catalogue can hit it",
    ),
    Deciding(
        "perf stat -e 'kvm:*' -p $(pgrep -o qemu) -- sleep 10   (on the host, as root)",
        "which events of KVM are many",
    ),
)


def _decide(
    found: Sequence[Candidate],
    odd: Sequence[Unusual],
    signs: Sequence[Amount],
    evidence: Sequence[Evidence],
    measured: Sequence[Amount],
    vm: Vm,
) -> tuple[Deciding, ...]:
    """One to three commands; none where there is nothing to decide."""
    fitting = [each for each in found if each.standing is Standing.FITS]
    fitting = fitting or [each for each in found if each.standing is Standing.HINTED]
    given = [each for each in found if is_by_its_options(each)]
    wanted: list[Deciding] = []
    for rank in range(MOST_COMMANDS):
        for each in (fitting or given)[:MOST_COMMANDS]:
            wanted += each.decide[rank : rank + 1]
    if not wanted:
        wanted = list(_missing(evidence, vm)) if odd or signs or not measured else []
    elif not any(isinstance(each.content, VmMachine) for each in evidence):
        wanted.insert(1, _FIRST[1])
    return tuple({each.command: each for each in wanted}.values())[:MOST_COMMANDS]


def _missing(evidence: Sequence[Evidence], vm: Vm) -> Iterable[Deciding]:
    contents = [each.content for each in evidence]
    if not any(isinstance(each, Snapshots) for each in contents):
        yield _FIRST[0]
    if not any(isinstance(each, VmMachine) for each in contents):
        yield _FIRST[1]
    counted = any(isinstance(each, EventCounts | TraceTally | ExitTable) for each in contents)
    if not counted and vm.irqchip is not Irqchip.TCG:
        yield _FIRST[2]


def _not_observable(
    evidence: Sequence[Evidence], measured: Sequence[Amount], vm: Vm
) -> Iterable[str]:
    """What no file shows, so that its absence is not taken for a zero."""
    contents = [each.content for each in evidence]
    names = [each.name for each in measured]
    snapshots = [each for each in contents if isinstance(each, Snapshots) and not each.is_host]
    if not any(name.startswith("irq/") for name in names):
        yield (
            "rates of the guest's interrupts: the snapshots have no times (say --seconds N)"
            if sum(len(each.snapshots) for each in snapshots) > 1
            else "rates of the guest's interrupts: that takes two snapshots of /proc/interrupts"
        )
    if not any(name.startswith("exit/") for name in names) and vm.irqchip is not Irqchip.TCG:
        yield (
            "rates of exits: the table does not say how long it counted (say --seconds N)"
            if any(isinstance(each, ExitTable) for each in contents)
            else "exits: nothing counts them"
        )
    if not any(name.startswith("gsi/") for name in names):
        yield (
            "the lines that QEMU moves: `info irq`, twice, counts them"
            if vm.irqchip is Irqchip.TCG
            else "the lines that QEMU moves: only a trace with kvm:kvm_set_irq shows them"
        )
    if vm.apicv and any(isinstance(each, TraceTally) for each in contents):
        yield "what hardware delivers and ends by itself (APICv, AVIC): it has no event in a trace"
    if vm.irqchip is None:
        yield "the irqchip mode: a command line, XML or trace would say it"
    if vm.qemu is None:
        yield "QEMU's version"
    if vm.linux is None:
        yield "the host kernel's version"
    if not any(isinstance(each, Registers | LapicTexts) for each in contents):
        yield "what is pending in the chips: `info pic` and `info lapic` of the monitor show it"
    if not any(isinstance(each, KernelLog) for each in contents):
        yield "what the guest's kernel complains about: its dmesg would show it"
