"""virtio-serial as a legacy PCI device, for output: a whole text leaves with one access.

Spec: VIRTIO 1.1, sections 4.1.4.8 "Legacy Interfaces: A Note on PCI Device Layout", 2.6 "Split
Virtqueues" and 5.3 "Console Device"; QEMU ``hw/char/virtio-serial-bus.c``.  There is the transmit
queue of port 1 and nothing else: no input, no control queue, no features, no interrupt.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from userspace_chip.kvm.devices.pci import PciFunction
from userspace_chip.kvm.memory import PAGE_BYTES, GuestMemory

SLOT: Final = 5
PORTS: Final = range(0xC000, 0xC020)
"""Its BAR 0."""
TRANSMIT: Final = 5
"""transmitq of port 1: receiveq and transmitq of port 0 and of control come first."""
QUEUE_SIZE: Final = 128

_ID: Final = 0x1003_1AF4
_CLASS: Final = 0x0780_0000
_IO_BAR: Final = 1
_GUEST_FEATURES: Final = 0x04
_QUEUE_PAGE: Final = 0x08
_QUEUE_SIZE: Final = 0x0C
_QUEUE_SELECT: Final = 0x0E
_QUEUE_NOTIFY: Final = 0x10
_STATUS: Final = 0x12

_DESCRIPTOR: Final = struct.Struct("<QIHH")
"""Address, length, flags, next."""
_NEXT: Final = 1
_DEVICE_WRITES: Final = 2
_HALF: Final = struct.Struct("<H")
_USED: Final = struct.Struct("<II")
_AVAILABLE_AT: Final = QUEUE_SIZE * _DESCRIPTOR.size
_USED_AT: Final = -(-(_AVAILABLE_AT + 6 + 2 * QUEUE_SIZE) // PAGE_BYTES) * PAGE_BYTES
_QUEUE_BYTES: Final = _USED_AT + 6 + QUEUE_SIZE * _USED.size


class VirtioSerial(PciFunction):
    """What a driver puts into the transmit queue of port 1 goes to ``output``.

    A queue that is not in the guest's memory is not looked at.
    """

    def __init__(self, memory: GuestMemory, output: Callable[[bytes], None]) -> None:
        super().__init__(
            {0x00: _ID, 0x08: _CLASS, 0x10: PORTS.start | _IO_BAR}, {0x04: 0x0507, 0x3C: 0xFF}
        )
        self._memory = memory
        self._output = output
        self._reset()

    def _reset(self) -> None:
        self._registers = {_GUEST_FEATURES: 0, _QUEUE_PAGE: 0, _QUEUE_SELECT: 0, _STATUS: 0}
        self._done = 0
        """``last_avail_idx``."""

    def read(self, cpu: int, at: int, size: int) -> int:
        """A register of BAR 0."""
        offset, selected = at - PORTS.start, self._registers[_QUEUE_SELECT] == TRANSMIT
        if offset == _QUEUE_SIZE:
            return QUEUE_SIZE if selected else 0
        if offset == _QUEUE_PAGE and not selected:
            return 0
        return self._registers.get(offset, 0)

    def write(self, cpu: int, at: int, size: int, value: int) -> None:
        """A register of BAR 0; a notification takes all that is in the queue."""
        offset = at - PORTS.start
        if offset == _QUEUE_NOTIFY:
            if value == TRANSMIT:
                self._take()
        elif offset == _STATUS and not value:
            self._reset()
        elif offset == _QUEUE_PAGE and self._registers[_QUEUE_SELECT] != TRANSMIT:
            pass  # of a queue that there is not
        elif offset in self._registers:
            self._registers[offset] = value

    def _take(self) -> None:
        queue = self._registers[_QUEUE_PAGE] * PAGE_BYTES
        if not queue or queue + _QUEUE_BYTES > self._memory.bytes:
            return
        available = queue + _AVAILABLE_AT
        end = self._half(available + 2)
        while self._done != end:
            head = self._half(available + 4 + 2 * (self._done % QUEUE_SIZE))
            if text := self._text(queue, head):
                self._output(text)
            used = queue + _USED_AT
            place = used + 4 + _USED.size * (self._done % QUEUE_SIZE)
            self._memory.write(place, _USED.pack(head, 0))
            self._done = self._done + 1 & 0xFFFF
            self._memory.write(used + 2, _HALF.pack(self._done))

    def _text(self, queue: int, head: int) -> bytes:
        """What is in the buffers of a chain that the device reads; a chain has no loop."""
        text = b""
        for _ in range(QUEUE_SIZE):
            at = queue + _DESCRIPTOR.size * (head % QUEUE_SIZE)
            found = self._memory.read(at, _DESCRIPTOR.size)
            address, length, flags, head = _DESCRIPTOR.unpack(found)
            if not flags & _DEVICE_WRITES:
                text += self._memory.read(address, length)
            if not flags & _NEXT:
                break
        return text

    def _half(self, address: int) -> int:
        return int(_HALF.unpack(self._memory.read(address, _HALF.size))[0])
