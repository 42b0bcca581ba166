"""What connections hold in memory before it is clear what they want."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

import pytest
from tests.e2e.lab import eventually
from tests.local.gateway.stand import Program, Stand
from tests.local.gateway.test_http2 import START, Client

from irons_local.gateway.budget.undecided import FREE, Budget, Holding, Meter, TooMuchError
from irons_local.gateway.http2 import frames as h2
from irons_local.gateway.http2.frames import frame, settings

WEB = "web.example.test"
CROWD = 400


def unfinished(size: int) -> bytes:
    """So much of a ClientHello of 65,280 bytes."""
    message = b"\x01\x00\xff\x00" + bytes(65_280)
    records = b"".join(
        b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part
        for part in (message[at : at + 16_384] for at in range(0, len(message), 16_384))
    )
    return records[:size]


def test_each_connection_has_a_little_and_all_have_the_rest_together() -> None:
    """What one may hold in any case is not counted; the budget is for the rest, and is given back."""
    budget = Budget(10)
    meters = [Meter(budget) for _ in range(3)]
    for meter in meters:
        meter.count(FREE - 1)
        meter.count(1)
    assert budget.held == 0
    meters[0].count(7)
    meters[1].count(3)
    for meter in meters:
        with pytest.raises(TooMuchError):
            meter.count(1)
    meters[0].close()
    meters[0].close()
    assert budget.held == 3
    meters[2].count(7)
    assert budget.held == 10
    for meter in meters:
        meter.close()
    assert budget.held == 0


def test_what_is_held_for_a_while_is_given_back() -> None:
    """A connection that holds more and less counts what it holds now; one for which there is no room counts as before."""
    budget = Budget(10)
    one, other = Holding(budget), Holding(budget)
    one.now(FREE + 8)
    other.now(FREE)
    with pytest.raises(TooMuchError):
        other.now(FREE + 3)
    assert budget.held == 8
    one.now(FREE + 7)
    other.now(FREE + 3)
    assert budget.held == 10
    one.now(0)
    other.now(1)
    assert budget.held == 0


def test_unfinished_hellos_hold_little(patient: Stand) -> None:
    """Hundreds of large ClientHellos that never end cost the gateway a bounded amount, and others go on."""
    stand = patient
    stand.policy("deny", [WEB])
    address = stand.resolve(WEB)
    before = stand.ask("stats")["memory"]
    with contextlib.ExitStack() as held:
        refused = 0
        for _ in range(CROWD):
            program = held.enter_context(stand.connect(address, 443))
            program.send(unfinished(60_000))
        # Those for which there is room wait for their end; the others are refused, and say why.
        assert "hold too much" in stand.event(cause="cap")["reason"]
        eventually(lambda: stand.ask("stats")["undecided"] < CROWD / 2)
        refused = CROWD - stand.ask("stats")["undecided"]
        assert refused < CROWD
        with stand.tls(WEB, WEB):
            pass
        assert stand.ask("stats")["memory"] < before + 48_000_000
    eventually(lambda: stand.ask("stats")["connections"] == 0)
    with stand.connect(address, 443) as program:
        program.send(unfinished(60_000))
        eventually(lambda: stand.ask("stats")["undecided"] == 1)
    with stand.tls(WEB, WEB):
        pass


def test_hellos_that_announce_much_hold_little(patient: Stand) -> None:
    """What a ClientHello says of its length costs nothing: at the beginning and in the middle of a connection."""
    stand = patient
    stand.policy("deny", [f"{WEB}:443", f"{WEB}:8080"])
    address = stand.resolve(WEB)
    before = stand.ask("stats")["memory"]
    with contextlib.ExitStack() as held:
        for _ in range(150):
            held.enter_context(stand.connect(address, 443)).send(unfinished(200))
            # Plain text, and then what may be eight of them.
            held.enter_context(stand.connect(address, 8080)).send(b"x\0\n" + b"y" + unfinished(60) * 8)
        eventually(lambda: stand.ask("stats")["connections"] == 300)
        eventually(lambda: stand.ask("stats")["undecided"] == 150)
        assert stand.ask("stats")["memory"] < before + 20_000_000
        with stand.tls(WEB, WEB):
            pass
    eventually(lambda: stand.ask("stats")["connections"] == 0)


def test_unfinished_heads_of_later_requests_hold_little(patient: Stand) -> None:
    """They share the budget with first ones: those for which there is no room are refused, and others go on."""
    stand = patient
    stand.policy("deny", [WEB])
    address = stand.resolve(WEB)
    head = f"GET / HTTP/1.1\r\nHost: {WEB}\r\n".encode()
    with contextlib.ExitStack() as held:
        for _ in range(150):
            program = held.enter_context(stand.connect(address, 80))
            program.send(head + b"\r\n" + head + b"X: " + b"y" * 60_000)
        assert "hold too much" in stand.event(cause="cap")["reason"]
        with stand.tls(WEB, WEB):
            pass
    eventually(lambda: stand.ask("stats")["connections"] == 0)
    with stand.connect(address, 80) as program:
        program.send(head + b"\r\n").until(b"\r\n\r\n")
        program.send(head + b"X: " + b"y" * 60_000 + b"\r\n\r\n")
        assert b"HTTP/1.1 200 " in program.until(b"\r\n\r\n")


@contextlib.contextmanager
def http2_server(stand: Stand) -> Iterator[Callable[[], tuple[Program, socket.socket]]]:
    """Makes connections with a request of HTTP/2 under way, which end with it; the server's side has sent its settings."""
    with contextlib.ExitStack() as held, stand.lab_listener("198.51.100.2") as server:
        port = server.getsockname()[1]
        pinned = {"pattern": f"{WEB}:{port}", "private": ["198.51.100.2/32"]}
        stand.policy("deny", [WEB, pinned], hosts={WEB: ["198.51.100.2"]})
        address = stand.resolve(WEB)

        def begin() -> tuple[Program, socket.socket]:
            program = held.enter_context(stand.connect(address, port)).send(START + Client().ask(1, WEB))
            end = held.enter_context(server.accept()[0])
            end.sendall(settings({}))
            return program, end

        yield begin


