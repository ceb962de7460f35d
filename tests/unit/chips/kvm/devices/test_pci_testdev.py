"""pci-testdev as an image finds and uses it."""

from __future__ import annotations

import pytest

from userspace_chip.kvm.devices import pci_testdev
from userspace_chip.kvm.devices.pci import PciConfig

MEMORY, PORTS = pci_testdev.MEMORY, pci_testdev.PORTS.start
WIDTH, OFFSET, DATA, COUNT, NAME = 1, 4, 8, 12, 16
REGIONS = pytest.mark.parametrize(("start", "kind"), [(MEMORY, "mmio"), (PORTS, "portio")])


@pytest.fixture
def device():
    return pci_testdev.PciTestdev()


def header(device, start):
    """Offset, data and count of the chosen test, and its name."""
    letters = iter(lambda: device.read(0, start + NAME + len(name), 1), 0)
    name = bytearray()
    for letter in letters:
        name.append(letter)
    words = [device.read(0, start + at, 4) for at in (OFFSET, COUNT)]
    return words[0], device.read(0, start + DATA, 1), words[1], name.decode()


def test_device_is_found_by_its_id_with_memory_and_ports(device):
    config = PciConfig({pci_testdev.SLOT: device})

    def word(offset):
        config.write(0, 0xCF8, 4, 1 << 31 | pci_testdev.SLOT << 11 | offset)
        return config.read(0, 0xCFC, 4)

    assert [word(at) for at in (0x00, 0x10, 0x14)] == [0x00051B36, MEMORY, PORTS | 1]


@REGIONS
def test_test_that_was_chosen_shows_its_header(device, start, kind):
    found = []
    for number in range(3):
        device.write(0, start, 1, number)
        found.append((*header(device, start), device.read(0, start + WIDTH, 1)))

    first = 2048 if kind == "mmio" else 128 + 3
    assert found == [
        (first, 0xFA, 0, f"{kind}-no-eventfd", 1),
        (first + 1, 0xCE, 0, f"{kind}-wildcard-eventfd", 1),
        (first + 2, 0xFA, 0, f"{kind}-datamatch-eventfd", 1),
    ]


@REGIONS
def test_writes_of_its_data_at_its_offset_are_counted(device, start, kind):
    device.write(0, start, 1, 0)
    offset, data, *_ = header(device, start)
    for _ in range(3):
        device.write(0, start + offset, 1, data)
    device.write(0, start + offset, 1, data ^ 1)
    device.write(0, start + offset + 1, 1, data)

    assert header(device, start)[2] == 3
    device.write(0, start, 1, 0)
    assert header(device, start)[2] == 0


def test_eventfd_takes_the_write_that_it_waits_for(device):
    device.write(0, MEMORY, 1, 2)
    offset, data, *_ = header(device, MEMORY)
    device.write(0, MEMORY + offset, 1, data)

    assert header(device, MEMORY)[2] == 0


@pytest.mark.parametrize("number", [3, 0xFF])
def test_number_of_no_test_ends_the_chosen_one(device, number):
    device.write(0, MEMORY, 1, 0)
    device.write(0, MEMORY, 1, number)

    assert [device.read(0, MEMORY + at, 4) for at in (0, OFFSET, NAME)] == [0, 0, 0]
