"""The names of cases' folders."""

from harness.model.case import folder_name
from support import cases


def test_folder_of_a_short_id_is_the_id_with_what_a_file_system_takes():
    assert folder_name("flat-ü€/q35/x#2") == "flat-ü_q35_x_2"


def test_folder_of_a_long_id_fits_a_file_system_and_is_that_of_no_other_id():
    flat = cases.FLAT
    ids = [cases.case(cpu="ü" * 300 + end).directory_name for end in ("", "a", "b")]
    assert flat.name in ids[0]
    assert all(len(name.encode()) < 255 - len(".partial") for name in ids)
    assert len(set(ids)) == 3
