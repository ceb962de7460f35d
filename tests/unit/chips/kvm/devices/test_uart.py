"""The 16550A, as a driver sees it."""

from __future__ import annotations

from userspace_chip.kvm.devices import uart


class Board:
    """A UART whose text and line are kept."""

    def __init__(self):
        self.sent = b""
        self.levels = []
        self.uart = uart.Uart(self._send, lambda level, cpu: self.levels.append(level))

    def _send(self, text):
        self.sent += text

    def read(self, register):
        return self.uart.read(0, uart.COM1.start + register, 1)

    def write(self, register, value):
        self.uart.write(0, uart.COM1.start + register, 1, value)


def test_uart_polled_sends_and_is_always_ready():
    board = Board()

    board.write(uart.RBR_THR, ord("a"))

    assert board.sent == b"a"
    assert board.read(uart.LSR) == uart.LSR_THR_EMPTY | uart.LSR_IDLE
    assert board.levels == []


def test_uart_with_the_divisor_selected_sends_nothing_and_keeps_it():
    board = Board()

    board.write(uart.LCR, uart.LCR_DIVISOR | 3)
    board.write(0, 0x34)
    board.write(1, 0x12)

    assert (board.read(0), board.read(1), board.sent) == (0x34, 0x12, b"")


def test_uart_thr_interrupt_enabled_rises_at_once_and_falls_when_it_is_identified():
    board = Board()

    board.write(uart.IER, uart.IER_THR_EMPTY)
    cause = board.read(uart.IIR_FCR)

    assert (cause, board.levels) == (uart.IIR_THR_EMPTY, [1, 0])
    assert board.read(uart.IIR_FCR) == uart.IIR_NONE


def test_uart_thr_interrupt_rises_again_with_each_character():
    board = Board()
    board.write(uart.IER, uart.IER_THR_EMPTY)
    board.read(uart.IIR_FCR)

    board.write(uart.RBR_THR, ord("x"))

    assert board.levels == [1, 0, 1]


def test_uart_received_bytes_interrupt_until_the_last_is_read():
    board = Board()
    board.write(uart.IIR_FCR, uart.FCR_ENABLE)
    board.write(uart.IER, uart.IER_RECEIVED)

    board.uart.receive(b"ab")
    read = [board.read(uart.RBR_THR), board.levels[:], board.read(uart.RBR_THR)]

    assert read == [ord("a"), [1], ord("b")]
    assert board.levels == [1, 0]


def test_uart_without_room_takes_the_next_byte_when_one_is_read():
    board = Board()

    board.uart.receive(b"abc")

    assert [board.read(uart.RBR_THR) for _ in range(4)] == [*b"abc", 0]
    assert board.read(uart.LSR) & uart.LSR_READY == 0


def test_uart_in_loopback_lets_nothing_in_until_it_ends():
    board = Board()
    board.write(uart.MCR, uart.MCR_LOOP)

    board.uart.receive(b"a")
    during = board.read(uart.LSR) & uart.LSR_READY
    board.write(uart.MCR, 0)

    assert (during, board.read(uart.RBR_THR)) == (0, ord("a"))


def test_uart_in_loopback_receives_what_it_sends_and_its_own_modem_lines():
    board = Board()
    board.write(uart.MCR, uart.MCR_LOOP | uart.MCR_OUT2)

    board.write(uart.RBR_THR, 0x55)

    assert (board.sent, board.read(uart.RBR_THR)) == (b"", 0x55)
    assert board.read(uart.MSR) == 0x80  # OUT2 comes back as DCD


def test_uart_scratch_and_fifo_bits_tell_a_16550a():
    board = Board()

    board.write(uart.SCR, 0xA5)
    board.write(uart.IIR_FCR, uart.FCR_ENABLE)

    assert board.read(uart.SCR) == 0xA5
    assert board.read(uart.IIR_FCR) == uart.IIR_FIFOS | uart.IIR_NONE
