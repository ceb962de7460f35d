"""What a person reads of what is new since the baseline, and what JUnit and TAP have of it."""

from __future__ import annotations

from xml.etree import ElementTree

from harness.commands.history import accept
from harness.report.export import junit, tap
from harness.report.run_view import RunView
from harness.report.text.run_report import run_report
from support.showing import shown
from support.stored import Nights, finding, night


def after_a_baseline(tmp_path, *found, checks=("eoi", "poll", "mask")):
    """The view of a run after one that had `eoi` and `poll`, which is the baseline."""
    nights = Nights(tmp_path / "store.sqlite")
    nights.enter(night(finding("eoi"), finding("poll")))
    accept(nights.path, "1", None)
    result = night(*found, checks=checks)
    return RunView.of(result, None, nights.enter(result, ""))


def test_report_has_what_is_new_still_there_gone_and_not_seen(tmp_path):
    view = after_a_baseline(tmp_path, finding("mask"), checks=("eoi", "mask"))

    text = shown(run_report(view, tmp_path))

    assert "since the baseline 'nightly' (run 1): 1 new, 1 gone, 1 not seen" in text
    assert "  new  probe/q35/qemu64/smp1  mask [off, split | on]" in text
    assert "  gone  probe/q35/qemu64/smp1  eoi" in text
    assert "  not seen  probe/q35/qemu64/smp1  poll" in text


def test_junit_fails_for_what_is_new_only_and_has_it_as_a_property(tmp_path):
    view = after_a_baseline(tmp_path, finding("eoi"), finding("mask"))

    document = ElementTree.fromstring(junit.render(view.run, view.checks, view.baseline))

    suite = document.find("testsuite[@name='probe: backends compared']")
    properties = {each.get("name"): each.get("value") for each in suite.iter("property")}
    kinds = {case.get("name"): [each.get("type") for each in case] for case in suite}
    assert (properties["new"], properties["still there"]) == ("mask", "eoi")
    assert properties["baseline"].startswith("since the baseline 'nightly' (run 1): 1 new")
    assert (kinds["eoi"], kinds["poll"], kinds["mask"]) == (["baseline"], [], ["unexplained"])
    assert (document.get("failures"), suite.get("failures")) == ("1", "1")


def test_tap_fails_for_what_is_new_only_and_says_since_when(tmp_path):
    view = after_a_baseline(tmp_path, finding("eoi"), finding("mask"))

    lines = [line.strip() for line in tap.render(view.checks).splitlines()]

    (known,) = [line for line in lines if line.startswith("not ok 1 - eoi")]
    (new,) = [line for line in lines if line.startswith("not ok 3 - mask")]
    assert "# TODO" in known
    assert "#" not in new
    assert "baseline: new" in lines
    assert "since: for the first time; in 1 of 1 run" in lines
