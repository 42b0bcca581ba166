"""Requests over a unix socket without an HTTP library: what is sent, what is believed of the answer, and what is not."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from irons.client.api import Api
from irons.errors import ApiError, IronsError, Unreachable
from irons.hookspecs import Backend
from irons.settings.settings import load

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
ONE = b'{"status": "ready"}'
WHOLE = OK + b"Content-Length: %d\r\n\r\n" % len(ONE) + ONE


class Served:
    """What a stand-in server was sent: one request a head, and how many connections it had."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.connections = 0


@contextmanager
def served(path: Path, connections: Sequence[Sequence[bytes]]) -> Iterator[Served]:
    """Answer each request of each connection with the bytes for it; after the last one the connection is closed."""
    seen = Served()

    def serve() -> None:
        for answers in connections:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client, suppress(OSError):
                seen.connections += 1
                for answer in answers:
                    seen.requests.append(client.recv(65536))
                    client.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield seen
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def client(path: Path, env: dict[str, str], **settings: object) -> Api:
    """A client of the server at a socket."""
    flags = {"api_url": "local", "read_timeout": 60, "api_key": "secret-key", **settings}
    return Api(Backend("http://irons", socket=str(path)), load(flags, env))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irons.client.transport.BACK_OFF", 0.001)


@pytest.mark.parametrize(
    "answer",
    [
        WHOLE,
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + WHOLE,
        OK
        + b"Transfer-Encoding: chunked\r\n\r\n5;x=y\r\n"
        + ONE[:5]
        + b"\r\ne\r\n"
        + ONE[5:]
        + b"\r\n0\r\nT: x\r\n\r\n",
        OK + b"\r\n" + ONE,
        b"HTTP/1.0 200 OK\r\n\r\n" + ONE,
    ],
    ids=["length", "interim", "chunked", "until-closed", "http-1.0"],
)
def test_an_answer_is_read_whole(tmp_path: Path, irons_env: dict[str, str], answer: bytes) -> None:
    """By its length, in chunks, after interim answers, or until the server closes."""
    with served(tmp_path / "s", [[answer]]) as seen, client(tmp_path / "s", irons_env) as api:
        assert api.status("one").status == "ready"
    head = seen.requests[0].decode()
    assert head.startswith("GET /sandboxes/one HTTP/1.1\r\nHost: irons\r\n")
    assert "\r\nAuthorization: Bearer secret-key\r\n" in head
    assert head.endswith("\r\n\r\n")


def test_it_comes_byte_by_byte(tmp_path: Path, irons_env: dict[str, str]) -> None:
    """Where an answer is cut into pieces does not matter."""
    near, far = socket.socketpair()
    with near, far:
        from irons.client.unix_channel import _Connection

        connection = _Connection.__new__(_Connection)
        connection._sock, connection._got = near, bytearray()

        def drip() -> None:
            for at in range(len(WHOLE)):
                far.sendall(WHOLE[at : at + 1])

        thread = threading.Thread(target=drip)
        thread.start()
        reply, lasts = connection.exchange(b"", 60, float("inf"))
        thread.join()
    assert (reply.status, reply.content, lasts) == (200, ONE, True)


def test_a_connection_is_kept_and_replaced(tmp_path: Path, irons_env: dict[str, str]) -> None:
    """One connection serves call after call, and another one follows where the server closed it."""
    with served(tmp_path / "s", [[WHOLE, WHOLE], [WHOLE]]) as seen, client(tmp_path / "s", irons_env) as api:
        for _ in range(3):
            assert api.status("one").status == "ready"
    assert (seen.connections, len(seen.requests)) == (2, 3)


