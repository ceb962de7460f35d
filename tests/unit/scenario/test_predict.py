"""The model executes programs: every operation, handlers, profiles."""

import pytest

from harness.base.errors import PredictionError
from harness.scenario.authoring import authoring_problems
from harness.scenario.execution import Execution, Order, machine_for
from harness.scenario.predict import features, predict
from harness.scenario.program import ANY_VECTOR, NMI_ENTRY, Detail, Feature, Op, Opcode
from support.fuzz_programs import CPUS, fuzz_programs
from support.scenario_programs import (
    ALL,
    APIC,
    APIC_ID,
    CLI,
    EOI,
    EOI_IN_SERVICE,
    HLT,
    ICR,
    INIT,
    ISR2,
    LDR,
    LEVEL,
    LINT0,
    LVTT,
    MASKED,
    NMI,
    OTHERS,
    PPR,
    PROFILES,
    SELF,
    SIPI,
    SMI,
    STI,
    SVR,
    TDCR,
    TMICT,
    TPR,
    await_cpu,
    handler,
    inb,
    ipi,
    lapic,
    line,
    msi,
    on,
    outb,
    program,
    read,
    rte,
    wait,
)
from userspace_chip.profile import profile, tune

everywhere = pytest.mark.parametrize("subject", PROFILES.values(), ids=PROFILES)
ON = profile("on")
SPLIT = profile("split")
TCG = profile("tcg")


def lines(prog, subject=ON, **settings):
    return [str(event) for event in predict(prog, subject, **settings).events]


# --- interrupts


@everywhere
def test_edge_interrupt_is_logged_with_its_service_bit(subject):
    assert lines(program(rte(14, 0x51), line(14, 1)), subject) == ["1 0 irq 51 - 51 -"]


@everywhere
def test_level_interrupt_shows_tmr_and_the_entry_with_remote_irr(subject):
    level = handler(0x51, pins=1 << 14)
    prog = program(
        rte(14, 0x51 | LEVEL),
        [line(14, 1), line(14, 0)],
        handlers=(level,),
        blocks=[(line(14, 0), EOI)],
    )
    assert lines(prog, subject) == ["1 0 irq 51 - 51 51 e=c051"]


@everywhere
def test_level_line_left_high_storms_until_the_limit_and_is_cut_once(subject):
    prog = program(
        rte(14, 0x51 | LEVEL),
        line(14, 1),
        read(ISR2),
        handlers=(handler(0x51, detail=Detail.SHORT, limit=3),),
        blocks=[(EOI,)],
    )
    assert lines(prog, subject) == [
        *["1 0 irq 51"] * 3,
        "1 0 cut 51 4",
        "2 0 read 20000",
    ]


@everywhere
def test_ipi_to_another_cpu_is_logged_by_that_cpu(subject):
    prog = program(ipi(0x40, dest=1), ipi(0x41 | OTHERS), ipi(0x42 | SELF), cpus=2)
    assert lines(prog, subject) == ["2 0 irq 42 - 42 -", "0 1 irq 40 - 40 -", "1 1 irq 41 - 41 -"]


@everywhere
def test_msi_outside_the_window_is_no_interrupt(subject):
    prog = program(msi(0x61), msi(0x62, base=0xFED00000), msi(0x63, high=1))
    assert lines(prog, subject) == ["0 0 irq 61 - 61 -"]


@everywhere
def test_higher_vector_that_came_with_interrupts_off_is_taken_first(subject):
    prog = program([CLI, ipi(0x40 | SELF), ipi(0x50 | SELF), STI])
    assert lines(prog, subject) == ["0 0 irq 50 40 50 -", "0 0 irq 40 - 40 -"]


@everywhere
def test_interrupt_while_tpr_holds_it_back_comes_with_a_lower_tpr(subject):
    prog = program(lapic(TPR, 0x40), ipi(0x45 | SELF), read(PPR), lapic(TPR, 0x30))
    assert lines(prog, subject) == ["2 0 read 40", "3 0 irq 45 - 45 -"]


