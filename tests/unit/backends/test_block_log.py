"""The log of translated blocks as it comes through a pipe."""

import asyncio
import os

import pytest

from harness.backends.block_log import MODULES, Section, block_log, find_module
from harness.base.errors import HostError
from harness.images.helper import compiler
from harness.images.kernel import inspect_kernel
from support import debug_module
from support.kernel_files import write_kernel

BASE = 0xFFFFFFFFC0310000
TEXT, COLD = Section(".text", BASE, 0x1000), Section(".text.unlikely", BASE + 0x2000, 0x10)


def block(*addresses):
    """A block as QEMU 7.2 to 11.1 log it."""
    code = "".join(
        f"0x{address:016x}:  55                       pushq    %rbp\n" for address in addresses
    )
    return f"----------------\nIN: \n{code}\n".encode()


def recorded(*parts):
    """What was executed after each part of the log."""

    async def run():
        with block_log() as log:
            log.loaded("6.1.192-3", "78fb", (COLD, TEXT))
            found = []
            for part in parts:
                os.write(log.descriptor, part)
                found.append(log.executed())
            return found

    return asyncio.run(run())


def test_addresses_are_offsets_in_the_sections_that_they_are_in():
    (found,) = recorded(block(BASE, BASE + 0xFFF, BASE + 0x2004))

    assert (found.kernel, found.build_id) == ("6.1.192-3", "78fb")
    assert found.offsets == {".text": {0, 0xFFF}, ".text.unlikely": {4}}


def test_addresses_of_other_modules_are_left_out():
    (found,) = recorded(block(BASE - 1, BASE + 0x1000, BASE + 0x2010))

    assert found.offsets == {}


def test_what_ran_before_is_not_reported_again_when_it_is_translated_again():
    first, second = recorded(block(BASE, BASE + 1), block(BASE + 1, BASE + 2))

    assert first.offsets == {".text": {0, 1}}
    assert second.offsets == {".text": {2}}


def test_line_that_comes_in_pieces_counts_once_it_is_whole():
    whole = block(BASE)
    cut = whole.index(b":  55") - 3

    first, second = recorded(whole[:cut], whole[cut:])

    assert (first.offsets, second.offsets) == ({}, {".text": {0}})


def test_log_without_a_disassembler_is_an_error():
    with pytest.raises(HostError, match="disassembler"):
        recorded(b"----------------\nIN: \nOBJD-T: 554889e5\n\n")


def test_log_is_read_while_it_is_written_so_that_qemu_never_waits():
    size = 3 << 20

    async def run():
        with block_log() as log:
            log.loaded("6.1", "78fb", (TEXT,))
            writing = asyncio.to_thread(_write_all, log.descriptor, block(BASE) * (size // 60))
            await asyncio.wait_for(writing, 60)
            return log.executed()

    assert asyncio.run(run()).offsets == {".text": {0}}


def _write_all(descriptor, data):
    while data:
        data = data[os.write(descriptor, data) :]


def test_arguments_have_qemu_log_the_code_of_modules_only():
    async def run():
        with block_log() as log:
            return log.arguments, log.descriptor

    arguments, descriptor = asyncio.run(run())
    assert arguments[:4] == ("-d", "in_asm", "-D", f"/dev/fd/{descriptor}")
    assert [int(word, 16) for word in arguments[5].split("..")] == list(MODULES)


def found(said, kernel):
    """What a log knows of a lab whose shell says this of the module's sections."""

    async def run():
        with block_log() as log:

            async def shell(code):
                assert "/sys/module/kvm/sections" in code
                return 0, said

            await find_module(log, kernel, shell)
            os.write(log.descriptor, block(BASE + 1))
            return log.executed()

    return asyncio.run(run())


@pytest.fixture
def kernel(tmp_path):
    """One whose module kvm has a section .text."""
    if compiler() is None:
        pytest.skip("there is no C compiler")
    (tmp_path / "source").mkdir()
    module = debug_module.build(tmp_path / "source", {"kvm.c": "int one(void) { return 1; }\n"})
    vmlinuz = write_kernel(tmp_path / "kernel", {"kvm.ko": ""})
    for path in (tmp_path / "kernel").rglob("kvm.ko"):
        path.write_bytes(module)
    return inspect_kernel("6.1", vmlinuz, None, "here")


def test_module_is_found_where_the_lab_says_that_it_is(kernel):
    ran = found(f".text:{BASE:#x}\n.data:0xffffffffc0400000\n", kernel)

    assert ran.kernel == "6.1"
    assert ran.offsets == {".text": {1}}


def test_module_that_the_lab_does_not_have_is_an_error(kernel):
    with pytest.raises(HostError, match="coverage cannot be recorded"):
        found("grep: .text: No such file or directory\n", kernel)
