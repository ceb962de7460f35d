"""What an explanation is: frozen types, from which the report and the JSON are made."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.explain.bands import Unusual, UsualBand
from harness.explain.quantities import Amount
from harness.ledger.ledger import LedgerFinding
from harness.model.case import Irqchip
from harness.record.collectors.foreign.model import Evidence, VmMachine
from harness.repro.field_signs import Deciding


@dataclass(frozen=True)
class Vm:
    """What is known of the VM, each with where that is from; None is not known.

    ``qemu_at_least`` is the machine type's version: a lower bound where QEMU's own is not known.
    """

    machine: VmMachine
    irqchip: Irqchip | None
    irqchip_why: str
    qemu: tuple[int, ...] | None
    qemu_at_least: tuple[int, ...] | None
    linux: tuple[int, ...] | None
    smp: int | None
    apicv: bool | None = None
    """Whether hardware may deliver and end interrupts by itself (APICv, AVIC)."""


@dataclass(frozen=True)
class AmountInBand:
    """A quantity beside its band, where there is one."""

    quantity: Amount
    band: UsualBand | None


@dataclass(frozen=True)
class LineSource:
    """A line, and which device may drive it; ``why`` says from what that is known."""

    line: str
    device: str
    why: str


@dataclass(frozen=True)
class BrokenLaw:
    """A law that a trace breaks, by more than its beginning and end can explain."""

    name: str
    rows: tuple[str, ...]
    first: LedgerFinding | None


@dataclass(frozen=True)
class Laws:
    """The account of one trace: what was broken, or why it says nothing."""

    file: str
    checked: tuple[str, ...]
    broken: tuple[BrokenLaw, ...]
    unseen: tuple[str, ...]
    """Laws that cannot be checked there, with the reason."""


class Standing(StrEnum):
    """Where a catalogue entry stands, the best known first."""

    FITS = "fits"
    """What was seen is what it shows, and nothing speaks against it."""
    HINTED = "hinted"
    """Something was seen that it shows, and other things, too: no more than a hint."""
    POSSIBLE = "possible"
    """This VM can have it; what was seen does not show it."""
    AGAINST = "against"
    """The VM could have it, but what was seen is not what it shows."""
    EXCLUDED = "excluded"
    """This VM cannot have it."""


@dataclass(frozen=True)
class Candidate:
    """A catalogue entry beside this VM and its evidence.

    ``needs`` are conditions that are known to hold, ``unknown`` those that are not known;
    ``unseen`` are signs that no evidence shows.
    """

    entry: str
    symptom: str
    standing: Standing
    score: int
    seen: tuple[str, ...]
    needs: tuple[str, ...]
    against: tuple[str, ...]
    unknown: tuple[str, ...]
    unseen: tuple[str, ...]
    decide: tuple[Deciding, ...]
    link: str


@dataclass(frozen=True)
class Explanation:
    """The whole explanation.

    ``verdict`` is one sentence; ``not_observable`` what none of the files can show.
    """

    verdict: str
    evidence: tuple[Evidence, ...]
    refused: tuple[str, ...]
    """Files that could not be read, and why."""
    vm: Vm
    measured: tuple[AmountInBand, ...]
    unusual: tuple[Unusual, ...]
    signs: tuple[Amount, ...]
    """Kernel messages, and states of chips, that are worth a look."""
    sources: tuple[LineSource, ...]
    laws: tuple[Laws, ...]
    candidates: tuple[Candidate, ...]
    decide: tuple[Deciding, ...]
    not_observable: tuple[str, ...]

    @property
    def is_quiet(self) -> bool:
        """Nothing that was seen is unusual, and no entry fits."""
        return not (
            self.unusual or self.signs or self.fitting or any(each.broken for each in self.laws)
        )

    @property
    def fitting(self) -> tuple[Candidate, ...]:
        """Those candidates that fit, the likeliest first."""
        return self.standing(Standing.FITS)

    def standing(self, standing: Standing) -> tuple[Candidate, ...]:
        """The candidates that stand there, the likeliest first."""
        return tuple(each for each in self.candidates if each.standing is standing)
