"""A probe that asks for something: who does it, and where it goes on.

Its QEMU is played here: what it says on its console and answers on its monitor.
"""

import asyncio
import contextlib
import json
import socket
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.base.errors import GuestCrash
from harness.guests.plan import GuestPlan
from harness.guests.probe import parse_logs
from harness.record.boot import PartialRecording
from harness.record.case_runner import conduct
from harness.record.drivers.table import driver_of
from harness.scenario.program import Program
from harness.scenario.requests import Act, Command
from support.probe_boot import probe_case
from userspace_chip.kvm.monitor import Objects

BOOT = "probe 1 cpus=1 monitor=1\n"
NOWHERE = Path("nowhere")
STOP_CONT = (Act(Command.STOP), Act(Command.INJECT_NMI), Act(Command.CONT))
MOVE = (Act(Command.MOVE),)
SET_UP = {"qmp_capabilities", "query-commands", "migrate-set-capabilities"}


def plan_of(*requests):
    programs = [Program("quiet", 1, ((), ())), Program("asks", 1, ((), ()), requests=requests)]
    return GuestPlan(probe_case(programs), NOWHERE, NOWHERE, trace_log=False, paused=False)


@dataclass
class PlayedSession:
    """Each boot says what ``boots`` has for it, the next piece after every answer."""

    boots: list[list[str]]
    asked: list[str] = field(default_factory=list)
    plans: list[GuestPlan] = field(default_factory=list)
    files = None
    tracefs = None
    lost = False
    description = None

    def executed(self):
        return None

    def state_file(self, directory):
        return "state"

    def command(self, plan):
        return ""

    @contextlib.asynccontextmanager
    async def boot(self, plan):
        self.plans.append(plan)
        guest = PlayedGuest(self.boots[len(self.plans) - 1], self.asked)
        async with guest.up(plan.incoming):
            yield guest


class PlayedGuest:
    """A QEMU as its two sockets show it; it ends once it has said ``done``."""

    console_end = None
    host_pid = None

    def __init__(self, pieces, asked):
        self._pieces, self._asked = iter(pieces), asked
        self.exited = asyncio.get_running_loop().create_future()

    @contextlib.asynccontextmanager
    async def up(self, incoming):
        self.console, self._console = socket.socketpair()
        self.monitor, theirs = socket.socketpair()
        self._commands, self._answers = await asyncio.open_connection(sock=theirs)
        with self._console:
            serving = asyncio.ensure_future(self._serve())
            if not incoming:
                self._speak()
            yield
            serving.cancel()
            await asyncio.wait({serving})
            self._answers.close()

    async def kill(self):
        self._console.close()
        if not self.exited.done():
            self.exited.set_result(-9)

    async def collect(self, stderr, trace_log):
        stderr.write_text("")
        trace_log.write_text("")

    def _speak(self):
        piece = next(self._pieces)
        self._console.sendall(piece.encode())
        if piece.endswith("done\n"):
            self._console.shutdown(socket.SHUT_WR)
            self.exited.set_result(1)

    def _send(self, message):
        self._answers.write(json.dumps(message).encode() + b"\r\n")

    async def _serve(self):
        version = {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}
        self._send({"QMP": {"version": version, "capabilities": []}})
        stream = Objects()
        while piece := await self._commands.read(1 << 16):
            for command in stream.add(piece):
                self._obey(command)

    def _obey(self, command):
        name, arguments = command["execute"], command.get("arguments", {})
        value = [] if name == "query-commands" else ""
        self._send({"return": value} | {k: v for k, v in command.items() if k == "id"})
        if name in SET_UP:
            return
        self._asked.append(arguments.get("command-line", name))
        if name.startswith("migrate"):
            stamp = {"seconds": 0, "microseconds": 0}
            event = {"event": "MIGRATION", "data": {"status": "completed"}}
            self._send(event | {"timestamp": stamp})
        if name == "human-monitor-command":
            self._speak()


def recorded(tmp_path, plan, *boots):
    session = PlayedSession(list(boots))
    recording = asyncio.run(
        asyncio.wait_for(conduct(session, plan, tmp_path, lambda text: None), 60)
    )
    assert recording.failure is None
    return recording, session


def test_probe_gets_what_it_asks_for_then_an_answer(tmp_path):
    boot = [f"{BOOT}= 0\n. 0\n= 1\n! 0\n", "1 0 nmi\n. 1\ndone\n"]
    recording, session = recorded(tmp_path, plan_of(STOP_CONT), boot)

    assert session.asked == ["stop", "inject-nmi", "cont", "o /w 0xe0 1"]
    logs = parse_logs(recording.console)
    assert [str(event) for event in logs[1].events] == ["1 0 nmi"]
    assert logs[1].complete


def test_probe_that_asks_twice_gets_each(tmp_path):
    pieces = [f"{BOOT}= 0\n. 0\n= 1\n! 0\n", "! 1\n", ". 1\ndone\n"]
    _, session = recorded(tmp_path, plan_of(STOP_CONT, STOP_CONT[1:2]), pieces)

    answer = "o /w 0xe0 1"
    assert session.asked == ["stop", "inject-nmi", "cont", answer, "inject-nmi", answer]


def test_probe_that_is_moved_goes_on_with_its_scenario_in_another_qemu(tmp_path):
    boots = [f"{BOOT}= 0\n. 0\n= 1\n! 0\n"], ["1 0 irq 50\n. 1\ndone\n"]
    recording, session = recorded(tmp_path, plan_of(MOVE), *boots)

    assert session.asked == ["stop", "migrate", "migrate-incoming", "o /w 0xe0 2", "cont"]
    assert [plan.incoming for plan in session.plans] == [False, True]
    assert [mark.text for mark in recording.marks] == ["saved", "loaded"]
    logs = parse_logs(recording.console)
    assert [str(event) for event in logs[1].events] == ["1 0 irq 50"]
    assert logs[1].complete


def test_counting_begins_and_ends_with_the_scenarios_name(tmp_path):
    counted = (Act(Command.BEGIN_COUNT),), (Act(Command.END_COUNT),)
    pieces = [f"{BOOT}= 1\n! 0\n", "! 1\n", ". 1\ndone\n"]
    recording, _ = recorded(tmp_path, plan_of(*counted), pieces)

    assert [mark.text for mark in recording.marks] == ["begin asks", "end asks"]


@pytest.mark.parametrize("loads", [1, 2])
def test_crash_after_a_move_blames_the_scenario_that_was_moved(loads):
    plan = plan_of(MOVE)
    driver = driver_of(plan.case.guest)
    seen = PartialRecording(console=f"{BOOT}= 0\n. 0\n= 1\n! 0\n")
    for _ in range(loads):
        seen.is_saved = True
        plan = driver.next_boot(plan, seen)
        assert plan.incoming
    seen.failure = GuestCrash("its QEMU went away")

    assert driver.next_boot(plan, seen) is None
    assert list(seen.stalled) == [1]


def test_boot_after_a_crash_after_a_move_loads_nothing():
    programs = [Program("asks", 1, ((), ()), requests=(MOVE,)), Program("other", 1, ((), ()))]
    plan = GuestPlan(probe_case(programs), NOWHERE, NOWHERE, trace_log=False, paused=False)
    driver = driver_of(plan.case.guest)
    seen = PartialRecording(console=f"{BOOT}= 0\n! 0\n", is_saved=True)
    moved = driver.next_boot(plan, seen)
    seen.failure = GuestCrash("its QEMU went away")

    again = driver.next_boot(moved, seen)

    assert not again.incoming
    assert again.case.guest.first == 1
