"""CMOS and RTC, fw_cfg, reset and power."""

from __future__ import annotations

from userspace_chip.kvm.devices import platform


class Rtc:
    """A CMOS with a clock that the test sets."""

    def __init__(self, epoch_s=0):
        self.now_ns = 0
        self.due_ns = None
        self.levels = []
        self.cmos = platform.Cmos(
            lambda: self.now_ns, self, lambda level, cpu: self.levels.append(level), epoch_s
        )

    def arm(self, deadline_ns):
        self.due_ns = deadline_ns

    def cancel(self):
        self.due_ns = None

    def read(self, index):
        self.cmos.write(0, 0x70, 1, index)
        return self.cmos.read(0, 0x71, 1)

    def write(self, index, value):
        self.cmos.write(0, 0x70, 1, index)
        self.cmos.write(0, 0x71, 1, value)


def test_cmos_byte_written_reads_back_with_the_nmi_bit_in_the_index():
    rtc = Rtc()

    rtc.write(0x8F, 0x0A)

    assert rtc.read(0x0F) == 0x0A


def test_rtc_time_is_bcd_unless_binary_is_chosen():
    rtc = Rtc(epoch_s=1_000_000_000)  # 2001-09-09, a Sunday, 01:46:40 UTC

    assert [rtc.read(index) for index in (0, 2, 4, 6, 7, 8, 9, 0x32)] == [
        *(0x40, 0x46, 0x01, 1, 0x09, 0x09, 0x01, 0x20)
    ]
    rtc.write(0x0B, 0x06)
    assert rtc.read(0) == 40


def test_rtc_periodic_interrupt_comes_each_period_until_it_is_disabled():
    rtc = Rtc()
    rtc.write(0x0A, 0x26)
    rtc.write(0x0B, 0x42)
    first_ns = rtc.due_ns
    rtc.now_ns = first_ns

    rtc.cmos.expire()

    assert (first_ns, rtc.due_ns, rtc.levels) == (976562, 2 * 976562, [1])
    assert rtc.read(0x0C) == 0xC0
    assert (rtc.read(0x0C), rtc.levels) == (0, [1, 0, 0])
    rtc.write(0x0B, 0x02)
    assert rtc.due_ns is None


def test_fw_cfg_item_selected_reads_its_bytes_and_then_zeros():
    config = platform.FwCfg(cpus=3, memory_bytes=1 << 28)

    config.write(0, 0x510, 2, 0x05)
    read = [config.read(0, 0x511, 1) for _ in range(3)]
    config.write(0, 0x510, 2, 0x00)

    assert read == [3, 0, 0]
    assert bytes(config.read(0, 0x511, 1) for _ in range(4)) == b"QEMU"


def test_keyboard_controller_and_reset_register_reset_with_their_commands_only():
    resets = []
    keyboard = platform.Keyboard(lambda: resets.append("keyboard"))
    control = platform.ResetControl(lambda: resets.append("control"))

    keyboard.write(0, 0x64, 1, 0xD1)
    control.write(0, 0xCF9, 1, 2)
    assert resets == []
    keyboard.write(0, 0x64, 1, 0xFE)
    control.write(0, 0xCF9, 1, 6)

    assert resets == ["keyboard", "control"]


def test_pm_timer_counts_at_its_rate_and_wraps_at_24_bits():
    now_ns = 1_000_000_000
    power = platform.AcpiPm(lambda: now_ns, lambda: None)

    assert power.read(0, platform.PM_TIMER.start, 4) == platform.PM_TIMER_HZ
    now_ns = 5_000_000_000
    assert power.read(0, platform.PM_TIMER.start, 4) == 5 * platform.PM_TIMER_HZ & 0xFFFFFF


def test_pm_control_with_sleep_enabled_powers_off():
    off = []
    power = platform.AcpiPm(lambda: 0, lambda: off.append(True))

    power.write(0, platform.PM_CONTROL.start, 2, 0)
    assert off == []
    power.write(0, platform.PM_CONTROL.start, 2, 1 << 13)

    assert off == [True]
