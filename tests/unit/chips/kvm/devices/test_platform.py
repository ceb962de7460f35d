"""fw_cfg, reset and power."""

from __future__ import annotations

from userspace_chip.kvm.devices import platform


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
