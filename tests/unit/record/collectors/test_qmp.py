"""The monitor against sockets that misbehave; what it does with a real QEMU is in tests/live."""

import asyncio
import json
import socket

import pytest

from harness.base.errors import CollectError
from harness.record.collectors import qmp

TIME = {"timestamp": {"seconds": 0, "microseconds": 0}}
GREETING = {"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}}, "capabilities": []}}


def talk(script, use):
    """Run ``use(monitor)`` against a server that answers each command by ``script(command)``.

    A list is the answer and the events behind it.
    """

    async def serve(connection: socket.socket) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=connection)
        writer.write(json.dumps(GREETING).encode() + b"\r\n")
        text = ""
        while chunk := await reader.read(4096):
            text += chunk.decode()
            try:
                message, end = json.JSONDecoder().raw_decode(text)
            except ValueError:
                continue  # one command at a time, and it has not come whole yet
            text = text[end:].lstrip()
            answer = script(message["execute"])
            if answer is None:
                continue
            number = {"id": message["id"]} if "id" in message else {}
            first, *events = answer if isinstance(answer, list) else [answer]
            for told in (first | number, *(event | TIME for event in events)):
                writer.write(json.dumps(told).encode() + b"\r\n")
        writer.close()

    async def run(log):
        ours, theirs = socket.socketpair()
        server = asyncio.create_task(serve(theirs))
        try:
            async with qmp.monitor(ours, log) as monitor:
                return await use(monitor)
        finally:
            server.cancel()
            ours.close()
            theirs.close()

    return run


def commands(*names):
    def script(command):
        if command == "query-commands":
            return {"return": [{"name": name} for name in names]}
        if command == "human-monitor-command":
            return {"return": "text"}
        if command in ("x-query-irq", "x-query-interrupt-controllers"):
            return {"return": {"human-readable-text": command}}
        if command == "refused":
            return {"error": {"class": "GenericError", "desc": "not today"}}
        if command == "query-stats":
            return {"return": []}
        return None if command == "silent" else {"return": {}}

    return script


def test_monitor_snapshot_of_an_old_qemu_says_what_it_has_not(tmp_path):
    run = talk(commands("x-query-irq"), lambda monitor: monitor.snapshot(2))
    snapshot = asyncio.run(run(tmp_path / "qmp.jsonl"))

    assert snapshot.irq_text == "x-query-irq"
    assert snapshot.controllers_text == "text"
    assert snapshot.lapic_texts == ("text", "text")
    assert "came with 7.1" in snapshot.missing["query-stats"]


def test_monitor_uses_the_query_for_controllers_where_there_is_one(tmp_path):
    names = ("x-query-irq", "x-query-interrupt-controllers", "query-stats")
    run = talk(commands(*names), lambda monitor: monitor.snapshot(1))
    snapshot = asyncio.run(run(tmp_path / "qmp.jsonl"))

    assert snapshot.controllers_text == "x-query-interrupt-controllers"
    assert "KVM does not run" in snapshot.missing["query-stats"]


def test_monitor_records_every_message_either_way(tmp_path):
    log = tmp_path / "qmp.jsonl"
    asyncio.run(talk(commands("x-query-irq"), lambda monitor: monitor.execute("x-query-irq"))(log))

    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert {row["direction"] for row in rows} == {"in", "out"}
    assert any(row["message"].get("execute") == "x-query-irq" for row in rows)


def test_monitor_says_why_its_qemu_ended(tmp_path):
    event = {"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-reset"}}

    def script(command):
        answer = commands("cont")(command)
        return [answer, event] if command == "cont" else answer

    async def use(monitor):
        await monitor.execute("cont")
        return await monitor.shutdown_reason()

    assert asyncio.run(talk(script, use)(tmp_path / "log")) == "guest-reset"


def test_monitor_whose_qemu_did_not_say_why_it_ended_knows_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(qmp, "FAREWELL_S", 0.01)

    async def use(monitor):
        return await monitor.shutdown_reason()

    assert asyncio.run(talk(commands(), use)(tmp_path / "log")) is None


def test_monitor_that_refuses_is_an_error_with_its_words(tmp_path):
    run = talk(commands(), lambda monitor: monitor.execute("refused"))
    with pytest.raises(CollectError, match="refused refused: not today"):
        asyncio.run(run(tmp_path / "qmp.jsonl"))


def test_monitor_that_never_answers_is_an_error_that_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(qmp, "TIMEOUT_S", 0.2)
    run = talk(commands(), lambda monitor: monitor.execute("silent"))
    with pytest.raises(CollectError, match="did not answer to silent"):
        asyncio.run(run(tmp_path / "qmp.jsonl"))


def test_monitor_that_never_greets_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(qmp, "TIMEOUT_S", 0.2)

    async def connect() -> None:
        ours, theirs = socket.socketpair()
        try:
            async with qmp.monitor(ours, tmp_path / "qmp.jsonl"):
                pass
        finally:
            ours.close()
            theirs.close()

    with pytest.raises(CollectError, match="the monitor never answered"):
        asyncio.run(connect())


def test_monitor_whose_other_end_is_gone_is_an_error(tmp_path):
    async def connect() -> None:
        ours, theirs = socket.socketpair()
        theirs.close()
        async with qmp.monitor(ours, tmp_path / "qmp.jsonl"):
            pass

    with pytest.raises(CollectError, match="the monitor cannot be used"):
        asyncio.run(connect())


def migrating(*statuses):
    """A QEMU whose migration goes through ``statuses``."""

    def script(command):
        if command in ("migrate", "migrate-incoming"):
            events = [{"event": "MIGRATION", "data": {"status": status}} for status in statuses]
            return [{"return": {}}, *events]
        if command == "query-migrate":
            return {"return": {"status": "failed", "error-desc": "no room"}}
        return commands()(command)

    return script


def test_monitor_save_stops_the_guest_and_ends_when_all_is_written(tmp_path):
    log = tmp_path / "qmp.jsonl"
    script = migrating("setup", "active", "completed")
    asyncio.run(talk(script, lambda monitor: monitor.save("/a folder/state"))(log))

    sent = [json.loads(line)["message"] for line in log.read_text().splitlines()]
    names = [message["execute"] for message in sent if "execute" in message]
    assert names[-3:] == ["stop", "migrate-set-capabilities", "migrate"]
    assert "exec:cat >'/a folder/state'" in log.read_text()


def test_monitor_load_that_fails_is_an_error_with_qemus_reason(tmp_path):
    run = talk(migrating("setup", "failed"), lambda monitor: monitor.load("/state"))
    with pytest.raises(CollectError, match="migrate-incoming failed: no room"):
        asyncio.run(run(tmp_path / "qmp.jsonl"))
