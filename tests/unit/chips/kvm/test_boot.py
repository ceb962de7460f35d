"""Multiboot images in a guest's memory, without a guest."""

from __future__ import annotations

import struct

import pytest

from support import multiboot as images
from userspace_chip.kvm import boot, multiboot
from userspace_chip.kvm.errors import BootError


class Memory:
    """RAM as :class:`GuestMemory` has it."""

    def __init__(self, mib=8):
        self.bytes = mib << 20
        self.content = bytearray(self.bytes)

    def write(self, address, data):
        if address + len(data) > self.bytes:
            raise BootError("too much")
        self.content[address : address + len(data)] = data

    def words(self, address, count):
        return struct.unpack_from(f"<{count}I", self.content, address)

    def text(self, address):
        return self.content[address : self.content.index(0, address)].decode()


def kludge(content=b"code", bss=64):
    """A file with a header that has addresses, 16 bytes before the header that are not loaded."""
    at, load = 0x200000, 0x200000
    flags = images.HAS_ADDRESSES
    header = images.header(flags=flags)
    end = load + 32 + len(content)
    return bytes(16) + header + struct.pack("<5I", at, load, end, end + bss, load + 32) + content


@pytest.mark.parametrize("image", [images.elf(), images.elf64()], ids=["elf32", "elf64"])
def test_load_of_an_elf_file_puts_its_segment_where_it_says(image):
    memory = Memory()

    entry = boot.load(memory, image).address

    assert entry == images.LOADED_AT
    assert memory.content[images.LOADED_AT : images.LOADED_AT + len(image)] == image


def test_load_of_a_file_with_addresses_of_its_own_follows_them_and_clears_its_bss():
    memory = Memory()
    memory.content[0x200000:0x200100] = b"\xff" * 0x100

    entry = boot.load(memory, kludge()).address

    assert entry == 0x200020
    assert memory.content[0x200020:0x200024] == b"code"
    assert memory.content[0x200024 : 0x200024 + 65] == bytes(64) + b"\xff"


def test_load_of_a_file_whose_addresses_do_not_hold_its_header_is_refused():
    image = bytearray(kludge())
    struct.pack_into("<I", image, 16 + 16, 0x300000)

    assert "is not in what is loaded" in multiboot.defect(bytes(image))


def test_load_tells_command_line_memory_and_modules():
    memory = Memory()

    boot.load(memory, images.elf(), "a b=c", [boot.Module(b"first", "one"), boot.Module(b"second")])

    flags, low, high, _, line, count, table = memory.words(boot.INFO_ADDRESS, 7)
    assert flags & 0x4D == 0x4D
    assert (low, high) == (640, 7 * 1024)
    assert memory.text(line) == "a b=c"
    start, end, text, _ = memory.words(table, 4)
    second, second_end, _, _ = memory.words(table + 16, 4)
    assert count == 2
    assert (memory.content[start:end], memory.text(text)) == (b"first", "one")
    assert memory.content[second:second_end] == b"second"
    assert start % 4096 == second % 4096 == 0


def test_load_tells_a_map_of_its_memory():
    memory = Memory()

    boot.load(memory, images.elf())

    length, at = memory.words(boot.INFO_ADDRESS + 44, 2)
    entries = [
        struct.unpack_from("<I2QI", memory.content, at + 24 * i) for i in range(length // 24)
    ]
    assert [(base, size, kind) for _, base, size, kind in entries] == [
        (0, 0xA0000, 1),
        (0xA0000, 0x60000, 2),
        (0x100000, 7 << 20, 1),
    ]


def test_load_of_what_is_no_image_is_refused_with_the_reason():
    with pytest.raises(BootError, match="no multiboot header"):
        boot.load(Memory(), b"#!/bin/sh\n")
