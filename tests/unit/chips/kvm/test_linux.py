"""Linux kernels in a guest's memory, without a guest."""

from __future__ import annotations

import struct

import pytest

from userspace_chip.kvm import linux
from userspace_chip.kvm.errors import BootError
from userspace_chip.kvm.memory import GuestMemory, areas

MIB = 1 << 20
PREFERRED = 0x400000
INIT_BYTES = 0x200000
SYSTEM = bytes(range(256)) * 8


class Board:
    """A VM that gives memory and nothing else."""

    def map_regions(self, regions):
        return bytearray(sum(size for _, size in regions))


def kernel(*, version=0x20F, flags=1, sectors=1, system=SYSTEM, cut=0):
    """A bzImage whose protected-mode part is ``system``."""
    setup = bytearray((sectors or 4) * 512 + 512)
    setup[0x1F1] = sectors
    struct.pack_into("<I", setup, 0x1F4, len(system) // 16)
    setup[0x201] = 0x6A
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, version)
    setup[0x211] = flags
    struct.pack_into("<I", setup, 0x22C, 0x7FFFFFFF)
    struct.pack_into("<I", setup, 0x238, 31)
    struct.pack_into("<QI", setup, 0x258, PREFERRED, INIT_BYTES)
    image = bytes(setup) + system
    return image[: len(image) - cut]


def loaded(image=None, command_line="", disks=(), mib=16):
    """The memory after it, and how it is entered."""
    memory = GuestMemory(Board(), mib)
    return memory, linux.load(memory, image or kernel(), command_line, disks)


def params(memory, offset, form):
    return struct.unpack(form, memory.read(linux.PARAMS_AT + offset, struct.calcsize(form)))


def test_load_puts_the_protected_mode_part_at_1_mib_and_enters_it_there():
    memory, entry = loaded()

    assert memory.read(MIB, len(SYSTEM)) == SYSTEM
    assert (entry.address, entry.esi, entry.ebx) == (MIB, linux.PARAMS_AT, 0)
    descriptors = struct.unpack("<4Q", memory.read(entry.gdt.base, entry.gdt.limit + 1))
    assert descriptors[entry.code // 8] == 0x00CF9B000000FFFF
    assert descriptors[entry.data // 8] == 0x00CF93000000FFFF


def test_load_of_a_setup_size_of_0_takes_it_for_4_sectors():
    memory, _ = loaded(kernel(sectors=0))

    assert memory.read(MIB, len(SYSTEM)) == SYSTEM


def test_load_gives_the_kernel_its_own_header_and_its_command_line():
    memory, _ = loaded(command_line="console=ttyS0 quiet")

    assert params(memory, 0x202, "<4sH") == (b"HdrS", 0x20F)
    assert params(memory, 0x258, "<QI") == (PREFERRED, INIT_BYTES)
    assert params(memory, 0x210, "<B") == (0xFF,)
    (at,) = params(memory, 0x228, "<I")
    assert memory.read(at, 20) == b"console=ttyS0 quiet\0"


def test_load_gives_the_kernel_a_map_of_its_memory():
    memory, _ = loaded()

    (count,) = params(memory, 0x1E8, "<B")
    entries = [params(memory, 0x2D0 + 20 * i, "<2QI") for i in range(count)]
    assert entries == [(area.base, area.bytes, area.kind) for area in areas(16 * MIB)]
    assert entries[-1] == (MIB, 15 * MIB, 1)


def test_load_puts_ram_disks_one_after_another_at_the_end_of_memory():
    memory, _ = loaded(disks=[b"first", b"second"])

    at, size = params(memory, 0x218, "<2I")
    assert memory.read(at, size) == b"first\0\0\0second\0\0"
    assert at == 16 * MIB - 0x1000


def test_load_without_a_ram_disk_says_that_there_is_none():
    memory, _ = loaded()

    assert params(memory, 0x218, "<2I") == (0, 0)


def test_load_of_a_ram_disk_into_too_little_memory_says_how_much_is_needed():
    with pytest.raises(BootError, match=r"needs 0x600064 bytes of memory.*more --memory"):
        loaded(disks=[bytes(100)], mib=6)


def test_load_of_a_command_line_that_is_too_long_is_refused():
    with pytest.raises(BootError, match="32 bytes: this kernel takes 31"):
        loaded(command_line="x" * 32)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (kernel(version=0x209), r"boot protocol is 2\.09, and 2\.10 is needed"),
        (kernel(flags=0), "zImage"),
        (kernel(cut=1), "truncated: 3071 bytes of 3072"),
        (kernel()[:0x210], "truncated: 528 bytes"),
    ],
    ids=["old", "zimage", "cut", "head"],
)
def test_load_of_what_cannot_be_booted_is_refused_with_the_reason(image, reason):
    assert linux.is_kernel(image)
    with pytest.raises(BootError, match=reason):
        loaded(image)


@pytest.mark.parametrize("image", [b"", b"\x7fELF" + bytes(0x300), b"HdrS"])
def test_is_kernel_of_another_file_is_false(image):
    assert not linux.is_kernel(image)
