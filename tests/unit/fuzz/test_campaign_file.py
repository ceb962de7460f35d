"""Campaigns as configurations: what a file says, what is wrong in it, what options change."""

import pytest

from harness.base.errors import ConfigError
from harness.config import lanes
from harness.fuzz import campaign_file
from harness.fuzz.campaign import DEFAULT_CPU, FuzzRequest, sides_of
from harness.model.case import Machine
from harness.repro.bench import parse
from support import golden

GRAMMAR = golden.TESTS / "support" / "small-grammar.yaml"
WHOLE = """\
version: 1
name: mine
seed: 7
programs: 50
minutes: 1.5
runs: 900
only: pic
machine: pc
cpu: qemu64
backends: [tcg, "lab:on,kernel=oldest"]
"""


@pytest.fixture
def load(tmp_path):
    def loaded(text):
        path = tmp_path / "given.yaml"
        path.write_text(text)
        return campaign_file.load(path)

    return loaded


def test_campaign_file_says_everything_that_options_do(load):
    sides = "tcg", "lab:on,kernel=oldest"
    assert load(WHOLE) == FuzzRequest(
        sides, 7, 50, 1.5, 900, "pic", Machine.PC, "qemu64", name="mine"
    )


def test_campaign_file_that_says_little_has_the_defaults_of_the_command(load):
    found = load("version: 1\nprograms: 5\nbackends: tcg\n")
    assert found == FuzzRequest(("tcg",), 1, 5, machine=Machine.Q35, cpu=DEFAULT_CPU, name="given")


def test_campaign_file_finds_a_grammar_beside_it(load, tmp_path):
    (tmp_path / "own.yaml").write_text(GRAMMAR.read_text())
    found = load("version: 1\nprograms: 5\nonly: own.yaml\nbackends: tcg\n")
    assert found.only == str(tmp_path / "own.yaml")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("- tcg\n", 1, "is not a campaign"),
        ("version: 2\nprograms: 5\nbackends: tcg\n", 1, "bad value for version"),
        ("version: 1\nprograms: 5\n", 1, "bad value for backends"),
        ("version: 1\nprograms: 5\nbackends: []\n", 3, "bad value for backends"),
        ("version: 1\nbackends: tcg\n", 1, "a campaign without an end"),
        ("version: 1\nprograms: 0\nbackends: tcg\n", 2, "bad value for programs"),
        ("version: 1\nminutes: .inf\nbackends: tcg\n", 2, "bad value for minutes"),
        ("version: 1\nseed: -1\nprograms: 5\nbackends: tcg\n", 2, "bad value for seed"),
        ("version: 1\nname: a/b\nprograms: 5\nbackends: tcg\n", 2, "bad value for name"),
        ("version: 1\nprograms: 5\nmachine: q36\nbackends: tcg\n", 3, "bad value for machine"),
        ("version: 1\nprogramms: 5\nbackends: tcg\n", 2, "unknown key 'programms'"),
        ("version: 1\nprograms: 5\nonly: pik\nbackends: tcg\n", 3, "there is no grammar 'pik'"),
        ("version: 1\nprograms: 5\nbackends:\n  - tcg\n  - lab:onn\n", 5, "no irqchip mode 'onn'"),
        ("version: 1\nprograms: 5\nbackends:\n  - tcg\n  - model:on\n", 5, "is no backend"),
    ],
)
def test_campaign_file_with_a_mistake_is_refused_with_its_line(load, text, line, message):
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert message in caught.value.what
    assert (caught.value.path.name, caught.value.line) == ("given.yaml", line)


def test_mistake_in_a_grammar_beside_the_campaign_is_of_that_file(load, tmp_path):
    (tmp_path / "own.yaml").write_text(f"{GRAMMAR.read_text()}stepps: [1, 2]\n")
    with pytest.raises(ConfigError, match="unknown key 'stepps'") as caught:
        load("version: 1\nprograms: 5\nonly: own.yaml\nbackends: tcg\n")
    assert caught.value.path.name == "own.yaml"


def test_options_take_the_place_of_what_the_file_says(load):
    how = {"seed": 0, "only": "pit", "machine": Machine.Q35, "cpu": "EPYC"}
    found = campaign_file.overridden(load(WHOLE), **how)
    assert {name: getattr(found, name) for name in how} == how
    assert (found.sides, found.programs, found.minutes) == (load(WHOLE).sides, 50, 1.5)


@pytest.mark.parametrize(
    ("given", "end"),
    [
        ({"programs": 9}, (9, None, None)),
        ({"minutes": 2.0}, (None, 2.0, None)),
        ({"seed": 3}, (50, 1.5, 900)),
    ],
)
def test_end_on_the_command_line_takes_the_place_of_the_whole_end(load, given, end):
    found = campaign_file.overridden(load(WHOLE), **given)
    assert (found.programs, found.minutes, found.runs) == end


def test_backends_beside_a_file_are_refused():
    with pytest.raises(ConfigError, match="--backend together with a configuration"):
        campaign_file.asked_for("campaign", ["tcg"])


def test_without_a_file_the_backends_are_those_of_the_command_line():
    assert campaign_file.asked_for(None, ["lab:on"]) == FuzzRequest(sides=("lab:on",))
    assert campaign_file.asked_for(None, []) == FuzzRequest()


@pytest.mark.parametrize(
    "name", ["campaign", "campaign.yaml", "configs/campaign.yaml", "campaign-live"]
)
def test_shipped_campaign_is_found_by_its_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert campaign_file.find(name) in campaign_file.shipped_files()


def test_matrix_is_no_shipped_campaign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ConfigError, match=r"shipped: configs/campaign\.yaml, configs/campaign-live\.yaml"
    ):
        campaign_file.find("quick")


def test_shipped_campaign_runs_on_every_lane_and_mode_more_than_200_000_times():
    request = campaign_file.load(campaign_file.find("campaign"))
    sides = set(sides_of(request.sides))
    pairs = [f"kernel={lane.kernel},qemu={lane.qemu}" for lane in lanes.shipped().values()]
    in_labs = {parse(f"lab:{mode},{pair}") for pair in pairs for mode in ("on", "split")}
    tcg = {parse(f"tcg,qemu={lane.qemu}") for lane in lanes.shipped().values()}
    assert sides == in_labs | tcg | {parse("lab:off,kernel=oldest,qemu=oldest")}
    assert request.runs * len(sides) >= 200_000
    assert request.programs is request.minutes is None


def test_shipped_campaign_of_the_live_chips_has_every_mode_on_every_kernel():
    request = campaign_file.load(campaign_file.find("campaign-live"))
    found = lanes.shipped()
    with_kernel = {
        parse(f"lab:pychip-{mode},kernel={lane.kernel},qemu={lane.qemu}")
        for lane in found.values()
        for mode in ("on", "split")
    }
    oldest = found["oldest"].qemu
    off = {parse(f"lab:pychip-off,kernel={lane.kernel},qemu={oldest}") for lane in found.values()}
    assert set(sides_of(request.sides)) == with_kernel | off
    assert request.runs >= 10_000
