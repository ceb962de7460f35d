"""What a scenario's steps become."""

from pathlib import Path

import pytest

from harness.base import yamlfile
from harness.base.errors import ConfigError
from harness.scenario import compile, language
from harness.scenario.program import (
    ANY_VECTOR,
    NMI_ENTRY,
    Detail,
    Feature,
    Handler,
    Op,
    Opcode,
    OpFlag,
    Scenario,
)
from harness.scenario.vocabulary import DEFAULT_TIMEOUT_US

SETTLE = OpFlag.SETTLE


def load(text: str) -> Scenario:
    head = "version: 1\nscenarios:\n  one:\n    about: x\n"
    indented = "".join(f"    {line}\n" for line in text.splitlines())
    file = yamlfile.parse(head + indented, Path("some.yaml"))
    (one,) = language.read(file)
    return compile.compile_text(one)


def main(*steps: str, head: str = "cpus: 2") -> list[Op]:
    lines = "".join(f"  - {step}\n" for step in steps)
    return list(load(f"{head}\nsteps:\n{lines}").program.blocks[1])


def one(step: str, **more: str) -> Op:
    (op,) = main(step, **more)
    assert op.flags is SETTLE
    return op


def args(op: Op) -> tuple[Opcode, int, int, int, int]:
    return op.opcode, op.a, op.b, op.c, op.size


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("lapic.tpr: 0x40", (Opcode.LAPIC_WRITE, 0x80, 0x40, 0, 4)),
        ("lapic.svr: {vector: 0xff, enable: true}", (Opcode.LAPIC_WRITE, 0xF0, 0x1FF, 0, 4)),
        ("lapic.dfr: {model: cluster}", (Opcode.LAPIC_WRITE, 0xE0, 0x0FFFFFFF, 0, 4)),
        ("lapic.timer_divide: {divide: by1}", (Opcode.LAPIC_WRITE, 0x3E0, 0xB, 0, 4)),
        ("lapic.lvt_timer: {mode: periodic}", (Opcode.LAPIC_WRITE, 0x320, 0x20000, 0, 4)),
        ("lapic.eoi: 3", (Opcode.LAPIC_WRITE, 0xB0, 3, 0, 4)),
        ("lapic.0x3f0: 3", (Opcode.LAPIC_WRITE, 0x3F0, 3, 0, 4)),
        ("ioapic.redir.3.low: {vector: 1}", (Opcode.IOAPIC_WRITE, 0x16, 1, 0, 4)),
        ("ioapic.redir[3].high: {dest: 9}", (Opcode.IOAPIC_WRITE, 0x17, 9 << 24, 0, 4)),
        ("ioapic.index.0x3f: 7", (Opcode.IOAPIC_WRITE, 0x3F, 7, 0, 4)),
        ("ioapic2.id: 7", (Opcode.IOAPIC_WRITE, 0, 7, 1, 4)),
        ("ioapic.eoi: 0x51", (Opcode.MMIO_WRITE, 0xFEC00040, 0x51, 0, 4)),
        ("pic.slave.imr: 0xfe", (Opcode.PIO_WRITE, 0xA1, 0xFE, 0, 1)),
        ("pic.master.icw1: {icw4: true}", (Opcode.PIO_WRITE, 0x20, 0x11, 0, 1)),
        (
            "pic.master.ocw2: {command: specific_eoi, level: 3}",
            (Opcode.PIO_WRITE, 0x20, 0x63, 0, 1),
        ),
        (
            "pic.master.ocw3: {special_mask: set, read: isr}",
            (Opcode.PIO_WRITE, 0x20, 0x6B, 0, 1),
        ),
        ("msr.0x1b: 0x123456789", (Opcode.MSR_WRITE, 0x1B, 0x23456789, 1, 4)),
        ("lapic.base: {enable: true}", (Opcode.MSR_WRITE, 0x1B, 0xFEE00900, 0, 4)),
        ("{cpu: 1, lapic.base: {enable: true}}", (Opcode.MSR_WRITE, 0x1B, 0xFEE00800, 0, 4)),
        ("io.0x4d0: 0x20", (Opcode.PIO_WRITE, 0x4D0, 0x20, 0, 1)),
        ("io.0x80: {value: 0x1234, size: 2}", (Opcode.PIO_WRITE, 0x80, 0x1234, 0, 2)),
        ("mem.0x1000: {value: 0x100000002, size: 8}", (Opcode.MMIO_WRITE, 0x1000, 2, 1, 8)),
        ("read: lapic.irr.7", (Opcode.LAPIC_READ, 0x270, 0, 0, 4)),
        ("read: ioapic.redir.1.high", (Opcode.IOAPIC_READ, 0x13, 0, 0, 4)),
        ("read: pic.master.imr", (Opcode.PIO_READ, 0x21, 0, 0, 1)),
        ("read: [mem.0x10: {size: 2}]", (Opcode.MMIO_READ, 0x10, 0, 0, 2)),
        ("read: msr.0x10", (Opcode.MSR_READ, 0x10, 0, 0, 4)),
        ("line: {14: high}", (Opcode.LINE, 14, 1, 0, 4)),
        ("delay_us: 9", (Opcode.DELAY, 9, 0, 0, 4)),
        ("sti", (Opcode.STI, 0, 0, 0, 4)),
        ("wait: {vector: any, count: 2, timeout_us: 5}", (Opcode.WAIT, ANY_VECTOR, 2, 5, 4)),
        ("msi: {address: 0xff00000001, data: 7}", (Opcode.MSI, 1, 7, 0xFF, 4)),
    ],
)
def test_step_of_one_operation_becomes_that(step, expected):
    assert args(one(step)) == expected


