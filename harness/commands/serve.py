"""``irqmatrix serve``: the store as pages, read-only.

The server answers GET and HEAD alone, and only where the request names this machine: a page of
another origin whose name was made to point here (DNS rebinding) gets nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from harness.base.errors import ConfigError, HarnessError, StoreError
from harness.model.layout import RunDir
from harness.report import files
from harness.report.export import store_html
from harness.report.run_view import RunView
from harness.store import result
from harness.store.history import StoredRun
from harness.store.queries import StoreReader, reading
from harness.store.record import token_of
from harness.store.result import RunResult

IDLE_S: Final = 30.0
"""A client that says nothing for so long is let go."""
KEPT_REPORTS: Final = 4
"""Number of runs whose report is kept once it was made."""
_CONTENT: Final = "text/html; charset=utf-8"


@dataclass(frozen=True)
class ServeOptions:
    """What is shown, and where: ``port`` 0 is any that is free."""

    store: Path
    host: str
    port: int
    public: bool
    """Whether another address than this machine's own may be served."""


def serve(options: ServeOptions, tell: Callable[[str], object]) -> None:
    """Serve until interrupted; ``tell`` gets the address.

    :class:`ConfigError` for an address that is not this machine's own, unless asked for, or that
    cannot be bound; :class:`StoreError` for a store that cannot be read.
    """
    _check_address(options)
    with reading(options.store):  # a mistake shows now, not at the first page
        pass
    with bound(options) as server:
        host = f"[{options.host}]" if ":" in options.host else options.host
        tell(f"http://{host}:{server.server_address[1]}/ shows {options.store}; Ctrl-C ends it")
        server.serve_forever()


def bound(options: ServeOptions) -> ThreadingHTTPServer:
    """The server at its address."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        address_family = socket.AF_INET6 if ":" in options.host else socket.AF_INET

    pages = StorePages(options.store)
    names = _names(options)

    class BoundHandler(StoreHandler):
        store_pages = pages
        allowed_names = names

    try:
        return Server((options.host, options.port), BoundHandler)
    except OSError as error:
        raise ConfigError(
            f"cannot serve at {options.host}, port {options.port}",
            error.strerror,
            "choose another --port",
        ) from None


def _check_address(options: ServeOptions) -> None:
    if not options.public and not _is_loopback(options.host):
        raise ConfigError(
            f"{options.host} is not an address of this machine alone",
            "everyone who reaches it would see all runs",
            "leave --host out, or add --public",
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _names(options: ServeOptions) -> frozenset[str]:
    """The names that a request may call this machine by."""
    own = {"localhost", "127.0.0.1", "::1", options.host}
    return frozenset(own | ({socket.gethostname(), socket.getfqdn()} if options.public else set()))


class NotThere(Exception):
    """There is no such page; why."""


class StorePages:
    """The pages of a store, by their path; each request opens the store anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._report = lru_cache(KEPT_REPORTS)(_report)

    def page(self, path: str) -> bytes:
        """The page; :class:`NotThere`, or an error of the store."""
        words = [unquote(word) for word in path.strip("/").split("/", 1)]
        with reading(self._path) as store:
            return self._page(store, words[0], words[1] if len(words) > 1 else "").encode(
                errors="replace"
            )

    def _page(self, store: StoreReader, kind: str, rest: str) -> str:
        name = str(self._path)
        if not kind:
            return store_html.overview(store.overview(store_html.SHOWN_RUNS), name)
        if kind == "findings" and not rest:
            return store_html.findings(store.findings(), name)
        if kind == "cases" and not rest:
            return store_html.cases(store.case_names(), name)
        if kind == "finding":
            identity = store.finding_of(rest)
            found = None if identity is None else store.finding(identity)
            if found is not None:
                return store_html.finding(found, name)
        if kind == "case" and (case := store.case(rest)) is not None:
            return store_html.case(case, name)
        if kind == "run":
            return self._run(store, rest)
        raise NotThere(f"the store has nothing at /{kind}/{rest}")

    def _run(self, store: StoreReader, rest: str) -> str:
        number, _, what = rest.partition("/")
        run = store.run(int(number)) if number.isdecimal() and len(number) < 10 else None
        if run is None or what not in ("", "report"):
            raise NotThere(f"the store has no run {rest}")
        token = store.token(run.number) or ""
        if what:
            return self._report(run.directory, token, _stamp(run.directory))
        nights, sightings = store.nights_of_run(run.number), store.sightings(run.number)
        return store_html.run(
            run, sightings, nights, str(self._path), has_report=_has_report(run, token)
        )


def _has_report(run: StoredRun, token: str) -> bool:
    """Whether the directory of a run still has it, and no later one."""
    try:
        return _result_of(run.directory, token) is not None
    except HarnessError:
        return False


def _result_of(directory: str, token: str) -> RunResult | None:
    found = result.read(RunDir(Path(directory)).result)
    return found if token_of(found) == token else None


def _stamp(directory: str) -> int:
    """When the result in a directory was last written, so that one judged anew is made anew."""
    try:
        return RunDir(Path(directory)).result.stat().st_mtime_ns
    except OSError as error:
        raise NotThere(f"{directory} has no result: {error.strerror}") from None


def _report(directory: str, token: str, _stamp: int) -> str:
    found = _result_of(directory, token)
    if found is None:
        raise NotThere(f"{directory} has another run meanwhile")
    view = RunView.of(found, baseline=files.baseline_of(Path(directory)))
    return files.rendered(view, Path(directory), "html").decode()


class StoreHandler(BaseHTTPRequestHandler):
    """Answers a request with a page of ``store_pages``."""

    store_pages: StorePages
    allowed_names: frozenset[str]
    timeout = IDLE_S
    server_version = "irqmatrix"
    sys_version = ""

    def do_GET(self) -> None:  # http.server's name
        """A page."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:  # http.server's name
        """The head of a page."""
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        if not self._is_for_us():
            self._send(HTTPStatus.MISDIRECTED_REQUEST, b"this is not the host that was asked for\n")
            return
        try:
            status, body = HTTPStatus.OK, self.store_pages.page(urlsplit(self.path).path)
        except NotThere as error:
            status, body = HTTPStatus.NOT_FOUND, f"{error}\n".encode(errors="replace")
        except StoreError as error:
            status, body = HTTPStatus.SERVICE_UNAVAILABLE, f"{error}\n".encode(errors="replace")
        except HarnessError as error:
            status, body = HTTPStatus.NOT_FOUND, f"{error}\n".encode(errors="replace")
        self._send(status, body, with_body=with_body)

    def _is_for_us(self) -> bool:
        """Whether ``Host`` is a name of this machine (RFC 9110, 7.2)."""
        try:
            host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        except ValueError:
            return False
        return host in self.allowed_names

    def _send(self, status: HTTPStatus, body: bytes, *, with_body: bool = True) -> None:
        self.send_response(status)
        is_page = status is HTTPStatus.OK
        self.send_header("Content-Type", _CONTENT if is_page else "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        if is_page:
            self.send_header("Content-Security-Policy", store_html.POLICY)
        for name, value in _HEADERS:
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""


_HEADERS: Final = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)
