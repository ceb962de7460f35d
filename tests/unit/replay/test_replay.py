"""Replay: an altered recording diverges at the altered event, a damaged one says nothing."""

from __future__ import annotations

import importlib
import itertools
import json
from dataclasses import replace

import pytest

from harness import cli
from harness.base.errors import CollectError, ReplayRefused, StoreError
from harness.model import manifest
from harness.model.case import Irqchip
from harness.model.case import Machine as MachineType
from harness.model.layout import CaseDir
from harness.model.manifest import CaseFile
from harness.replay.lookahead import CONTEXT, LOOKAHEAD
from harness.replay.profiles import profile_of
from harness.replay.provenance import RULES, SOURCES
from harness.replay.qemu_stimuli import COMPARED
from harness.replay.replay import Replay, ReplayOutcome, replay_case
from support.recorded_boot import FIRST_LINE, log, recorded
from userspace_chip.events import KVM_EVENTS, Event, event_type
from userspace_chip.irqchip import Machine
from userspace_chip.lapic_registers import LVT0, SPIV, TPR
from userspace_chip.profile import profile, tune

ON = CaseFile(
    schema=manifest.SCHEMA,
    id="linux/q35/qemu64/smp2/lab-kvm-on",
    kind="linux",
    guest="linux",
    subject="linux/q35/qemu64/smp2",
    backend="lab-kvm-on",
    group="",
    irqchip=Irqchip.ON,
    machine=MachineType.Q35,
    smp=2,
    qemu="7.2.22",
    linux="6.1.192",
    axes={"accel": "kvm", "irqchip": "on", "lab_kernel": "default"},
)
SPLIT = replace(ON, irqchip=Irqchip.SPLIT)
BOOTS = {
    "on": recorded("on-smp2-qemu7.2-linux6.1", 9000),
    "split": recorded("split-smp2-qemu7.2-linux6.1", 39_000),
}
BOOT = BOOTS["on"]
ROUTES = 24
"""So many routes are decoded in a rescan."""


def run(events, mode="on"):
    return Replay(profile(mode, qemu="7.2", linux="6.1"), 2).run(log(events))


def find(name, text="", *, vcpu=None, after=0, mode="on"):
    """Where the first such event is, behind ``after``."""
    return next(
        index
        for index, event in enumerate(BOOTS[mode])
        if index > after
        and event.name == name
        and text in event.text
        and (vcpu is None or event.vcpu == vcpu)
    )


def rewritten(event, text):
    return event._replace(args=event_type(event.name).parse(text))


def changed(index, *events, mode="on"):
    """The boot with ``events`` in the place of that one."""
    boot = BOOTS[mode]
    return boot[:index] + events + boot[index + 1 :]


def line_of(index):
    return index + FIRST_LINE


def in_time(events):
    """The events with times in their order."""
    return [event._replace(time_ns=number) for number, event in enumerate(events)]


def next_of_thread(index, mode="on"):
    boot = BOOTS[mode]
    return next(
        later for later in range(index + 1, len(boot)) if boot[later].vcpu == boot[index].vcpu
    )


# --- what agrees


@pytest.mark.parametrize("mode", ["on", "split"])
def test_replay_of_a_recording_agrees(mode):
    replayed = run(BOOTS[mode], mode)

    assert (replayed.outcome, replayed.warnings) == (ReplayOutcome.AGREED, ())
    assert replayed.compared + replayed.skipped == len(BOOTS[mode])


def test_replay_leaves_out_events_of_other_devices_and_of_qemu():
    serial = Event(0, "kvm", "kvm_pio", 0, ("write", 0x3F8, 1, 1, 65, False))
    qemu = Event(0, "qemu", "ioapic_set_irq", 0, (4, 1))
    events = [e for event in BOOT for e in (event, serial, qemu)]

    replayed = run(in_time(events))

    assert replayed.outcome is ReplayOutcome.AGREED
    assert replayed.compared == run(BOOT).compared
    assert replayed.not_compared == len(BOOT)


