"""What is booted of a guest, and where it lies."""

import dataclasses
from types import SimpleNamespace

from harness.guests.kinds.table import kind_of
from harness.guests.plan import Site
from harness.scenario.program import Program, encode
from support import cases, multiboot
from support.probe_boot import probe_case

ELF64 = multiboot.elf64()
PROGRAMS = [Program(name, cpus, ((), ())) for name, cpus in (("one", 1), ("two", 2))]


def plan_of(case, tmp_path):
    images = SimpleNamespace(probe=lambda: tmp_path / "probe.elf")
    site = Site(images, tmp_path, is_local_kvm=False, emulates=False)
    return kind_of(case.guest).plan(case, site)


def test_program_of_each_reproducer_has_a_file_of_its_own(tmp_path):
    """They have the same guest, machine and number of CPUs, and other scenarios."""
    cases = [
        dataclasses.replace(probe_case([program]), group=f"repro-{program.name}", smp=1)
        for program in PROGRAMS
    ]
    paths = [plan_of(case, tmp_path).initrd for case in cases]
    assert [path.read_bytes() for path in paths] == [encode([program]) for program in PROGRAMS]


def test_program_is_one_module_to_qemu_whatever_the_cpu_is_called(tmp_path):
    case = dataclasses.replace(probe_case(PROGRAMS[:1]), cpu="qemu64,+tsc-deadline")
    assert "," not in plan_of(case, tmp_path).initrd.name


def image_of(tmp_path, content, name="some.flat"):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    guest = dataclasses.replace(cases.FLAT, path=path)
    return plan_of(cases.case(guest), tmp_path).kernel


def test_image_that_qemu_loads_is_used_where_it_is(tmp_path):
    assert image_of(tmp_path, multiboot.elf()) == tmp_path / "some.flat"


def test_image_that_qemu_does_not_load_is_made_one_and_stays_where_it_is(tmp_path):
    made = image_of(tmp_path, ELF64)
    assert made.read_bytes()[4] == 1
    assert (tmp_path / "some.flat").read_bytes() == ELF64


def test_images_of_one_name_and_other_content_are_two_files(tmp_path):
    other = image_of(tmp_path, ELF64 + b"more", "other/some.flat")
    assert other != image_of(tmp_path, ELF64)
