"""Pages in a real browser in the cell, where Chromium is installed: they ask for nothing, and read nothing, at `irons.internal`.

Every name that the browser uses leads to a socket of the test's in the cell, which serves the pages and hands each other request on
to `irons.internal`. For the browser that is what rebinding a name looks like, and the test sees what was really sent.
"""

from __future__ import annotations

import json
import os
import socketserver
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
from tests.e2e.lab import eventually
from tests.local.gateway.stand import Stand
from tests.local.gateway.test_ask_page import EVIL, INTERNAL, questions
from tests.local.gateway.test_held import ask, watch

pytestmark = pytest.mark.needs("chromium", optional=True)

NO_ORIGIN = "/ask?no-origin"
"""Where a page sends what is to arrive without `Origin`, as older browsers send a form."""
KINDS = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data")
"""Content types that a page may send anywhere."""
TO_OTHERS = """
const wanted = end => `{"host": "new.example.test", "port": 80, "reason": "a${end}`;

function submit(to, kind) {
    const frame = document.createElement("iframe"), form = document.createElement("form"), field = document.createElement("input");
    frame.name = `${to} ${kind}`;
    Object.assign(form, {method: "post", enctype: kind, action: to, target: frame.name});
    // As text this is a JSON object: the sign between name and value is in the reason.
    Object.assign(field, {name: wanted(""), value: 'b"}'});
    form.append(field);
    document.body.append(frame, form);
    return new Promise(done => {
        frame.onload = () => done(frame.contentDocument === null ? "closed" : frame.contentDocument.documentElement.outerHTML);
        form.submit();
    });
}

for (const to of ["http://irons.internal/ask", "http://irons.internal/ask?no-origin"]) {
    for (const kind of kinds) {
        await note(submit(to, kind));
        await note(read(to, {method: "POST", mode: "no-cors", headers: {"Content-Type": kind}, body: wanted('b"}')}));
    }
    // The browser asks first whether it may.
    await note(read(to, {method: "POST", headers: {"Content-Type": "application/json"}, body: wanted('b"}')}));
}
await note(read("http://irons.internal/", {mode: "no-cors"}));
await note(read("http://irons.internal/"));
"""
TO_ITSELF = """
const body = '{"host": "new.example.test", "port": 80, "reason": "to read a page"}';
for (const to of ["/ask", "/ask?no-origin"])
    await note(read(to, {method: "POST", headers: {"Content-Type": "application/json"}, body}));
await note(read("/"));
await note(read("/", {method: "POST", body}));
"""
_PAGE = """<!DOCTYPE html><title>A page</title><body><script type="module">
const kinds = %s;
const seen = [];
const note = async found => seen.push(await found);
const read = (to, how) => fetch(to, how).then(async answer => [answer.type, answer.status, await answer.text()], error => error.name);
%s
await fetch("/report", {method: "POST", body: JSON.stringify(seen)});
</script>"""


class Sent(NamedTuple):
    """A request of the browser's that was handed on.

    Attributes:
        line: method and target.
        fields: its header fields, by their names in lower case.
        status: of the answer.
    """

    line: str
    fields: dict[str, str]
    status: int


