"""The QMP monitor of one guest: snapshots of what QEMU and KVM count, with qemu.qmp."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from qemu.qmp import ExecInterruptedError, ExecuteError, Message, QMPClient, QMPError

from harness.base.errors import MonitorError

TIMEOUT_S: Final = 20.0
"""How long a monitor may take to answer; an L1 under TCG on a busy machine is slow, not dead."""
FAREWELL_S: Final = 2.0
"""How long the last event of a QEMU that has ended may take to come here."""

DISCONNECT_TIMEOUT_S: Final = 1.0
"""QEMU is about to end; one that stands still is not waited for."""


@dataclass(frozen=True)
class MonitorSnapshot:
    """What one look at the monitor gave; texts and data as QEMU gave them.

    ``missing`` says why a source gave nothing, by its name.
    """

    irq_text: str | None = None
    """``x-query-irq``."""
    controllers_text: str | None = None
    """``x-query-interrupt-controllers``, or ``info pic`` where that is not there."""
    lapic_texts: tuple[str, ...] = ()
    """``info lapic`` of every CPU."""
    stats: tuple[Mapping[str, Any], ...] = ()
    """``query-stats`` of every vCPU."""
    missing: Mapping[str, str] = field(default_factory=dict)


class _RecordingClient(QMPClient):
    """A client that writes every message, either way, to ``qmp.jsonl``."""

    def __init__(self, name: str, log: IO[str]) -> None:
        super().__init__(name)
        self._log_file = log
        self.shutdown_reason: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def _cb_inbound(self, msg: Message) -> Message:
        self._record("in", msg)
        if msg.get("event") == "SHUTDOWN" and not self.shutdown_reason.done():
            data: Any = msg.get("data")
            self.shutdown_reason.set_result(str(data["reason"]))
        return msg

    def _cb_outbound(self, msg: Message) -> Message:
        self._record("out", msg)
        return msg

    def _record(self, direction: str, message: Message) -> None:
        self._log_file.write(json.dumps({"direction": direction, "message": dict(message)}) + "\n")


@contextlib.contextmanager
def _as_documented(command: str, found: object) -> Iterator[None]:
    """:class:`MonitorError` where ``found``, the answer to ``command``, has another shape."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MonitorError(
            f"the monitor's answer to {command} cannot be read", f"found {str(found)[:100]}"
        ) from error


