import textwrap
from functools import cache
from pathlib import Path

import pytest

from harness.base.errors import ConfigError
from harness.config import config, lanes
from harness.model.case import (
    Accel,
    FlatGuest,
    Host,
    Irqchip,
    Machine,
    Output,
    ProbeGuest,
    Vmm,
)
from harness.scenario import choice
from harness.scenario.program import Feature
from support import multiboot

LINUX = "guests: [{kind: linux, workloads: [idle]}]\n"


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "matrix.yaml"
        path.write_text("version: 1\n" + textwrap.dedent(text))
        return path

    return write


def ids(path: Path, **options: int) -> list[str]:
    return [case.id for case in config.load(path, **options).cases]


def test_config_without_matrix_is_every_kvm_mode_in_the_lab(write):
    assert ids(write(LINUX)) == [
        "linux/q35/qemu64/smp1/lab-kvm-on",
        "linux/q35/qemu64/smp1/lab-kvm-split",
        "linux/q35/qemu64/smp1/lab-kvm-off",
    ]


@pytest.mark.parametrize("spelling", ["[on, off]", '["on", "off"]', "[true, false]"])
def test_config_irqchip_modes_mean_the_same_however_they_are_spelt(write, spelling):
    cases = config.load(write(f"matrix: {{irqchip: {spelling}}}\n{LINUX}")).cases
    assert [case.backend.irqchip for case in cases] == [Irqchip.ON, Irqchip.OFF]


def test_config_live_chips_are_modes_with_a_vmm_of_their_own(write):
    matrix = 'matrix: {irqchip: ["off", pychip-split, pychip-off]}'
    cases = config.load(write(f"{matrix}\n{LINUX}")).cases
    assert [(case.backend.vmm, case.backend.irqchip) for case in cases] == [
        (Vmm.QEMU, Irqchip.OFF),
        (Vmm.PYCHIP, Irqchip.SPLIT),
        (Vmm.PYCHIP, Irqchip.OFF),
    ]
    assert [case.axes["irqchip"] for case in cases] == ["off", "pychip-split", "pychip-off"]
    assert cases[1].backend.name == "lab-kvm-pychip-split"


def test_config_single_value_needs_no_list(write):
    cases = config.load(write(f"matrix: {{irqchip: split, machine: pc, smp: 2}}\n{LINUX}")).cases
    assert [(case.machine, case.smp) for case in cases] == [(Machine.PC, 2)]


def test_config_qemu_that_runs_the_lab_is_none_of_those_under_test(write):
    found = config.load(write(f"qemu: '7.2'\nlab: {{qemu: '10.0', smp: 2}}\n{LINUX}"))
    assert found.lab == config.Lab(qemu="10.0", smp=2)
    assert {case.backend.qemu for case in found.cases} == {"7.2"}


LANES = lanes.shipped()


def versions(path: Path, **options: str) -> list[tuple[str | None, str]]:
    cases = config.load(path, **options).cases
    return [(case.backend.kernel, case.backend.qemu) for case in cases]


def test_config_lanes_are_pairs_of_versions_and_no_product(write):
    text = f"""
        lane: [oldest, newest]
        matrix: {{irqchip: split}}
        include: [{{host: local, accel: tcg}}]
        exclude: [{{host: local, lane: oldest}}]
        {LINUX}"""
    oldest, newest = LANES["oldest"], LANES["newest"]
    assert versions(write(text)) == [
        (oldest.kernel, oldest.qemu),
        (newest.kernel, newest.qemu),
        (None, newest.qemu),
    ]


def test_config_include_that_names_a_qemu_runs_it_with_the_kernel_of_the_lane(write):
    text = f"""
        lane: stable
        matrix: {{irqchip: split}}
        include: [{{qemu: "7.2"}}]
        {LINUX}"""
    stable = LANES["stable"]
    found = [(stable.kernel, stable.qemu), (stable.kernel, "7.2")]
    assert versions(write(text)) == found


