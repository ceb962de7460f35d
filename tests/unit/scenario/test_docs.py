"""The examples of docs/scenarios.md and of README are scenarios."""

import re
import textwrap
from pathlib import Path

import pytest

from harness.base import resources, yamlfile
from harness.scenario import compile, language
from harness.scenario.predict import predict
from harness.scenario.registers import REGISTERS
from harness.scenario.vocabulary import GROUPS, VERBS, WORDS
from userspace_chip.profile import profile

ROOT = resources.configs().parent
TEXT = (ROOT / "docs" / "scenarios.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
EXAMPLES = [block for block in BLOCKS if not block.startswith("expect:")]


def whole(block: str) -> str:
    """A file around a part of one."""
    if "version:" in block:
        return block
    body = textwrap.dedent(block)
    if body.startswith("- "):
        body = "steps:\n" + textwrap.indent(body, "  ")
    if not body.startswith("steps:"):
        body += "steps: [sti]\n"
    head = "version: 1\nscenarios:\n  example:\n    about: an example\n    cpus: 2\n"
    return head + textwrap.indent(body, "    ")


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda block: block.strip().splitlines()[0])
def test_example_compiles(block):
    file = yamlfile.parse(whole(block), Path("docs/scenarios.md"))
    scenarios = [compile.compile_text(text) for text in language.read(file)]
    assert len(scenarios[0].program.blocks) > 1


@pytest.mark.parametrize(("linux", "remote_irr"), [("6.1", True), ("6.12", False)])
def test_example_of_the_readme_shows_what_it_says(linux, remote_irr):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    (text,) = language.read(yamlfile.parse(block, Path("README.md")))
    scenario = compile.compile_text(text)

    log = predict(scenario.program, profile("split", qemu="7.2", linux=linux), cpus=2)
    low, _high = [event for event in log.events if event.kind == "read"]
    assert bool(int(low.args[0], 16) >> 14 & 1) is remote_irr


@pytest.mark.parametrize("word", [*VERBS, *WORDS, *GROUPS])
def test_every_word_is_described(word):
    assert re.search(rf"`{re.escape(word)}[`:]", TEXT)


@pytest.mark.parametrize("family", sorted({name.rsplit(".", 1)[0] for name in REGISTERS}))
def test_every_family_of_registers_is_described(family):
    assert f"`{family.replace('slave', 'slave....').replace('ioapic2', 'ioapic2....')}" in TEXT
