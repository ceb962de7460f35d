"""`irqmatrix fuzz`: options, exit statuses and messages; backends are the Python chips."""

import json
from dataclasses import dataclass

import pytest

from harness.cli import main
from harness.commands import fuzz as fuzz_module
from harness.images.cache import ImageCache
from harness.images.model import Build
from harness.report import letter
from support import golden
from support.model_bench import ModelBench
from userspace_chip.profile import tune

GRAMMAR = golden.TESTS / "support" / "small-grammar.yaml"


@dataclass(frozen=True)
class Done:
    status: int
    stdout: str
    stderr: str


@pytest.fixture
def fuzz(monkeypatch, capsys, tmp_path):
    """The command, in this process and in an empty folder; ``model`` is of the bench."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(letter, "qemu_build", lambda _: Build("1:7.2", None))
    monkeypatch.setattr(ImageCache, "series", lambda _self, _kind: ())

    def run(*arguments, **model):
        monkeypatch.setattr(
            fuzz_module, "_bench", lambda stage, _cache: ModelBench(stage.folder, **model)
        )
        words = ["irqmatrix", "fuzz", "--only", GRAMMAR, *arguments]
        monkeypatch.setattr("sys.argv", list(map(str, words)))
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Done(ended.value.code or 0, said.out, " ".join(said.err.split()))

    return run


def wrong(_side, profile):
    return tune(profile, ioapic__edge_latch_when_masked=True)


def test_fuzz_that_finds_nothing_ends_with_0_and_says_what_was_run(fuzz):
    done = fuzz("--programs", 20, "--seed", 5)
    assert done.status == 0
    assert "20 programs" in done.stdout
    assert "0 findings, 0 unexplained" in done.stdout


def test_fuzz_that_finds_something_ends_with_1_and_names_its_report(fuzz, tmp_path):
    done = fuzz("--programs", 20, "--seed", 5, "--out", "mine", wrong=wrong)
    assert done.status == 1
    folders = list((tmp_path / "mine" / "findings").iterdir())
    assert folders
    assert all(f"mine/findings/{one.name}/report.md" in done.stdout for one in folders)
    assert all((one / "report.md").is_file() for one in folders)
    assert "UNEXPLAINED" in done.stdout


def test_fuzz_as_json_says_the_same_and_nothing_else(fuzz):
    done = fuzz("--programs", 20, "--seed", 5, "--json", wrong=wrong)
    found = json.loads(done.stdout)
    assert done.status == 1
    assert (found["seed"], found["programs"]) == (5, 20)
    assert {one["explained"] for one in found["findings"]} == {False}


def test_fuzz_that_is_resumed_goes_on_where_it_ended(fuzz):
    fuzz("--programs", 10, "--seed", 5, "--out", "mine")
    done = fuzz("--programs", 20, "--resume", "mine", "--json")
    found = json.loads(done.stdout)
    assert (found["seed"], found["programs"]) == (5, 20)


def test_fuzz_that_is_resumed_without_a_number_only_finishes(fuzz):
    fuzz("--programs", 10, "--seed", 5, "--out", "mine")
    assert json.loads(fuzz("--resume", "mine", "--json").stdout)["programs"] == 10


def test_fuzz_in_a_folder_that_is_used_already_is_refused(fuzz):
    fuzz("--programs", 5, "--out", "mine")
    done = fuzz("--programs", 5, "--out", "mine")
    assert done.status == 2
    assert "has a journal already" in done.stderr


def test_fuzz_resumed_in_a_folder_of_other_grammars_cannot_run(fuzz, tmp_path):
    fuzz("--programs", 5, "--out", "mine")
    journal = tmp_path / "mine" / "journal.jsonl"
    first, *rest = journal.read_text().splitlines()
    changed = json.dumps(json.loads(first) | {"grammars": "other"})
    journal.write_text("\n".join([changed, *rest]) + "\n")
    done = fuzz("--programs", 10, "--resume", "mine")
    assert done.status == 3
    assert "grammars have changed" in done.stderr


def test_fuzz_on_a_backend_that_cannot_run_says_which_and_why(fuzz):
    done = fuzz("--programs", 5, "--backend", "lab:on", broken=frozenset({"lab:on"}))
    assert done.status == 3
    assert "lab:on cannot be run here: the lab did not boot" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--backend", "model:on"), "is no backend"),
        (("--backend", "spilt"), "there is no irqchip mode"),
        (("--only", "nonsense"), "there is no grammar"),
        (("--resume", "nowhere"), "cannot resume"),
        (("nowhere",), "no such configuration file"),
        (("campaign", "--backend", "tcg"), "leave out one of them"),
    ],
)
def test_fuzz_with_a_mistake_ends_with_2_and_names_it(fuzz, arguments, message):
    done = fuzz(*arguments)
    assert done.status == 2
    assert message in done.stderr


CAMPAIGN = "version: 1\nname: mine\nseed: 5\nprograms: 20\nbackends: [tcg, lab:on, lab:off]\n"


@pytest.fixture
def campaign(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(CAMPAIGN)
    return path


def test_fuzz_of_a_configuration_says_how_much_ran_on_each_backend(fuzz, campaign, tmp_path):
    done = fuzz(campaign)
    assert done.status == 0, done.stderr
    said = done.stdout.splitlines()
    assert "seed 5: 20 programs, 69 runs" in done.stdout
    assert [line.split() for line in said if " on l" in line][-3:] == [
        ["23", "on", "local:tcg"],
        ["23", "on", "lab:on"],
        ["23", "on", "lab:off"],
    ]
    assert (tmp_path / "runs" / "mine-5" / "journal.jsonl").is_file()


def test_fuzz_of_a_configuration_as_json_has_the_runs_of_each_backend(fuzz, campaign):
    found = json.loads(fuzz(campaign, "--json").stdout)
    assert found["runs"] == 69
    assert found["executed"] == {"local:tcg": 23, "lab:on": 23, "lab:off": 23}


def test_fuzz_of_a_configuration_takes_options_first(fuzz, campaign):
    found = json.loads(fuzz(campaign, "--seed", 6, "--programs", 8, "--json").stdout)
    assert (found["seed"], found["programs"]) == (6, 8)
    assert found["sides"] == ["local:tcg", "lab:on", "lab:off"]


def test_fuzz_says_the_seed_before_anything_runs(fuzz, campaign):
    assert fuzz(campaign).stdout.startswith("seed 5 on local:tcg, lab:on, lab:off\n")


def test_fuzz_of_a_configuration_that_is_resumed_keeps_what_it_began_with(fuzz, campaign):
    fuzz(campaign, "--programs", 10, "--out", "mine")
    campaign.write_text(CAMPAIGN.replace("seed: 5", "seed: 6").replace(", lab:off", ""))
    found = json.loads(fuzz(campaign, "--resume", "mine", "--json").stdout)
    assert (found["seed"], found["programs"]) == (5, 20)
    assert found["sides"] == ["local:tcg", "lab:on", "lab:off"]


def test_fuzz_of_a_grammar_that_generates_nothing_ends_with_3(fuzz, tmp_path):
    path = tmp_path / "barren.yaml"
    path.write_text(
        "version: 1\nabout: waits in vain\nsteps: [1, 1]\n"
        "actions: [{do: {wait: {vector: 0x51, timeout_us: 10}}, where: [steps]}]\n"
    )
    done = fuzz("--only", path, "--programs", 5)
    assert done.status == 3
    assert "generates nothing" in done.stderr


def test_fuzz_with_coverage_and_no_lab_is_a_mistake(fuzz):
    done = fuzz("--programs", 20, "--coverage")
    assert done.status == 2
    assert "no backend is in a lab" in done.stderr
