"""From a guest's end to an exit status."""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

import pytest

from userspace_chip.events import Event
from userspace_chip.kvm.__main__ import main, parse
from userspace_chip.kvm.command import (
    Trace,
    is_two_way,
    opened,
    opened_console,
    raw_status,
    status,
    writer,
)
from userspace_chip.kvm.errors import BootError
from userspace_chip.kvm.options import Options, arguments
from userspace_chip.kvm.vmm import End, Outcome


@pytest.mark.parametrize(
    ("outcome", "expected", "raw"),
    [
        (Outcome(End.EXIT, 0), 0, 1),
        (Outcome(End.EXIT, 1), 1, 3),
        (Outcome(End.EXIT, 5), 1, 11),
        (Outcome(End.EXIT, 77), 77, 155),
        (Outcome(End.EXIT, 0x80), 1, 1),
        (Outcome(End.TIMEOUT), 124, 124),
        (Outcome(End.TRIPLE_FAULT, detail="a triple fault"), 1, 0),
        (Outcome(End.FAULT, detail="no device is there"), 1, 70),
        (Outcome(End.RESET), 0, 0),
        (Outcome(End.POWER_OFF), 0, 0),
    ],
)
def test_status_of_an_outcome_is_the_convention_asked_for(outcome, expected, raw):
    assert (status(outcome), raw_status(outcome)) == (expected, raw)


@pytest.mark.parametrize(
    "options",
    [
        Options(Path("image")),
        Options(Path("image"), irqchip="on"),
        Options(
            Path("image"),
            irqchip="off",
            modules=(Path("one"), Path("two")),
            smp=4,
            append="-a b=c",
            memory_mib=64,
            timeout_s=2.5,
            trace=True,
            raw_status=True,
            debug_ports=(0xE9, 0x2100),
            delivery="msi",
            qemu="10.0",
            kvm="/dev/other",
            edu=False,
            board="pc",
            serial=False,
            virtio_serial=True,
            tsc_deadline=True,
            console="fd:7",
            monitor="/dev/vport0p3",
            trace_log="trace",
            paused=True,
        ),
    ],
)
def test_options_as_words_are_understood_as_the_same_options(options):
    words = arguments(options, str(options.image), [str(path) for path in options.modules])

    assert parse(words) == options


def test_status_without_a_guest_is_none_that_a_guest_gives_qemus_exit_device(tmp_path, capsys):
    words = [str(tmp_path / "no image")]

    assert [main(words), main([*words, "--raw-status"])] == [2, 70]
    assert "cannot read" in capsys.readouterr().err


def test_place_is_a_descriptor_or_a_file(tmp_path):
    (tmp_path / "file").write_text("text")
    descriptor = opened(str(tmp_path / "file"), os.O_RDONLY)

    assert opened(f"fd:{descriptor}", os.O_RDONLY) == descriptor
    assert os.read(descriptor, 10) == b"text"
    os.close(descriptor)
    with pytest.raises(BootError, match="cannot open"):
        opened(str(tmp_path / "none"), os.O_RDONLY)


def test_console_is_two_way_where_it_is_a_device_or_a_socket(tmp_path):
    (tmp_path / "file").touch()
    ours, theirs = socket.socketpair()
    controller, terminal = os.openpty()
    device = opened_console(os.ttyname(terminal))
    file = opened_console(str(tmp_path / "file"))

    assert [is_two_way(one) for one in (device, file, ours.fileno())] == [True, False, True]
    os.write(controller, b"typed\n")
    assert os.read(device, 10) == b"typed\n"
    for one in (device, file, terminal, controller):
        os.close(one)
    ours.close()
    theirs.close()


def test_text_to_what_is_no_terminal_is_written_as_it_is():
    reader, end = os.pipe()

    writer(end)(b"\x1b[2Jclear")
    os.close(end)

    assert os.read(reader, 100) == b"\x1b[2Jclear"
    os.close(reader)


def test_text_to_a_terminal_controls_nothing():
    reader, end = os.openpty()

    writer(end)(b"\x1b[2Jclear\n")

    assert os.read(reader, 100) == b"?[2Jclear\r\n"
    os.close(reader)
    os.close(end)


def test_text_whose_reader_has_left_is_lost():
    reader, end = os.pipe()
    os.close(reader)

    writer(end)(b"nobody reads this")

    os.close(end)


def test_trace_has_what_a_cpu_does_from_its_thread_and_all_else_from_the_main_one(tmp_path):
    path = tmp_path / "trace"
    events = [Event(5_000_001_999, "qemu", "pic_set_irq", vcpu, (1, 0, 1)) for vcpu in (None, 1)]

    with Trace(str(path), sys.stderr) as trace:
        trace.threads = lambda: [-1, -2]
        trace(events)

    stamps = [line.partition("@") for line in path.read_text().splitlines()]
    assert [int(thread) for thread, _, _ in stamps] == [threading.main_thread().native_id, -2]
    assert {rest for _, _, rest in stamps} == {"5.000001:pic_set_irq master 1 irq 0 level 1"}