def test_rescan_that_saw_the_routes_of_before_a_write_in_flight_agrees():
    """KVM traces the write when it leaves for QEMU, whose new routes come later."""
    boot = BOOTS["split"]
    new = find("kvm_msi_set_irq", "vec 48", vcpu=0, mode="split")  # pin 2 gets its vector
    write = max(index for index in range(new) if boot[index].name == "kvm_mmio")
    old = [event for event in boot[:write] if event.name == "kvm_msi_set_irq"][-ROUTES:]
    scan = [event._replace(vcpu=1) for event in old]

    replayed = run(in_time([*boot[: write + 1], *scan, *boot[write + 1 : write + 2000]]), "split")
    after = run(in_time([*boot[: new + ROUTES], *scan, *boot[new + ROUTES : new + 2000]]), "split")

    assert replayed.divergence is None
    assert after.divergence is not None


# --- what is caught, and where

EOI = find("kvm_eoi", vcpu=0, after=2500)
IPI = find("kvm_apic_ipi", "(Fixed", after=2500)
IPI_ACCEPTED = find("kvm_apic_accept_irq", after=IPI)
INJECTED = find("kvm_inj_virq", vcpu=0, after=2500)
RAISED = find("kvm_set_irq", "level 1", after=2500)
IOAPIC = find("kvm_ioapic_set_irq", after=RAISED)
PIC = find("kvm_pic_set_irq", after=RAISED)
READ = find("kvm_mmio", "read len 4 gpa 0xfec00010", after=700)
PIC_READ = find("kvm_pio", "pio_read at 0x21")
ACK = find("kvm_ack_irq")

EVENT = BOOT[EOI]
AT_EVENT = {
    "eoi-of-another-vector": (EOI, rewritten(EVENT, f"apicid 0 vector {EVENT.args[1] ^ 1}")),
    "eoi-on-the-wrong-cpu": (EOI, EVENT._replace(vcpu=1, args=(1, EVENT.args[1]))),
    "accept-of-another-vector": (
        IPI_ACCEPTED,
        BOOT[IPI_ACCEPTED]._replace(
            args=(BOOT[IPI_ACCEPTED].args[0], 0x99, *BOOT[IPI_ACCEPTED].args[2:])
        ),
    ),
    "accept-by-the-wrong-cpu": (
        IPI_ACCEPTED,
        BOOT[IPI_ACCEPTED]._replace(
            args=(1 - BOOT[IPI_ACCEPTED].args[0], *BOOT[IPI_ACCEPTED].args[1:])
        ),
    ),
    "accept-triggered-as-level": (
        IPI_ACCEPTED,
        BOOT[IPI_ACCEPTED]._replace(args=(*BOOT[IPI_ACCEPTED].args[:3], "level")),
    ),
    "injection-of-another-vector": (INJECTED, rewritten(BOOT[INJECTED], "IRQ 0x99")),
    "ioapic-coalesced": (
        IOAPIC,
        BOOT[IOAPIC]._replace(args=(*BOOT[IOAPIC].args[:-1], not BOOT[IOAPIC].args[-1])),
    ),
    "ioapic-entry-not-masked": (
        IOAPIC,
        BOOT[IOAPIC]._replace(
            args=(*BOOT[IOAPIC].args[:-2], not BOOT[IOAPIC].args[-2], BOOT[IOAPIC].args[-1])
        ),
    ),
    "pic-coalesced": (
        PIC,
        BOOT[PIC]._replace(args=(*BOOT[PIC].args[:-1], not BOOT[PIC].args[-1])),
    ),
    "ioapic-register-reads-otherwise": (
        READ,
        BOOT[READ]._replace(args=(*BOOT[READ].args[:-1], 0xBAD)),
    ),
    "pic-register-reads-otherwise": (
        PIC_READ,
        BOOT[PIC_READ]._replace(args=(*BOOT[PIC_READ].args[:4], 0x55, False)),
    ),
    "acknowledge-of-another-pin": (ACK, rewritten(BOOT[ACK], "irqchip PIC master pin 5")),
}