@pytest.mark.parametrize(("mode", "taken"), [("off", ["2 0 irq 3 - 3 -"]), ("on", []), ("tcg", [])])
def test_interrupt_that_the_last_exit_of_a_step_lets_through_comes_in_that_step(mode, taken):
    prog = program(lapic(TPR, 0x30), ipi(3 | SELF), lapic(TPR, 0xF))
    assert lines(prog, profile(mode)) == taken


@everywhere
def test_nmi_is_taken_with_interrupts_off(subject):
    prog = program(CLI, ipi(NMI, dest=0))
    assert lines(prog, subject) == ["1 0 nmi"]


@everywhere
def test_interrupts_off_from_the_start_keep_everything_pending(subject):
    prog = program(ipi(0x40 | SELF), read(0x220), interrupts=False)
    assert lines(prog, subject) == ["1 0 read 1"]


# --- handlers


@everywhere
def test_handler_with_sti_is_interrupted_by_a_higher_class(subject):
    prog = program(
        ipi(0x40 | SELF),
        handlers=(handler(0x40),),
        blocks=[(STI, ipi(0x55 | SELF), ipi(0x45 | SELF), EOI)],
    )
    assert lines(prog, subject) == [
        "0 0 irq 40 - 40 -",
        "0 0 irq 55 - 55,40 -",
        "0 0 irq 45 - 45 -",
    ]


def test_handler_first_block_replaces_it_for_the_first_entries_on_each_cpu():
    prog = program(
        ipi(0x40 | ALL),
        cpus=2,
        handlers=(handler(0x40, first_times=2, first_block=3),),
        blocks=[(EOI,), (ipi(0x40 | SELF), EOI)],
    )
    assert lines(prog) == ["0 0 irq 40 - 40 -"] * 3 + ["0 1 irq 40 - 40 -"] * 3


def test_handler_of_any_vector_serves_those_without_their_own():
    prog = program(
        ipi(0x40 | SELF),
        ipi(0x50 | SELF),
        handlers=(handler(ANY_VECTOR, detail=Detail.SHORT), handler(0x50, 3)),
        blocks=[(EOI,), (Op(Opcode.LAPIC_READ, APIC_ID), EOI)],
    )
    assert lines(prog) == ["0 0 irq 40", "1 0 irq 50 - 50 -", "1 0 read 0"]


def test_handler_that_counts_is_logged_at_the_end():
    prog = program(
        ipi(0x40 | SELF),
        ipi(0x40 | SELF),
        handlers=(handler(0x40, detail=Detail.COUNT),),
        blocks=[(EOI,)],
    )
    assert lines(prog) == ["1 0 count 40 2"]


def test_handler_without_eoi_holds_back_its_class():
    prog = program(ipi(0x41 | SELF), ipi(0x40 | SELF), EOI, handlers=(handler(0x41),), blocks=[()])
    assert lines(prog) == ["0 0 irq 41 - 41 -", "2 0 irq 40 - 40 -"]


def test_eoi_in_service_leaves_a_vector_alone_that_is_not():
    extint = [lapic(LINT0, 0x700), outb(0x21, 0xEF), line(4, 1)]
    prog = program(
        [CLI, ipi(0x71 | SELF)],
        extint,
        STI,
        handlers=(handler(0x24), handler(0x71, 3)),
        blocks=[(Op(Opcode.LAPIC_READ, 0x230), EOI_IN_SERVICE, outb(0x20, 0x64)), (EOI,)],
    )
    assert lines(prog) == ["2 0 irq 24 71 - -", "2 0 read 20000", "2 0 irq 71 - 71 -"]


# --- registers


@everywhere
def test_register_reads_are_logged(subject):
    prog = program(
        read(SVR),
        Op(Opcode.MMIO_READ, APIC + TPR),
        Op(Opcode.MMIO_WRITE, 0xFEC00000, 0x10 + 2 * 7),
        Op(Opcode.IOAPIC_READ, 0x10 + 2 * 7),
        inb(0x21),
        Op(Opcode.MSR_READ, 0x1B),
    )
    assert lines(prog, subject) == [
        "0 0 read 1ff",
        "1 0 read 0",
        "3 0 read 10000",
        "4 0 read ff",
        "5 0 read fee00900",
    ]