def test_unfinished_frames_of_http_2_hold_little(patient: Stand) -> None:
    """They share the budget too, once the server is reached: beyond it they are refused, and others go on."""
    stand = patient
    part = frame(h2.HEADERS, 0, 3, bytes(64_000))[:60_000]
    with http2_server(stand) as begin:
        before = stand.ask("stats")["memory"]
        # A sandbox has 100 frames of settings in one go, and each connection begins with one.
        for _ in range(90):
            begin()[0].send(part)
        assert "hold too much" in stand.event(cause="cap")["reason"]
        assert stand.ask("stats")["memory"] < before + 20_000_000
    eventually(lambda: stand.ask("stats")["connections"] == 0)
    with http2_server(stand) as begin:
        # One alone has room for it, and is judged by what it says.
        program, _ = begin()
        program.send(part).send(bytes(4_009) + frame(h2.PING, 0, 0, bytes(8)))
        assert b"header block" in program.rest()


def test_answers_of_http_2_that_nobody_reads_hold_little(stand: Stand) -> None:
    """What its client has no room for stays with the server, however much that says."""
    with http2_server(stand) as begin:
        before = stand.ask("stats")["memory"]
        ends = [begin()[1] for _ in range(60)]
        body = memoryview(frame(h2.DATA, 0, 1, bytes(16_384)) * 64)
        left = dict.fromkeys(ends, body)
        for end in ends:
            end.setblocking(False)
        quiet = 0
        while quiet < 3:
            quiet += 1
            for end in ends:
                with contextlib.suppress(BlockingIOError):
                    left[end] = left[end][end.send(left[end]) :] or body
                    quiet = 0
            stand.ask("stats")
        # Each has one read of 64 KiB under way at most, which the interpreter holds several times while it is looked at.
        assert stand.ask("stats")["memory"] < before + len(ends) * (512 << 10)
