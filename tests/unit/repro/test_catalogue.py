import re

import pytest

from harness.base.errors import ConfigError
from harness.compare.known import BackendFacts, Bounds
from harness.config import lanes
from harness.images.packages import matches
from harness.model.case import Irqchip, Machine
from harness.repro import catalogue
from harness.repro.catalogue import Expected
from support.repro_entries import ENTRY, write_entry


def test_entry_is_its_recipe_as_a_configuration(tmp_path):
    entry = catalogue.load(write_entry(tmp_path))
    config = entry.config()
    assert config.name == "small"
    assert [case.backend.name for case in config.cases] == ["lab-kvm-on", "lab-kvm-split"]


def test_entry_versions_of_the_command_line_override_the_recipes(tmp_path):
    entry = catalogue.load(write_entry(tmp_path))
    cases = entry.config(kernel="6.12", qemu="/opt/qemu").cases
    assert {(case.backend.kernel, case.backend.qemu) for case in cases} == {("6.12", "/opt/qemu")}


def test_entry_kernel_of_the_command_line_keeps_the_labs_size(tmp_path):
    text = ENTRY.replace("recipe:\n", "recipe:\n  lab: {kernel: default, smp: 2}\n")
    config = catalogue.load(write_entry(tmp_path, text)).config(kernel="6.12")
    assert (config.lab.smp, config.cases[0].backend.kernel) == (2, "6.12")


def test_entry_only_some_modes_are_run_where_these_are_enough(tmp_path):
    entry = catalogue.load(write_entry(tmp_path))
    assert [case.backend.irqchip for case in entry.decisive_cases] == [Irqchip.ON]


def test_entry_on_live_chips_has_them_in_place_of_qemu_where_they_can_be(tmp_path):
    probe = "{kind: probe, scenarios: configs/scenarios/pit.yaml, only: pit-both-controllers}"
    text = ENTRY.replace("{kind: linux, workloads: [idle]}", probe).replace(
        "part: idle", 'part: "*"'
    )
    config = catalogue.load(write_entry(tmp_path, text)).config(live=True)
    assert [case.backend.name for case in config.cases] == [
        "lab-kvm-pychip-on",
        "lab-kvm-pychip-split",
    ]


def test_entry_with_nothing_for_live_chips_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="small has nothing for the live chips"):
        catalogue.load(write_entry(tmp_path)).config(live=True)


def test_entry_again_takes_the_place_of_what_it_names(tmp_path):
    again = 'again: [{guests: [{kind: linux, workloads: [idle], append: "more"}]}]\n'
    entry = catalogue.load(write_entry(tmp_path, ENTRY + again))
    assert [entry.config(attempt=n).cases[0].guest.append for n in (0, 1)] == ["", "more"]


@pytest.mark.parametrize(("qemu", "affected"), [((7, 2, 22), False), ((9, 1), True), (None, False)])
def test_entry_affected_is_what_the_range_says(tmp_path, qemu, affected):
    entry = catalogue.load(write_entry(tmp_path))
    assert entry.is_affected(BackendFacts(Irqchip.ON, Machine.Q35, qemu)) is affected


def test_entry_without_ranges_affects_every_version(tmp_path):
    text = ENTRY.replace('affected:\n  - {qemu: ">=9.1"}\n', "")
    entry = catalogue.load(write_entry(tmp_path, text))
    assert entry.is_affected(BackendFacts(Irqchip.ON, Machine.Q35))
    assert entry.affected_text == "every version"


def test_entry_digest_changes_with_the_signs_and_not_with_the_words(tmp_path):
    digest = catalogue.load(write_entry(tmp_path)).digest
    reworded = ENTRY.replace("what is behind it", "what else is behind it")
    stricter = ENTRY.replace("min: 100", "min: 200")
    assert catalogue.load(write_entry(tmp_path, reworded)).digest == digest
    assert catalogue.load(write_entry(tmp_path, stricter)).digest != digest


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("workloads: [idle]", "workloads: [idel]", 14, "unknown workload 'idel'"),
        ("matrix:", "matrx:", 12, "unknown key 'matrx'"),
        ("source: kvm", "sauce: kvm", 18, "unknown key 'sauce'"),
        ("    source: kvm\n", "", 16, "source is required with counter"),
        ("{min: 100}", "{min: 100, is: x}", 21, "exactly one of min/max"),
        ("{min: 100}", '{matches: "("}', 21, "not a regular expression"),
        ("split: {max: 10}", '"off": {max: 10}', 21, "the recipe runs nothing in the mode off"),
        (
            'modes: ["on"]',
            "modes: [split, tcg]",
            6,
            "no sign says what is expected in",
        ),
        ("    counter: lowered/gsi/[02]\n", "", 16, "exactly one of counter, metric"),
        ("https://example.org/thread", "see there", 9, "bad value for links"),
    ],
)
def test_entry_mistake_is_told_with_its_line(tmp_path, old, new, line, message):
    assert old in ENTRY
    path = write_entry(tmp_path, ENTRY.replace(old, new))
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        catalogue.load(path)
    assert (error.value.path, error.value.line) == (path, line)


def test_find_unknown_name_suggests_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'hpet-ghost-ticks'"):
        catalogue.find("hpet-goast-tick")


def test_find_name_like_nothing_names_all():
    with pytest.raises(ConfigError, match=r"there are: .*rtc-slew-storm"):
        catalogue.find("zzzzzz")


def test_find_takes_a_file_of_ones_own(tmp_path):
    assert catalogue.find(str(write_entry(tmp_path))).id == "small"


@pytest.mark.parametrize("path", catalogue.shipped().values(), ids=lambda path: path.stem)
def test_shipped_entry_is_valid_has_its_files_name_and_was_seen(path):
    entry = catalogue.load(path)
    assert entry.id == path.stem
    assert entry.decisive_cases
    assert any(seen.reproduced for seen in entry.seen)
    assert set(entry.modes) <= {mode for seen in entry.seen for mode in seen.saw}


@pytest.mark.parametrize("path", catalogue.shipped().values(), ids=lambda path: path.stem)
@pytest.mark.parametrize("lane", lanes.shipped())
def test_shipped_entry_has_what_was_seen_on_each_lane(path, lane):
    """Of an entry without a lab the kernel is this machine's."""
    versions = lanes.named(lane)

    assert [
        seen
        for seen in catalogue.load(path).seen
        if matches(seen.qemu, versions.qemu)
        and (seen.host == "local" or matches(seen.linux, versions.kernel))
    ]


def test_expected_number_text_and_pattern():
    assert Expected(bounds=Bounds(1, 2)).met_by(2.0)
    assert not Expected(bounds=Bounds(1, 2)).met_by("2")
    assert Expected(text="1").met_by(1.0)
    assert Expected(pattern="not w").met_by("cannot work")
    assert not Expected(text="storm").met_by("pass")