def test_config_lane_of_the_command_line_takes_the_place_of_its_versions(write):
    text = f"""
        matrix: {{irqchip: split}}
        lab: {{kernel: ["6.1", "6.12"]}}
        qemu: ["7.2", "10.0"]
        repro: {{entries: "*", lanes: [oldest, stable]}}
        {LINUX}"""
    path, newest = write(text), LANES["newest"]
    assert versions(path, lane="newest") == [(newest.kernel, newest.qemu)]
    assert config.load(path, lane="newest").repro == config.Repro(("*",), (newest,))


def test_config_reproducers_run_in_lanes_and_in_pairs_of_their_own(write):
    text = f"repro: {{entries: '*', lanes: [oldest, {{kernel: 6.12, qemu: 7.2}}]}}\n{LINUX}"
    found = config.load(write(text)).repro
    assert found.lanes == (LANES["oldest"], lanes.Lane("6.12", "7.2"))


@pytest.mark.parametrize(
    "text",
    [
        "lane: [oldest, newset]\n",
        "lane: oldest\nexclude: [{lane: newset}]\n",
        "repro: {entries: x, lanes: [newset]}\n",
    ],
)
def test_config_unknown_lane_is_refused_with_its_line(write, text):
    with pytest.raises(
        ConfigError, match=r"matrix\.yaml:\d: no lane 'newset' \(did you mean 'newest'"
    ):
        config.load(write(text + LINUX))


@pytest.mark.parametrize("text", ["qemu: '7.2'\n", "lab: {kernel: '6.1'}\n"])
def test_config_versions_and_a_lane_exclude_each_other(write, text):
    with pytest.raises(ConfigError, match="versions and a lane"):
        config.load(write(f"lane: newest\n{text}{LINUX}"))


def test_config_guest_that_moves_is_another_subject_than_the_one_that_stays(write):
    text = """
        matrix: {irqchip: split}
        guests:
          - {kind: linux, workloads: [idle]}
          - {kind: linux, workloads: [idle], migrate: true}
    """
    assert ids(write(text)) == [
        "linux/q35/qemu64/smp1/lab-kvm-split",
        "linux-migrated/q35/qemu64/smp1/lab-kvm-split",
    ]


def test_config_tcg_cells_of_all_irqchip_modes_are_one(write):
    cases = config.load(write(f"matrix: {{host: local, accel: tcg}}\n{LINUX}")).cases
    assert [case.backend.irqchip for case in cases] == [Irqchip.TCG]


def test_config_tcg_in_the_lab_falls_out_of_the_product(write):
    text = f"matrix: {{host: [lab, local], accel: [kvm, tcg], irqchip: split}}\n{LINUX}"
    backends = [case.backend for case in config.load(write(text)).cases]
    assert [(backend.host, backend.accel) for backend in backends] == [
        (Host.LAB, Accel.KVM),
        (Host.LOCAL, Accel.KVM),
        (Host.LOCAL, Accel.TCG),
    ]


def test_config_include_adds_a_cell_over_the_matrix_values(write):
    text = f"""
        matrix: {{irqchip: split, machine: [q35, pc]}}
        include: [{{host: local, accel: tcg}}]
        {LINUX}
    """
    assert ids(write(text)) == [
        "linux/q35/qemu64/smp1/lab-kvm-split",
        "linux/pc/qemu64/smp1/lab-kvm-split",
        "linux/q35/qemu64/smp1/local-tcg",
        "linux/pc/qemu64/smp1/local-tcg",
    ]


def test_config_include_of_tcg_in_the_lab_is_refused_with_its_line(write):
    text = f"include:\n  - {{host: lab, accel: tcg}}\n{LINUX}"
    with pytest.raises(ConfigError, match=r"matrix.yaml:3: TCG in a lab is not a backend"):
        config.load(write(text))


def test_config_exclude_removes_what_matches_all_its_axes(write):
    text = f"""
        matrix: {{irqchip: ["on", "off"], machine: [q35, microvm]}}
        exclude: [{{machine: microvm, irqchip: "off"}}]
        {LINUX}
    """
    assert ids(write(text)) == [
        "linux/q35/qemu64/smp1/lab-kvm-on",
        "linux/microvm/qemu64/smp1/lab-kvm-on",
        "linux/q35/qemu64/smp1/lab-kvm-off",
    ]