@pytest.mark.parametrize("subject", [ON, SPLIT, TCG], ids=["on", "split", "tcg"])
def test_x2apic_mode_reads_and_writes_through_msrs(subject):
    to_x2apic = Op(Opcode.MSR_WRITE, 0x1B, 0xFEE00D00)
    prog = program(
        Op(Opcode.MSR_READ, 0x808),
        to_x2apic,
        lapic(TPR, 0x20),
        read(TPR),
        lapic(ICR, 0x4045, 0),
        Op(Opcode.MSR_WRITE, 0x83F, 0x46),
        Op(Opcode.MSR_WRITE, 0x1B, 0xFEE00900),
    )
    assert lines(prog, subject) == [
        "0 0 gp",
        "3 0 read 20",
        "4 0 irq 45 - 45 -",
        "5 0 irq 46 - 46 -",
        "6 0 gp",
    ]


def test_irq_with_the_apic_globally_disabled_shows_no_bitmaps():
    prog = program(
        [outb(0x21, 0xEF), Op(Opcode.MSR_WRITE, 0x1B, 0xFEE00100), line(4, 1)],
        handlers=(handler(ANY_VECTOR),),
        blocks=[(outb(0x20, 0x64),)],
    )
    assert lines(prog, SPLIT) == ["0 0 irq 24 ? ? ?"]


# --- sleeping, waiting


@everywhere
def test_hlt_ends_with_the_interrupt_and_logs_in_this_order(subject):
    prog = program([lapic(LVTT, 0x50), lapic(TMICT, 1000), HLT])
    assert lines(prog, subject) == ["0 0 irq 50 - 50 -", "0 0 woke"]


@everywhere
def test_hlt_of_another_cpu_logs_with_its_own_step_until_the_await(subject):
    prog = program(
        on(HLT, 1), ipi(0x40, dest=1), read(TPR), await_cpu(1), ipi(0x41, dest=1), cpus=2
    )
    assert lines(prog, subject) == [
        "2 0 read 0",
        "0 1 irq 40 - 40 -",
        "0 1 woke",
        "4 1 irq 41 - 41 -",
    ]


@everywhere
def test_hlt_that_nothing_wakes_is_asleep(subject):
    assert lines(program([CLI, HLT], read(TPR)), subject) == ["0 0 asleep", "1 0 read 0"]


@everywhere
def test_await_of_a_cpu_that_sleeps_on_times_out(subject):
    prog = program(on(HLT, 1), await_cpu(1), cpus=2)
    assert lines(prog, subject) == ["1 0 asleep"]


@everywhere
def test_hlt_with_interrupts_off_is_woken_by_an_nmi_only(subject):
    prog = program(
        [on(CLI, 1), on(HLT, 1)], ipi(0x40, dest=1), ipi(NMI, dest=1), await_cpu(1), cpus=2
    )
    assert lines(prog, subject) == ["0 1 nmi", "0 1 woke"]


@everywhere
def test_periodic_timer_is_waited_for_in_its_step(subject):
    arm = [lapic(LVTT, 0x20050), lapic(TMICT, 1_000_000), wait(0x50, 3), lapic(LVTT, MASKED)]
    assert lines(program(arm), subject) == ["0 0 irq 50 - 50 -"] * 3


def test_wait_logs_what_it_had_counted():
    assert lines(program([ipi(0x40 | SELF), wait(0x40, 2)])) == [
        "0 0 irq 40 - 40 -",
        "0 0 timeout 1",
    ]


def test_wait_for_any_vector_of_another_cpu_counts_all():
    prog = program(
        [ipi(0x40, dest=1), ipi(0x51, dest=1), wait(ANY_VECTOR, 2, target=1)],
        wait(0x40, 2, us=10, target=1),
        cpus=2,
    )
    assert lines(prog) == ["1 0 timeout 1", "0 1 irq 40 - 40 -", "0 1 irq 51 - 51 -"]


def test_delay_lets_a_timer_fire():
    prog = program([lapic(LVTT, 0x50), lapic(TMICT, 1000), Op(Opcode.DELAY, 100)])
    assert lines(prog) == ["0 0 irq 50 - 50 -"]


