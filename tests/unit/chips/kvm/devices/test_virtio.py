"""virtio-serial's transmit queue, as a driver of a legacy device fills it."""

from __future__ import annotations

import struct

import pytest

from userspace_chip.kvm.devices import pci, virtio

QUEUE_AT, TEXT_AT = 0x4000, 0x8000
AVAILABLE_AT = QUEUE_AT + 16 * virtio.QUEUE_SIZE
USED_AT = QUEUE_AT + 0x1000
NEXT, DEVICE_WRITES = 1, 2
PAGE, SIZE, SELECT, NOTIFY, STATUS = 0x08, 0x0C, 0x0E, 0x10, 0x12


class Memory:
    """64 KiB that cannot be written or read beyond its end."""

    bytes = 0x10000

    def __init__(self):
        self.content = bytearray(self.bytes)

    def read(self, address, size):
        return bytes(self.content[address : address + size])

    def write(self, address, data):
        assert 0 <= address <= self.bytes - len(data)
        self.content[address : address + len(data)] = data


@pytest.fixture
def memory():
    return Memory()


@pytest.fixture
def said():
    return []


@pytest.fixture
def serial(memory, said):
    serial = virtio.VirtioSerial(memory, said.append)
    write(serial, SELECT, virtio.TRANSMIT)
    write(serial, PAGE, QUEUE_AT >> 12)
    return serial


def write(serial, register, value):
    serial.write(0, virtio.PORTS.start + register, 2, value)


def read(serial, register):
    return serial.read(0, virtio.PORTS.start + register, 2)


def describe(memory, index, text, flags=0, following=0):
    at = TEXT_AT + 0x100 * index
    memory.write(at, text)
    entry = struct.pack("<QIHH", at, len(text), flags, following)
    memory.write(QUEUE_AT + 16 * index, entry)


def offer(memory, serial, *heads):
    (index,) = struct.unpack("<H", memory.read(AVAILABLE_AT + 2, 2))
    for number, head in enumerate(heads, index):
        place = AVAILABLE_AT + 4 + 2 * (number % virtio.QUEUE_SIZE)
        memory.write(place, struct.pack("<H", head))
    memory.write(AVAILABLE_AT + 2, struct.pack("<H", (index + len(heads)) & 0xFFFF))
    write(serial, NOTIFY, virtio.TRANSMIT)


def used_index(memory):
    return struct.unpack("<H", memory.read(USED_AT + 2, 2))[0]


def test_device_is_found_with_its_ports(serial):
    config = pci.PciConfig({virtio.SLOT: serial})
    config.write(0, 0xCF8, 4, 1 << 31 | virtio.SLOT << 11)

    assert config.read(0, 0xCFC, 4) == 0x10031AF4
    config.write(0, 0xCF8, 4, 1 << 31 | virtio.SLOT << 11 | 0x10)
    assert config.read(0, 0xCFC, 4) == virtio.PORTS.start | 1


def test_there_is_one_queue(serial):
    sizes = []
    for queue in range(8):
        write(serial, SELECT, queue)
        sizes.append(read(serial, SIZE))

    assert [queue for queue, size in enumerate(sizes) if size] == [virtio.TRANSMIT]


def test_text_notified_is_said_at_once_and_given_back(memory, serial, said):
    describe(memory, 0, b"one text")
    offer(memory, serial, 0)

    assert said == [b"one text"]
    assert used_index(memory) == 1


def test_chain_is_one_text_without_what_the_device_may_write(memory, serial, said):
    describe(memory, 0, b"begin ", NEXT, 2)
    describe(memory, 2, b"answer", NEXT | DEVICE_WRITES, 1)
    describe(memory, 1, b"end")
    offer(memory, serial, 0)

    assert said == [b"begin end"]
    assert memory.read(USED_AT + 4, 4) == struct.pack("<I", 0)


def test_queue_goes_round_its_ring_and_its_index(memory, serial, said):
    describe(memory, 3, b"x")
    for _ in range(0x10000 // 64 + 2):
        offer(memory, serial, *[3] * 64)

    assert len(said) == 0x10000 + 128
    assert used_index(memory) == 128


def test_loop_of_descriptors_ends(memory, serial, said):
    describe(memory, 0, b"x", NEXT, 0)
    offer(memory, serial, 0)

    assert said == [b"x" * virtio.QUEUE_SIZE]


def test_queue_beyond_the_memory_is_not_looked_at(memory, serial, said):
    write(serial, PAGE, 0xF)
    write(serial, NOTIFY, virtio.TRANSMIT)

    assert said == []


def test_reset_forgets_the_queue(memory, serial, said):
    describe(memory, 0, b"x")
    write(serial, STATUS, 0)
    offer(memory, serial, 0)

    assert said == []
    assert (read(serial, STATUS), read(serial, PAGE)) == (0, 0)