def test_config_that_excludes_everything_is_empty_and_refused(write):
    with pytest.raises(ConfigError, match="the matrix is empty"):
        config.load(write(f"exclude: [{{host: lab}}]\n{LINUX}"))


def test_config_kernels_and_qemus_are_axes_and_part_of_the_id(write):
    text = f"""
        matrix: {{irqchip: split}}
        lab: {{kernel: [default, 6.12]}}
        qemu: [system, 10.0]
        {LINUX}
    """
    assert ids(write(text)) == [
        "linux/q35/qemu64/smp1/lab-kvm-split",
        "linux/q35/qemu64/smp1/lab-kvm-split-linux6.12",
        "linux/q35/qemu64/smp1/lab-kvm-split-qemu10.0",
        "linux/q35/qemu64/smp1/lab-kvm-split-qemu10.0-linux6.12",
    ]


def test_config_version_that_ends_in_a_zero_stays_as_it_was_written(write):
    text = f"matrix: {{irqchip: split}}\nlab: {{kernel: 6.10}}\n{LINUX}"
    assert ids(write(text)) == ["linux/q35/qemu64/smp1/lab-kvm-split-linux6.10"]


def test_config_expectations_are_of_workloads_and_of_the_whole_case(write):
    text = """
        matrix: {irqchip: split}
        guests: [{kind: linux, workloads: [idle], expect: {idle: storm, "*": hang}}]
    """
    (case,) = config.load(write(text)).cases
    assert case.guest.expect == {"idle": "storm", "*": "hang"}


def test_config_expectation_of_an_unknown_workload_is_refused(write):
    text = "guests: [{kind: linux, workloads: [idle], expect: {idel: storm}}]\n"
    with pytest.raises(ConfigError, match="unknown workload 'idel'"):
        config.load(write(text))


def test_config_repeat_makes_cases_with_ids_of_their_own(write):
    assert ids(write(f"matrix: {{irqchip: split}}\n{LINUX}"), repeat=3) == [
        "linux/q35/qemu64/smp1/lab-kvm-split",
        "linux/q35/qemu64/smp1/lab-kvm-split#2",
        "linux/q35/qemu64/smp1/lab-kvm-split#3",
    ]


FLAT = "{kind: flat, path: ok.flat"
OTHER = "{kind: flat, path: other/ok.flat"


@pytest.fixture
def images(tmp_path):
    (tmp_path / "other").mkdir()
    for name in ("ok.flat", "other/ok.flat", "a b.flat", "a-b.flat"):
        (tmp_path / name).write_bytes(multiboot.elf())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (FLAT, OTHER),
        (FLAT + ", memory_mib: 64", FLAT + ", timeout_s: 3"),
        (FLAT, FLAT),
        ('{kind: flat, path: "a b.flat"', "{kind: flat, path: a-b.flat"),
        ("{kind: flat, path: ok.flat, append: a b", "{kind: flat, path: ok.flat, append: a/b"),
        ("{kind: linux, workloads: [idle]", "{kind: linux, workloads: [serial]"),
        (FLAT + ", devices: [edu, x]", FLAT + ", devices: [edu_x]"),
    ],
)
def test_config_two_guests_of_one_name_are_refused_with_both_places(write, images, first, second):
    text = f"matrix: {{irqchip: split}}\nguests:\n  - {first}}}\n  - {second}}}\n"
    with pytest.raises(ConfigError) as caught:
        config.load(write(text))
    assert "matrix.yaml:5: a second guest with the same cases as the one in line 4" in str(
        caught.value
    )
    assert "name: WORD" in str(caught.value)


