"""Random scenarios: what the language takes compiles, and its binary form is what C reads."""

import struct
from pathlib import Path

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.base import yamlfile
from harness.base.errors import ConfigError
from harness.scenario import compile, language
from harness.scenario.program import FORMAT, MAGIC, Op, Opcode, Program, encode
from harness.scenario.registers import LINES, REGISTERS, Access, ApicMode, Register
from userspace_chip.architecture import IOAPIC_PINS

CPUS = 4
CPU = st.integers(0, CPUS - 1)
VECTOR = st.integers(0, 0xFF)
PIN = st.integers(0, IOAPIC_PINS - 1)
LINE = st.sampled_from(LINES)
LATE = {"lapic.base", "msr"}  # what follows hangs on them


def _name(draw: st.DrawFn, register: Register) -> str:
    if register.count is None:
        return register.name
    limit = {"lapic": 0xFF, "io": 0xFFFF}.get(register.name, 0xFFFFFFFF)
    index = draw(st.integers(0, limit if register.raw else register.count - 1))
    return f"{register.name}.{index * 16 if register.name == 'lapic' else index}"


def _usable(writes: bool) -> list[Register]:
    wrong = Access.RO if writes else Access.WO
    return [
        register
        for register in REGISTERS.values()
        if register.access is not wrong
        and register.name not in LATE
        and ApicMode.XAPIC in register.modes
    ]


@st.composite
def writes(draw: st.DrawFn) -> dict[str, object]:
    register = draw(st.sampled_from(_usable(True)))
    number = st.integers(0, (1 << register.bits) - 1)
    fields = st.fixed_dictionaries(
        {},
        optional={
            field.name: st.integers(0, field.max)
            | (st.sampled_from(sorted(field.words)) if field.words else st.nothing())
            | (st.booleans() if field.max == 1 and not field.words else st.nothing())
            for field in register.fields
        },
    )
    value = draw(number | fields if register.fields else number)
    return {_name(draw, register): value}


@st.composite
def reads(draw: st.DrawFn) -> dict[str, object]:
    registers = draw(st.lists(st.sampled_from(_usable(False)), min_size=1, max_size=3))
    return {"read": [_name(draw, register) for register in registers]}


DRIVEN = st.builds(
    lambda pins: {"line": pins},
    st.dictionaries(LINE, st.sampled_from(["high", "low", "pulse"]), min_size=1, max_size=3),
)
IPIS = st.builds(
    lambda vector, where, mode: {"ipi": {"vector": vector, "mode": mode, **where}},
    VECTOR,
    CPU.map(lambda cpu: {"dest": f"cpu{cpu}"})
    | st.sampled_from(["self", "all", "others"]).map(lambda word: {"shorthand": word}),
    st.sampled_from(["fixed", "lowest", "nmi", "extint"]),
)
MSIS = st.builds(lambda vector, cpu: {"msi": {"vector": vector, "dest": f"cpu{cpu}"}}, VECTOR, CPU)
WORDS = st.sampled_from(["sti", "cli", "eoi"]).map(lambda word: {word: None})
PLAIN = st.one_of(writes(), reads(), DRIVEN, IPIS, MSIS, WORDS)
ON_A_CPU = st.builds(lambda step, cpu: {**step, "cpu": cpu}, PLAIN, CPU)
GROUPS = st.builds(
    lambda steps, times: {"repeat": {"times": times, "do": steps}},
    st.lists(ON_A_CPU, min_size=1, max_size=3),
    st.integers(1, 3),
)
PARALLEL = st.builds(
    lambda blocks: {"parallel": blocks},
    st.dictionaries(
        CPU.map(lambda cpu: f"cpu{cpu}"), st.lists(PLAIN, max_size=3), min_size=2, max_size=CPUS
    ),
)
STEPS = st.lists(ON_A_CPU | GROUPS | PARALLEL, min_size=1, max_size=8)
HANDLERS = st.dictionaries(
    VECTOR,
    st.builds(
        lambda eoi, do, pins: {"eoi": eoi, "do": do, "pins": pins, "limit": 9},
        st.sampled_from(["after", "before", "never", "twice", "if_in_service"]),
        st.lists(PLAIN, max_size=3),
        st.lists(PIN, max_size=2),
    ),
    max_size=3,
)


def compiled(steps: object, handlers: object) -> Program:
    data = {"about": "random", "cpus": CPUS, "steps": steps, "handlers": handlers}
    text = yaml.safe_dump({"version": 1, "scenarios": {"random": data}})
    (one,) = language.read(yamlfile.parse(text, Path("random.yaml")))
    return compile.compile_text(one).program


@settings(max_examples=60)
@given(STEPS, HANDLERS)
def test_random_scenario_compiles_to_a_program_that_encodes(steps, handlers):
    program = compiled(steps, handlers)
    image = encode([program])
    words = struct.unpack(f"<{len(image) // 4}I", image)
    ops = sum(len(block) for block in program.blocks)
    assert words[:4] == (MAGIC, FORMAT, 1, len(words))
    assert words[4:10] == (
        *(len(words) - 4, CPUS, int(program.needs), len(program.blocks)),
        *(len(program.handlers), ops),
    )


@settings(max_examples=40)
@given(STEPS, HANDLERS)
def test_random_scenario_refers_to_blocks_and_cpus_that_are_there(steps, handlers):
    program = compiled(steps, handlers)
    every = [op for block in program.blocks for op in block]
    blocks = len(program.blocks)
    assert {op.cpu for op in every} | {op.target for op in every} <= set(range(CPUS))
    assert {handler.block for handler in program.handlers} <= set(range(2, blocks))
    assert all(op.b + op.a.bit_count() <= blocks for op in every if op.opcode is Opcode.PARALLEL)


@settings(max_examples=40)
@given(STEPS)
def test_random_scenario_settles_once_a_step_behind_its_last_operation(steps):
    main: list[Op] = list(compiled(steps, {}).blocks[1])
    ends = [op.step for op in main if op.flags]
    assert ends == list(range(len(steps)))
    assert [op.step for op in main] == sorted(op.step for op in main)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("abcx0.[]", max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["cpu", "do", "read", "line", "ipi", "wait", "parallel", "lapic.tpr"])
            | st.text("lapic.0[]", max_size=8),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


def refusal(steps: object) -> str | None:
    try:
        compiled(steps, {})
    except ConfigError as error:
        return str(error)
    return None


@settings(max_examples=200)
@given(st.lists(JUNK, min_size=1, max_size=3))
def test_random_junk_is_a_scenario_or_is_refused_with_its_place(steps):
    message = refusal(steps)
    assert message is None or message.startswith("random.yaml:")
