"""The shell steps of our workflows, of the GitHub action and of the GitLab template."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
ACTION = ROOT / ".github/actions/irqmatrix/action.yml"
GITLAB = ROOT / ".ci/gitlab/irqmatrix.yml"
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@dataclass(frozen=True)
class Step:
    """Lines for a shell, and what is in its environment."""

    name: str
    shell: str
    text: str
    environment: dict[str, str] = field(default_factory=dict)


def _read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _of_steps(steps: list[dict[str, Any]], inputs: dict[str, str]) -> list[Step]:
    def filled(text: str) -> str:
        return re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: inputs[found[1]], text)

    return [
        Step(
            step["name"],
            step.get("shell", "bash"),
            step["run"],
            {name: filled(text) for name, text in step.get("env", {}).items()},
        )
        for step in steps
        if "run" in step
    ]


def workflow_steps(path: Path) -> list[Step]:
    """Of all jobs."""
    jobs = _read(path)["jobs"].values()
    return [step for job in jobs for step in _of_steps(job["steps"], {})]


def action_steps(**given: str) -> list[Step]:
    """With these inputs, and the defaults of the others."""
    action = _read(ACTION)
    inputs = {name: each.get("default", "") for name, each in action["inputs"].items()} | given
    return _of_steps(action["runs"]["steps"], inputs)


def gitlab_steps(**given: str) -> list[Step]:
    """One: a job's lines are run by one shell."""
    job = _read(GITLAB)[".irqmatrix"]
    lines = [*job["before_script"], *job["script"]]
    return [Step("gitlab", "sh", "\n".join(lines), job["variables"] | given)]


def as_action(steps: list[Step], folder: str) -> str:
    """A script that runs ``steps`` as GitHub's runner does; what they gave it is in ``folder``.

    ``if:`` and steps that use other actions are left out.
    """
    lines = [
        "set -e",
        f"mkdir -p {folder}/temp",
        f"export GITHUB_OUTPUT={folder}/output GITHUB_ENV={folder}/env",
        f"export GITHUB_STEP_SUMMARY={folder}/summary RUNNER_TEMP={folder}/temp",
        f"export GITHUB_ACTION_PATH=$PWD/{ACTION.parent.relative_to(ROOT)}",
        f": >{folder}/env",
    ]
    for number, step in enumerate(steps):
        pairs = " ".join(f"{name}={shlex.quote(text)}" for name, text in step.environment.items())
        file = f"{folder}/step-{number}"
        lines += [
            f"printf %s {shlex.quote(step.text)} >{file}",
            f"echo {shlex.quote(f'step: {step.name}')}",
            f'while IFS= read -r pair; do export "$pair"; done <{folder}/env',
            f"env {pairs} bash --noprofile --norc -eo pipefail {file}",
        ]
    return "\n".join(lines) + "\n"
