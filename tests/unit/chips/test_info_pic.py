"""The text of ``info pic``: recorded from QEMU 7.2, into the model and back."""

import pytest

from support import golden
from support.chip_ports import IoapicRecorder
from userspace_chip.errors import StateError
from userspace_chip.info_pic import InfoPic, format_info_pic, format_pic, parse_info_pic
from userspace_chip.ioapic import Ioapic, IoapicState
from userspace_chip.pic import PicChipState
from userspace_chip.profile import profile

RECORDED = (golden.TESTS / "golden" / "monitor" / "info-pic-7.2.txt").read_text()


def test_recorded_text_is_printed_back_exactly():
    assert format_info_pic(parse_info_pic(RECORDED)) == RECORDED


def test_recorded_state_loads_into_an_ioapic():
    ((version, state),) = parse_info_pic(RECORDED).ioapics
    chip = Ioapic(profile("tcg", qemu="7.2"), IoapicRecorder())
    chip.load(state)
    assert (version, chip.save()) == (0x20, state)
    listed = next(line for line in RECORDED.splitlines() if line.startswith("  Remote IRR"))
    assert [pin for pin in range(24) if chip.remote_irr >> pin & 1] == [
        int(word) for word in listed.split()[2:]
    ]


def test_selected_identification_register_prints_a_huge_index():
    text = format_info_pic(InfoPic([(0x11, IoapicState(ioregsel=1))]))
    assert text.startswith("ioapic0: ver=0x11 id=0x00 sel=0x01 (redir[4294967288])\n")


def test_physical_destination_is_cut_to_four_bits():
    state = IoapicState()
    state.rte[3] = 0xAB << 56
    text = format_info_pic(InfoPic([(0x20, state)]))
    assert "  pin 3  0xab00000000000000 dest=b vec=0   " in text


def test_order_of_the_pics_is_kept():
    text = format_pic(0, PicChipState(irr=1)) + format_pic(1, PicChipState(irr=2))
    assert format_info_pic(parse_info_pic(text)) == text


@pytest.mark.parametrize("line", ["IRQ statistics for ioapic:", "  IRR 3", "  pin 99 0x00"])
def test_line_of_another_command_is_refused(line):
    with pytest.raises(StateError, match="not a line"):
        parse_info_pic(line)
