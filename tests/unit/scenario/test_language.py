"""Files that are no scenarios: each is refused with its file, its line, and the step."""

from pathlib import Path

import pytest

from harness.base import yamlfile
from harness.base.errors import ConfigError
from harness.scenario import compile, language
from harness.scenario.program import Feature

HEAD = "version: 1\nscenarios:\n  one:\n    about: x\n"


def load(text: str):
    file = yamlfile.parse(text, Path("some.yaml"))
    return tuple(compile.compile_text(one) for one in language.read(file))


def steps(*lines: str, cpus: int = 2, **more: str) -> str:
    head = "".join(f"    {key}: {value}\n" for key, value in more.items())
    return HEAD + f"    cpus: {cpus}\n{head}    steps:\n" + "".join(f"      - {x}\n" for x in lines)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ioapic.redri.3: 0", "unknown register 'ioapic.redri.3'.*did you mean 'ioapic.redir'"),
        ("pic.zzzzzzzzzz: 0", "unknown register 'pic.zzzzzzzzzz'.*known: pic.elcr, pic.master"),
        ("qqq.zzzzzzzzzz: 0", "unknown register 'qqq.zzzzzzzzzz'.*known: cr8, hpet, io, ioapic, "),
        ("lyne: {3: high}", "unknown word or register 'lyne'.*did you mean 'line'"),
        ("frobnicate", "unknown word or register 'frobnicate'"),
        ("ioapic.redir.24: 0", "ioapic.redir.24 is out of range.*0 to 23"),
        ("ioapic.redir: 0", "ioapic.redir needs an index, 0 to 23"),
        ("read: lapic.isr", "lapic.isr needs an index, 0 to 7.*as in lapic.isr.0"),
        ("read: msr", "msr needs an address.*as in msr.0x10"),
        ("lapic.tpr.3: 0", "lapic.tpr has no index"),
        ("lapic.icr.low: 0", "lapic.icr has no low half"),
        ("lapic.isr.8: 0", "lapic.isr.8 is out of range"),
        ("lapic.0x1000: 0", "0x1000 is out of range"),
        ("lapic.0x84: 0", "registers stand 0x10 apart"),
        ("io.0x10000: 0", "0x10000 is out of range"),
        ("mem.0x100000000: 0", "0x100000000 is out of range"),
        ("ioapic.redir.3: {vektor: 3}", "has no field 'vektor'.*did you mean 'vector'"),
        ("lapic.tpr: {vector: 3}", "lapic.tpr has no field 'vector'.*write a number"),
        ("ioapic.redir.3: {trigger: levle}", "unknown word 'levle'.*did you mean 'level'"),
        ("ioapic.redir.3: {vector: 0x100}", "vector = 0x100 does not fit"),
        ("ioapic.redir.3: {vector: true}", "vector is not true or false"),
        ("ioapic.redir.3: {trigger: true}", "trigger is not true or false"),
        ("ioapic.redir.3: {vector: [3]}", "vector: bad value.*write 0 to 0xff"),
        ("ioapic.redir.3: {dest: cpu2}", "there is no CPU 2.*the scenario has 2"),
        ("ioapic.redir.3: {dest: 0x100}", "dest 0x100 does not fit"),
        ("ioapic.redir.3: {dest: [cpu0, cpu1]}", "several need dest_mode: logical"),
        ("ioapic.redir.3: {dest: everybody}", "'everybody' is not a destination"),
        ("ioapic.redir.3.low: {dest: cpu1}", "a field is not in the low half"),
        ("lapic.tpr: 0x100000000", "0x100000000 does not fit"),
        ("lapic.tpr: -1", "-0x1 does not fit"),
        ("lapic.tpr: high", "bad value for lapic.tpr"),
        ("lapic.ppr: 0", "lapic.ppr can only be read"),
        ("read: lapic.eoi", "lapic.eoi can only be written"),
        ("read: []", "reads nothing"),
        ("read: 17", "is not a register.*found 17"),
        ("read: ''", "is not a register"),
        ("read: [lapic.tpr: {size: 2}]", "bad size 2.*only mem and io"),
        ("mem.0x10: {value: 1, size: 3}", "bad size 3"),
        ("mem.0x10: {value: high, size: 4}", "is not a number"),
        ("lapic.self_ipi: 0x40", "lapic.self_ipi cannot be written in xapic mode"),
        ("line: {16: high}", "there is no line 16.*0 to 15, and on microvm 24 to 47"),
        ("line: {3: up}", "step 0: line: bad value for 3"),
        ("wait: {vector: 256}", "step 0: wait: bad value for vector.*less than or equal to 255"),
        ("wait: {vector: 3, cpu: cpu2}", "there is no CPU 2"),
        ("wait: {vector: 3, cpu: two}", "write a CPU as cpu0"),
        ("wait: {vektor: 3}", "unknown key 'vektor'.*did you mean 'vector'"),
        ("delay_us: 0", "greater than or equal to 1"),
        ("ipi: {vector: 0x40}", "write either dest or shorthand"),
        ("ipi: {vector: 0x40, dest: cpu1, shorthand: all}", "write either dest or shorthand"),
        ("ipi: {vector: 0x40, dest: cpu9}", "there is no CPU 9"),
        ("ipi: {mode: fixxed, dest: cpu1}", "not a delivery mode: did you mean 'fixed'"),
        ("ipi: {mode: sipi, dest: cpu1}", "page goes with mode: sipi"),
        ("msi: {vector: 0x40, address: 5, data: 3}", "either address and data, or the words"),
        ("msi: {address: 5}", "either address and data, or the words"),
        ("msi: {vector: 0x40, dest: cpu2}", "there is no CPU 2"),
        ("pit.channel: {mode: 8, count: 1}", "less than or equal to 7"),
        ("pic.init: {master_base: 0x21}", "multiple of 8"),
        ("{cpu: 2, read: lapic.tpr}", "there is no CPU 2"),
        ("{cpu: first, read: lapic.tpr}", "'first' is not a CPU"),
        ("{cpu: 1}", "a step that does nothing"),
        ("{sti: , cli: }", "a step that does sti and cli"),
        ("{sti: now}", "sti takes nothing"),
        ("17", "is not a step"),
        ("do: []", "does nothing"),
        ("do: sti", "is not a list of steps"),
        ("repeat: {times: 3}", "repeat needs times and do"),
        ("repeat: {times: 0, do: [sti]}", "bad number of times"),
        ("repeat: {times: true, do: [sti]}", "bad number of times"),
        ("repeat: {times: 1000, do: [{repeat: {times: 1000, do: [sti]}}]}", "is too long"),
        ("parallel: {cpu0: [sti]}", "parallel needs two CPUs"),
        ("parallel: {cpu0: [sti], cpu2: [sti]}", "there is no CPU 2"),
        ("parallel: {cpu0: [sti], cpu1: [{cpu: 0, sti: }]}", "part of what CPU 1 does"),
        ("parallel: {cpu0: [sti], cpu1: [hlt]}", "hlt is not possible inside parallel"),
        ("{cpu: 1, hlt: }", "a CPU goes to sleep or offline and is never awaited"),
        ("await: cpu1", "nothing to await of CPU 1"),
        ("await: 1.5", "write a CPU as cpu0"),
        ("offline: [cpu0]", "CPU 0 cannot be offline"),
        ("offline: [cpu1]", "a CPU goes to sleep or offline and is never awaited"),
        ("{label: 3, sti: }", "a label is a word"),
        ("monitor: reset", "bad value"),
        ("monitor: []", "nothing is asked for"),
        ("monitor: stop", "it stays stopped: end with cont or move"),
        ("monitor: [stop, stop, cont]", "it is stopped already"),
        ("monitor: cont", "nothing has stopped it"),
        ("monitor: [{pause_ms: 5}]", "a pause is for a machine that is stopped"),
        ("monitor: [stop, {pause_ms: 0}, cont]", "greater than or equal to 1"),
        ("monitor: [move, inject-nmi]", "nothing can follow move"),
        ("{cpu: 1, monitor: move}", "CPU 1 cannot ask for it"),
        ("parallel: {cpu0: [{monitor: move}], cpu1: [sti]}", "not possible inside parallel"),
    ],
)
def test_step_that_is_wrong_is_refused_with_its_line_and_number(line, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load(steps(line))
    assert str(caught.value).startswith("some.yaml:7: scenario one, step 0: ")


@pytest.mark.parametrize(
    ("lines", "number", "message"),
    [
        (["sti", "{cpu: 1, hlt: }", "{cpu: 1, sti: }"], 2, "CPU 1 is away.*since line 8"),
        (["{cpu: 1, hlt: }", "parallel: {cpu0: [], cpu1: []}"], 1, "CPU 1 is away"),
        (["lapic.base: {enable: true, x2apic: true}", "lapic.dfr: 0"], 1, "msr.0x80e shows"),
        (["lapic.base: {enable: true, x2apic: true}", "lapic.ldr: 0"], 1, "cannot be written in"),
        (
            [
                "lapic.base: {enable: true, x2apic: true}",
                "lapic.base: {enable: true}",
                "ipi: {vector: 3, dest: cpu1}",
            ],
            2,
            "it is not certain whether the local APIC is in x2APIC mode here",
        ),
        (["{label: a, sti: }", "{label: a, cli: }"], 1, "duplicate label 'a'"),
    ],
)
def test_step_that_is_impossible_after_another_is_refused(lines, number, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load(steps(*lines))
    assert str(caught.value).startswith(f"some.yaml:{7 + number}: scenario one, step {number}: ")


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        ("0x51: {eoi: never}", "a handler without an EOI.*set a limit"),
        ("0x51: {eoi: never, do: [{line: {14: low}}]}", "a handler without an EOI"),
        ("default: {eoi: never}", "handler default: a handler without an EOI"),
        ("0x51: {eoi: sometimes}", "handler 0x51: bad value for eoi"),
        ("0x51: {do: [{wait: {vector: 3}}]}", "wait is not possible in a handler"),
        ("0x51: {do: [hlt]}", "hlt is not possible in a handler"),
        ("0x51: {do: [{await: cpu1}]}", "await is not possible in a handler"),
        ("0x51: {do: [{offline: [cpu1]}]}", "offline is not possible in a handler"),
        ("0x51: {do: [{monitor: move}]}", "monitor is not possible in a handler"),
        ("0x51: {do: [{parallel: {cpu0: [], cpu1: []}}]}", "parallel is not possible in a handler"),
        ("0x51: {do: [{cpu: 1, sti: }]}", "a handler runs on the CPU that took the interrupt"),
        ("0x51: {do: [{lapic.tpx: 3}]}", "unknown register 'lapic.tpx'"),
        ("0x51: {first: {times: 0}}", "first.times: Input should be greater than 0"),
        ("0x51: {first: {do: [{lapic.tpx: 3}]}}", "unknown register 'lapic.tpx'"),
        ("0x51: {pins: [24]}", "there is no pin 24"),
        ("0x51: {limit: 0}", "greater than or equal to 1"),
        ("0x51: {log: loud}", "bad value for log"),
        ("0x151: {}", "337 is not a vector"),
        ("fifty: {}", "'fifty' is not a vector"),
    ],
)
def test_handler_that_is_wrong_is_refused_with_its_line(handler, message):
    text = HEAD + f"    cpus: 2\n    handlers:\n      {handler}\n    steps: [sti]\n"
    with pytest.raises(ConfigError, match=message) as caught:
        load(text)
    assert str(caught.value).startswith("some.yaml:7: ")