@everywhere
def test_init_and_sipi_bring_a_cpu_up_at_its_page(subject):
    prog = program(
        Op(Opcode.OFFLINE, 1 << 1),
        ipi(INIT, dest=1),
        ipi(SIPI | 0x9A, dest=1),
        await_cpu(1),
        read(SVR, cpu=1),
        cpus=2,
    )
    assert lines(prog, subject)[:1] == ["0 1 up 9a"]


@everywhere
def test_parallel_blocks_run_on_the_cpus_of_the_mask(subject):
    prog = program(
        Op(Opcode.PARALLEL, 0b101, 2),
        cpus=3,
        blocks=[(ipi(0x40, dest=1), Op(Opcode.LAPIC_READ, APIC_ID)), (ipi(0x41 | SELF),)],
    )
    assert lines(prog, subject) == ["0 0 read 0", "0 1 irq 40 - 40 -", "0 2 irq 41 - 41 -"]


# --- modes differ


@pytest.mark.parametrize(("mode", "seen"), [("on", 0), ("split", 1), ("off", 1), ("tcg", 1)])
def test_masked_edge_blocks_the_next_one_in_kvm_s_ioapic_only(mode, seen):
    prog = program(rte(14, 0x51 | MASKED), line(14, 1), rte(14, 0x51), line(14, 1))
    assert len(lines(prog, profile(mode))) == seen


@pytest.mark.parametrize(("linux", "again"), [("6.1", []), ("6.12", ["2 1 irq 51 - 51 51"])])
def test_split_of_linux_6_1_loses_the_eoi_of_an_entry_sent_elsewhere(linux, again):
    to_cpu_1 = Op(Opcode.IOAPIC_WRITE, 0x11 + 28, 1 << 24)
    prog = program(
        rte(14, 0x51 | LEVEL),
        line(14, 1),
        [line(14, 1), line(14, 0)],
        cpus=2,
        handlers=(handler(0x51),),
        blocks=[(line(14, 0), to_cpu_1, EOI)],
    )
    events = lines(prog, profile("split", qemu="7.2", linux=linux))
    assert events == ["1 0 irq 51 - 51 51", *again]


# --- skipping, errors


def test_program_that_needs_more_than_there_is_is_skipped():
    x2apic = program(STI, needs=Feature.X2APIC)
    assert lines(x2apic, profile("tcg", qemu="7.2")) == ["0 0 skip x2apic"]
    assert lines(x2apic, TCG) == []
    assert lines(program(STI, cpus=4), cpus=2) == ["0 0 skip cpus"]
    assert lines(program(STI, needs=Feature.MSI), board="microvm") == ["0 0 skip msi"]
    assert lines(program(STI, needs=Feature.LINES2)) == ["0 0 skip lines2"]


def test_features_of_a_machine_without_msrs_of_the_deadline_timer():
    assert Feature.TSC_DEADLINE not in features(TCG)
    assert Feature.IOAPIC2 | Feature.LINES2 in features(SPLIT, "microvm")


def test_access_where_no_chip_is_names_the_step():
    with pytest.raises(PredictionError, match="step 1: PIO_WRITE"):
        predict(program(STI, outb(0x3F8, 1)), ON)


@pytest.mark.parametrize(
    ("subject", "log"),
    [(ON, ["4 0 irq 24 - - -", "4 0 read 0"]), (TCG, ["3 0 irq 24 - - -", "4 0 read 0"])],
    ids=["on", "tcg"],
)
def test_interrupt_that_an_access_brings_is_logged_before_its_value(subject, log):
    """In on nothing looks at the PIC when LINT0 opens; the exit at TPR does."""
    prog = program(
        outb(0x21, 0xEF),
        [line(4, 1), line(4, 0)],
        STI,
        lapic(LINT0, 0x700),
        read(TPR),
    )
    assert lines(prog, subject) == log


@pytest.mark.parametrize(("vector", "logged"), [(0x80, 1), (0x81, 0)])
def test_cpu_that_takes_no_part_is_on_the_apic_bus_with_its_logical_id(vector, logged):
    """Lowest priority among both: vector hashing of KVM, without a logical map."""
    prog = program(lapic(LDR, 0x11000000), msi(vector | 0x100, dest=3, base=APIC | 4))

    assert len(lines(prog, cpus=2)) == logged


