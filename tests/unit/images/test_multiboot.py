import io

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from harness.images import multiboot
from support import multiboot as files
from userspace_chip.kvm import multiboot as reader


@pytest.mark.parametrize("image", [files.elf(), files.elf64()])
def test_defect_of_a_whole_file_is_none(image):
    assert reader.defect(image) is None


@pytest.mark.parametrize(
    ("image", "defect"),
    [
        (b"", "no multiboot header in its first 0 bytes"),
        (b"#!/bin/sh\n" * 10, "no multiboot header"),
        (files.header(), "not an ELF file"),
        (files.header(flags=files.HAS_ADDRESSES), "ends inside its multiboot header"),
        (files.elf()[:-1], "truncated"),
        (files.elf()[:120], "truncated"),
        (files.elf(header_at=9000), "no multiboot header"),
        (files.elf(checksum=1), "no multiboot header"),
        (files.elf(phentsize=1), "its program headers have 1 bytes each, and not 32"),
        (files.elf64(phentsize=32), "its program headers have 32 bytes each, and not 56"),
        (files.elf64()[:-1], "truncated"),
        (files.elf64(physical=1 << 32), "beyond 4 GiB"),
        (files.elf64(entry=1 << 40), "entered at 0x10000000000, beyond 4 GiB"),
    ],
)
def test_defect_says_what_is_wrong(image, defect):
    assert defect in reader.defect(image)


def test_loadable_32_bit_file_stays_as_it_is():
    assert multiboot.loadable(files.elf()) == files.elf()


def test_loadable_file_with_addresses_of_its_own_stays_as_it_is():
    image = files.elf64(flags=files.HAS_ADDRESSES)
    assert multiboot.loadable(image) == image


def test_loadable_64_bit_file_becomes_a_32_bit_one_that_loads_the_same():
    high = 0xFFFFFFFF80000000
    image = files.elf64(virtual=high, entry=high + 16)
    made = multiboot.loadable(image)

    assert reader.defect(made) is None
    elf = ELFFile(io.BytesIO(made))
    (segment,) = elf.iter_segments()
    assert (elf.elfclass, elf["e_machine"], elf["e_entry"]) == (
        32,
        "EM_386",
        files.LOADED_AT + 16,
    )
    assert (segment["p_paddr"], segment["p_memsz"]) == (files.LOADED_AT, len(image) + 64)
    assert segment.data()[64:] == image[64:]


@given(
    st.sampled_from([files.elf(), files.elf64()]),
    st.dictionaries(st.integers(0, 239), st.integers(0, 255), max_size=6),
    st.integers(0, 260),
)
def test_damaged_file_has_a_defect_or_can_be_loaded(image, changes, length):
    damaged = bytearray(image)
    for at, value in changes.items():
        if at < len(damaged):
            damaged[at] = value
    cut = bytes(damaged[:length])
    if reader.defect(cut) is None:
        assert reader.defect(multiboot.loadable(cut)) is None


def test_file_defect_of_a_huge_file_is_its_size(tmp_path):
    path = tmp_path / "sparse.flat"
    with path.open("wb") as file:
        file.truncate(60 << 30)
    assert "more than 1024 MiB (IRQMATRIX_LIMITS=image_mib=N" in multiboot.file_defect(path)


@pytest.mark.parametrize(("image", "defect"), [(b"", "no multiboot"), (files.elf(), None)])
def test_file_defect_of_a_file_is_its_contents(tmp_path, image, defect):
    path = tmp_path / "some.flat"
    path.write_bytes(image)
    found = multiboot.file_defect(path)
    assert found == defect or defect in found