@pytest.mark.parametrize(("index", "event"), AT_EVENT.values(), ids=AT_EVENT.keys())
def test_replay_of_a_changed_event_diverges_there(index, event):
    replayed = run(changed(index, event))

    assert replayed.outcome is ReplayOutcome.DIVERGED
    found = replayed.divergence
    assert found.recorded.number == line_of(index)
    assert found.recorded.event.args == event.args
    assert found.states
    assert found.rules


REMOVED = {
    "eoi": EOI,
    "acceptance": IPI_ACCEPTED,
    "ioapic-input": IOAPIC,
    "pic-input": PIC,
    "acknowledge": ACK,
}


@pytest.mark.parametrize("index", REMOVED.values(), ids=REMOVED.keys())
def test_replay_without_an_event_diverges_at_the_next_of_its_thread(index):
    replayed = run(changed(index))

    assert replayed.outcome is ReplayOutcome.DIVERGED
    found = replayed.divergence
    assert found.recorded.number == line_of(next_of_thread(index)) - 1
    assert f"{BOOT[index].name}: {BOOT[index].text}" in found.predicted


DOUBLED = {"acceptance": IPI_ACCEPTED, "eoi": EOI, "injection": INJECTED, "ioapic-input": IOAPIC}


@pytest.mark.parametrize("index", DOUBLED.values(), ids=DOUBLED.keys())
def test_replay_of_a_doubled_event_diverges_at_the_second(index):
    replayed = run(changed(index, BOOT[index], BOOT[index]))

    assert replayed.outcome is ReplayOutcome.DIVERGED
    assert replayed.divergence.recorded.number == line_of(index) + 1


def test_replay_in_split_without_the_exit_of_an_eoi_diverges():
    index = find("kvm_userspace_exit", mode="split")

    replayed = run(changed(index, mode="split"), "split")

    assert replayed.outcome is ReplayOutcome.DIVERGED
    assert replayed.divergence.why == "an exit for an EOI was due"


def test_replay_in_split_of_an_exit_without_an_eoi_diverges_there():
    index = find("kvm_userspace_exit", mode="split")
    exit_ = BOOTS["split"][index]

    replayed = run(changed(index, exit_, exit_, mode="split"), "split")

    assert replayed.outcome is ReplayOutcome.DIVERGED
    assert replayed.divergence.recorded.number == line_of(index) + 1


def test_replay_in_split_of_a_changed_route_diverges_there():
    index = find("kvm_msi_set_irq", "vec 48", vcpu=0, mode="split")
    event = rewritten(BOOTS["split"][index], "dst 0 vec 49 (Fixed|physical|edge)")

    replayed = run(changed(index, event, mode="split"), "split")

    assert replayed.outcome is ReplayOutcome.DIVERGED
    assert replayed.divergence.recorded.number == line_of(index)


def test_divergence_shows_twenty_events_on_either_side():
    found = run(changed(INJECTED, rewritten(BOOT[INJECTED], "IRQ 0x99"))).divergence

    at = line_of(INJECTED)
    assert [line.number for line in found.before] == list(range(at - CONTEXT, at))
    assert [line.number for line in found.after] == list(range(at + 1, at + 1 + CONTEXT))


def test_event_that_stays_away_to_the_end_diverges():
    """Its thread says nothing more, but another does for long."""
    index = find("kvm_ioapic_set_irq", after=RAISED)
    idle = Event(BOOT[index].time_ns, "kvm", "kvm_mmio", 0, ("unsatisfied-read", 4, 0xFEC00010, 0))

    replayed = run([*BOOT[:index], *([idle] * LOOKAHEAD)])

    assert replayed.outcome is ReplayOutcome.DIVERGED
    assert replayed.divergence.recorded is None
    assert f"{BOOT[index].name}: {BOOT[index].text}" in replayed.divergence.predicted


