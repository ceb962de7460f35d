"""The guest's memory, as one mapping of the host's."""

from __future__ import annotations

import mmap

import pytest

from userspace_chip.kvm.memory import MIB, GuestMemory


class Host:
    """Maps as :class:`~userspace_chip.kvm.fds.VmFd` does, without a VM."""

    def map_regions(self, regions):
        return mmap.mmap(-1, sum(size for _, size in regions))


@pytest.mark.parametrize("address", [0x5000, 0x5FFC])
def test_page_unmapped_keeps_what_is_in_it_and_can_be_written(address):
    memory = GuestMemory(Host(), 2)
    memory.write(0x5000, b"kept")

    memory.unmap_page(address)

    assert memory.read(0x5000, 4) == b"kept"
    memory.write(0x5000, b"new!")
    assert memory.read(0x5000, 4) == b"new!"


@pytest.mark.parametrize("address", [2 * MIB, 0xFEC00000, 0xFFFF_F000])
def test_page_beyond_the_ram_is_not_unmapped_and_is_no_error(address):
    memory = GuestMemory(Host(), 2)

    memory.unmap_page(address)

    assert memory.read(0x5000, 4) == bytes(4)