@pytest.mark.parametrize(
    ("words", "low", "high"),
    [
        ("vector: 0x40, dest: cpu1", 0x4040, 0x01000000),
        ("vector: 0x40, dest: all", 0x4040, 0xFF000000),
        ("vector: 0x40, dest: 0x12", 0x4040, 0x12000000),
        ("vector: 0x40, dest_mode: logical, dest: cpu1", 0x4840, 0x02000000),
        ("vector: 0x40, dest_mode: logical, dest: [cpu0, cpu1]", 0x4840, 0x03000000),
        ("vector: 0x40, shorthand: others", 0xC4040, 0),
        ("vector: 0x40, trigger: level, level: deassert, dest: 0", 0x8040, 0),
        ("mode: nmi, shorthand: self", 0x44400, 0),
        ("mode: sipi, page: 0x20, dest: cpu1", 0x4620, 0x01000000),
        ("mode: lowest, vector: 0x40, dest: cpu1", 0x4140, 0x01000000),
    ],
)
def test_ipi_becomes_a_write_of_the_icr(words, low, high):
    assert args(one(f"ipi: {{{words}}}"))[:4] == (Opcode.LAPIC_WRITE, 0x300, low, high)


@pytest.mark.parametrize(
    ("words", "address", "data"),
    [
        ("vector: 0x41, dest: cpu1", 0xFEE01000, 0x41),
        ("vector: 0x41, dest: all, mode: lowest", 0xFEEFF000, 0x141),
        ("vector: 0x41, dest_mode: logical, dest: [cpu0, cpu1]", 0xFEE03004, 0x41),
        ("vector: 0x41, redirection_hint: true", 0xFEE00008, 0x41),
        ("vector: 0x41, trigger: level", 0xFEE00000, 0xC041),
        ("vector: 0x41, trigger: level, level: deassert", 0xFEE00000, 0x8041),
    ],
)
def test_msi_becomes_its_two_numbers(words, address, data):
    assert args(one(f"msi: {{{words}}}"))[:4] == (Opcode.MSI, address, data, 0)


def test_ipi_in_x2apic_mode_has_a_destination_of_32_bits():
    op = one("ipi: {vector: 0x40, dest: cpu1}", head="cpus: 2\nmode: x2apic")
    assert (op.b, op.c) == (0x4040, 1)


def test_ipi_follows_the_mode_of_its_sender():
    ops = main(
        "lapic.base: {enable: true, x2apic: true}",
        "ipi: {vector: 0x40, dest: cpu1}",
        "{cpu: 1, ipi: {vector: 0x40, dest: cpu1}}",
    )
    assert [(op.cpu, op.c) for op in ops[1:]] == [(0, 1), (1, 0x01000000)]


