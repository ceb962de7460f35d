"""Whether a guest moved between two looks at it, and what is said of it."""

import dataclasses

import pytest

from harness.analyse import motion
from harness.analyse.motion import Tail, assess, cpus
from harness.model.verdict import Blame, Verdict
from harness.record.recording import LastLook
from userspace_chip.events import Event, event_type
from userspace_chip.info_lapic import InfoLapic, format_lapic
from userspace_chip.lapic import LapicState
from userspace_chip.lapic_timer import LVT_TIMER

IF = 0x200


def cpu(number=0, *, ip=0x10342, flags=2, halted=False, base=0, ax=0):
    """A CPU as QEMU 7.2 and 10.0 print it in 32-bit code."""
    return (
        f"\r\nCPU#{number}\r\n"
        f"EAX={ax:08x} EBX=00000000 ECX=00000007 EDX=000003f8\r\n"
        f"ESI=00000000 EDI=00000000 EBP=00000000 ESP=00402fe0\r\n"
        f"EIP={ip:08x} EFL={flags:08x} [-------] CPL=0 II=0 A20=1 SMM=0 HLT={int(halted)}\r\n"
        "ES =0010 00000000 ffffffff 00cf9300 DPL=0 DS   [-WA]\r\n"
        f"CS =0008 {base:08x} ffffffff 00cf9a00 DPL=0 CS32 [-R-]\r\n"
        "XMM00=0000000000000000 0000000000000000 XMM01=0000000000000000 0000000000000000\r\n"
    )


LONG_MODE = """
CPU#0
RAX=0000000855d66178 RBX=00000000000003e8 RCX=00000000009e744c RDX=00000000001fc56e
R8 =0000000000000000 R9 =0000000000274c06 R10=0000000000000003 R11=0000000000000000
RIP=ffffffff9a5c3643 RFL=00000287 [--S--PC] CPL=0 II=0 A20=1 SMM=0 HLT=0
CS =0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]
"""


def lapic(irr=(), tpr=0, timer=None):
    state = LapicState(irr=sum(1 << vector for vector in irr), tpr=tpr, ppr=tpr, spiv=0x1FF)
    info = InfoLapic(state=state)
    if timer is not None:
        state.lvt[LVT_TIMER] = 0x40
        state.tmict = info.current_count = timer
    return format_lapic(info)


def stats(number=2, **values):
    entries = [{"name": name, "value": value} for name, value in values.items()]
    return {"qom-path": f"/machine/unattached/device[{number}]", "stats": entries}


def look(second, *texts, lapics=(), status="running", said=0, counted=()):
    return LastLook(second * 10**9, status, "".join(texts), tuple(lapics), tuple(counted), said)


def twice(*texts, **more):
    """Two looks that see the same."""
    return [look(0, *texts, **more), look(1, *texts, **more)]


def test_registers_of_long_mode_are_read():
    (found,) = cpus(LONG_MODE)
    assert (found.ip, found.interrupts_on, found.halted) == (0xFFFFFFFF9A5C3643, True, False)
    assert found.registers["R10"] == 3


def test_place_of_a_cpu_counts_its_segment():
    (found,) = cpus(cpu(ip=0xFFF0, base=0xFFFF0000, halted=True))
    assert found.ip == 0xFFFFFFF0
    assert found.waits_for_start


@pytest.mark.parametrize("text", ["", "unknown command", "CPU#0\r\nEAX=1"])
def test_registers_that_cannot_be_read_are_none(text):
    assert cpus(text) == ()


HANGS = {
    "spins_with_interrupts_off": (
        [cpu(), cpu(ip=0x10344)],
        [],
        "CPU 0 spins at 0x10344 with interrupts off",
    ),
    "compares_over_and_over": ([cpu(flags=2), cpu(flags=0x46)], [], "spins at 0x10342"),
    "spins_with_interrupts_on": (
        [cpu(flags=2 | IF)] * 2,
        [lapic()],
        "CPU 0 spins at 0x10342 with interrupts on, IRR empty, PPR 0x00",
    ),
    "sleeps_with_interrupts_off": (
        [cpu(halted=True)] * 2,
        [lapic()],
        "CPU 0 sleeps with interrupts off: only an NMI could wake it",
    ),
    "sleeps_behind_its_priority": (
        [cpu(halted=True, flags=2 | IF)] * 2,
        [lapic(irr=[0x31, 0x51], tpr=0x60)],
        "CPU 0 sleeps with interrupts on, IRR 0x51, PPR 0x60: nothing can wake it",
    ),
    "sleeps_with_nothing_pending": (
        [cpu(halted=True, flags=2 | IF)] * 2,
        [lapic()],
        "CPU 0 sleeps with interrupts on, IRR empty, PPR 0x00: nothing can wake it",
    ),
}


@pytest.mark.parametrize("name", HANGS)
def test_guest_in_which_nothing_moves_hangs_and_it_is_said_why(name):
    (before, after), lapics, text = HANGS[name]
    looks = [look(0, before, lapics=lapics), look(1, after, lapics=lapics)]
    ruling = assess(looks, {}, 60)
    assert ruling.verdict is Verdict.HANG
    assert text in ruling.detail
    assert ruling.blame is None