# --- handlers of NMIs


def nmis(*ops, limit=32, **more):
    """A step that brings an NMI, whose handler does ``ops`` the first time and a read later."""
    handle = handler(NMI_ENTRY, 3, first_block=2, first_times=1, limit=limit)
    return program(
        ipi(NMI, dest=0),
        handlers=(handle, *more.pop("handlers", ())),
        blocks=[ops, (read(TPR),), *more.pop("blocks", ())],
        **more,
    )


@everywhere
def test_nmis_in_the_handler_of_one_are_held_until_its_iret_and_become_one(subject):
    prog = nmis(ipi(NMI | SELF), ipi(NMI | SELF), read(PPR))
    assert lines(prog, subject) == ["0 0 nmi", "0 0 read 0", "0 0 nmi", "0 0 read 0"]


@everywhere
def test_interrupt_in_the_handler_of_an_nmi_waits_for_its_iret(subject):
    prog = nmis(ipi(0x40 | SELF), read(PPR))
    assert lines(prog, subject) == ["0 0 nmi", "0 0 read 0", "0 0 irq 40 - 40 -"]


@everywhere
def test_iret_of_an_interrupt_in_the_handler_of_an_nmi_lets_nmis_in(subject):
    prog = nmis(
        *(STI, ipi(0x40 | SELF), read(PPR)),
        handlers=(handler(0x40, 4),),
        blocks=[(ipi(NMI | SELF), EOI)],
    )
    assert lines(prog, subject) == [
        *("0 0 nmi", "0 0 irq 40 - 40 -", "0 0 nmi", "0 0 read 0", "0 0 read 0"),
    ]


@pytest.mark.parametrize(("exits", "entries"), [(True, 1), (False, 0)], ids=["svm", "vmx"])
def test_iret_of_an_nmi_looks_at_the_pic_where_it_is_an_exit(exits, entries):
    prog = program(
        outb(0x21, 0xEF),
        [line(4, 1), line(4, 0)],
        ipi(NMI, dest=0),
        handlers=(handler(NMI_ENTRY, 2),),
        blocks=[(lapic(LINT0, 0x700),)],
    )
    found = lines(prog, tune(ON, cpu__nmi_iret_exits=exits))
    assert len([text for text in found if " irq 24 " in text]) == entries


def test_nmis_beyond_their_handlers_limit_are_logged_alone():
    prog = nmis(ipi(NMI | SELF), limit=1)
    assert lines(prog) == ["0 0 nmi", "0 0 nmi"]


# --- what the author should look at


def problems(prog, subject=ON):
    found = authoring_problems(prog, subject, predict(prog, subject))
    return [(problem.step, problem.kind) for problem in found]


@everywhere
def test_good_program_has_no_problems(subject):
    prog = program(
        rte(14, 0x51),
        line(14, 1),
        [lapic(LVTT, 0x50), lapic(TMICT, 10_000), wait(0x50)],
        [on(HLT, 1)],
        ipi(0x40, dest=1),
        await_cpu(1),
        cpus=2,
    )
    assert problems(prog, subject) == []


@pytest.mark.parametrize(
    ("prog", "problem"),
    [
        (program([lapic(LVTT, 0x50), lapic(TMICT, 10_000)], STI), (0, "program")),
        (program(STI, [CLI, HLT]), (1, "asleep")),
        (program(STI, wait(0x50, us=10)), (1, "timeout")),
        (program(on(HLT, 1), STI, cpus=2), (0, "program")),
        (program(on(HLT, 1), read(TPR, cpu=1), await_cpu(1), cpus=2), (1, "program")),
        (program(ipi(INIT, dest=1), cpus=2), (0, "program")),
        (program([ipi(0x40, dest=1), read(0x120, cpu=1)], cpus=2), None),
        (program([lapic(LVTT, 0x10050), lapic(TMICT, 10_000_000), read(0x390)]), (0, "time")),
        # Status while 0xff counts down, which takes 0.2 ms; the machine may be busy.
        (program([outb(0x43, 0x10), outb(0x40, 0xFF), outb(0x43, 0xE2), inb(0x40)]), (0, "time")),
    ],
    ids=["timer", "hlt", "wait", "await", "busy", "init", "ordered", "tmcct", "pit"],
)
def test_problem_is_found_in_its_step(prog, problem):
    found = problems(prog)
    assert (problem in found) if problem else not found