def test_hypercall_has_a_bitmap_and_needs_kvms_local_apic():
    scenario = load("steps:\n  - pv_ipi: {vector: 0x51, cpus: [cpu0, cpu3], first: 2}\n")
    (op,) = scenario.program.blocks[1]
    assert args(op) == (Opcode.PV_IPI, 0b1001, 0x4051, 2, 4)
    assert scenario.program.needs == Feature.KVM_APIC


def test_discarded_read_is_a_read_that_is_not_logged():
    read, discarded = main("read: lapic.tpr", "discard: lapic.tpr")
    assert discarded.flags == read.flags | OpFlag.UNLOGGED
    assert args(discarded) == args(read)


@pytest.mark.parametrize(
    ("step", "needs"),
    [("msr.0x40000070: 0", Feature.HYPERV), ("msr.0x4b564d04: 0", Feature.KVM_APIC)],
)
def test_paravirtual_register_needs_what_has_it(step, needs):
    assert load(f"steps:\n  - {step}\n").program.needs == needs


def test_redirection_entry_is_written_from_the_top_and_read_from_the_bottom():
    ops = main("ioapic.redir.14: {vector: 0x51, dest: cpu1}", "read: ioapic.redir.14")
    assert [(op.a, op.b) for op in ops] == [(0x2D, 1 << 24), (0x2C, 0x51), (0x2C, 0), (0x2D, 0)]


def test_register_of_two_ports_is_two_bytes():
    ops = main("pic.elcr: 0x0c20")
    assert [(op.a, op.b, op.size) for op in ops] == [(0x4D0, 0x20, 1), (0x4D1, 0x0C, 1)]


def test_register_behind_a_select_is_selected_first():
    ops = main("read: pic.slave.isr")
    assert [args(op) for op in ops] == [
        (Opcode.PIO_WRITE, 0xA0, 0x0B, 0, 1),
        (Opcode.PIO_READ, 0xA0, 0, 0, 1),
    ]


def test_pic_init_writes_its_words_in_the_datasheets_order():
    ops = main("pic.init: {chip: slave, slave_base: 0x70, auto_eoi: true}")
    assert [(op.a, op.b) for op in ops] == [(0xA0, 0x11), (0xA1, 0x70), (0xA1, 2), (0xA1, 3)]


def test_pic_init_of_a_single_chip_without_icw4_has_two_words():
    ops = main("pic.init: {chip: master, single: true, icw4: false}")
    assert [(op.a, op.b) for op in ops] == [(0x20, 0x12), (0x21, 0x20)]


def test_pit_channel_is_programmed_low_byte_first():
    ops = main("pit.channel: {channel: 2, mode: 3, count: 0x1234}")
    assert [(op.a, op.b) for op in ops] == [(0x43, 0xB6), (0x42, 0x34), (0x42, 0x12)]


def test_pulse_is_high_and_low():
    assert [(op.a, op.b) for op in main("line: {3: pulse, 4: low}")] == [(3, 1), (3, 0), (4, 0)]


def test_step_of_several_operations_comes_to_rest_after_the_last_one():
    ops = main("do: [sti, {cpu: 1, cli: }, {repeat: {times: 2, do: [eoi]}}]", "cli")
    assert [(op.opcode.name, op.cpu, op.step, op.flags) for op in ops] == [
        ("STI", 0, 0, 0),
        ("CLI", 1, 0, 0),
        ("EOI", 0, 0, 0),
        ("EOI", 0, 0, SETTLE),
        ("CLI", 0, 1, SETTLE),
    ]


def test_group_on_a_cpu_is_all_on_that_cpu():
    ops = main("{cpu: 1, do: [sti, {cpu: 0, cli: }]}")
    assert [op.cpu for op in ops] == [1, 0]


def test_wait_is_for_the_cpu_that_waits_unless_it_says_another():
    ops = main("{cpu: 1, wait: {vector: 3}}", "{cpu: 1, wait: {vector: 3, cpu: cpu0}}")
    assert [(op.cpu, op.target) for op in ops] == [(1, 1), (1, 0)]


