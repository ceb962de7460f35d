"""A 16550A on COM1: polled, or with IRQ 4.

Spec: National Semiconductor PC16550D datasheet (1995), "Register Descriptions".  What a guest sends
leaves at once, so the transmitter is always empty; the time that a character takes is not modelled,
nor are line errors and break.  Received bytes come by :meth:`Uart.receive`; those for which there
is no room wait, as if the sender obeyed RTS.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

COM1: Final = range(0x3F8, 0x400)
COM1_GSI: Final = 4
FIFO_BYTES: Final = 16

# Registers, by offset.
RBR_THR: Final = 0
IER: Final = 1
IIR_FCR: Final = 2
LCR: Final = 3
MCR: Final = 4
LSR: Final = 5
MSR: Final = 6
SCR: Final = 7

IER_RECEIVED: Final = 1 << 0
IER_THR_EMPTY: Final = 1 << 1
IIR_NONE: Final = 1
IIR_THR_EMPTY: Final = 2
IIR_RECEIVED: Final = 4
IIR_FIFOS: Final = 0xC0
FCR_ENABLE: Final = 1 << 0
FCR_CLEAR_RECEIVER: Final = 1 << 1
LCR_DIVISOR: Final = 1 << 7
MCR_OUT2: Final = 1 << 3
MCR_LOOP: Final = 1 << 4
LSR_READY: Final = 1 << 0
LSR_THR_EMPTY: Final = 1 << 5
LSR_IDLE: Final = 1 << 6
MSR_CONNECTED: Final = 0xB0
"""DCD, DSR and CTS are up, as of QEMU's character devices."""


class Uart:
    """The 16550A: ``output`` takes what is sent, ``set_line`` its interrupt, (level, CPU)."""

    def __init__(
        self, output: Callable[[bytes], None], set_line: Callable[[int, int | None], None]
    ) -> None:
        self._output = output
        self._set_line = set_line
        self._ier = self._lcr = self._mcr = self._scr = self._fcr = 0
        self._divisor = 12
        self._received: deque[int] = deque()
        self._waiting: deque[int] = deque()
        self._thr_empty_pending = False
        self._level = 0

    def receive(self, data: bytes) -> None:
        """Bytes for the guest."""
        self._waiting.extend(data)
        self._fill()
        self._update(None)

    def _fill(self) -> None:
        """Let in what there is room for; in loopback the line is disconnected."""
        most = FIFO_BYTES if self._fcr & FCR_ENABLE else 1
        while self._waiting and len(self._received) < most and not self._mcr & MCR_LOOP:
            self._received.append(self._waiting.popleft())

    def read(self, cpu: int, at: int, size: int) -> int:
        """A register; wider reads are of the first one."""
        value = self._read(at & 7)
        self._update(cpu)
        return value

    def _read(self, offset: int) -> int:
        if offset in (RBR_THR, IER) and self._lcr & LCR_DIVISOR:
            return self._divisor >> 8 * offset & 0xFF
        match offset:
            case 0:
                value = self._received.popleft() if self._received else 0
                self._fill()
                return value
            case 1:
                return self._ier
            case 2:
                cause = self._cause()
                if cause == IIR_THR_EMPTY:
                    self._thr_empty_pending = False
                return cause | (IIR_FIFOS if self._fcr & FCR_ENABLE else 0)
            case 3:
                return self._lcr
            case 4:
                return self._mcr
            case 5:
                return LSR_THR_EMPTY | LSR_IDLE | (LSR_READY if self._received else 0)
            case 6:
                return self._modem_status()
            case _:
                return self._scr

    def _modem_status(self) -> int:
        """In loopback the outputs of MCR come back as inputs."""
        if not self._mcr & MCR_LOOP:
            return MSR_CONNECTED
        mcr = self._mcr
        return (mcr & 2) << 3 | (mcr & 1) << 5 | (mcr & 4) << 4 | (mcr & 8) << 4

    def write(self, cpu: int, at: int, size: int, value: int) -> None:
        """A register; of a wider write the lowest byte."""
        self._write(at & 7, value & 0xFF)
        self._update(cpu)

    def _write(self, offset: int, value: int) -> None:
        if offset in (RBR_THR, IER) and self._lcr & LCR_DIVISOR:
            shift = 8 * offset
            self._divisor = self._divisor & ~(0xFF << shift) | value << shift
            return
        match offset:
            case 0:
                self._send(value)
            case 1:
                if value & IER_THR_EMPTY and not self._ier & IER_THR_EMPTY:
                    self._thr_empty_pending = True
                self._ier = value & 0xF
            case 2:
                if value & FCR_CLEAR_RECEIVER or (value ^ self._fcr) & FCR_ENABLE:
                    self._received.clear()
                self._fcr = value & 0xC9
                self._fill()
            case 3:
                self._lcr = value
            case 4:
                self._mcr = value & 0x1F
                self._fill()
            case 7:
                self._scr = value

    def _send(self, value: int) -> None:
        self._thr_empty_pending = True
        if self._mcr & MCR_LOOP:
            self._received.append(value)
        else:
            self._output(bytes((value,)))

    def _cause(self) -> int:
        if self._ier & IER_RECEIVED and self._received:
            return IIR_RECEIVED
        if self._ier & IER_THR_EMPTY and self._thr_empty_pending:
            return IIR_THR_EMPTY
        return IIR_NONE

    def _update(self, cpu: int | None) -> None:
        level = int(self._cause() != IIR_NONE)
        if level != self._level:
            self._level = level
            self._set_line(level, cpu)
