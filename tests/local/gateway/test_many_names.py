"""A sandbox that asks for ever other names: it keeps its name service, and names that rules cover have room."""

from __future__ import annotations

import threading
import time

from dnslib import DNSRecord
from tests.e2e.lab import eventually
from tests.local.gateway.stand import GATEWAY, CellNet, Stand

from irons_local.gateway.shared.synthetic_names import BURST, RATE


def asked(net: CellNet, count: int) -> None:
    """Ask the cell's name server over TCP for so many names, all different, and read every answer."""
    with net.socket() as sock:
        sock.connect((GATEWAY, 53))

        def ask() -> None:
            for number in range(count):
                query = DNSRecord.question(f"x{number}.flood.test").pack()
                sock.sendall(len(query).to_bytes(2, "big") + query)

        sender = threading.Thread(target=ask)
        sender.start()
        answers = sock.makefile("rb")
        for _ in range(count):
            assert answers.read(int.from_bytes(answers.read(2), "big"))
        sender.join()
        answers.close()


def test_many_questions_leave_room_for_names(stand: Stand, net: CellNet) -> None:
    """After 60,000 questions for as many names one that a rule covers resolves at once, and others after a moment."""
    stand.policy("deny", ["*.allowed.test"])
    began = time.monotonic()
    asked(net, 60_000)
    assert stand.dns("one.allowed.test").rr
    eventually(lambda: stand.dns("other.test").rr)
    names = stand.ask("stats")["names"]
    assert names <= BURST + RATE * (time.monotonic() - began) + len(("one.allowed.test", "other.test"))
    assert "new names a second" in stand.event(protocol="dns")["reason"]