def test_sleep_and_start_up_are_awaited():
    ops = main(
        "{cpu: 1, hlt: }",
        "await: cpu1",
        "offline: [cpu1]",
        "await: {cpu: cpu1, timeout_us: 7}",
    )
    assert [(op.opcode.name, op.a, op.cpu, op.target) for op in ops] == [
        ("HLT", 0, 1, 0),
        ("AWAIT", DEFAULT_TIMEOUT_US, 0, 1),
        ("OFFLINE", 2, 0, 0),
        ("AWAIT", 7, 0, 1),
    ]


def test_parallel_has_a_block_for_each_cpu_in_their_order():
    program = load(
        "cpus: 3\nsteps:\n  - sti\n  - parallel: {cpu2: [cli], cpu0: [eoi, sti]}\n"
    ).program
    parallel = program.blocks[1][1]
    assert (parallel.opcode, parallel.a, parallel.flags) == (Opcode.PARALLEL, 0b101, SETTLE)
    first, second = program.blocks[parallel.b : parallel.b + 2]
    assert [(op.opcode.name, op.cpu, op.step) for op in first] == [("EOI", 0, 1), ("STI", 0, 1)]
    assert [(op.opcode.name, op.cpu, op.step) for op in second] == [("CLI", 2, 1)]


# --- handlers


def handlers(text: str) -> tuple[tuple[Handler, ...], tuple[tuple[Op, ...], ...]]:
    program = load(f"handlers:\n  {text}\nsteps: [sti]\n").program
    return program.handlers, program.blocks


def body(text: str) -> list[tuple[str, int]]:
    (handler, _), blocks = handlers(text)
    return [(op.opcode.name, int(op.flags)) for op in blocks[handler.block]]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("", [("CLI", 0), ("EOI", OpFlag.IN_SERVICE)]),
        ("eoi: if_in_service, ", [("CLI", 0), ("EOI", OpFlag.IN_SERVICE)]),
        ("eoi: after, ", [("CLI", 0), ("EOI", 0)]),
        ("eoi: before, ", [("EOI", 0), ("CLI", 0)]),
        ("eoi: twice, ", [("CLI", 0), ("EOI", 0), ("EOI", 0)]),
        ("eoi: never, limit: 3, ", [("CLI", 0)]),
    ],
)
def test_handler_sends_its_eoi_as_its_policy_says(policy, expected):
    assert body(f"0x51: {{{policy}do: [cli]}}") == expected


def test_handler_with_an_eoi_among_its_steps_needs_no_limit():
    assert body("0x51: {eoi: never, do: [eoi, cli]}") == [("EOI", 0), ("CLI", 0)]


def test_handler_that_writes_the_eoi_register_itself_needs_no_limit():
    assert body("0x51: {eoi: never, do: [{lapic.eoi: 3}]}") == [("LAPIC_WRITE", 0)]


def test_handler_keeps_what_it_logs_and_how_often_it_may_be_entered():
    (handler, default), _ = handlers("0x51: {log: short, pins: [3, 14], limit: 9}")
    assert (handler.vector, handler.detail, handler.pins) == (0x51, Detail.SHORT, 0x4008)
    assert handler.limit == 9
    assert (default.vector, default.detail) == (ANY_VECTOR, Detail.FULL)


def test_handler_does_something_else_the_first_times():
    (handler, _), blocks = handlers("0x51: {first: {times: 3, do: [sti], eoi: before}}")
    assert handler.first_times == 3
    assert [op.opcode for op in blocks[handler.first_block]] == [Opcode.EOI, Opcode.STI]


def test_default_handler_of_the_file_replaces_the_usual_one():
    (default,), blocks = handlers("default: {eoi: after}")
    assert default.vector == ANY_VECTOR
    assert blocks[default.block] == (Op(Opcode.EOI),)