@pytest.mark.parametrize(("mode", "found"), [("on", []), ("off", [(2, "time")])])
def test_count_that_lvt_starts_anew_and_the_next_operation_replaces_depends_on_time(mode, found):
    # Of QEMU's local APIC only: apic_timer_update, whenever LVTT is written. A count is two ns.
    prog = program(
        [STI, lapic(TDCR, 0)],
        [lapic(LVTT, 0x50), lapic(TMICT, 1_000_000), wait(0x50), Op(Opcode.DELAY, 100_000)],
        [lapic(LVTT, 0x20050), lapic(TMICT, 200_000_000), lapic(TMICT, 0)],
    )
    assert problems(prog, profile(mode)) == found


@pytest.mark.parametrize("mode", ["on", "split", "off"])
def test_periodic_count_that_expires_again_before_the_handler_looks_depends_on_time(mode):
    prog = program(
        [STI, lapic(TDCR, 0xB), lapic(LVTT, 0x20050)],
        [lapic(TMICT, 400_000), Op(Opcode.DELAY, 150_000), lapic(TMICT, 0)],
        handlers=(handler(0x50, limit=3),),
        blocks=[(EOI,)],
    )
    assert (1, "time") in problems(prog, profile(mode))


def test_cpu_that_is_awaited_again_may_be_asleep_the_first_time():
    once = [on(HLT, 1), await_cpu(1)]
    again = [ipi(0x40, dest=1), await_cpu(1)]
    assert problems(program(*once, cpus=2)) == [(0, "program"), (1, "asleep")]
    assert problems(program(*once, *again, cpus=2)) == []
    assert problems(program(*once, *again, *once, cpus=2)) == [(4, "program"), (5, "asleep")]


def test_race_between_cpus_is_found():
    same_vector = handler(0x40)
    prog = program(
        [ipi(0x40, dest=1), ipi(0x40, dest=1)],
        cpus=2,
        handlers=(same_vector,),
        blocks=[(EOI,)],
    )
    assert problems(prog) == [(0, "race")]


def test_level_interrupt_of_two_cpus_that_comes_again_is_a_race():
    """An EOI sends it anew to both: does the other one have it before it looks at its IRR?"""
    prog = program(
        rte(5, 0x41 | LEVEL, dest=0xFF),
        line(5, 1),
        cpus=2,
        handlers=(handler(0x41, limit=4),),
        blocks=[(EOI_IN_SERVICE,)],
    )
    assert problems(prog) == [(1, "race")]


NMI_TO_CPU_2 = msi(NMI, dest=2)


@pytest.mark.parametrize("cpus", [4, 3], ids=["three-and-its-own", "two-and-its-own"])
def test_nmis_of_several_cpus_are_a_race_where_one_cpu_may_hold_less(cpus):
    """A CPU that handles one holds one more: how many it gets depends on when they come."""
    prog = program(
        ipi(0x66 | ALL), cpus=cpus, handlers=(handler(0x66),), blocks=[(NMI_TO_CPU_2, EOI)]
    )
    assert set(problems(prog)) == {(0, "race")}


@pytest.mark.parametrize("subject", [ON, SPLIT], ids=["on", "split"])
def test_two_nmis_of_other_cpus_are_no_race(subject):
    prog = program(
        ipi(0x66 | OTHERS, cpu=2), cpus=3, handlers=(handler(0x66),), blocks=[(NMI_TO_CPU_2, EOI)]
    )
    assert problems(prog, subject) == []


@everywhere
def test_nmis_that_a_cpu_sends_itself_are_no_race(subject):
    steps = [ipi(NMI | SELF), ipi(NMI | SELF), ipi(NMI | SELF)]
    assert problems(program(steps, cpus=2), subject) == []


def test_nmis_of_another_cpu_in_steps_of_their_own_are_no_race():
    assert problems(program(*[ipi(NMI, dest=1)] * 4, cpus=2)) == []


