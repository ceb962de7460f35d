"""Many accesses of chips at one exit."""

from __future__ import annotations

import struct

import pytest

from userspace_chip.kvm.devices import batch
from userspace_chip.kvm.devices.batch import Kind
from userspace_chip.kvm.devices.bus import Ports, Windows

REQUEST, LIST = 0x100, 0x200


class Memory:
    """RAM without a VM."""

    def __init__(self):
        self.ram = bytearray(0x10000)

    def read(self, address, size):
        return bytes(self.ram[address : address + size])

    def write(self, address, data):
        self.ram[address : address + len(data)] = data


class Register:
    """Remembers who accessed it how, and reads what was written last."""

    def __init__(self, seen):
        self.seen = seen
        self.value = 0

    def read(self, cpu, at, size):
        self.seen.append((cpu, "read", at, size))
        return self.value

    def write(self, cpu, at, size, value):
        self.seen.append((cpu, "write", at, size, value))
        self.value = value


@pytest.fixture
def seen():
    return []


@pytest.fixture
def memory():
    return Memory()


@pytest.fixture
def port(memory, seen):
    ports, windows = Ports(), Windows()
    ports.add([0x21, 0xCF8], Register(seen))
    windows.add(0xFEC00000, 0x1000, Register(seen))
    return batch.Batch(memory, ports, windows)


def do(port, memory, *accesses, count=None, at=LIST):
    """What the accesses read, or wrote."""
    size = 20
    for number, access in enumerate(accesses):
        memory.write(at + number * size, struct.pack("<5I", *access, 7, 8))
    number = len(accesses) if count is None else count
    memory.write(REQUEST, struct.pack("<II", at, number))
    port.write(1, batch.PORT, 4, REQUEST)
    places = range(at, at + len(accesses) * size, size)
    return [struct.unpack_from("<3I", memory.ram, place)[2] for place in places]


def test_port_reads_that_it_is_there(port):
    assert port.read(0, batch.PORT, 1) == batch.OFFERED


def test_accesses_are_done_in_their_order_as_if_the_cpu_made_them(port, memory, seen):
    found = do(
        *(port, memory, (Kind.STORE, 0xFEC00000, 0x12345678), (Kind.OUT, 0x21, 0xFF)),
        *((Kind.LOAD, 0xFEC00000, 0), (Kind.IN, 0x21, 0), (Kind.OUT32, 0xCF8, 0x80000000)),
    )

    assert found == [0x12345678, 0xFF, 0x12345678, 0xFF, 0x80000000]
    assert seen == [
        (1, "write", 0xFEC00000, 4, 0x12345678),
        (1, "write", 0x21, 1, 0xFF),
        (1, "read", 0xFEC00000, 4),
        (1, "read", 0x21, 1),
        (1, "write", 0xCF8, 4, 0x80000000),
    ]


def test_words_of_the_guests_own_stay(port, memory):
    do(port, memory, (Kind.IN, 0x21, 0))

    assert struct.unpack_from("<2I", memory.ram, LIST + 12) == (7, 8)


def test_access_where_no_device_is_reads_0(port, memory, seen):
    found = do(port, memory, (Kind.LOAD, 0x1000, 5), (Kind.STORE, 0x1000, 6))

    assert found == [0, 0]
    assert seen == []


def test_more_than_a_batch_may_have_is_left_out(port, memory, seen):
    do(port, memory, *[(Kind.IN, 0x21, 0)] * (batch.MOST + 1))

    assert len(seen) == batch.MOST


def test_request_beyond_the_memory_is_not_done(port, memory, seen):
    port.write(0, batch.PORT, 4, 0xFFFE)

    assert seen == []


def test_list_that_the_memory_ends_in_is_done_as_far_as_it_goes(port, memory, seen):
    do(port, memory, (Kind.IN, 0x21, 0), at=0x10000 - 20, count=2)

    assert len(seen) == 1
