"""The VMM's monitor: enough of QMP for who asks QEMU's, in the same words.

Sources: QEMU ``docs/interop/qmp-spec.rst``, QAPI ``machine.json``, ``misc.json``,
``run-state.json``; ``target/i386/cpu-dump.c:x86_cpu_dump_state`` for ``info registers``.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol

from userspace_chip.info_pic import format_info_pic
from userspace_chip.kvm import abi
from userspace_chip.kvm.fds import VcpuFd
from userspace_chip.kvm.listener import Listener
from userspace_chip.kvm.live import LiveIrqchip
from userspace_chip.kvm.vmm import Errand

_GREETING: Final = {
    "QMP": {
        "version": {"qemu": {"major": 0, "minor": 0, "micro": 0}, "package": "userspace_chip"},
        "capabilities": [],
    }
}
_GENERAL: Final = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
)
_NO_ANSWER: Final = "the CPU does not leave its guest"
_MOST_CHARACTERS: Final = 1 << 16
"""Of what is not yet a whole object."""


class Machine(Protocol):
    """What the monitor asks: :class:`~userspace_chip.kvm.vmm.Vmm`."""

    @property
    def cpus(self) -> int:
        """How many vCPUs there are."""

    @property
    def paused(self) -> bool:
        """Whether the guest waits for :meth:`resume`."""

    def resume(self) -> None:
        """Let it run."""

    def quit(self) -> None:
        """End it."""

    def threads(self) -> list[int]:
        """The ids of the vCPUs' threads."""

    def on_cpu(self, index: int, errand: Errand[Any]) -> Any:
        """What ``errand`` gives in a CPU's thread; None where the CPU does not come out."""


class Refusal(Exception):
    """Why a command is not carried out: the description in QMP's error."""