def test_interrupt_that_is_pending_and_wakes_nobody_is_blamed_on_the_chips():
    looks = twice(cpu(halted=True, flags=2 | IF), lapics=[lapic(irr=[0x61], tpr=0x20)])
    ruling = assess(looks, {}, 60)
    assert (ruling.verdict, ruling.blame) == (Verdict.HANG, Blame.IRQCHIP)
    assert "IRR 0x61, PPR 0x20 should wake it" in ruling.detail


def test_guest_that_qemu_stopped_hangs_whatever_its_registers_are():
    looks = [look(0, cpu(ax=1)), look(1, cpu(ax=2), status="shutdown")]
    ruling = assess(looks, {}, 60)
    assert ruling.verdict is Verdict.HANG
    assert "'shutdown'" in ruling.detail


MOVES = {
    "registers": ([look(0, cpu(ax=1)), look(1, cpu(ax=2))], {}, "CPU 0 runs at 0x10342"),
    "place": (
        [look(0, cpu()), look(1, cpu(ip=0x20000))],
        {},
        "CPU 0 runs at 0x10342 and then at 0x20000",
    ),
    "console": ([look(0, cpu()), look(2, cpu(), said=600)], {}, "300 console characters a second"),
    "kvm's counts": (
        [
            look(0, cpu(), counted=[stats(nmi_injections=10, irq_injections=7, io_exits=1)]),
            look(2, cpu(), counted=[stats(nmi_injections=910, irq_injections=7, io_exits=5)]),
        ],
        {},
        "still running: 450 NMIs and 2 exits a second; more time with timeout_s (it has 60)",
    ),
    "qemu's trace": (
        twice(cpu()),
        {"NMIs": 3, "interrupts": 20},
        "3 NMIs and 20 interrupts a second",
    ),
    "timer": (
        twice(cpu(halted=True, flags=2 | IF), lapics=[lapic(timer=1000)]),
        {},
        "CPU 0 sleeps with interrupts on until its timer ends",
    ),
}


@pytest.mark.parametrize("name", MOVES)
def test_guest_in_which_something_moves_ran_out_of_time(name):
    looks, traced, text = MOVES[name]
    ruling = assess(looks, traced, 60)
    assert ruling.verdict is Verdict.TIMEOUT
    assert text in ruling.detail


def test_host_tick_is_no_movement_of_a_guest():
    counted = [[stats(exits=n, irq_exits=n, irq_injections=0)] for n in (10, 510)]
    looks = [look(i, cpu(), counted=one) for i, one in enumerate(counted)]
    assert assess(looks, {}, 60).verdict is Verdict.HANG


def test_cpu_that_is_stuck_is_named_beside_those_that_move():
    others = cpu(1), cpu(2, ip=0xFFF0, base=0xFFFF0000, halted=True)
    looks = [look(0, cpu(ax=1), *others), look(1, cpu(ax=2), *others)]
    ruling = assess(looks, {}, 60)
    assert ruling.verdict is Verdict.TIMEOUT
    assert ruling.detail.endswith("; CPU 1 spins at 0x10342 with interrupts off")


def test_many_cpus_that_hang_are_not_all_told():
    ruling = assess(twice(*(cpu(n) for n in range(10))), {}, 60)
    assert "CPU 3 spins" in ruling.detail
    assert "CPU 4" not in ruling.detail
    assert "and 6 more CPUs" in ruling.detail


def event(time_s, name, **fields):
    kind = event_type(name)
    return Event(int(time_s * 1e9), "qemu", name, None, kind.args(**fields))


def test_trace_counts_what_happened_between_the_looks():
    tail = Tail(twice(cpu()))
    nmi = {"addr": 0x300, "value": 0x44400}
    for time_s in (-0.1, 0.1, 0.2, 1.1):
        tail.add(event(time_s, "apic_mem_writel", **nmi))
    tail.add(event(0.5, "apic_mem_writel", addr=0x300, value=0x44051))
    tail.add(event(0.5, "apic_mem_writel", addr=0x310, value=0x400))
    assert tail.counts()["NMIs"] == 2


def test_trace_of_a_guest_that_ended_by_itself_counts_nothing():
    tail = Tail(())
    tail.add(event(0.1, "apic_mem_writel", addr=0x300, value=0x44400))
    assert tail.counts() == {}


def test_looks_without_registers_and_counts_say_that_nothing_moves():
    ruling = assess([look(0, "?"), look(1, "?")], {}, 60)
    assert (ruling.verdict, ruling.detail) == (Verdict.HANG, "nothing moves")


def test_rates_of_less_than_one_a_second_are_one():
    looks = [look(0, cpu()), dataclasses.replace(look(4, cpu()), console_bytes=1)]
    assert "1 console characters a second" in motion.assess(looks, {}, 60).detail
