import pytest

from support.lapic_board import LapicBoard
from userspace_chip import lapic_registers as reg
from userspace_chip.lapic_timer import divide_count
from userspace_chip.profile import profile, tune

MS = 1_000_000
ONE_SHOT, PERIODIC, TSC_DEADLINE = 0x00031, 0x20031, 0x40031


def start(which, lvtt, count, *, tdcr=0xB, now_ns=0):
    board = LapicBoard(which)
    board.write(reg.TDCR, tdcr, now_ns)
    board.write(reg.LVTT, lvtt, now_ns)
    board.write(reg.TMICT, count, now_ns)
    board.texts.clear()
    return board


def fire(board):
    """Let the armed timer expire when it is due, as a machine does."""
    due_ns = board.port.timer.deadline_ns
    board.port.timer.deadline_ns = None
    board.apic.expire(due_ns)
    board.apic.timer.deliver_pending(due_ns)
    return due_ns


@pytest.mark.parametrize(
    ("tdcr", "divisor"),
    [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (0xA, 128), (0xB, 1)],
)
def test_divider_of_every_configuration(tdcr, divisor):
    assert divide_count(tdcr) == divisor


@pytest.mark.parametrize("which", ["on", "tcg"])
def test_tdcr_stores_three_bits(which):
    board = LapicBoard(which)
    board.write(reg.TDCR, 0xFFFFFFFF)
    assert board.read(reg.TDCR) == 0xB


@pytest.mark.parametrize(("which", "due_ns"), [("on", 4 * MS), ("tcg", 4 * MS + 4)])
def test_one_shot_is_due_after_count_times_divider(which, due_ns):
    board = start(which, ONE_SHOT, MS, tdcr=1)
    assert board.port.timer.deadline_ns == due_ns


@pytest.mark.parametrize("which", ["on", "tcg"])
def test_one_shot_fires_once(which):
    board = start(which, ONE_SHOT, MS)
    fire(board)
    assert board.apic.state.irr == 1 << 0x31
    assert board.port.timer.deadline_ns is None


@pytest.mark.parametrize(("which", "second_ns"), [("on", 2 * MS), ("tcg", 2 * MS + 2)])
def test_periodic_fires_again_after_a_period(which, second_ns):
    board = start(which, PERIODIC, MS)
    fire(board)
    assert board.port.timer.deadline_ns == second_ns


def test_kvm_period_is_at_least_200_us():
    assert start("on", PERIODIC, 1000).port.timer.deadline_ns == 200_000


def test_qemu_period_has_no_minimum():
    assert start("tcg", PERIODIC, 1000).port.timer.deadline_ns == 1001


def test_kvm_one_shot_has_no_minimum():
    assert start("on", ONE_SHOT, 1000).port.timer.deadline_ns == 1000


def test_kvm_missed_periods_are_dropped():
    board = start("on", PERIODIC, MS)
    board.port.timer.deadline_ns = None
    board.apic.expire(10 * MS)
    assert board.port.timer.deadline_ns == 10 * MS


def test_kvm_expiries_collapse_into_one():
    board = start("on", PERIODIC, MS)
    board.apic.expire(MS)
    board.apic.expire(2 * MS)
    board.apic.timer.deliver_pending(2 * MS)
    assert [text for text in board.texts if "accept" in text] == [
        "kvm_apic_accept_irq: apicid 0 vec 49 (Fixed|edge)"
    ]


def test_kvm_expiry_while_masked_is_delivered_on_unmask():
    board = start("on", ONE_SHOT | 0x10000, MS)
    fire(board)
    assert board.apic.state.irr == 0
    board.write(reg.LVTT, ONE_SHOT, 2 * MS)
    board.apic.timer.deliver_pending(2 * MS)
    assert board.apic.state.irr == 1 << 0x31


def test_qemu_one_shot_while_masked_is_lost():
    board = start("tcg", ONE_SHOT | 0x10000, MS)
    assert board.port.timer.deadline_ns is None
    board.write(reg.LVTT, ONE_SHOT, 2 * MS)
    assert board.port.timer.deadline_ns is None


