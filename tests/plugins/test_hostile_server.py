"""Every command in front of a server that answers anything: no traceback, no raw escapes, no endless wait, no key elsewhere."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any, Self
from unicodedata import category

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irons.testing import EXTENSIONS, Outcome, Runner

KEY = "key-that-is-nobody-elses"

Serve = Callable[[socket.socket, str], None]
"""Answers one request line on a connection."""


@dataclass
class Hostile:
    """A server on the loopback address that answers each request as it is set to, and keeps what it was sent."""

    serve: Serve
    heads: list[str] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        for one in (self._listening, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()

    @property
    def url(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def _accept(self) -> None:
        threads: list[threading.Thread] = []
        with suppress(OSError):
            while True:
                one, _ = self._listening.accept()
                self._open.add(one)
                threads.append(threading.Thread(target=self._talk, args=(one,), daemon=True))
                threads[-1].start()
        for thread in threads:
            thread.join()

    def _talk(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rb") as requests:
            while head := _head(requests):
                self.heads.append(head)
                self.serve(connection, head.splitlines()[0])


def _head(requests: Any) -> str:
    lines: list[bytes] = []
    while (line := requests.readline()).strip():
        lines.append(line)
    for line in lines:
        if line.lower().startswith(b"content-length:"):
            requests.read(int(line.split(b":")[1]))
    return b"".join(lines).decode("latin-1")


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """A whole HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def always(raw: bytes) -> Serve:
    """Answer everything with these bytes, and close."""

    def serve(connection: socket.socket, _: str) -> None:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_RDWR)

    return serve


PACE = 0.05
"""Seconds between two pieces of an answer that drips in."""


def dripping(
    first: bytes, again: bytes, seconds: float = PACE, sent: Callable[[], None] = lambda: None
) -> Serve:
    """Send `first`, then `again` every now and then, for as long as anybody reads; `sent` is called for each piece."""

    def serve(connection: socket.socket, _: str) -> None:
        connection.sendall(first)
        pace = threading.Event()
        while not pace.wait(seconds):
            sent()
            connection.sendall(again)

    return serve


CALLS: tuple[tuple[str, ...], ...] = (
    ("list",),
    ("list", "-q"),
    ("status", "one"),
    ("create", "two", "--async"),
    ("create", "two", "--mode", "deny", "--allow", "example.com", "--wait-timeout", "0.1"),
    ("start", "one", "--wait-timeout", "0.1"),
    ("stop", "one", "--async"),
    ("wait", "one", "--wait-timeout", "0.1"),
    ("destroy", "one", "two", "--force", "--wait-timeout", "0.1"),
    ("ssh", "one"),
    ("ssh", "one", "--command"),
    ("scp", "one:/tmp/x", "."),
    ("forward", "one", "8080"),
    ("ssh-config",),
    ("ssh-config", "one"),
    ("egress", "allow", "example.com"),
    ("egress", "deny", "example.com", "--sandbox", "one"),
    ("egress", "remove", "example.com"),
    ("egress", "list"),
    ("egress", "mode"),
    ("egress", "mode", "deny", "--sandbox", "one"),
    ("egress", "check", "example.com"),
    ("egress", "export"),
    ("egress", "suggest", "one"),
    ("egress", "lock", "one", "--yes"),
    ("audit", "egress", "one"),
    ("audit", "egress", "--limit", "3"),
    ("audit", "why", "one"),
)
"""Commands that ask the server something."""