# --- what cannot be judged


def broken(lines, number, text):
    return [*lines[: number - 1], text, *lines[number:]]


def lost(time_ns):
    return Event(time_ns, "harness", "lost", None, (7, 0))


def test_divergence_after_lost_events_is_incomplete():
    events = changed(EOI, lost(BOOT[EOI].time_ns))

    replayed = run(events)

    assert replayed.outcome is ReplayOutcome.INCOMPLETE
    assert any("7 events lost on CPU 0" in warning for warning in replayed.warnings)


def test_divergence_before_lost_events_is_one():
    events = (*changed(EOI), lost(BOOT[-1].time_ns))

    assert run(events).outcome is ReplayOutcome.DIVERGED


def test_divergence_after_a_damaged_line_is_incomplete():
    lines = broken(log(BOOT), line_of(EOI), '{"ns": 12, "sour\n')

    replayed = Replay(profile("on", qemu="7.2", linux="6.1"), 2).run(lines)

    assert replayed.outcome is ReplayOutcome.INCOMPLETE
    assert f"1 damaged lines, the first is {line_of(EOI)}" in replayed.warnings


@pytest.mark.parametrize("cut", [IOAPIC, 5000], ids=["within-a-fan-out", "elsewhere"])
def test_log_that_was_cut_off_within_a_line_is_incomplete(cut):
    lines = log(BOOT)[: line_of(cut)]
    lines[-1] = lines[-1][:40]

    replayed = Replay(profile("on", qemu="7.2", linux="6.1"), 2).run(lines)

    assert replayed.outcome is ReplayOutcome.INCOMPLETE
    assert f"the log is cut off in line {line_of(cut)}" in replayed.warnings


def test_log_that_was_cut_off_between_lines_with_more_to_come_is_incomplete():
    assert run(BOOT[:IOAPIC]).outcome is ReplayOutcome.INCOMPLETE


def test_divergence_after_times_that_go_back_is_incomplete():
    late = BOOT[EOI - 100]._replace(time_ns=10**15)
    events = changed(EOI)
    events = (*events[: EOI - 100], late, *events[EOI - 99 :])

    replayed = run(events)

    assert replayed.outcome is ReplayOutcome.INCOMPLETE
    assert any("the times go back" in warning for warning in replayed.warnings)


def test_event_of_an_unknown_type_is_a_warning():
    lines = log(BOOT)
    lines.insert(2500, '{"ns": 1, "source": "kvm", "name": "kvm_new", "vcpu": 0, "text": ""}\n')

    replayed = Replay(profile("on", qemu="7.2", linux="6.1"), 2).run(lines)

    assert replayed.outcome is ReplayOutcome.AGREED
    assert replayed.warnings == ("1 events of unknown types: kvm_new",)


def test_log_of_another_version_is_refused():
    with pytest.raises(CollectError, match="version 99"):
        Replay(profile("on"), 1).run(['{"schema": "irqmatrix-events", "version": 99}\n'])


def test_event_of_a_cpu_that_the_case_does_not_have_is_refused():
    with pytest.raises(CollectError, match="vCPU 2"):
        run(changed(EOI, BOOT[EOI]._replace(vcpu=2)))


def test_log_without_a_cpu_is_refused():
    with pytest.raises(ReplayRefused, match="nothing to replay"):
        run([event._replace(vcpu=None) for event in BOOT[:100]])


def test_recording_of_a_virtualised_apic_is_refused():
    accepted = BOOT[IPI_ACCEPTED]._replace(name="kvm_apicv_accept_irq")
    with pytest.raises(ReplayRefused, match="virtualised"):
        run(changed(IPI_ACCEPTED, accepted))