def test_handlers_of_one_vector_written_in_two_ways_are_refused():
    text = HEAD + "    handlers:\n      0x51: {}\n      81: {}\n    steps: [sti]\n"
    with pytest.raises(ConfigError, match=r"some.yaml:5: .*duplicate vector: found 0x51, 81"):
        load(text)


def test_handler_whose_cpus_mode_changes_cannot_name_an_ipis_destination():
    text = (
        HEAD
        + """    cpus: 2
    handlers:
      0x51: {do: [{ipi: {vector: 0x52, dest: cpu1}}]}
    steps:
      - lapic.base: {enable: true, x2apic: true}
      - lapic.base: {}
      - lapic.base: {enable: true}
"""
    )
    with pytest.raises(
        ConfigError,
        match="handler 0x51: it is not certain whether the local APIC is in x2APIC mode",
    ):
        load(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a list of scenarios"),
        ("version: 2\nscenarios: {one: {}}\n", "bad value for version"),
        ("version: 1\nscenarios: {}\n", "bad value for scenarios"),
        ("version: 1\nscenarios: {One_two: {}}\n", "some.yaml:2: bad value for scenarios"),
        ("version: 1\nscenarios: {one: 3}\n", "scenario one: is not a scenario"),
        ("version: 1\nscenarios: {one: {steps: [sti]}}\n", "scenario one: bad value for about"),
        (HEAD + "    steps: []\n", "scenario one: bad value for steps"),
        (
            HEAD + "    stepz: [sti]\n    steps: [sti]\n",
            "some.yaml:5: scenario one: unknown key 'stepz'",
        ),
        (HEAD + "    cpus: 9\n    steps: [sti]\n", "less than or equal to 8"),
        (HEAD + "    needs: [x3apic]\n    steps: [sti]\n", "not a feature: did you mean 'x2apic'"),
        (HEAD + "    model: false\n    steps: [sti]\n", "scenario one: bad value for model"),
        (
            HEAD + "    machines: pc\n    steps: [{ioapic2.redir.0: 0}]\n",
            "some.yaml:5: .*only microvm has a second IOAPIC",
        ),
        (
            HEAD + "    machines: q35\n    steps: [{line: {24: high}}]\n",
            "some.yaml:5: .*only microvm has a second IOAPIC",
        ),
        (
            HEAD + "    machines: [microvm]\n    steps: [{msi: {vector: 64}}]\n",
            "microvm has no PCI device",
        ),
        (HEAD + "    steps: [sti]\n    expect: [{count: 1, read: 3}]\n", "say exactly one of"),
        (HEAD + "    steps: [sti]\n    expect: [{step: 1, count: 1}]\n", "no step 1"),
        (HEAD + "    steps: [sti]\n    expect: [{step: b, count: 1}]\n", "no step 'b'.*none"),
        (HEAD + "    steps: [sti]\n    expect: [{cpu: 1, count: 1}]\n", "there is no CPU 1"),
    ],
)
def test_file_that_is_wrong_is_refused(text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load(text)
    assert str(caught.value).startswith("some.yaml")


def test_file_with_a_word_for_a_switch_takes_every_spelling():
    spellings = ["off", '"off"', "false"]
    programs = [load(steps("sti", interrupts=word))[0].program for word in spellings]
    assert programs[0] == programs[1] == programs[2]


def test_steps_are_kept_as_they_were_written_with_their_lines():
    (scenario,) = load(
        steps("ioapic.redir.14: {vector: 0x51, mask: false}", "sti", "{cpu: 1, eoi: }")
    )
    assert scenario.steps == ("ioapic.redir.14: {vector: 0x51, mask: false}", "sti", "cpu: 1, eoi")
    assert scenario.lines == (7, 8, 9)


def test_scenario_that_switches_the_apic_off_needs_one_that_can_be_switched_on_again():
    (relocated,) = load(steps("lapic.base: {enable: true}"))
    (switched_off,) = load(steps("lapic.base: {enable: false}"))
    assert relocated.program.needs == Feature.NONE
    assert switched_off.program.needs == Feature.X2APIC