def test_what_only_a_slower_cpu_shows_is_a_race():
    """Whether 0x33 finds CPU 1's TPR raised depends on how far CPU 1 is."""
    prog = program(
        Op(Opcode.PARALLEL, 0b11, 5),
        cpus=2,
        handlers=(handler(0x44, 2, limit=4), handler(0x45, 3), handler(0x66, 4, limit=4)),
        blocks=[
            (lapic(TPR, 0x30), EOI_IN_SERVICE),
            (EOI, ipi(0x66 | SELF)),
            (ipi(0x33, dest=1), EOI_IN_SERVICE),
            (ipi(0x44, dest=1),),
            (ipi(0x45, dest=0),),
        ],
    )
    assert (0, "race") in problems(prog)


def test_what_only_a_cpu_that_is_first_shows_is_a_race():
    """Two 0x44 are one where CPU 1 sends 0x45 before the first of them comes, and then rests."""
    prog = program(
        Op(Opcode.PARALLEL, 0b11, 4),
        cpus=2,
        handlers=(handler(0x44, 2, limit=4), handler(0x45, 3, limit=4)),
        blocks=[(EOI,), (ipi(0x44, dest=1), EOI), (ipi(0x44, dest=1),), (ipi(0x45, dest=0),)],
    )
    assert (0, "race") in problems(prog)


@everywhere
def test_ipis_to_all_that_two_cpus_send_at_once_are_a_race(subject):
    """Both have left their guest for it: on each CPU the two are one, where none is ahead."""
    prog = program(
        ipi(0x33 | ALL),
        cpus=2,
        handlers=(handler(0x33, 2), handler(0x45, 3, limit=4)),
        blocks=[(EOI, STI, ipi(0x45 | ALL)), (EOI_IN_SERVICE,)],
    )
    assert problems(prog, subject) == [(0, "race")]


@pytest.mark.parametrize("subject", [ON, SPLIT], ids=["on", "split"])
def test_nmi_that_comes_with_an_smi_is_taken_after_it(subject):
    """The entry goes into SMM; after RSM the NMI is looked at again."""
    prog = program(
        ipi(NMI | OTHERS, cpu=2),
        cpus=3,
        handlers=(handler(NMI_ENTRY),),
        blocks=[(ipi(SMI, dest=0),)],
    )
    log = Execution(prog, subject, cpus=3, order=Order.STARVED, seed=0).run()
    assert [event.cpu for event in log.events if event.kind == "nmi"] == [0, 1]


def test_order_between_cpus_does_not_show_in_a_good_program():
    prog = program(ipi(0x40, dest=1), ipi(0x41, dest=1, cpu=2), cpus=3)
    assert lines(prog, order=Order.LAZY) == lines(prog)


@pytest.mark.parametrize("mode", ["on", "split", "off", "tcg"])
def test_execution_on_a_machine_that_was_used_logs_what_it_does_on_a_new_one(mode):
    subject = profile(mode)
    programs = [one.scenario.program for one in fuzz_programs(1, 40, subject)]
    machine = machine_for(subject, "pc", CPUS)
    used = [Execution(p, subject, cpus=CPUS, machine=machine).run() for p in programs]
    assert used == [Execution(p, subject, cpus=CPUS).run() for p in programs]


def test_prediction_is_the_same_every_time():
    prog = program(rte(14, 0x51), line(14, 1), ipi(0x40 | ALL), cpus=4)
    assert predict(prog, SPLIT) == predict(prog, SPLIT)


def test_fault_ends_what_its_cpu_does():
    """QEMU's TCG takes an INTR without a vector as vector -1."""
    prog = program(
        [CLI, outb(0x21, 0), lapic(LINT0, 0x700), line(4, 1)],
        lapic(LINT0, MASKED),
        STI,
        read(TPR),
        read(TPR, cpu=1),
        cpus=2,
    )
    assert lines(prog, TCG) == ["2 0 fault d fffffffa", "4 1 read 0"]


@everywhere
def test_nmi_comes_before_the_first_instruction_of_a_handler(subject):
    prog = program([CLI, ipi(0x40, dest=0), ipi(NMI, dest=0), STI])
    assert lines(prog, subject)[0] == "0 0 nmi"