def test_config_guests_with_names_of_their_own_all_run(write, images):
    text = f"""
        matrix: {{irqchip: split}}
        guests:
          - {FLAT}}}
          - {OTHER}, name: other}}
          - {{kind: linux, workloads: [idle]}}
          - {{kind: linux, workloads: [serial], name: serial}}
    """
    names = [name.partition("/")[0] for name in ids(write(text))]
    assert names == ["flat-ok", "flat-other", "linux", "linux-serial"]


def test_config_guest_that_says_what_cells_say_is_one_case(write):
    text = "matrix: {irqchip: split, smp: [1, 2]}\n" + LINUX.replace("idle]", "idle], smp: 2")
    assert ids(write(text)) == ["linux/q35/qemu64/smp2/lab-kvm-split"]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("", None),
        (", protocol: auto", None),
        (", protocol: tap", "tap"),
        (", protocol: mine.yaml", "mine"),
        (', protocol: {lines: [{pass: "OK"}, {fail: "NO"}]}', "own"),
    ],
)
def test_config_protocol_is_shipped_or_a_file_or_stands_there(write, images, tmp_path, words, name):
    (tmp_path / "mine.yaml").write_text("name: mine\nlines: [pass: OK]\n")
    (case,) = config.load(write(f"matrix: {{irqchip: split}}\nguests: [{FLAT}{words}}}]\n")).cases
    protocol = case.guest.protocol
    assert (None if protocol is None else protocol.name) == name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("protocol: tapp", r"matrix.yaml:3: no protocol 'tapp'.*did you mean 'tap'"),
        ("protocol: {lines: [{pass: '('}]}", r"matrix.yaml:3: '\(' is not a regular expression"),
        ("protocol: {lines: [{skip: x}]}", r"matrix.yaml:3: no check could pass or fail"),
        ("checks: some", r"bad value for guests.0.flat.checks"),
        ("output: com2", r"bad value for guests.0.flat.output"),
    ],
)
def test_config_mistake_in_how_an_image_reports_is_named(write, images, words, message):
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        config.load(write(f"matrix: {{irqchip: split}}\nguests: [{FLAT}, {words}}}]\n"))


def test_config_checks_none_and_output_reach_the_guest(write, images):
    text = f"matrix: {{irqchip: split}}\nguests: [{FLAT}, checks: none, output: debugcon}}]\n"
    (case,) = config.load(write(text)).cases
    assert (case.guest.has_checks, case.guest.output) == (False, Output.DEBUGCON)


def test_config_image_that_is_too_large_is_refused_unread(write, tmp_path):
    with (tmp_path / "ok.flat").open("wb") as file:
        file.truncate(60 << 30)
    with pytest.raises(ConfigError, match="more than 1024 MiB"):
        config.load(write(f"guests: [{FLAT}}}]\n"))


def test_config_guest_overrides_the_axes_and_defaults(write):
    text = """
        defaults: {timeout_s: 10, memory_mib: 64}
        matrix: {irqchip: split}
        guests: [{kind: linux, workloads: [idle], smp: 4, cpu: "qemu64,+x2apic", timeout_s: 99}]
    """
    (case,) = config.load(write(text)).cases
    assert (case.smp, case.cpu, case.timeout_s, case.memory_mib) == (4, "qemu64,+x2apic", 99, 64)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("matrx: {}\n" + LINUX, r"matrix.yaml:2: unknown key 'matrx' \(did you mean 'matrix'\?\)"),
        (
            "matrix: {irqchip: both}\n" + LINUX,
            r"matrix.yaml:2: bad value for matrix.irqchip.0.*both",
        ),
        ("matrix: {machine: isapc}\n" + LINUX, r"matrix.yaml:2: bad value .*isapc"),
        ("matrix: {smp: 5}\n" + LINUX, r"matrix.yaml:2: bad value for matrix.smp.0.*5"),
        ("matrix: {smp: []}\n" + LINUX, r"matrix.yaml:2: bad value for matrix.smp"),
        ("guests: []\n", r"matrix.yaml:2: bad value for guests"),
        ("name: x\n", r"bad value for guests: Field required"),
        ("guests: [{kind: bsd}]\n", r"matrix.yaml:2: bad value for guests.0.*'linux', 'flat'"),
        (
            "guests:\n  - kind: linux\n    workloads: [idel]\n",
            r"matrix.yaml:4: unknown workload 'idel' \(did you mean 'idle'\?\)",
        ),
        (
            "guests:\n  - {kind: linux, workloads: [idle], parameters: {idle: {minutes: 3}}}\n",
            r"workload idle has no parameter 'minutes' \(it has: seconds\)",
        ),
        (
            "guests:\n  - {kind: flat, path: absent.flat}\n",
            r"matrix.yaml:3: no flat image 'absent.flat'",
        ),
        ("defaults: {timeout_s: -1}\n" + LINUX, r"bad value for defaults.timeout_s"),
    ],
)
def test_config_mistake_names_file_line_and_what_was_meant(write, text, message):
    with pytest.raises(ConfigError, match=message):
        config.load(write(text))


