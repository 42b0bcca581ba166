"""What connections hold in memory before it is clear what they want."""

from __future__ import annotations

import contextlib

import pytest
from tests.e2e.lab import eventually
from tests.local.gateway.stand import Stand

from irons_plugins.local.gateway.undecided import FREE, Budget, Meter, TooMuchError

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


def test_unfinished_hellos_hold_little(stand: Stand) -> None:
    """Hundreds of large ClientHellos that never end cost the gateway a bounded amount, and others go on."""
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


def test_hellos_that_announce_much_hold_little(stand: Stand) -> None:
    """What a ClientHello says of its length costs nothing: at the beginning and in the middle of a connection."""
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


def test_unfinished_heads_of_later_requests_hold_little(stand: Stand) -> None:
    """They share the budget with first ones: those for which there is no room are refused, and others go on."""
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
