"""What the monitor showed of the chips, against the model's registers."""

import json
from dataclasses import replace

import pytest

from harness.base.errors import StoreError
from harness.model.layout import CaseDir
from harness.replay import snapshots
from harness.replay.replay import ReplayOutcome
from harness.replay.snapshots import Look, LookedWrongError, Looking
from support.recorded_boot import recorded_case
from userspace_chip.events import Event
from userspace_chip.info_lapic import InfoLapic, format_lapic
from userspace_chip.info_pic import InfoPic, format_info_pic
from userspace_chip.irqchip import Machine
from userspace_chip.profile import profile

NAMES = ["off-smp1", "tcg-smp1", "tcg-smp2"]


def mark(text):
    return Event(0, "harness", "mark", None, (text,))


def shown(machine):
    """A look at a machine as it is."""
    info = InfoPic([(0x20, machine.ioapics[0].save())], dict(enumerate(machine.pic.save().chips)))
    lapics = tuple(
        format_lapic(InfoLapic(cpu, lapic.save())) for cpu, lapic in enumerate(machine.lapics)
    )
    return Look("end x", "seen x", format_info_pic(info), lapics)


@pytest.fixture
def machine():
    return Machine(profile("tcg", qemu="7.2"), 2)


# --- recordings


@pytest.mark.parametrize("name", NAMES)
def test_chips_of_a_recording_are_as_the_monitor_showed_them(name):
    case = recorded_case(name)

    replayed = case.replay(looks=case.looks)

    assert (replayed.outcome, replayed.divergence) == (ReplayOutcome.AGREED, None)
    assert replayed.looks == case.case.smp + 3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("register", "chip", "found", "instead"),
    [
        ("LVT3", "lapic0", "LVT0\t 0x00010700", "LVT0\t 0x00000700"),
        ("ISR", "lapic0", "ISR\t (none)", "ISR\t 49 "),
        ("TPR", "lapic0", "TPR 0x10", "TPR 0x20"),
        ("IOREDTBL4", "ioapic0", "  pin 4  0x0", "  pin 4  0x8"),
        ("IRR", "pic0", "pic0: irr=13", "pic0: irr=11"),
        ("ISR", "pic1", "imr=ff isr=00 hprio=0 irq_base=38", "imr=ff isr=04 hprio=0 irq_base=38"),
    ],
)
def test_register_that_the_monitor_shows_otherwise_diverges(name, register, chip, found, instead):
    case = recorded_case(name)
    look = case.looks[0]
    altered = (
        replace(look, lapics=(look.lapics[0].replace(found, instead), *look.lapics[1:]))
        if chip == "lapic0"
        else replace(look, controllers=look.controllers.replace(found, instead))
    )
    assert altered != look

    replayed = case.replay(looks=[altered])

    divergence = replayed.divergence
    assert replayed.outcome is ReplayOutcome.DIVERGED
    assert divergence.recorded.event.args == (look.end,)
    assert divergence.states.keys() == divergence.shown.keys() == {chip}
    assert register in json.loads(divergence.shown[chip])


def test_recording_without_looks_is_replayed_without():
    assert recorded_case("off-smp1").replay().looks == 0


# --- one look


def test_chip_may_be_as_shown_at_any_moment_between_the_marks(machine):
    machine.lapics[0].write_mmio(0x80, 4, 0x20, 0)
    looking = Looking([shown(machine)], machine, machine)
    machine.lapics[0].write_mmio(0x80, 4, 0x30, 0)

    looking.mark(mark("end x"))
    assert list(looking.waiting) == ["lapic0"]
    machine.lapics[0].write_mmio(0x80, 4, 0x20, 0)
    looking.compare()
    machine.lapics[0].write_mmio(0x80, 4, 0x30, 0)
    looking.mark(mark("seen x"))

    assert looking.agreed == 5


def test_chip_that_was_as_shown_before_the_look_disagrees(machine):
    looking = Looking([shown(machine)], machine, machine)
    machine.lapics[1].write_mmio(0x80, 4, 0x30, 0)

    looking.mark(mark("end x"))
    with pytest.raises(LookedWrongError, match="lapic1") as wrong:
        looking.mark(mark("seen x"))

    assert wrong.value.states == {"lapic1": '{"TPR": "0x30"}'}
    assert wrong.value.shown == {"lapic1": '{"TPR": "0x0"}'}


def test_count_of_a_timer_is_not_compared(machine):
    look = shown(machine)
    counting = look.lapics[0].replace("current_count = 0", "current_count = 77")
    looking = Looking([replace(look, lapics=(counting, look.lapics[1]))], machine, machine)

    looking.mark(mark("end x"))

    assert looking.agreed == 5


def test_other_marks_do_not_matter(machine):
    looking = Looking([shown(machine)], machine, machine)

    for text in ("ready", "begin x", "seen x", "end y"):
        looking.mark(mark(text))

    assert (looking.agreed, looking.waiting) == (0, {})


def test_x2apic_icr_is_shown_in_two_registers():
    machine = Machine(profile("on", qemu="7.2", linux="6.1"), 2)
    assert machine.msr_write(0, 0x1B, 0xFEE00D00)
    assert machine.msr_write(0, 0x830, 1 << 32 | 0xFB)
    look = shown(machine)
    looking = Looking(
        [replace(look, lapics=(look.lapics[0].replace("ICR2\t 0x00000000", "ICR2\t 0x00000001"),))],
        machine,
        None,
    )

    looking.mark(mark("end x"))

    assert looking.agreed == 1


# --- the file


def test_looks_are_read_as_they_were_written(tmp_path):
    written = recorded_case("tcg-smp2").looks
    snapshots.write(tmp_path, written)

    assert snapshots.read(tmp_path) == written


def test_folder_without_looks_has_none(tmp_path):
    assert snapshots.read(tmp_path) == ()


@pytest.mark.parametrize("text", ["{", "[1]", '[{"begin": "a"}]'])
def test_file_of_another_kind_is_refused(tmp_path, text):
    (tmp_path / CaseDir.snapshots).write_text(text)
    with pytest.raises(StoreError, match=r"looks\.json was not written by irqmatrix"):
        snapshots.read(tmp_path)


@pytest.mark.parametrize("field", ["controllers", "lapics"])
def test_look_that_is_no_text_of_the_monitors_is_refused(machine, field):
    value = "rubbish" if field == "controllers" else ("rubbish",)
    looking = Looking([replace(shown(machine), **{field: value})], machine, machine)

    with pytest.raises(StoreError, match=r"looks\.json cannot be used"):
        looking.mark(mark("end x"))