class Monitor:
    """A connected QMP monitor.  Made by :func:`monitor` only.

    Every question raises :class:`MonitorError` where QEMU refuses, says nothing for
    :data:`TIMEOUT_S`, or gives an answer of another shape than its schema says.
    """

    def __init__(self, client: _RecordingClient, commands: frozenset[str]) -> None:
        self._client = client
        self.commands = commands

    async def shutdown_reason(self) -> str | None:
        """Why a QEMU ended that has ended, in its words: ``guest-reset``, ``guest-shutdown`` ...

        None where it did not say (QAPI ``run-state.json``: ShutdownCause).
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                return await asyncio.shield(self._client.shutdown_reason)
        return None

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """The command's return value; :class:`MonitorError` where QEMU refuses or says nothing."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await self._client.execute(command, arguments)
        except TimeoutError:
            raise MonitorError(
                f"the monitor did not answer to {command}", f"nothing for {TIMEOUT_S:g} s"
            ) from None
        except ExecuteError as error:
            raise MonitorError(f"the monitor refused {command}", str(error)) from None
        except (ExecInterruptedError, QMPError, OSError) as error:
            raise MonitorError(f"the monitor went away at {command}", repr(error)) from None

    async def status(self) -> str:
        """QEMU's run state: ``running``, ``paused``, ``shutdown`` ..."""
        found = await self.execute("query-status")
        with _as_documented("query-status", found):
            return str(found["status"])

    async def vcpu_threads(self) -> dict[int, int]:
        """The vCPU of each of QEMU's threads that runs one."""
        found = await self.execute("query-cpus-fast")
        with _as_documented("query-cpus-fast", found):
            return {int(cpu["thread-id"]): int(cpu["cpu-index"]) for cpu in found}

    async def save(self, state_file: str) -> None:
        """Stop the guest, and write its state to a file on its host.

        :class:`MonitorError` where QEMU cannot.
        """
        await self.execute("stop")
        await self._migrate("migrate", f"exec:cat >{shlex.quote(state_file)}")

    async def load(self, state_file: str) -> None:
        """A state into a QEMU that waits for it (``-incoming defer``); the file goes.

        The guest stands still.  :class:`MonitorError` where QEMU refuses; where it is not the state
        of its machine it ends, and says no more here.
        """
        file = shlex.quote(state_file)
        await self._migrate("migrate-incoming", f"exec:cat {file} && rm {file}")

    async def _migrate(self, command: str, uri: str) -> None:
        capability = {"capability": "events", "state": True}
        await self.execute("migrate-set-capabilities", {"capabilities": [capability]})
        with self._client.listener(("MIGRATION",)) as events:
            await self.execute(command, {"uri": uri})
            async for event in events:
                data: Any = event["data"]
                status = data["status"]
                if status == "completed":
                    return
                if status in ("failed", "cancelled"):
                    told = await self.execute("query-migrate")
                    raise MonitorError(f"{command} failed", told.get("error-desc", status))

    async def human(self, command_line: str, *, cpu: int | None = None) -> str:
        """The text of a human monitor command, which is about ``cpu`` if it is about one.

        ``info lapic N`` will not do instead: it shows what QEMU knew of that CPU when it last asked
        KVM (QEMU 7.2 and 10.0 ``target/i386/monitor.c``: hmp_info_local_apic).
        """
        arguments: dict[str, object] = {"command-line": command_line}
        if cpu is not None:
            arguments["cpu-index"] = cpu
        return str(await self.execute("human-monitor-command", arguments))

    async def snapshot(self, smp: int) -> MonitorSnapshot:
        """Everything that the monitor can tell of the interrupts of a guest with ``smp`` CPUs."""
        missing: dict[str, str] = {}
        irq = await self._text("x-query-irq", missing)
        if "x-query-interrupt-controllers" in self.commands:
            controllers = await self._text("x-query-interrupt-controllers", missing)
        else:
            controllers = await self.human("info pic")
        return MonitorSnapshot(
            irq_text=irq,
            controllers_text=controllers,
            lapic_texts=tuple([await self.human("info lapic", cpu=cpu) for cpu in range(smp)]),
            stats=await self._stats(missing),
            missing=missing,
        )

    async def _text(self, command: str, missing: dict[str, str]) -> str | None:
        if command not in self.commands:
            missing[command] = "this QEMU does not have it"
            return None
        found = await self.execute(command)
        with _as_documented(command, found):
            return str(found["human-readable-text"])

    async def _stats(self, missing: dict[str, str]) -> tuple[Mapping[str, Any], ...]:
        if "query-stats" not in self.commands:
            missing["query-stats"] = "this QEMU does not have it (it came with 7.1)"
            return ()
        stats = await self.execute("query-stats", {"target": "vcpu"})
        if not stats:
            missing["query-stats"] = "there are no statistics of KVM where KVM does not run"
        with _as_documented("query-stats", stats):
            return tuple(stats)


@contextlib.asynccontextmanager
async def monitor(
    connection: socket.socket, log: Path, *, greeting_s: float | None = None
) -> AsyncIterator[Monitor]:
    """A monitor on ``connection``, for as long as the block lasts; its messages go to ``log``.

    Raises :class:`MonitorError` where no greeting comes within ``greeting_s``, or
    :data:`TIMEOUT_S`.
    """
    with log.open("a", encoding="utf-8") as file:
        client = _RecordingClient("guest", file)
        try:
            yield await _connected(client, connection, greeting_s or TIMEOUT_S)
        finally:
            with contextlib.suppress(QMPError, OSError, EOFError, asyncio.TimeoutError):
                async with asyncio.timeout(DISCONNECT_TIMEOUT_S):
                    await client.disconnect()


async def _connected(
    client: _RecordingClient, connection: socket.socket, greeting_s: float
) -> Monitor:
    try:
        async with asyncio.timeout(greeting_s):
            await client.connect(connection)
            known: Any = await client.execute("query-commands")
    except TimeoutError:
        raise MonitorError(
            "the monitor never answered", f"no QMP greeting within {greeting_s:g} s"
        ) from None
    except (ExecuteError, ExecInterruptedError, QMPError, OSError) as error:
        raise MonitorError("the monitor cannot be used", repr(error)) from None
    with _as_documented("query-commands", known):
        return Monitor(client, frozenset(str(command["name"]) for command in known))