def test_handler_of_nmis_has_no_eoi_and_needs_no_limit():
    (handler, default), blocks = handlers("nmi: {do: [cli], first: {do: [sti]}}")
    assert (handler.vector, default.vector) == (NMI_ENTRY, ANY_VECTOR)
    assert blocks[handler.block] == (Op(Opcode.CLI),)
    assert blocks[handler.first_block] == (Op(Opcode.STI),)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nmi: {eoi: after}", "eoi is for interrupts only: this handles NMIs"),
        ("nmi: {pins: [3]}", "pins is for interrupts only: this handles NMIs"),
        ("nmi: {do: [{read: ioapic.redir.3.low}]}", "a handler of NMIs cannot access the IOAPIC"),
        ("nmi: {do: [hlt]}", "hlt is not possible in a handler"),
    ],
)
def test_handler_of_nmis_refuses_what_an_nmi_cannot_have(text, why):
    with pytest.raises(ConfigError, match=why):
        handlers(text)


# --- what it needs


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("steps: [sti]", Feature.NONE),
        ("needs: [x2apic, msi]\nsteps: [sti]", Feature.X2APIC | Feature.MSI),
        ("mode: x2apic\nsteps: [sti]", Feature.X2APIC),
        ("steps: [{lapic.base: {enable: true, x2apic: true}}]", Feature.X2APIC),
        ("steps: [{lapic.tsc_deadline: 1}]", Feature.TSC_DEADLINE),
        ("steps: [{lapic.lvt_timer: {mode: tsc_deadline}}]", Feature.TSC_DEADLINE),
        ("steps: [{line: {3: high}}]", Feature.LINES),
        ("steps: [{line: {24: high}}]", Feature.LINES2 | Feature.IOAPIC2),
        ("steps: [{line: {47: low, 3: low}}]", Feature.LINES | Feature.LINES2 | Feature.IOAPIC2),
        ("steps: [{msi: {vector: 0x41}}]", Feature.MSI),
        ("steps: [{read: ioapic2.id}]", Feature.IOAPIC2),
        ("steps: [{pic.init: {}}]", Feature.PIC),
        ("steps: [{read: pic.elcr}]", Feature.PIC),
        ("steps: [{pit.channel: {mode: 0, count: 1}}]", Feature.PIT),
        ("handlers: {0x51: {do: [{line: {3: low}}]}}\nsteps: [sti]", Feature.LINES),
        ("cpus: 2\nsteps: [{parallel: {cpu0: [{line: {3: low}}], cpu1: []}}]", Feature.LINES),
    ],
)
def test_scenario_needs_what_its_steps_name(text, needs):
    assert load(text).program.needs == needs


def test_scenario_says_where_it_runs_and_why_it_has_no_model():
    scenario = load("machines: pc\nmodel: the RTC is not modelled\nsteps: [sti]")
    assert scenario.machines == {"pc"}
    assert scenario.no_model == "the RTC is not modelled"
    assert load("steps: [sti]").no_model is None


def test_expectation_names_a_step_by_its_label():
    (clause,) = load(
        "steps: [sti, {label: here, read: lapic.tpr}]\nexpect: [{step: here, read: 0}]"
    ).expect
    assert (clause.step, clause.read) == (1, (0,))


# --- the baseline


def prologue(text: str) -> list[Op]:
    return list(load(f"{text}\nsteps: [sti]").program.blocks[0])


def test_prologue_turns_interrupts_on_last_and_everywhere():
    assert [(op.opcode, op.cpu) for op in prologue("cpus: 2")[-2:]] == [
        (Opcode.STI, 0),
        (Opcode.STI, 1),
    ]
    assert [op.opcode for op in prologue("interrupts: off")[-1:]] == [Opcode.CLI]


def test_prologue_goes_to_x2apic_mode_before_anything_else_of_a_local_apic():
    ops = [op for op in prologue("cpus: 2\nmode: x2apic") if op.cpu == 1]
    assert args(ops[0])[:3] == (Opcode.MSR_WRITE, 0x1B, 0xFEE00C00)
    assert 0xD0 not in {op.a for op in ops}


def test_prologue_masks_the_second_ioapic_where_there_is_one():
    def chips(text: str) -> set[int]:
        return {op.c for op in prologue(text) if op.opcode is Opcode.IOAPIC_WRITE}

    assert chips("") == {0}
    assert chips("needs: [ioapic2]") == {0, 1}
