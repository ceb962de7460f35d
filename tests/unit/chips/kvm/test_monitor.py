"""The VMM's QMP: what is asked, and what a machine is asked to do."""

from __future__ import annotations

import json
import os
import socket
import threading
from types import SimpleNamespace

import pytest

from harness.analyse.motion import cpus
from userspace_chip.info_pic import parse_info_pic
from userspace_chip.irqchip import Machine as Chips
from userspace_chip.kvm import abi
from userspace_chip.kvm.live import info_pic
from userspace_chip.kvm.monitor import Commands, Monitor, Objects
from userspace_chip.profile import profile


class Irqchip:
    """A mode that keeps what it is asked."""

    def __init__(self):
        self.chips = Chips(profile("off"), 2, log=False)
        self.nmis = []

    def external_nmi(self, cpu):
        self.nmis.append(cpu)

    def lapic_text(self, cpu):
        return f"lapic {cpu}"

    def info_pic(self):
        return info_pic(self.chips)

    def is_halted(self, cpu):
        return cpu == 1


class Machine:
    """Two CPUs that are always out of their guests, but for those that are stuck."""

    cpus = 2

    def __init__(self):
        self.irqchip = Irqchip()
        self.paused = True
        self.ended = False
        self.stuck = ()

    def resume(self):
        self.paused = False

    def quit(self):
        self.ended = True

    def threads(self):
        return [101, 102]

    def on_cpu(self, index, errand):
        regs = abi.KvmRegs(rip=0x1234, rflags=0x202, rax=7)
        sregs = abi.KvmSregs(cs=abi.KvmSegment(base=0x10000))
        vcpu = SimpleNamespace(index=index, get_regs=lambda: regs, get_sregs=lambda: sregs)
        return None if index in self.stuck else errand(self.irqchip, vcpu)


@pytest.fixture
def machine():
    return Machine()


def ask(machine, name, **arguments):
    reply = Commands(machine).answer({"execute": name, "arguments": arguments, "id": 5})
    assert reply["id"] == 5
    return reply.get("return", reply.get("error"))


def test_commands_that_there_are_are_listed(machine):
    names = {command["name"] for command in ask(machine, "query-commands")}

    assert {"query-cpus-fast", "cont", "inject-nmi", "human-monitor-command"} < names
    assert "query-stats" not in names


def test_guest_that_waits_runs_after_cont(machine):
    assert ask(machine, "query-status")["status"] == "prelaunch"
    assert ask(machine, "cont") == {}
    assert ask(machine, "query-status")["status"] == "running"


def test_vcpus_are_known_by_their_threads(machine):
    found = ask(machine, "query-cpus-fast")

    assert [(cpu["cpu-index"], cpu["thread-id"]) for cpu in found] == [(0, 101), (1, 102)]


def test_nmi_goes_to_every_cpu(machine):
    assert ask(machine, "inject-nmi") == {}
    assert machine.irqchip.nmis == [0, 1]


def test_cpu_that_does_not_leave_its_guest_is_said(machine):
    machine.stuck = (1,)

    assert ask(machine, "inject-nmi")["desc"] == "the CPU does not leave its guest"


def test_registers_are_read_as_qemus_are(machine):
    found = cpus(ask(machine, "human-monitor-command", **{"command-line": "info registers -a"}))

    assert [(cpu.ip, cpu.flags, cpu.halted) for cpu in found] == [
        (0x11234, 0x202, False),
        (0x11234, 0x202, True),
    ]
    assert found[0].registers["RAX"] == 7


def test_chips_outside_the_kernel_and_local_apics_have_qemus_texts(machine):
    pics = ask(machine, "human-monitor-command", **{"command-line": "info pic"})
    lapic = ask(machine, "human-monitor-command", **{"command-line": "info lapic", "cpu-index": 1})

    assert [version for version, _ in parse_info_pic(pics).ioapics] == [0x20]
    assert lapic == "lapic 1"


@pytest.mark.parametrize("asked", [[], {}, {"execute": 5}, "execute", {"arguments": 5}])
def test_what_is_no_command_is_an_error(machine, asked):
    assert "error" in Commands(machine).answer(asked)


def test_objects_come_out_of_a_stream_in_pieces_with_nothing_between_them():
    stream = Objects()
    pieces = [b'{"a": {"b"', b": 1}}", b'\n{"c": 2}{"d": 3} {', b'"e": "}"}']

    assert [list(stream.add(piece)) for piece in pieces] == [
        [],
        [{"a": {"b": 1}}],
        [{"c": 2}, {"d": 3}],
        [{"e": "}"}],
    ]


def test_stream_of_nonsense_is_passed_over():
    stream = Objects()

    assert list(stream.add(b"[" * 100 + b"{" * 100_000)) == []
    assert list(stream.add(b'{"a": 1}')) == [{"a": 1}]


@pytest.mark.parametrize("line", ["info irq", None])
def test_text_that_there_is_not_is_an_error(machine, line):
    found = ask(machine, "human-monitor-command", **{"command-line": line})

    assert found["desc"].startswith("unknown command")


def test_monitor_greets_answers_and_says_why_the_guest_ended(machine):
    ours, theirs = socket.socketpair()
    with ours, theirs, Monitor(machine, os.dup(theirs.fileno())) as monitor:
        monitor.begin()
        with ours.makefile("rwb") as stream:
            assert "QMP" in json.loads(stream.readline())
            stream.write(b'{"execute": "quit"}')
            stream.flush()
            assert json.loads(stream.readline()) == {"return": {}}
            monitor.tell_end("guest-reset")
            event = json.loads(stream.readline())

    assert machine.ended
    assert (event["event"], event["data"]["reason"]) == ("SHUTDOWN", "guest-reset")


def test_monitor_that_nobody_talks_to_leaves_no_thread(machine):
    before = threading.active_count()
    ours, theirs = socket.socketpair()
    with ours, theirs, Monitor(machine, os.dup(theirs.fileno())) as monitor:
        monitor.begin()
        assert threading.active_count() == before + 1

    assert threading.active_count() == before