class Front(socketserver.ThreadingTCPServer):
    """Serves a page at `/page`, takes its report at `/report`, and hands the rest on to `irons.internal`.

    Args:
        stand: the gateway.
        script: the page's.
    """

    allow_reuse_address = True
    daemon_threads = True
    # A browser keeps connections that it may need.
    block_on_close = False

    def __init__(self, stand: Stand, script: str) -> None:
        super().__init__(("127.0.0.1", 80), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = stand.net.socket()
        self.server_bind()
        self.server_activate()
        self.stand = stand
        self.page = (_PAGE % (json.dumps(KINDS), script)).encode()
        self.sent: list[Sent] = []
        self.report: list[Any] | None = None

    def hand_on(self, lines: list[bytes], body: bytes) -> bytes:
        """Give the answer of `irons.internal` to a request."""
        line = lines[0].decode().rpartition(" ")[0]
        if line.endswith(NO_ORIGIN):
            lines = [each for each in lines if not each.lower().startswith(b"origin:")]
        with self.stand.connect(INTERNAL, 80) as program:
            answer = program.send(b"".join(lines) + b"\r\n" + body).rest()
        self.sent.append(Sent(line, _fields(lines), int(answer.split()[1])))
        return answer


class _Handler(socketserver.StreamRequestHandler):
    """One connection of the browser's, for one request."""

    def handle(self) -> None:
        front = cast("Front", self.server)
        lines: list[bytes] = []
        while (line := self.rfile.readline()) not in {b"", b"\r\n"}:
            lines.append(line)
        if not lines:
            return
        body = self.rfile.read(int(_fields(lines).get("content-length", "0")))
        path = lines[0].split()[1]
        if path == b"/page":
            self.wfile.write(_answer("text/html", front.page))
        elif path == b"/report":
            self.wfile.write(_answer("text/plain", b""))
            front.report = json.loads(body)
        else:
            self.wfile.write(front.hand_on(lines, body))


def _fields(lines: list[bytes]) -> dict[str, str]:
    pairs = [line.decode().partition(":") for line in lines[1:]]
    return {name.lower(): value.strip() for name, _, value in pairs}


def _answer(kind: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


@contextmanager
def opened(stand: Stand, host: str, script: str) -> Iterator[Front]:
    """Open a page of a host in a browser; what is yielded has its report."""
    # The names of its sockets are too long for below the test's own directory.
    with (
        tempfile.TemporaryDirectory(prefix="irons-browser-", ignore_cleanup_errors=True) as home,
        Front(stand, script) as front,
        _browser(stand, Path(home), host) as alive,
    ):
        serving = threading.Thread(target=front.serve_forever)
        serving.start()

        def reported() -> bool:
            alive()
            return front.report is not None

        try:
            eventually(reported, what="the page's report")
            yield front
        finally:
            front.shutdown()
            serving.join()


@contextmanager
def _browser(stand: Stand, home: Path, host: str) -> Iterator[Callable[[], None]]:
    """A browser that opens the page of a host; what is yielded fails once it has ended by itself."""
    words = [
        "chromium",
        "--headless",
        # It runs as root, which its own sandbox does not take.
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        # What it refuses by itself would not be tested.
        "--disable-features=LocalNetworkAccessChecks",
        "--no-first-run",
        f"--user-data-dir={home / 'profile'}",
        f"--host-resolver-rules=MAP {INTERNAL} 127.0.0.1, MAP {host} 127.0.0.1, MAP * ~NOTFOUND",
        f"http://{host}/page",
    ]
    with (home / "errors").open("wb") as errors:
        # All its processes end with the first of their namespace.
        process = subprocess.Popen(
            [
                *("nsenter", "-t", str(stand.net.pid), "-n"),
                *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *words),
            ],
            env={"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home)},
            stdin=subprocess.DEVNULL,
            # Its end is that of all of them.
            stdout=subprocess.PIPE,
            stderr=errors,
        )

        def alive() -> None:
            assert process.poll() is None, (home / "errors").read_text()

        try:
            yield alive
        finally:
            process.kill()
            process.communicate()


@pytest.fixture
def watched(patient: Stand) -> Stand:
    """A gateway whose sandbox is in mode ask, where each question would open, for someone watches."""
    ask(patient, deny=(EVIL,))
    watch(patient)
    return patient


def test_a_page_of_another_host_asks_and_reads_nothing(watched: Stand) -> None:
    """Forms, requests as forms send them, and the preflight are refused, each for its own reason, and the page sees no answer."""
    with opened(watched, "web.example.test", TO_OTHERS) as front:
        posts = [each for each in front.sent if each.line.startswith("POST")]
        first = [each for each in front.sent if each.line.startswith("OPTIONS")]
        gets = [each for each in front.sent if each.line == "GET /"]
        found = front.report
    sent = [(each.line, each.fields["content-type"].partition(";")[0], each.status) for each in posts]
    assert sent == [
        (f"POST {target}", kind, status)
        for target, status in (("/ask", 403), (NO_ORIGIN, 415))
        for kind in KINDS
        for _ in ("form", "fetch")
    ]
    assert ["origin" in each.fields for each in posts] == [True] * 6 + [False] * 6
    assert [(each.line, each.status) for each in first] == [
        ("OPTIONS /ask", 405),
        (f"OPTIONS {NO_ORIGIN}", 405),
    ]
    # It is answered, as to any program, and the browser keeps that from the page.
    assert [(each.fields["host"], each.status) for each in gets] == [(INTERNAL, 200)] * 2
    nothing = ["opaque", 0, ""]
    assert found == [*([*(["closed", nothing] * 3), "TypeError"] * 2), nothing, "TypeError"]
    assert not questions(watched)
    assert not watched.records()


def test_a_page_whose_name_leads_to_irons_internal_asks_and_reads_nothing(watched: Stand) -> None:
    """What it sends is of one origin to the browser, with the right content type, and is refused for the name."""
    with opened(watched, "rebound.example.test", TO_ITSELF) as front:
        sent = [each for each in front.sent if each.line.endswith((" /", "/ask", NO_ORIGIN))]
        found = front.report
    assert [(each.line, each.fields["host"], each.status) for each in sent] == [
        (line, "rebound.example.test", 403) for line in ("POST /ask", f"POST {NO_ORIGIN}", "GET /", "POST /")
    ]
    assert "origin" not in sent[1].fields
    assert found is not None
    assert [answer[:2] for answer in found] == [["basic", 403]] * 4
    # What a program inside reads there.
    assert EVIL in watched.http(INTERNAL, f"GET / HTTP/1.1\nHost: {INTERNAL}\n\n").decode()
    assert not [answer for answer in found if EVIL in answer[2]]
    assert not questions(watched)
    assert not watched.records()