@pytest.mark.parametrize(
    ("mode", "chips"),
    [(Irqchip.ON, "on"), (Irqchip.SPLIT, "split"), (Irqchip.OFF, "off"), (Irqchip.TCG, "tcg")],
)
def test_case_of_every_mode_has_its_chips(mode, chips):
    linux = None if mode is Irqchip.TCG else "6.1.192"
    subject, warnings = profile_of(replace(ON, irqchip=mode, linux=linux))

    assert (subject.mode, subject.qemu, warnings) == (chips, "7.2", ())


def test_version_that_is_not_modelled_is_taken_for_the_one_before():
    subject, warnings = profile_of(replace(ON, qemu="9.2.1", linux="6.6.9-cloud"))

    assert (subject.qemu, subject.linux) == ("7.2", "6.1")
    assert len(warnings) == 2


# --- streaming, rules


def test_replay_reads_no_further_than_it_looks_ahead():
    """So its memory does not grow with the log."""
    pulled = itertools.count()
    lines = log(changed(INJECTED, rewritten(BOOT[INJECTED], "IRQ 0x99")))
    stream = (line for line, _ in zip(lines, pulled, strict=False))

    Replay(profile("on", qemu="7.2", linux="6.1"), 2).run(stream)

    assert next(pulled) <= line_of(INJECTED) + LOOKAHEAD + CONTEXT


def test_rules_name_functions_of_the_chips_with_their_sources():
    assert set(itertools.chain.from_iterable(RULES.values())) == SOURCES.keys()
    for rule in SOURCES:
        module, *names = rule.split(".")
        found = importlib.import_module(f"userspace_chip.{module}")
        for name in names:
            found = getattr(found, name)
        assert callable(found)


def test_rules_are_there_for_every_event_that_is_compared():
    compared = KVM_EVENTS.keys() - {"kvm_apicv_accept_irq"} | COMPARED
    assert RULES.keys() == compared


# --- the case's folder and the command


@pytest.fixture
def folder(tmp_path):
    """A case's folder with a recording that agrees."""
    manifest.write(tmp_path, ON)
    (tmp_path / "events.jsonl").write_text("".join(log(BOOT[:6000])))
    return tmp_path


