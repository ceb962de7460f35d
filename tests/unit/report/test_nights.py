"""Three nights of a recorded run: with all rules, without one of them, and with it again."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import yaml

from harness.base import resources
from harness.commands.history import accept
from harness.compare.known import KnownDifferences
from harness.report.formats import FORMATS
from harness.report.run_view import RunView
from harness.report.text.run_report import run_report
from harness.run.rejudge import rejudge
from harness.store.baseline import State, exit_status
from support import golden
from support.showing import shown
from support.stored import Nights

MATRIX = golden.TESTS / "golden" / "recordings" / "matrix"
RULE, PART = "ioapic-masked-edge", "ioapic-edge-while-masked"


@pytest.fixture(scope="module")
def nights(tmp_path_factory):
    """The view of each night; the first is the baseline."""
    folder = tmp_path_factory.mktemp("nights")
    shutil.copytree(resources.configs() / "known", folder / "known")
    file = folder / "known" / "scenarios-ioapic.yaml"
    rules = yaml.safe_load(file.read_text())
    rules["rules"] = [rule for rule in rules["rules"] if rule["id"] != RULE]
    file.write_text(yaml.safe_dump(rules))

    whole = rejudge(MATRIX, KnownDifferences.shipped()).result
    without = rejudge(MATRIX, KnownDifferences.in_folders([folder / "known"])).result
    store = Nights(folder / "store.sqlite")
    views = []
    for number, result in enumerate((whole, without, whole), 1):
        own = {"token": str(number), "started": f"2026-11-0{number}T03:00:00+0000"}
        night = replace(result, environment={**result.environment, **own})
        views.append(RunView.of(night, None, store.enter(night, "")))
        if number == 1:
            accept(store.path, "1", None)
    return views


def changes(view):
    return {(change.identity.part, change.state) for change in view.baseline.changes}


def test_night_with_all_rules_is_clean(nights):
    assert changes(nights[0]) == set()
    assert exit_status(nights[0].run, nights[0].baseline) == 0


def test_night_without_a_rule_has_just_its_findings_as_new(nights):
    assert changes(nights[1]) == {(PART, State.NEW)}
    assert exit_status(nights[1].run, nights[1].baseline) == 1


def test_night_with_the_rule_again_has_them_as_gone(nights):
    (change,) = nights[2].baseline.changes

    assert changes(nights[2]) == {(PART, State.GONE)}
    assert change.reason == f"{RULE} explains it"
    assert exit_status(nights[2].run, nights[2].baseline) == 0


def _terminal(view):
    text = shown(run_report(view, MATRIX))
    return re.findall(r"^  (new|gone)  \S+  (\S+)", text, re.MULTILINE)


def _junit(view):
    document = ElementTree.fromstring(FORMATS["junit"].render(view))
    return [
        (each.get("name"), each.get("value"))
        for each in document.iter("property")
        if each.get("name") == "new"
    ]


def _tap(view):
    text = FORMATS["tap"].render(view)
    return [
        ("new", part)
        for part, block in re.findall(r"ok \d+ - (\S+)\n\s+---\n(.*?)\.\.\.", text, re.DOTALL)
        if "baseline: new" in block
    ]


def _kcidb(view):
    tests = json.loads(FORMATS["kcidb"].render(view))["tests"]
    return [
        (each["state"], test["path"].rpartition(".")[2])
        for test in tests
        for each in test["misc"].get("baseline", ())
    ]


def _markdown(view):
    text = FORMATS["markdown"].render(view)
    return [
        (title.lower(), part)
        for title, part in re.findall(r"### (New|Gone)\n\n- `\w+\s+\S+\s+(\S+)", text)
    ]


@pytest.mark.parametrize("form", [_terminal, _junit, _tap, _kcidb, _markdown])
def test_new_finding_is_the_one_new_thing_in_every_form(nights, form):
    assert [form(view)[:1] for view in nights[:2]] == [[], [("new", PART)]]
    assert len(form(nights[1])) == 1


@pytest.mark.parametrize("form", [_terminal, _markdown])
def test_finding_that_is_gone_is_reported_where_people_read(nights, form):
    assert form(nights[2]) == [("gone", PART)]
