"""What CI systems are given is valid, and so are its shell lines; offline."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import check_jsonschema
import pytest
from typer.main import get_command

from harness import cli
from harness.fuzz import campaign_file
from support import ci_steps
from support.ci_steps import ACTION, GITLAB, ROOT, WORKFLOWS

NIGHT = ROOT / ".ci/night"
STEPS = {
    "action": ci_steps.action_steps(),
    "gitlab": ci_steps.gitlab_steps(),
    **{path.stem: ci_steps.workflow_steps(path) for path in WORKFLOWS},
}


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("github-actions", ACTION),
        ("gitlab-ci", GITLAB),
        *(("github-workflows", path) for path in WORKFLOWS),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_ci_file_fits_the_schema_of_its_system(schema, path, capsys):
    with pytest.raises(SystemExit) as end:
        check_jsonschema.main(["--builtin-schema", f"vendor.{schema}", str(path)])
    assert end.value.code == 0, capsys.readouterr().out


def test_ci_shell_lines_are_sound(tmp_path):
    files = []
    for origin, steps in STEPS.items():
        for number, step in enumerate(steps):
            path = tmp_path / f"{origin}-{number}"
            # What GitHub fills in is a word to a shell.
            text = re.sub(r"\$\{\{.*?\}\}", "filled", step.text)
            path.write_text(f"#!/bin/{step.shell}\n{text}")
            files.append(path)
    scripts = [NIGHT, ROOT / ".ci/run", ROOT / ".ci/system-packages", *files]
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, *scripts], capture_output=True, text=True, check=False)

    assert len(files) > 15
    assert (done.returncode, done.stdout) == (0, "")


def test_action_gives_its_inputs_to_shells_as_variables_only():
    assert [step.name for step in STEPS["action"] if "${{" in step.text] == []


def test_ci_calls_each_step_of_a_night_and_no_other():
    there = set(re.findall(r"^    (\w+)\)$", NIGHT.read_text(), re.MULTILINE))
    for origin in ("action", "gitlab"):
        text = "\n".join(step.text for step in STEPS[origin])
        assert set(re.findall(r'\.ci/night"? (\w+)', text)) == there, origin


def test_ci_variables_are_those_that_a_night_knows():
    known = set(re.findall(r"^#   (IRQMATRIX_\w+) ", NIGHT.read_text(), re.MULTILINE))
    (gitlab,) = STEPS["gitlab"]
    of_action = {name for step in STEPS["action"] for name in step.environment}
    own = {"IRQMATRIX_REPOSITORY", "IRQMATRIX_REF"}
    assert of_action < known
    assert gitlab.environment.keys() - own < known


def test_night_has_campaigns_with_a_seed_of_its_own_and_an_end_in_time():
    texts = [step.text for step in STEPS["nightly"] if "irqmatrix fuzz" in step.text]
    found = []
    for text in texts:
        words = shlex.split(text.replace("$(date +%Y%m%d)", "20261130"))[2:]
        with get_command(cli.app).commands["fuzz"].make_context("fuzz", words) as context:
            asked = context.params
        assert campaign_file.find(asked["config"]) in campaign_file.shipped_files()
        assert asked["seed"] == 20261130
        found.append((asked["config"], asked["minutes"], asked["out"]))
    assert found == [
        ("campaign", 60, Path("nightly-fuzz")),
        ("campaign-live", 30, Path("nightly-fuzz-live")),
    ]


def test_night_without_a_step_says_what_there_is(tmp_path):
    done = subprocess.run(["sh", NIGHT], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "night install" in done.stderr
