"""`irqmatrix serve`: pages of a store over HTTP, read-only, for this machine alone."""

from __future__ import annotations

import hashlib
import http.client
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote

import pytest

from harness.base.errors import ConfigError, StoreError
from harness.commands import serve
from harness.commands.serve import ServeOptions
from harness.model.verdict import PartResult, Verdict
from harness.store import result
from support import page_runs, stored


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    text: str


@contextmanager
def served(store, **options):
    """A server; a function that asks it."""
    with serve.bound(ServeOptions(store, "127.0.0.1", 0, False, **options)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()

        def ask(path, method="GET", host=None):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1])
            headers = {} if host is None else {"Host": host}
            try:
                connection.request(method, path, headers=headers)
                answer = connection.getresponse()
                return Answer(answer.status, dict(answer.headers), answer.read().decode())
            finally:
                connection.close()

        ask.address = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield ask
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Three nights: one clean, one with a finding and a hostile case, one whose run is there."""
    folder = tmp_path_factory.mktemp("store")
    nights = stored.Nights(folder / "store.sqlite")
    nights.enter(stored.night())
    part = PartResult("eoi", Verdict.FAIL, page_runs.HOSTILE)
    bad = stored.case(
        "on", Verdict.FAIL, parts=(part,), detail=page_runs.HOSTILE, as_expected=False
    )
    cases = (bad, stored.case("split"), stored.case("off"))
    nights.enter(stored.night(stored.finding("poll"), cases=cases))
    run = stored.night(stored.finding("poll"))
    (folder / "run").mkdir()
    result.write(run, folder / "run" / "result.json")
    nights.enter(run)
    return folder / "store.sqlite"


@pytest.fixture(scope="module")
def ask(store):
    with served(store) as ask:
        yield ask


CASE = f"/case/{quote(stored.SUBJECT, safe='')}%2Flab-kvm-on"


def test_overview_lists_runs_and_what_needs_attention(ask):
    page = ask("/").text
    assert [f'href="/run/{number}"' in page for number in (1, 2, 3)] == [True] * 3
    assert "poll" in page
    assert 'class="spark"' in page
    assert 'data-chart="' in page


def test_finding_has_a_page_with_each_run(ask):
    (key,) = {
        link.split('"')[0]
        for link in ask("/findings").text.split('href="/finding/')[1:]
        if "poll" in link.split("</a>")[0]
    }
    page = ask(f"/finding/{key}").text
    assert "since" in page
    assert page.count('href="/run/') >= 3


def test_case_has_a_page_with_each_run(ask):
    page = ask(CASE).text
    assert "fail !" in page
    assert page.count('<tr><th scope="row"><a href="/run/') == 3


def test_cases_lead_to_their_pages(ask):
    links = [text.split('"')[0] for text in ask("/cases").text.split('href="')]
    (link,) = [each for each in links if each.endswith("lab-kvm-on")]
    assert ask(link).status == 200


def test_run_has_a_page_and_its_report_where_its_directory_has_it(ask):
    page = ask("/run/3").text
    assert 'href="/run/3/report"' in page
    assert "no longer has it" in ask("/run/2").text
    report = ask("/run/3/report")
    assert report.status == 200
    assert 'id="heat"' in report.text
    assert "Findings" in report.text
    assert ask("/run/2/report").status == 404


@pytest.mark.parametrize("path", ["/", "/run/2", CASE, "/findings"])
def test_hostile_texts_are_no_markup(ask, path):
    assert "<script>document" not in ask(path).text
    assert "\x1b" not in ask(path).text


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/run/99", "/run/x", "/run/9999999999999", "/case/x", "/finding/%ff", "/../etc"],
)
def test_path_that_is_not_there_is_not_found(ask, path):
    answer = ask(path)
    assert (answer.status, answer.headers["Content-Type"]) == (404, "text/plain; charset=utf-8")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_request_by_another_name_is_refused(ask, host):
    answer = ask("/", host=host)
    assert answer.status == 421
    assert "run" not in answer.text


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:8017"])
def test_request_by_a_name_of_this_machine_is_answered(ask, host):
    assert ask("/", host=host).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_method_that_would_change_something_is_refused(ask, method):
    assert ask("/run/1", method=method).status == 501


def test_head_has_no_body(ask):
    answer = ask("/", method="HEAD")
    assert (answer.status, answer.text) == (200, "")
    assert int(answer.headers["Content-Length"]) > 1000


def test_pages_allow_no_foreign_script_frame_or_request(ask):
    headers = ask("/").headers
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_store_is_the_same_after_all_pages(store):
    before = hashlib.sha256(store.read_bytes()).digest()
    with served(store) as ask:
        for path in ("/", "/findings", "/cases", "/run/1", "/run/3/report", CASE):
            assert ask(path).status == 200
    assert hashlib.sha256(store.read_bytes()).digest() == before


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_address_that_others_reach_is_refused_unless_asked_for(store, host):
    with pytest.raises(ConfigError, match="--public"):
        serve.serve(ServeOptions(store, host, 0, False), print)


def test_port_that_is_taken_is_a_message(store):
    with served(store) as ask:
        port = int(ask.address.rpartition(":")[2])
        with pytest.raises(ConfigError, match=f"port {port}"):
            serve.serve(ServeOptions(store, "127.0.0.1", port, False), print)


def test_store_that_is_not_there_is_a_message_before_anything_is_served(tmp_path):
    with pytest.raises(StoreError):
        serve.serve(ServeOptions(tmp_path / "none", "127.0.0.1", 0, False), print)


def test_ctrl_c_ends_it_with_130(store):
    command = [sys.executable, "-m", "harness", "serve", "--store", store, "--port", "0"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        text=True,
    ) as process:
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert line.startswith("http://127.0.0.1:")
    assert (process.returncode, said) == (130, "")
