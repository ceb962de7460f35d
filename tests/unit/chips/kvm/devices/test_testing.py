"""QEMU's devices for test guests, and the buses that they answer on."""

from __future__ import annotations

from userspace_chip.kvm.devices import testing
from userspace_chip.kvm.devices.bus import CHIPSET_START, Ports, Windows


def test_debugcon_written_says_a_character_and_reads_as_present():
    said = []
    console = testing.Debugcon(said.append)

    console.write(0, 0xE9, 1, ord("x"))

    assert (said, console.read(0, 0xE9, 1)) == ([b"x"], 0xE9)


def test_debug_exit_written_ends_with_the_value():
    ended = []

    testing.DebugExit(ended.append).write(0, 0xF4, 4, 77)

    assert ended == [77]


def test_scratch_register_written_by_bytes_reads_as_a_word():
    scratch = testing.TestScratch()

    scratch.write(0, 0xE0, 4, 0x11223344)
    scratch.write(0, 0xE2, 1, 0xAA)

    assert scratch.read(0, 0xE0, 4) == 0x11AA3344
    assert scratch.read(0, 0xE9, 1) == 0x33


def test_flush_port_written_with_an_address_unmaps_its_page():
    unmapped = []
    flush = testing.TestFlush(unmapped.append)

    flush.write(0, 0xE4, 4, 0x00123456)
    flush.write(0, 0xE4, 1, 0x56)  # only words

    assert unmapped == [0x00123456]


def test_lines_port_written_sets_the_line_of_its_number():
    set_ = []
    lines = testing.TestLines(lambda gsi, level, cpu: set_.append((gsi, level, cpu)))

    lines.write(1, 0x200E, 1, 2)
    lines.write(0, 0x200E, 1, 0)
    lines.write(0, 0x200E, 2, 1)  # only bytes

    assert set_ == [(14, 1, 1), (14, 0, 0)]


def test_test_memory_written_reads_back_up_to_its_end():
    memory = testing.TestMemory()

    memory.write(0, testing.TEST_MEMORY + 0xFFFE, 4, 0x11223344)

    assert memory.read(0, testing.TEST_MEMORY + 0xFFFE, 2) == 0x3344


def test_port_without_a_device_reads_all_ones_and_loses_writes():
    ports = Ports()

    ports.write(0, 0x300, 2, 5)

    assert ports.read(0, 0x300, 2) == 0xFFFF


def test_string_output_reaches_text_in_one_piece_and_a_device_item_by_item():
    ports, said, items = Ports(), [], []
    ports.add_text(0xE9, said.append)
    ports.add([0xF4], testing.DebugExit(items.append))

    ports.write_string(0, 0xE9, 1, b"hello")
    ports.write_string(0, 0xF4, 2, bytes([1, 0, 2, 0]))

    assert (said, items) == ([b"hello"], [1, 2])


def test_window_without_a_device_is_nothing_in_the_chipset_and_no_place_below():
    windows = Windows()
    memory = testing.TestMemory()
    windows.add(testing.TEST_MEMORY, testing.TEST_MEMORY_BYTES, memory)

    assert windows.at(testing.TEST_MEMORY + 4) is memory
    assert windows.at(0xFED00000).read(0, 0xFED00000, 4) == 0
    assert windows.at(CHIPSET_START - 1) is None
