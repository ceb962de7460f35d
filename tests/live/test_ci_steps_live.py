"""The steps of the GitHub action and of the GitLab template, on a Debian with nothing installed."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fresh.apart import obstacle
from fresh.machine import user_cache
from support import ci_steps

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(3600)]

CI = ci_steps.ROOT / ".ci"
CONFIG = """
version: 1
name: small
matrix: {host: local, accel: tcg}
guests:
  - {kind: probe, scenarios: [configs/scenarios/*.yaml], only: [lapic-tpr*]}
"""
BROKEN = CONFIG.replace("[lapic-tpr*]", "[lapic-tpr*], expect: {lapic-tpr-low-bits: fail}")
GITHUB = ci_steps.action_steps(config="/root/small.yaml", out="/root/out", state="/root/state")
GITLAB = ci_steps.gitlab_steps(
    IRQMATRIX_CONFIG="/root/small.yaml",
    IRQMATRIX_OUT="irqmatrix-run",
    IRQMATRIX_STATE=".irqmatrix",
    IRQMATRIX_REPOSITORY="/root/irqmatrix",
)


def written(text: str) -> str:
    return f"printf %s {shlex.quote(text)} >/root/small.yaml\n"


def on_a_fresh_machine(script: str) -> tuple[int, str]:
    """The exit status of ``bash`` with ``script``, and all that was printed."""
    cache = user_cache("bookworm")
    if reason := obstacle(cache.mount_point):
        pytest.skip(f"make fresh is skipped on this machine: {reason}")
    done = subprocess.run(
        [sys.executable, "-m", "fresh", "--", "bash", "-c", script],
        env={**os.environ, "PYTHONPATH": str(CI)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_steps_of_the_action_and_the_template_work_on_a_fresh_machine(tmp_path: Path) -> None:
    action = ci_steps.as_action(GITHUB, "/root/github")
    (job,) = GITLAB
    variables = " ".join(f"{name}={shlex.quote(text)}" for name, text in job.environment.items())
    template = f"mkdir /root/job; cd /root/job; env {variables} sh -ec {shlex.quote(job.text)}"
    script = f"""
set -e
{written(CONFIG)}
branch=$(git symbolic-ref --short -q HEAD || true)
[ -n "$branch" ] || git checkout -q -b main
( {action} )
echo "first: $(cat /root/github/output | tr '\\n' ' ')"
grep -c pass /root/github/summary
{written(BROKEN)}
status=0; ( {action} ) || status=$?
echo "second: $status $(tail -n 2 /root/github/output | tr '\\n' ' ')"
sed 's/^/issue: /' /root/out/issue.md
{written(CONFIG)}
export IRQMATRIX_REF=$(git symbolic-ref --short HEAD)
git config --global --add safe.directory '*'
{template.replace("IRQMATRIX_REF=main", 'IRQMATRIX_REF="$IRQMATRIX_REF"')}
ls /root/job/irqmatrix-run/junit.xml
"""
    status, printed = on_a_fresh_machine(script)
    (tmp_path / "printed").write_text(printed)

    assert status == 0, printed[-3000:]
    assert "first: status=0" in printed
    assert "second: 1 status=1 issue=/root/out/issue.md" in printed
    assert "issue: irqmatrix small: probe" in printed
    assert "irqmatrix run ended with 0" in printed.rpartition("second:")[2]
