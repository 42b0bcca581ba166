"""Kill -9 at any moment of a connection: what the internet saw is in the log, once, and the log comes into the store whole."""

from __future__ import annotations

import contextlib
import json
import socket
import sqlite3
import threading
from pathlib import Path

import pytest
from tests.e2e.lab import eventually
from tests.local.gateway.stand import Stand, client_hello

from irons_local.control.audit.ingest import Ingest
from irons_local.control.store.database import Store

WEB = "web.example.test"
POINTS = 16
AT_ONCE = 6
STEP = 0.0015
"""Seconds by which each kill comes later than the one before, counted from the first byte; a connection takes about 5 ms."""


def test_whatever_arrived_is_in_the_log_once(stand: Stand, tmp_path: Path) -> None:
    """Connections under way at each of many kills: no contact without a record, no record twice, none unreadable."""
    places = {
        f"k{point}-{number}.test": f"203.0.113.{100 + point * AT_ONCE + number}"
        for point in range(POINTS)
        for number in range(AT_ONCE)
    }
    stand.policy("deny", ["*.test"], hosts={name: [address] for name, address in places.items()})
    for point in range(POINTS):
        hosts = [name for name in places if name.startswith(f"k{point}-")]
        addresses = {name: stand.resolve(name) for name in hosts}
        threads = [
            threading.Thread(target=_ask, args=(stand, addresses[name], name), daemon=True) for name in hosts
        ]
        for thread in threads:
            thread.start()
        threading.Event().wait(point * STEP)
        stand.kill()
        stand.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    stand.stop()
    arrived = {each["server"] for each in stand.arrivals() if each["kind"] == "connect"}
    assert arrived
    log = {
        (each["run"], each["conn"]): str(each["address"])
        for each in stand.records()
        if each["kind"] == "verdict" and "address" in each
    }
    assert arrived <= set(log.values())
    store, ingest = Store(tmp_path / "irons.db"), Ingest(stand.home / "audit")
    try:
        attempts = {(each["run"], each["conn"]) for each in stand.records() if "conn" in each}
        rows = eventually(lambda: _taken(store, ingest, len(attempts)), what="every log to be taken in")
    finally:
        store.close()
    assert len(rows) == len(attempts)
    assert sorted(row["address"] for row in rows if row["address"]) == sorted(log.values())
    assert all(row["ended"] for row in rows)


def _ask(stand: Stand, address: str, name: str) -> None:
    with contextlib.suppress(OSError), stand.connect(address, 80) as program:
        program.send(f"GET /{name} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode()).finish().rest()


def _taken(store: Store, ingest: Ingest, wanted: int) -> list[sqlite3.Row] | None:
    for _ in range(2):
        store.write_now(ingest.take)
    rows = store.write_now(lambda connection: connection.execute("SELECT * FROM events").fetchall())
    return rows if len(rows) >= wanted else None


@pytest.mark.usefixtures("unanswered")
def test_every_accepted_connection_is_one_event(patient: Stand, tmp_path: Path) -> None:
    """Killed while their names are still unread, and while one is slow to resolve, connections have an event each, cut short."""
    stand = patient
    stand.policy("deny", [WEB, "*.slow.example.test"])
    hello = client_hello(WEB)
    begun = {
        443: hello[: len(hello) // 2],
        80: b"GET / HTTP/1.1\r\nHost: web.exa",
        8443: b"",
    }
    with contextlib.ExitStack() as held:
        for port, data in begun.items():
            held.enter_context(stand.connect(WEB, port)).send(data)
        held.enter_context(stand.connect("203.0.113.66", 443))
        slow = held.enter_context(stand.connect("k.slow.example.test", 80))
        slow.send(b"GET / HTTP/1.1\r\nHost: k.slow.example.test\r\n\r\n")
        eventually(lambda: stand.leaked("k.slow") and stand.ask("stats")["connections"] == 5)
        stand.kill()
    rows = _events(stand, tmp_path, 5)
    assert sorted((row["host"], row["port"]) for row in rows) == [
        ("203.0.113.66", 443),
        ("k.slow.example.test", 80),
        *((WEB, port) for port in sorted(begun)),
    ]
    assert {row["ended"] for row in rows} == {"interrupted"}
    assert {row["allowed"] for row in rows} == {0}


def test_no_count_is_cut_short(stand: Stand, tmp_path: Path) -> None:
    """Refusals that fold, of datagrams and of connections, are all counted although the gateway is killed right after them."""
    stand.policy("deny")
    address = stand.resolve(WEB)
    with stand.net.socket(kind=socket.SOCK_DGRAM) as sock:
        for _ in range(77):
            with contextlib.suppress(OSError):
                sock.sendto(b"quic", (address, 443))
    eventually(lambda: _told(stand, "udp") == 77, what="all datagrams to be refused")
    for _ in range(33):
        with stand.connect(address, 5555) as program:
            assert program.send(b"\0\n").rest() == b"RESET"
    stand.kill()
    rows = _events(stand, tmp_path, 2)
    counts = {
        protocol: sum(row["count"] for row in rows if row["protocol"] == protocol)
        for protocol in ("udp", "tcp")
    }
    assert counts == {"udp": 77, "tcp": 33}


def _told(stand: Stand, protocol: str) -> int:
    """How many refusals the sandbox itself is told of."""
    answer = stand.http("irons.internal", "GET / HTTP/1.1\nHost: irons.internal\n\n")
    refusals = json.loads(answer.partition(b"\r\n\r\n")[2])["refusals"]
    return sum(each["count"] for each in refusals if each["protocol"] == protocol)


def _events(stand: Stand, directory: Path, wanted: int) -> list[sqlite3.Row]:
    """What the control plane makes of the log: so many events, or more."""
    store, ingest = Store(directory / "irons.db"), Ingest(stand.home / "audit")
    try:
        rows = eventually(lambda: _taken(store, ingest, wanted), what=f"{wanted} events")
        assert isinstance(rows, list)
        return rows
    finally:
        store.close()