@pytest.mark.parametrize("text", ["- a list\n", "just words\n"])
def test_config_of_another_shape_is_refused(tmp_path, text):
    path = tmp_path / "list.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="is not a configuration"):
        config.load(path)


def test_config_flat_image_is_found_beside_the_file(write, tmp_path):
    (tmp_path / "ok.flat").write_bytes(multiboot.elf())
    (case,) = config.load(
        write("matrix: {irqchip: split}\nguests: [{kind: flat, path: ok.flat}]\n")
    ).cases
    assert isinstance(case.guest, FlatGuest)
    assert case.guest.path == tmp_path / "ok.flat"
    assert case.id == "flat-ok/q35/qemu64/smp1/lab-kvm-split"


def test_find_shipped_configuration_works_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.find("configs/quick.yaml").is_file()


@pytest.mark.parametrize("name", ["quick", "quick.yaml", "./configs/quick.yaml"])
def test_find_shipped_configuration_by_its_name_alone(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.find(name) in config.shipped_files()


@pytest.mark.parametrize("name", ["campaign", "lanes", "configs", "scenarios/pic.yaml"])
def test_find_what_is_no_matrix_finds_nothing(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no such configuration file"):
        config.find(name)


def test_find_unknown_configuration_names_the_shipped_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"configs/quick\.yaml"):
        config.find("configs/nope.yaml")


@cache
def shipped(path):
    """A shipped configuration, whose hundreds of scenarios are compiled once."""
    return config.load(path)


@cache
def needing_the_tsc_deadline():
    files = sorted((config.resources.configs() / "scenarios").glob("*.yaml"))
    return {each.name for each in choice.load(files) if Feature.TSC_DEADLINE in each.program.needs}


@pytest.mark.parametrize("path", config.shipped_files(), ids=lambda path: path.stem)
def test_shipped_configuration_is_valid(path):
    assert shipped(path).cases


@pytest.mark.parametrize("name", ["conformance", "nightly"])
@pytest.mark.parametrize("irqchip", ["on", "split"])
def test_shipped_scenarios_that_need_the_tsc_deadline_have_a_cell_in_which_they_run(name, irqchip):
    loaded = shipped(config.resources.configs() / f"{name}.yaml")
    there = {
        scenario.name
        for case in loaded.cases
        if case.backend.host == "lab" and case.backend.irqchip == irqchip
        if "+tsc-deadline" in case.cpu and isinstance(case.guest, ProbeGuest)
        for scenario in case.guest.scenarios
    }
    assert len(needing_the_tsc_deadline()) >= 7
    assert needing_the_tsc_deadline() <= there


@pytest.mark.parametrize("name", ["conformance", "nightly"])
def test_shipped_configuration_fails_where_a_scenario_ran_nowhere(name):
    assert shipped(config.resources.configs() / f"{name}.yaml").ran_nowhere_is_error


@pytest.mark.parametrize(("text", "is_error"), [("", False), ("ran_nowhere: error\n", True)])
def test_config_says_whether_it_is_an_error_that_something_ran_nowhere(write, text, is_error):
    assert config.load(write(f"{text}{LINUX}")).ran_nowhere_is_error is is_error


def test_config_option_of_qemu_is_part_of_the_id(write):
    guest = 'guests: [{kind: linux, workloads: [idle], options: ["-rtc driftfix=slew"]}]\n'
    (case,) = config.load(write(f"matrix: {{irqchip: split}}\n{guest}")).cases
    assert case.options == ("-rtc driftfix=slew",)
    assert case.id == "linux/q35/qemu64/smp1/rtc-driftfix=slew/lab-kvm-split"


@pytest.mark.parametrize("option", ["rtc", "-rtc driftfix=slew -S", "-rtc\tx"])
def test_config_option_that_is_none_is_refused(write, option):
    with pytest.raises(ConfigError, match="options"):
        ids(write(f'guests: [{{kind: linux, workloads: [idle], options: ["{option}"]}}]\n'))


@pytest.mark.parametrize("option", ["-daemonize", "-pidfile /tmp/pid", "-S", "-incoming defer"])
def test_option_that_takes_a_guest_from_its_owner_is_refused_by_name(write, option):
    with pytest.raises(ConfigError, match=rf"matrix.yaml:\d+: .*{option.split()[0]} cannot be"):
        ids(write(f'guests: [{{kind: linux, workloads: [idle], options: ["{option}"]}}]\n'))


def test_config_deterministic_cases_say_so_in_their_ids(write):
    loaded = config.load(write(f"matrix: {{host: local, accel: tcg}}\n{LINUX}"))

    (case,) = config.deterministic(loaded).cases
    assert case.id == "linux/q35/qemu64/smp1/deterministic/local-tcg"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("~nosuchuser/x", "no flat image '~nosuchuser/x'"),
        ("x" * 5000, "File name too long"),
    ],
)
def test_config_flat_image_at_an_impossible_path_names_its_line(write, path, why):
    with pytest.raises(ConfigError, match=rf"matrix.yaml:2: .*{why}"):
        config.load(write(f"guests: [{{kind: flat, path: {path}}}]\n"))