def status_of(monkeypatch, *args):
    monkeypatch.setattr("sys.argv", ["irqmatrix", "replay", *map(str, args)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def alter(folder):
    events = changed(INJECTED, rewritten(BOOT[INJECTED], "IRQ 0x99"))
    (folder / "events.jsonl").write_text("".join(log(events)))


def test_command_says_that_there_are_no_divergences(folder, monkeypatch, capsys):
    assert status_of(monkeypatch, folder) == 0
    assert "0 divergences" in capsys.readouterr().out


def test_command_shows_the_first_divergence(folder, monkeypatch, capsys):
    alter(folder)

    assert status_of(monkeypatch, folder) == 1
    said = capsys.readouterr().out
    assert "recorded:" in said
    assert f"predicted: kvm_inj_virq: {BOOT[INJECTED].text}" in said
    assert "rule: userspace_chip.vcpu.Vcpu._enter_kvm (Linux arch/x86/kvm/x86.c" in said
    assert f"recorded of lapic0: {line_of(INJECTED):>7} kvm   0 kvm_inj_virq: IRQ 0x99" in said
    assert "model's lapic0: {" in said


def test_command_with_json_gives_the_divergence(folder, monkeypatch, capsys):
    alter(folder)

    assert status_of(monkeypatch, folder, "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert said["outcome"] == "diverged"
    assert said["divergence"]["recorded"]["line"] == line_of(INJECTED)
    assert said["divergence"]["states"]["vcpu0"]
    assert len(said["divergence"]["before"]) == CONTEXT


def test_command_for_a_case_that_cannot_be_replayed_is_status_3(folder, monkeypatch, capsys):
    tcg = replace(ON, irqchip=Irqchip.TCG, linux=None)
    manifest.write(folder, replace(tcg, machine=MachineType.MICROVM))

    assert status_of(monkeypatch, folder) == 3
    assert "two IOAPICs" in capsys.readouterr().err


def test_command_for_an_incomplete_recording_is_status_2(folder, monkeypatch):
    (folder / "events.jsonl").write_text("".join(log(BOOT[:6000]))[:-30])

    assert status_of(monkeypatch, folder) == 2


def test_folder_without_its_description_is_refused(folder):
    (folder / CaseDir.manifest).unlink()
    with pytest.raises(StoreError, match="recorded by an older version"):
        replay_case(folder)


def test_folder_without_events_is_refused(folder):
    (folder / "events.jsonl").unlink()
    with pytest.raises(StoreError, match=r"events\.jsonl"):
        replay_case(folder)


# --- exits at TPR


@pytest.mark.parametrize("vapic", [True, False])
def test_replay_expects_the_pic_s_interrupt_after_an_access_of_tpr(vapic):
    """LINT0 opens late, and KVM looks at the PIC on the way back from KVM_EXIT_TPR_ACCESS."""
    subject = profile("on", qemu="7.2", linux="6.1")
    machine = Machine(subject, 2)
    machine.run_vapic_rom()
    machine.mmio_write(0, 0xFEE00000 + SPIV, 4, 0x1FF)
    machine.irq_line(4, 1)
    machine.mmio_write(0, 0xFEE00000 + LVT0, 4, 0x700)
    machine.mmio_read(0, 0xFEE00000 + TPR, 4)
    machine.enter(0)
    traced = [event._replace(source="kvm") for event in machine.log.take()]
    events = [event for event in traced if event.name in KVM_EVENTS.keys() - {"kvm_userspace_exit"}]

    replayed = Replay(tune(subject, lapic__tpr_access_exits=vapic), 2).run(log(events))

    assert events[-1].text == "IRQ 0x4"
    assert replayed.outcome is (ReplayOutcome.AGREED if vapic else ReplayOutcome.DIVERGED)


@pytest.mark.parametrize(
    ("read", "outcome"),
    [(0x20, ReplayOutcome.AGREED), (0x40, ReplayOutcome.AGREED), (0x31, ReplayOutcome.DIVERGED)],
    ids=["lower class", "higher class", "lower bits"],
)
def test_replay_takes_another_class_in_tpr_for_a_move_to_cr8_but_no_lower_bits(read, outcome):
    subject = profile("split", qemu="7.2", linux="6.12")
    machine = Machine(subject, 1)
    for tpr in (0x30, read):
        machine.lapics[0].set_tpr(tpr)
        machine.mmio_read(0, 0xFEE00000 + TPR, 4)
    events = [e._replace(source="kvm") for e in machine.log.take() if e.name == "kvm_apic"]
    assert [event.text for event in events] == [
        "apic_read APIC_TASKPRI = 0x30",
        f"apic_read APIC_TASKPRI = {read:#x}",
    ]

    assert Replay(subject, 1).run(log(events)).outcome is outcome


FIRST_TICK = [
    Event(1, "qemu", "x86_gsi_interrupt", None, (0, 1)),
    Event(2, "qemu", "pic_set_irq", None, (1, 0, 1)),
    Event(3, "qemu", "pic_update_irq", None, (1, 0xB8, 1, 0)),
    Event(4, "qemu", "x86_pic_interrupt", None, (0, 1)),
    Event(5, "qemu", "ioapic_set_irq", None, (0, 1)),
]
"""Of the PIT, with the masks that the firmware of the live chips leaves; three are compared."""


def test_replay_of_live_chips_begins_with_what_their_firmware_left():
    lines = log(FIRST_TICK)

    replayed = Replay(profile("split", qemu="7.2", linux="6.1"), 1, live=True).run(lines)

    assert (replayed.outcome, replayed.compared) == (ReplayOutcome.AGREED, 3)


def test_replay_of_qemu_begins_with_the_first_event_of_a_cpu():
    with pytest.raises(ReplayRefused, match="nothing to replay"):
        Replay(profile("split", qemu="7.2", linux="6.1"), 1).run(log(FIRST_TICK))