@pytest.fixture
def person(irons_env: dict[str, str], tmp_path: Path) -> Runner:
    """Someone with a key for the API and one for SSH."""
    public = tmp_path / "home" / ".ssh" / "id_ed25519.pub"
    public.parent.mkdir()
    public.write_text("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ someone\n")
    return Runner(
        {**irons_env, "IRONS_API_KEY": KEY, "IRONS_READ_TIMEOUT": "10", "IRONS_CONNECT_TIMEOUT": "10"}
    )


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that are short, and logs that are long sooner."""
    monkeypatch.setattr("irons.client.transport.BACK_OFF", 0.001)
    monkeypatch.setattr("irons.client.models.audit.Pages.MOST", 20)


def harmless(outcome: Outcome) -> None:
    """Test that a call ended as calls end: a known code, no traceback, nothing raw, and no key."""
    assert outcome.code in (0, 1, 2, 3, 4, 5, 6, 7, 125), outcome
    assert "Traceback" not in outcome.err
    assert "something broke" not in outcome.err, outcome.err
    assert KEY not in outcome.out + outcome.err
    for line in (outcome.out + outcome.err).replace("\t", "").split("\n"):
        raw = {category(character) for character in line} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
        assert not raw, repr(line)
    if outcome.program is not None:
        assert not any(word.startswith("-oProxy") for word in outcome.program.argv)


def each(calls: tuple[tuple[str, ...], ...] = CALLS) -> pytest.MarkDecorator:
    """Run a test with each of these calls."""
    return pytest.mark.parametrize("words", calls, ids=" ".join)


EVIL = "\x1b]0;owned\x07\u202e\ud800\n-oProxyCommand=id $(id) `id` 'x"

ODD: tuple[Any, ...] = (
    None, True, -1, 10**400, 1.5, EVIL, [], [[]], {}, {"a": {"b": [EVIL]}}, [EVIL, None, {"name": EVIL}, 7],
    [{"pattern": ["x"], "list": {}, "private": 3}], "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00",
)  # fmt: skip
"""What a field may be that should be something else."""

FIELDS = (
    "sandboxes",
    "name",
    "status",
    "id",
    "created_at",
    "updated_at",
    "metadata",
    "host",
    "port",
    "username",
    "host_keys",
    "cell",
    "allowed_domains",
    "denied_domains",
    "rules",
    "mode",
    "differs",
    "source",
    "pattern",
    "list",
    "private",
    "note",
    "covers",
    "changed",
    "cut",
    "broad",
    "events",
    "page_token",
    "timestamp",
    "sandbox_name",
    "allowed",
    "verdict",
    "protocol",
    "rule",
    "reason",
    "count",
    "extensions",
    "scope",
    "error",
    "version",
)
"""What answers have, by name."""


@each()
def test_fields_of_any_type_are_harmless(person: Runner, words: tuple[str, ...]) -> None:
    """Each field of each answer may be of any type: what is invalid is left out, or refused in one line."""
    number = iter(range(1 << 30))

    def serve(connection: socket.socket, line: str) -> None:
        if line.startswith("GET /version"):
            body: dict[str, Any] = {"extensions": EXTENSIONS}
        else:
            turn = next(number)
            body = {name: ODD[(turn + at) % len(ODD)] for at, name in enumerate(FIELDS)}
            rows = [
                {name: ODD[(turn + at + row) % len(ODD)] for at, name in enumerate(FIELDS)}
                for row in range(3)
            ]
            body |= {"sandboxes": rows, "events": rows, "rules": rows} if turn % 2 else {}
        connection.sendall(answer(json.dumps(body).encode()))

    with Hostile(serve) as server:
        for form, _ in zip(cycle(("plain", "table", "json", "jsonl", "plain")), ODD, strict=False):
            harmless(person(*words, "-o", form, "--api-url", server.url))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from((EVIL, "ready", "allow", "warn")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), inner)
    ),
    max_leaves=30,
)


@given(
    words=st.sampled_from(CALLS),
    bodies=st.lists(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=12), min_size=1, max_size=4),
)
@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_json_is_harmless(person: Runner, words: tuple[str, ...], bodies: list[dict[str, Any]]) -> None:
    """No matter what objects a server answers one after the other, a call ends in one of the known ways."""
    turns = cycle(bodies)

    def serve(connection: socket.socket, line: str) -> None:
        told = {"extensions": EXTENSIONS} if line.startswith("GET /version") else next(turns)
        connection.sendall(answer(json.dumps(told).encode()))

    with Hostile(serve) as server:
        harmless(person(*words, "--api-url", server.url))


BOMB = b"\x1f\x8b\x08" + b"\x00" * 50
NO_ANSWERS: dict[str, bytes] = {
    "nothing": b"",
    "no http": b"SSH-2.0-OpenSSH_9.2\r\n",
    "escapes in the reason": b"HTTP/1.1 500 \x1b[31mred\x9b\r\nContent-Length: 0\r\n\r\n",
    "not a number": answer(b'{"sandboxes": NaN, "name": -Infinity, "events": [{"duration_ms": NaN}]}'),
    "a number too large": answer(b'{"name": "one", "status": "ready", "count": 1e999}'),
    "a huge number": answer(b'{"page_token": ' + b"9" * 100_000 + b"}"),
    "deep": answer(b'{"name":' * 100_000),
    "deep enough": answer(b'{"name":' + b"[" * 900 + b"]" * 900 + b', "events": [{"host": {}}]}'),
    "half a character": answer(b'{"error": "\\ud800\\udc00\\udfff", "name": "\\ud800"}', "400 Bad"),
    "no utf-8": answer(b'{"name": "\xff\xfe\x1b"}'),
    "packed": answer(BOMB, "200 OK", "Content-Encoding: gzip"),
    "packed thrice": answer(BOMB, "200 OK", "Content-Encoding: gzip, gzip, br"),
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
    "a bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "a long head": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000,
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n\x1b[31m",
    "cookies": answer(b"{}", "200 OK", *[f"Set-Cookie: a{n}=b; Path=/" for n in range(100)]),
}


@pytest.mark.parametrize("raw", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_what_is_no_answer_is_harmless(person: Runner, raw: bytes) -> None:
    """What is not HTTP, or not JSON, ends every call in one of the known ways, no matter what form was asked for."""
    with Hostile(always(raw)) as server:
        for form, words in zip(cycle(("plain", "json", "table")), CALLS, strict=False):
            harmless(person(*words, "-o", form, "--api-url", server.url))


ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "a head by the byte": (b"HTTP/1.1 200 OK\r\nX: ", b"y"),
    "interim answers": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "a body by the byte": (b'HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n{"a": "', b"y"),
    "a body without a length": (b'HTTP/1.1 200 OK\r\n\r\n{"a": "', b"y"),
    "chunks by the byte": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\ny\r\n"),
    "a chunk's head by the byte": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"y"),
}


@pytest.mark.parametrize(("first", "again"), ENDLESS.values(), ids=ENDLESS)
@pytest.mark.parametrize("words", [("list",), ("wait", "one", "--wait-timeout", "0.2")], ids=" ".join)
def test_an_answer_that_drips_in_ends(
    person: Runner, words: tuple[str, ...], first: bytes, again: bytes
) -> None:
    """A byte now and then, or an answer before the answer, keeps no call: it takes a few read timeouts at the most."""
    pieces: list[None] = []
    with Hostile(dripping(first, again, sent=lambda: pieces.append(None))) as server:
        outcome = person(*words, "--api-url", server.url, env={"IRONS_READ_TIMEOUT": "0.2"})
        assert outcome.code == 6, outcome
        # Counted by what came meanwhile: where the machine stands still nothing comes either.
        assert len(pieces) * PACE < 10
    harmless(outcome)


def test_an_endless_flood_is_cut(person: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that never ends is read up to the most that an answer may be, and no further."""
    monkeypatch.setattr("irons.client.receiving.LARGEST_ANSWER", 1 << 20)
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    flood = dripping(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk * 8, seconds=0.001)
    with Hostile(flood) as server:
        outcome = person("list", "--api-url", server.url)
    assert outcome.code == 1
    assert "longer than 1 MiB" in outcome.err