def test_a_closed_client_keeps_no_connection(tmp_path: Path, irons_env: dict[str, str]) -> None:
    """A request that is on its way while another thread closes the client is answered, and its connection is closed."""

    class Closing:
        def before(self) -> None:
            api.close()

        def after_refusal(self) -> None:
            """Nothing."""

    backend = Backend("http://irons", socket=str(tmp_path / "s"), waker=Closing())
    flags = {"api_url": "local", "read_timeout": 60}
    with (
        served(tmp_path / "s", [[WHOLE, WHOLE], [WHOLE]]) as seen,
        Api(backend, load(flags, irons_env)) as api,
    ):
        assert [api.status("one").status for _ in range(2)] == ["ready"] * 2
        assert seen.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}xx0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 20_000,
        b"HTTP/1.1 103 x\r\n\r\n" * 40,
    ],
)
def test_what_is_not_an_answer_is_refused(tmp_path: Path, irons_env: dict[str, str], answer: bytes) -> None:
    """A broken, endless or contradictory answer is an error that names the backend, in bounded memory."""
    with (
        served(tmp_path / "s", [[answer]] * 4),
        client(tmp_path / "s", irons_env) as api,
        pytest.raises(Unreachable, match="did not answer"),
    ):
        api.status("one")


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 5000\r\n\r\n" + b"x" * 5000,
        OK + b"\r\n" + b"x" * 5000,
        OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"3e8\r\n" + b"x" * 1000 + b"\r\n1\r\nx\r\n",
    ],
)
def test_a_long_answer_is_cut_off(
    tmp_path: Path, irons_env: dict[str, str], answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than the largest answer is not read, however it comes."""
    monkeypatch.setattr("irons.client.receiving.LARGEST_ANSWER", 1000)
    with (
        served(tmp_path / "s", [[answer]]),
        client(tmp_path / "s", irons_env) as api,
        pytest.raises(ApiError, match="longer than"),
    ):
        api.status("one")


def test_a_packed_answer_is_refused(tmp_path: Path, irons_env: dict[str, str]) -> None:
    """A content coding was not asked for."""
    answer = OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"
    with (
        served(tmp_path / "s", [[answer]]),
        client(tmp_path / "s", irons_env) as api,
        pytest.raises(ApiError, match="compressed"),
    ):
        api.status("one")


def test_silence_ends_in_time(tmp_path: Path, irons_env: dict[str, str]) -> None:
    """A server that accepts and says nothing is given up after the read timeout."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with (
            client(tmp_path / "s", irons_env, read_timeout=0.05) as api,
            pytest.raises(Unreachable, match="no answer in time"),
        ):
            api.status("one")


def test_nobody_listens(tmp_path: Path, irons_env: dict[str, str]) -> None:
    """Without a server it is unreachable; what wakes the server is asked first, and its error is what is reported."""
    with client(tmp_path / "s", irons_env, connect_timeout=0.05) as api, pytest.raises(Unreachable):
        api.status("one")

    class Waker:
        woken = 0

        def before(self) -> None:
            """Nothing."""

        def after_refusal(self) -> None:
            Waker.woken += 1
            raise IronsError("it can't be started")

    backend = Backend("http://irons", socket=str(tmp_path / "s"), waker=Waker())
    with (
        Api(backend, load({"api_url": "local"}, irons_env)) as api,
        pytest.raises(IronsError, match="can't be started"),
    ):
        api.status("one")
    assert Waker.woken == 1


def test_a_long_path_is_reached(
    tmp_path: Path, irons_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket is reached however deep it lies."""
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    monkeypatch.chdir(deep)
    with served(Path("s"), [[WHOLE]]), client(deep / "s", irons_env) as api:
        assert api.status("one").status == "ready"


def test_nothing_can_be_slipped_into_the_request(tmp_path: Path, irons_env: dict[str, str]) -> None:
    """Line ends and spaces in a path or a query travel encoded."""
    with served(tmp_path / "s", [[WHOLE]]) as seen, client(tmp_path / "s", irons_env) as api:
        api.call("GET", "/x y\r\nX: 1", params={"q": "a b\r\nX: 1&c"})
    assert seen.requests[0].startswith(b"GET /x%20y%0D%0AX:%201?q=a+b%0D%0AX%3A+1%26c HTTP/1.1\r\n")


@pytest.mark.process
def test_httpx_is_not_imported() -> None:
    """A client of a unix socket is made and used without httpx."""
    code = (
        "import sys; from irons.client.api import Api; from irons.hookspecs import Backend; from irons.settings.settings import load\n"
        "api = Api(Backend('http://irons', socket='/nowhere/s'), load({'connect_timeout': 0.01}))\n"
        "try: api.list()\nexcept Exception as error: print(type(error).__name__)\n"
        "print(sorted(m for m in ('httpx', 'httpcore', 'ssl', 'email', 'http') if m in sys.modules))"
    )
    import subprocess

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "Unreachable\n[]\n"
