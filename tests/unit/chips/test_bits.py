import pytest

from userspace_chip.bits import RES0, RO, RW, W1C, WO, Field, Register, bits, mask
from userspace_chip.errors import FieldRangeError
from userspace_chip.messages import DeliveryMode

REGISTER = Register(
    "TEST",
    16,
    Field("vector", 7, 0),
    Field("mode", 10, 8, enum=DeliveryMode),
    Field("busy", 11, 11, RO),
    Field("status", 12, 12, W1C),
    Field("command", 13, 13, WO),
    Field("hole", 14, 14, RES0),
    reset=0x800,
)


def test_register_write_keeps_read_only_bits_and_drops_reserved_ones():
    assert REGISTER.write(0x0800, 0xF7FF) == 0x0800 | 0x27FF


def test_register_write_of_one_clears_a_w1c_bit_and_of_zero_keeps_it():
    assert REGISTER.write(0x1000, 0x1000) == 0
    assert REGISTER.write(0x1000, 0x0001) == 0x1001


def test_register_read_hides_write_only_and_reserved_bits():
    assert REGISTER.read(0xFFFF) == 0x1FFF


@pytest.mark.parametrize("value", [-1, 1 << 16])
def test_register_write_of_an_oversize_value_raises(value):
    with pytest.raises(FieldRangeError, match="16 bits"):
        REGISTER.write(0, value)


def test_field_put_of_an_oversize_value_raises_with_the_range():
    with pytest.raises(FieldRangeError, match=r"vector = 0x100.*bits 7:0"):
        REGISTER.vector.put(0, 0x100)


def test_register_pack_and_unpack_are_inverse_and_name_enum_members():
    value = REGISTER.pack(vector=0x31, mode=DeliveryMode.NMI)
    assert value == 0x0431
    assert REGISTER.unpack(value)["mode"] is DeliveryMode.NMI
    assert REGISTER.unpack(value)["vector"] == 0x31


def test_register_with_overlapping_fields_cannot_be_written_down():
    with pytest.raises(FieldRangeError, match="overlapping"):
        Register("BAD", 8, Field("a", 3, 0), Field("b", 4, 3))


def test_register_unknown_field_names_the_known_ones():
    with pytest.raises(FieldRangeError, match="vector, mode"):
        REGISTER["vektor"]
    with pytest.raises(AttributeError):
        _ = REGISTER.vektor


def test_field_access_kind_is_read_write_by_default():
    assert Field("x", 0, 0).access is RW


def test_bits_and_mask_are_inverse():
    assert bits(1 << 255 | 1 << 31 | 1) == [0, 31, 255]
    assert mask(0, 31, 255) == 1 << 255 | 1 << 31 | 1
    assert bits(0) == []
