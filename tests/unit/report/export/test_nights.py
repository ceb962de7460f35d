"""Three nights: a known bug, one without its rule, one with it back. What every form says of it."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from kcidb_io.schema import LATEST

from harness.compare.diff import Status
from harness.model.layout import RunDir
from harness.report import files
from harness.store import baseline as baseline_module
from harness.store import result
from harness.store.result import RunResult
from support import page_runs
from support.showing import shown_run
from support.stored import Nights, finding, night


@dataclass(frozen=True)
class Night:
    """A run, and what every form says of it."""

    run: RunResult
    texts: dict[str, str]


@pytest.fixture(scope="module")
def nights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nights")
    store = Nights(folder / "store.sqlite")
    other = finding("eoi", Status.KNOWN_BUG, "other-rule")
    known = finding("poll", Status.KNOWN_BUG, "some-rule")
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IRQMATRIX_STORE", str(store.path))
        for number, own in enumerate((known, finding("poll"), known)):
            directory = folder / str(number)
            directory.mkdir()
            run = night(other, own)
            result.write(run, directory / "result.json")
            compared = store.enter(run, directory=directory)
            baseline_module.write(compared, RunDir(directory).baseline)
            view = files.view_of(run, directory)
            texts = {
                form: files.rendered(view, directory, form).decode()
                for form in ("html", "markdown", "junit", "tap", "kcidb")
            }
            texts["terminal"] = shown_run(run, directory)
            found.append(Night(run, texts))
    return found


FORMS = ("html", "markdown", "junit", "tap", "kcidb", "terminal")


@pytest.mark.parametrize("form", FORMS)
def test_first_night_says_nothing_of_what_is_new(nights, form):
    assert "for the first time" not in nights[0].texts[form]


@pytest.mark.parametrize("form", FORMS)
def test_night_without_the_rule_says_that_its_finding_is_new(nights, form):
    text = nights[1].texts[form]
    assert "for the first time" in text
    assert "new" in text


@pytest.mark.parametrize("form", ["html", "markdown", "terminal"])
def test_night_with_the_rule_back_says_that_the_finding_is_gone(nights, form):
    text = nights[2].texts[form]
    assert "gone" in text
    assert "some-rule explains it" in text


def test_kcidb_says_of_exactly_one_test_that_it_is_new(nights):
    documents = [json.loads(each.texts["kcidb"]) for each in nights]
    for document in documents:
        LATEST.validate(document)
    new = [
        [(test["path"], test["status"]) for test in document["tests"] if "baseline" in test["misc"]]
        for document in documents
    ]
    assert new == [[], [("irqmatrix.probe.compared.poll", "FAIL")], []]
    assert [len(document["incidents"]) for document in documents] == [2, 1, 2]


def test_html_has_a_sparkline_of_the_finding_that_is_new(nights):
    page = page_runs.part(nights[1].texts["html"], "finding-1")
    assert page.count('class="spark-bad"') == 1
    assert "spark" not in page_runs.part(nights[0].texts["html"], "finding-1")