@pytest.mark.parametrize("pattern", ["/", "a**b", "~nosuchuser/*", "x" * 5000])
def test_config_scenarios_of_an_impossible_pattern_name_their_line(write, pattern):
    with pytest.raises(ConfigError, match=r"matrix.yaml:2: "):
        config.load(write(f'guests: [{{kind: probe, scenarios: ["{pattern}"]}}]\n'))


def test_config_unknown_key_of_a_guest_lists_the_keys_of_its_kind(write):
    with pytest.raises(ConfigError, match=r"known: .*path") as refused:
        config.load(write("guests: [{kind: flat, path: x, pfxd: x}]\n"))
    assert "workloads" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        f"repeat: 300000000\n{LINUX}",
        f"matrix: {{cpu: [{', '.join(['a'] * 1000)}], smp: [{', '.join('1' * 1000)}]}}\n{LINUX}",
        f"include: [{{smp: 1}}]\nqemu: [{', '.join(['a'] * 40000)}]\n{LINUX}",
    ],
    ids=["repeat", "axes", "include"],
)
def test_config_of_too_many_cases_is_refused_at_once(write, text):
    with pytest.raises(ConfigError, match="IRQMATRIX_LIMITS=cases=N"):
        config.load(write(text))


def test_image_that_is_missing_is_looked_for_in_each_place_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run.yaml"
    path.write_text("version: 1\nguests: [{kind: flat, path: none.flat}]\n")
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert str(caught.value).count(str(tmp_path / "none.flat")) == 1


def test_config_with_coverage_has_its_labs_record_it(write):
    loaded = config.with_coverage(config.load(write("matrix: {host: lab}\n" + LINUX)))

    assert loaded.lab.coverage
    assert not config.load(write(LINUX)).lab.coverage


def test_config_with_coverage_and_no_lab_is_refused(write):
    loaded = config.load(write("matrix: {host: local, accel: tcg}\n" + LINUX))

    with pytest.raises(ConfigError, match="no case is in a lab"):
        config.with_coverage(loaded)
