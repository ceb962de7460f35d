import pytest

from userspace_chip import msi
from userspace_chip.errors import RouteError
from userspace_chip.messages import DeliveryMode, DestMode, LapicMessage, MsiMessage, Trigger


def test_decode_reads_every_field():
    message = msi.decode(MsiMessage(0xFEE0300C, 0xC431))
    assert message == LapicMessage(
        0x31, DeliveryMode.NMI, DestMode.LOGICAL, 3, Trigger.LEVEL, True, rh=True
    )


def test_decode_ignores_base_and_level_bits():
    assert msi.decode(MsiMessage(0x1000, 0x803A)) == msi.decode(MsiMessage(0xFEE01000, 0xC03A))


def test_decode_with_32_bit_ids_takes_the_upper_half():
    message = MsiMessage(0x0001_2300_FEE4_5000, 0x31)
    assert msi.decode(message, ids_32bit=True).dest == 0x00012345
    assert msi.decode(message).dest == 0x45


def test_decode_with_32_bit_ids_refuses_reserved_address_bits():
    with pytest.raises(RouteError, match="bits 39:32"):
        msi.decode(MsiMessage(0x0000_0001_FEE0_0000, 0x31), ids_32bit=True)


def test_decode_qemu_ignores_the_redirection_hint():
    assert not msi.decode_qemu(MsiMessage(0xFEE0300C, 0x31), ids_32bit=True).rh


def test_decode_qemu_10_ors_the_upper_half_into_the_destination():
    message = MsiMessage(0x0000_0100_FEE0_1000, 0x31)
    assert msi.decode_qemu(message, ids_32bit=True).dest == 0x101
    assert msi.decode_qemu(message, ids_32bit=False).dest == 1


@pytest.mark.parametrize("trigger", list(Trigger))
@pytest.mark.parametrize("dest_mode", list(DestMode))
def test_encode_and_decode_are_inverse(trigger, dest_mode):
    message = LapicMessage(0x61, DeliveryMode.LOWEST, dest_mode, 0x1234, trigger, rh=True)
    assert msi.decode(msi.encode(message), ids_32bit=True) == message


def test_swizzle_moves_the_extended_destination_up():
    assert msi.swizzle_ext_dest_id(0xFEE00FE0) == 0x0000_7F00_FEE0_0000


def test_swizzle_leaves_remappable_addresses_alone():
    assert msi.swizzle_ext_dest_id(0xFEE00FF0) == 0xFEE00FF0
