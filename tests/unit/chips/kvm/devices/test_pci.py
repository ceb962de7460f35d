"""PCI configuration space, empty and with edu."""

from __future__ import annotations

import pytest

from userspace_chip.kvm.devices import pci


def config_read(config, slot, offset, size=4):
    config.write(0, 0xCF8, 4, 1 << 31 | slot << 11 | offset & 0xFC)
    return config.read(0, 0xCFC + (offset & 3), size)


def config_write(config, slot, offset, value, size=4):
    config.write(0, 0xCF8, 4, 1 << 31 | slot << 11 | offset & 0xFC)
    config.write(0, 0xCFC + (offset & 3), size, value)


@pytest.fixture
def sent():
    return []


@pytest.fixture
def edu(sent):
    return pci.Edu(lambda address, data, cpu: sent.append((address, data, cpu)))


@pytest.fixture
def config(edu):
    return pci.PciConfig({pci.EDU_SLOT: edu})


def test_empty_space_reads_all_ones_and_has_mechanism_1():
    config = pci.PciConfig()

    assert {config_read(config, slot, 0) for slot in range(32)} == {0xFFFFFFFF}
    assert config.read(0, 0xCF8, 4) == 1 << 31 | 31 << 11


def test_edu_is_found_in_its_slot_only_and_only_as_function_0(config):
    found = [slot for slot in range(32) if config_read(config, slot, 0) == 0x11E81234]

    assert found == [pci.EDU_SLOT]
    config.write(0, 0xCF8, 4, 1 << 31 | pci.EDU_SLOT << 11 | 1 << 8)
    assert config.read(0, 0xCFC, 4) == 0xFFFFFFFF


def test_edu_address_and_ids_cannot_be_written(config):
    config_write(config, pci.EDU_SLOT, 0x10, 0)
    config_write(config, pci.EDU_SLOT, 0x00, 0)

    assert config_read(config, pci.EDU_SLOT, 0x10) == pci.EDU_BAR
    assert config_read(config, pci.EDU_SLOT, 2, 2) == 0x11E8


def test_edu_raised_sends_its_message_with_its_cpu(config, edu, sent):
    config_write(config, pci.EDU_SLOT, 0x04, 6)
    config_write(config, pci.EDU_SLOT, 0x44, 0xFEE01000)
    config_write(config, pci.EDU_SLOT, 0x4C, 0x61)
    config_write(config, pci.EDU_SLOT, 0x42, 1, 2)  # enable

    edu.write(1, pci.EDU_BAR + 0x60, 4, 1)

    assert sent == [(0xFEE01000, 0x61, 1)]
    assert edu.read(0, pci.EDU_BAR + 0x24, 4) == 1
    edu.write(1, pci.EDU_BAR + 0x64, 4, 1)
    assert edu.read(0, pci.EDU_BAR + 0x24, 4) == 0


def test_edu_with_messages_disabled_sends_nothing(config, edu, sent):
    config_write(config, pci.EDU_SLOT, 0x04, 6)

    edu.write(0, pci.EDU_BAR + 0x60, 4, 1)

    assert sent == []


@pytest.mark.parametrize("address", [0xFEF00000, 0x1FEE00000, 0xFEDFFFFC])
def test_edu_whose_message_goes_elsewhere_interrupts_nobody(config, edu, sent, address):
    config_write(config, pci.EDU_SLOT, 0x04, 6)
    config_write(config, pci.EDU_SLOT, 0x44, address & 0xFFFFFFFF)
    config_write(config, pci.EDU_SLOT, 0x48, address >> 32)
    config_write(config, pci.EDU_SLOT, 0x4C, 0x61)
    config_write(config, pci.EDU_SLOT, 0x42, 1, 2)  # enable

    edu.write(0, pci.EDU_BAR + 0x60, 4, 1)

    assert sent == []