def test_qemu_periodic_while_masked_goes_on_at_the_next_boundary():
    board = start("tcg", PERIODIC | 0x10000, MS)
    board.write(reg.LVTT, PERIODIC, 2 * MS + MS // 2)
    assert board.port.timer.deadline_ns == 3 * MS + 3


def test_kvm_software_disable_forgets_an_expiry():
    board = start("on", ONE_SHOT, MS)
    board.apic.expire(MS)
    board.write(reg.SPIV, 0xFF, MS)
    board.write(reg.SPIV, 0x1FF, MS)
    board.write(reg.LVTT, ONE_SHOT, MS)
    board.apic.timer.deliver_pending(MS)
    assert board.apic.state.irr == 0


@pytest.mark.parametrize("which", ["on", "tcg"])
def test_current_count_counts_down(which):
    board = start(which, ONE_SHOT, MS, tdcr=0)
    assert board.read(reg.TMCCT, MS) == MS // 2


def test_qemu_one_shot_reads_zero_one_tick_before_it_fires():
    board = start("tcg", ONE_SHOT, 1000)
    assert board.read(reg.TMCCT, 999) == 1
    assert board.read(reg.TMCCT, 1000) == 0
    assert board.port.timer.deadline_ns == 1001


def test_kvm_periodic_current_count_wraps():
    board = start("on", PERIODIC, MS)
    fire(board)
    assert board.read(reg.TMCCT, MS + 1) == MS - 1


def test_count_zero_stops_the_timer():
    for which in ("on", "tcg"):
        board = start(which, ONE_SHOT, MS)
        board.write(reg.TMICT, 0, 10)
        assert board.port.timer.deadline_ns is None


def test_kvm_divider_change_stretches_what_remains():
    board = start("on", ONE_SHOT, MS, tdcr=0xB)
    board.write(reg.TDCR, 0, MS // 2)
    assert board.port.timer.deadline_ns == MS // 2 + MS


def test_qemu_divider_change_keeps_the_deadline():
    board = start("tcg", ONE_SHOT, MS, tdcr=0xB)
    board.write(reg.TDCR, 0, MS // 2)
    assert board.port.timer.deadline_ns == MS + 1


def test_qemu_counts_undivided_after_reset_although_tdcr_reads_divide_by_2():
    board = LapicBoard("tcg")
    board.write(reg.LVTT, ONE_SHOT)
    board.write(reg.TMICT, 1000)
    assert board.read(reg.TDCR) == 0
    assert board.port.timer.deadline_ns == 1001


def test_kvm_divides_by_2_after_reset():
    board = LapicBoard("on")
    board.write(reg.LVTT, ONE_SHOT)
    board.write(reg.TMICT, 1000)
    assert board.port.timer.deadline_ns == 2000


def test_tsc_deadline_is_due_at_that_tsc():
    board = LapicBoard("on", tsc_khz=2_000_000)
    board.write(reg.LVTT, TSC_DEADLINE)
    board.apic.set_tsc_deadline(20_000, 1000)
    assert board.port.timer.deadline_ns == 10_000
    fire(board)
    assert board.apic.state.irr == 1 << 0x31
    assert board.apic.tsc_deadline() == 0


def test_tsc_deadline_in_the_past_expires_at_once():
    board = LapicBoard("on")
    board.write(reg.LVTT, TSC_DEADLINE)
    board.apic.set_tsc_deadline(500, 1000)
    assert board.port.timer.deadline_ns is None
    board.apic.timer.deliver_pending(1000)
    assert board.apic.state.irr == 1 << 0x31


def test_tsc_deadline_mode_ignores_tmict_and_reads_no_count():
    board = LapicBoard("on")
    board.write(reg.LVTT, TSC_DEADLINE)
    board.write(reg.TMICT, 1000)
    assert board.read(reg.TMICT) == 0
    assert board.read(reg.TMCCT) == 0
    assert board.port.timer.deadline_ns is None


def test_tsc_deadline_outside_its_mode_is_ignored():
    board = start("on", ONE_SHOT, MS)
    board.apic.set_tsc_deadline(500, 0)
    assert board.apic.tsc_deadline() == 0
    assert board.port.timer.deadline_ns == MS


def test_switch_to_tsc_deadline_forgets_the_count():
    board = start("on", ONE_SHOT, MS)
    board.write(reg.LVTT, TSC_DEADLINE, 10)
    assert board.port.timer.deadline_ns is None
    assert board.read(reg.TMICT) == 0


def test_both_mode_bits_are_no_mode():
    board = start("on", 0x60031, MS)
    assert board.read(reg.LVTT) == 0x60031
    assert board.port.timer.deadline_ns is None


def test_qemu_stores_the_tsc_deadline_bit_and_counts_one_shot():
    board = start("tcg", TSC_DEADLINE, MS)
    assert board.read(reg.LVTT) == TSC_DEADLINE
    assert board.port.timer.deadline_ns == MS + 1


def deadline(value, *, lvtt=TSC_DEADLINE, now_ns=0):
    """QEMU's local APIC with the deadline timer that it lacks."""
    board = LapicBoard(tune(profile("off"), lapic__tsc_deadline=True))
    board.write(reg.LVTT, lvtt, now_ns)
    board.apic.set_tsc_deadline(value, now_ns)
    return board


def test_qemu_with_a_deadline_timer_expires_once_and_forgets_the_deadline():
    board = deadline(MS)
    assert board.apic.tsc_deadline() == MS
    assert fire(board) == MS
    assert board.apic.state.irr == 1 << 0x31
    assert (board.apic.tsc_deadline(), board.port.timer.deadline_ns) == (0, None)


@pytest.mark.parametrize("again", [0, 2 * MS])
def test_qemu_with_a_deadline_timer_takes_a_new_deadline(again):
    board = deadline(MS)
    board.apic.set_tsc_deadline(again, 10)
    assert board.port.timer.deadline_ns == (again or None)


def test_qemu_with_a_deadline_timer_masked_expires_without_an_interrupt():
    board = deadline(MS, lvtt=TSC_DEADLINE | reg.MASKED)
    fire(board)
    board.write(reg.LVTT, TSC_DEADLINE, 2 * MS)
    assert (board.apic.state.irr, board.apic.tsc_deadline()) == (0, 0)
    assert board.port.timer.deadline_ns is None


def test_qemu_with_a_deadline_timer_ignores_the_initial_count():
    board = deadline(0)
    board.write(reg.TMICT, MS)
    assert (board.read(reg.TMICT), board.port.timer.deadline_ns) == (0, None)


@pytest.mark.parametrize("mode", [ONE_SHOT, PERIODIC])
def test_qemu_change_of_mode_disarms_the_deadline_timer(mode):
    board = deadline(MS)
    board.write(reg.LVTT, mode, 10)
    assert (board.port.timer.deadline_ns, board.apic.tsc_deadline()) == (None, 0)
    board.write(reg.TMICT, MS, 10)
    board.write(reg.LVTT, TSC_DEADLINE, 20)
    assert (board.read(reg.TMICT), board.port.timer.deadline_ns) == (0, None)


def test_kvm_restored_count_goes_on_from_tmcct():
    board = start("on", ONE_SHOT, MS)
    board.apic.timer.cancel()
    board.apic.timer.start(0, count=MS // 4)
    assert board.port.timer.deadline_ns == MS // 4


def test_apicv_expiry_seen_by_the_cpu_is_delivered_at_once():
    board = LapicBoard(tune(profile("on"), lapic__apicv=True))
    board.write(reg.LVTT, TSC_DEADLINE)
    board.apic.set_tsc_deadline(500, 1000)
    assert board.apic.state.irr == 1 << 0x31
    assert not board.apic.state.timer.pending