class Commands:
    """The commands: an object in, an object out."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._commands: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
            "qmp_capabilities": lambda _: {},
            "query-commands": lambda _: [{"name": name} for name in self._commands],
            "query-status": lambda _: self._status(),
            "query-cpus-fast": lambda _: list(self._cpus()),
            "cont": lambda _: self._done(machine.resume),
            "quit": lambda _: self._done(machine.quit),
            "inject-nmi": lambda _: self._inject_nmi(),
            "human-monitor-command": self._human,
        }

    def answer(self, asked: object) -> dict[str, Any]:
        """The reply to what was sent; nothing is fatal."""
        if not isinstance(asked, dict) or not isinstance(asked.get("arguments", {}), dict):
            return _error("not a command")
        reply: dict[str, Any]
        name, arguments = str(asked.get("execute")), asked.get("arguments", {})
        try:
            if (command := self._commands.get(name)) is None:
                raise Refusal(f"The command {name} has not been found")
            reply = {"return": command(arguments)}
        except Refusal as refusal:
            reply = _error(str(refusal))
        return reply | ({"id": asked["id"]} if "id" in asked else {})

    @staticmethod
    def _done(work: Callable[[], None]) -> dict[str, Any]:
        work()
        return {}

    def _status(self) -> dict[str, Any]:
        paused = self._machine.paused
        return {"status": "prelaunch" if paused else "running", "running": not paused}

    def _cpus(self) -> Iterator[dict[str, Any]]:
        for index, thread in enumerate(self._machine.threads()):
            yield {"cpu-index": index, "thread-id": thread, "target": "x86_64"}

    def _on_cpu(self, index: int, errand: Errand[Any]) -> Any:
        if not 0 <= index < self._machine.cpus:
            raise Refusal(f"there is no CPU {index}")
        found = self._machine.on_cpu(index, errand)
        if found is None:
            raise Refusal(_NO_ANSWER)
        return found

    def _inject_nmi(self) -> dict[str, Any]:
        """``x86_nmi``: every CPU."""

        def inject(irqchip: LiveIrqchip, vcpu: VcpuFd) -> bool:
            irqchip.external_nmi(vcpu.index)
            return True

        for index in range(self._machine.cpus):
            self._on_cpu(index, inject)
        return {}

    def _human(self, arguments: Mapping[str, Any]) -> str:
        asked, cpu = arguments.get("command-line"), arguments.get("cpu-index", 0)
        if asked == "info registers -a":
            return "".join(
                self._on_cpu(index, registers_text) for index in range(self._machine.cpus)
            )
        if asked == "info lapic":
            return str(self._on_cpu(cpu, lambda irqchip, vcpu: irqchip.lapic_text(vcpu.index)))
        if asked == "info pic":
            return str(self._on_cpu(0, lambda irqchip, vcpu: format_info_pic(irqchip.info_pic())))
        raise Refusal(f"unknown command: {asked!r}")


def registers_text(irqchip: LiveIrqchip, vcpu: VcpuFd) -> str:
    """A CPU in ``info registers``, as far as its readers look."""
    regs, sregs = vcpu.get_regs(), vcpu.get_sregs()
    general = [f"{name.upper():3}={getattr(regs, name):016x}" for name in _GENERAL]
    lines = [f"CPU#{vcpu.index}"]
    lines += [" ".join(general[at : at + 4]) for at in range(0, len(general), 4)]
    halted = int(irqchip.is_halted(vcpu.index))
    lines.append(f"RIP={regs.rip:016x} RFL={regs.rflags:08x} HLT={halted}")
    for name in ("es", "cs", "ss", "ds", "fs", "gs", "ldt", "tr"):
        segment: abi.KvmSegment = getattr(sregs, name)
        label = name.upper()[:3]
        lines.append(f"{label:3}={segment.selector:04x} {segment.base:016x} {segment.limit:08x}")
    lines.append(
        f"CR0={sregs.cr0:08x} CR2={sregs.cr2:016x} CR3={sregs.cr3:016x} CR4={sregs.cr4:08x}"
    )
    return "\n".join([*lines, f"EFER={sregs.efer:016x}", ""]) + "\n"


def _error(description: str) -> dict[str, Any]:
    return {"error": {"class": "GenericError", "desc": description}}


class Objects:
    """JSON objects out of a stream, which nothing separates."""

    def __init__(self) -> None:
        self._held = ""
        self._decode = json.JSONDecoder().raw_decode

    def add(self, piece: bytes) -> Iterator[object]:
        """What has come to its end with ``piece``; what cannot be an object is passed over."""
        self._held += piece.decode("utf-8", errors="replace")
        while (begin := self._held.find("{")) >= 0:
            try:
                found, end = self._decode(self._held, begin)
            except ValueError:
                if len(self._held) > _MOST_CHARACTERS:
                    self._held = ""
                return
            self._held = self._held[end:]
            yield found
        self._held = ""


class Monitor:
    """Speaks QMP over a descriptor, in a thread of its own.  Use it in a ``with``.

    ``descriptor`` is closed in the end.
    """

    def __init__(self, machine: Machine, descriptor: int) -> None:
        self._commands = Commands(machine)
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._stream = Objects()
        self._listener = Listener(descriptor, self._hear, "monitor")

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        """No more is read, answered or said."""
        self._listener.close()
        os.close(self._descriptor)

    def begin(self) -> None:
        """Greet, and listen from now on."""
        self._send(_GREETING)
        self._listener.begin()

    def tell_end(self, reason: str | None) -> None:
        """Say why the guest has ended, where that is to be said."""
        if reason is not None:
            now_ns = time.time_ns()
            seconds, rest_ns = divmod(now_ns, 1_000_000_000)
            data = {"guest": reason != "host-qmp-quit", "reason": reason}
            stamp = {"seconds": seconds, "microseconds": rest_ns // 1000}
            self._send({"event": "SHUTDOWN", "data": data, "timestamp": stamp})

    def _hear(self, piece: bytes) -> None:
        for asked in self._stream.add(piece):
            self._send(self._commands.answer(asked))

    def _send(self, message: Mapping[str, Any]) -> None:
        text = json.dumps(message).encode() + b"\r\n"
        try:
            with self._lock:
                while text:
                    text = text[os.write(self._descriptor, text) :]
        except OSError:
            return