def test_more_rows_than_there_can_be_are_refused(person: Runner) -> None:
    """An answer of millions of empty rows, small on the wire, is not made objects of."""
    with Hostile(always(answer(b'{"sandboxes": [' + b"{}," * 200_000 + b"{}]}"))) as server:
        outcome = person("list", "--api-url", server.url)
    assert outcome.code == 1
    assert outcome.err.startswith("irons: the server sent 200,001 sandboxes at once")


@pytest.mark.parametrize("status", ["302 Found", "308 Permanent Redirect"])
@each()
def test_the_key_follows_no_redirect(person: Runner, words: tuple[str, ...], status: str) -> None:
    """A redirect is refused: neither the key nor any request goes where it points."""
    with Hostile(always(answer(b"{}"))) as other:
        elsewhere = always(answer(b"", status, f"Location: {other.url}/x", f"Refresh: 0; url={other.url}/"))
        with Hostile(elsewhere) as server:
            outcome = person(*words, "--api-url", server.url)
        assert other.heads == []
    assert outcome.code != 0 or words[0] == "ssh-config"
    harmless(outcome)


TURNING: dict[str, Callable[[int], int]] = {
    "in a circle": lambda token: token % 3 + 1,
    "for ever": lambda token: token + 1,
}


@pytest.mark.parametrize("turn", TURNING.values(), ids=TURNING)
@pytest.mark.parametrize(
    "words",
    [
        ("audit", "egress", "one"),
        ("audit", "egress", "--limit", "2"),
        ("audit", "why", "one"),
        ("egress", "suggest", "one"),
    ],
    ids=" ".join,
)
def test_pages_that_never_end_do(person: Runner, words: tuple[str, ...], turn: Callable[[int], int]) -> None:
    """A log whose pages lead to one another, or to ever more, is an error in the end.

    `audit why` asks a server that filters for one page alone, so here it meets one that does not.
    """
    able = [each for each in EXTENSIONS if words[1] != "why" or each != "audit-filters"]

    def serve(connection: socket.socket, line: str) -> None:
        token = int(line.partition("pageToken=")[2].partition(" ")[0].partition("&")[0] or 0)
        event = {"host": "example.com", "allowed": True}
        body: dict[str, Any] = {"events": [event], "page_token": turn(token), "extensions": able}
        connection.sendall(answer(json.dumps(body).encode()))

    with Hostile(serve) as server:
        outcome = person(*words, "--api-url", server.url)
    assert outcome.code == 1
    assert "the server's audit log" in outcome.err
    harmless(outcome)
