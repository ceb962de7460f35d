"""Programs as register accesses."""

from harness.fuzz import accesses
from harness.fuzz.programs import compiled


def lines(*steps, **more):
    program = compiled("x", {"about": "x", "steps": list(steps), **more}).program
    return accesses.of_steps(program), accesses.of_handlers(program)


def test_writes_name_the_chip_the_place_and_the_register():
    steps, _ = lines(
        {"lapic.tpr": 0x20}, {"ioapic.redir.14.low": {"vector": 0x51}}, {"pic.master.imr": 0xFB}
    )
    assert steps == [
        "step 0, CPU 0: local APIC +0x80 (lapic.tpr) := 0x20",
        "step 1, CPU 0: IOAPIC at 0xfec00000, index 0x2c (ioapic.redir.14) := 0x51",
        "step 2, CPU 0: out 0x21, 0xfb (1 bytes)",
    ]


def test_stimuli_and_instructions_are_said():
    steps, _ = lines("cli", {"line": {3: "pulse"}}, {"msi": {"vector": 0x41, "dest": 0}})
    assert steps == [
        "step 0, CPU 0: cli",
        "step 1, CPU 0: a device drives GSI 3 high",
        "step 1, CPU 0: a device drives GSI 3 low",
        "step 2, CPU 0: a device writes 0x41 to 0xfee00000",
    ]


def test_parallel_steps_say_what_each_cpu_does():
    steps, _ = lines({"parallel": {"cpu0": ["cli"], "cpu1": ["sti"]}}, cpus=2)
    assert steps == [
        "step 0, CPU 0: at the same time, CPU 0: cli",
        "step 0, CPU 0: at the same time, CPU 1: sti",
    ]


def test_handlers_say_what_they_do_and_how_often():
    _, handlers = lines("cli", handlers={0x51: {"eoi": "after", "do": ["sti"], "limit": 3}})
    assert handlers[0] == (
        "on vector 0x51: sti; local APIC +0xb0 (lapic.eoi) := 0x0 (at most 3 times)"
    )
