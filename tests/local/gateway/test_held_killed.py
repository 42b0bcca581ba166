"""A gateway that is killed while connections wait for a person."""

from __future__ import annotations

import socket

from tests.local.gateway.stand import CELL, Stand
from tests.local.gateway.test_held import OTHER, REFUSED, ask, asked, get, watch

from irons_local.ipc.link import Link


def test_a_killed_gateway_keeps_the_record(stand: Stand) -> None:
    """Nothing waits any more, nothing has left, and the log has that a person was asked."""
    ask(stand)
    watch(stand)
    with get(stand) as program:
        asked(stand)
        stand.kill()
        assert program.rest() in {b"", b"RESET"}
    assert [each["host"] for each in stand.records() if each.get("cause") == "asked"] == [OTHER]
    assert not stand.leaked("/hello")


def test_another_control_plane_hears_how_questions_ended(stand: Stand) -> None:
    """The one before was killed: what waits is refused once its time is over, and its successor hears of what ended by then."""
    ask(stand)
    watch(stand, hold=1.0)
    assert stand.server is not None
    assert stand.keeper is not None
    with get(stand) as program:
        asked(stand)
        stand.server.close()
        assert program.read(12) == REFUSED
    one, other = socket.socketpair()
    one.settimeout(60)
    stand.keeper.send({"op": "peer"}, [other.fileno()])
    other.close()
    stand.server = Link(one)
    # No one watches by this control plane, and a rule decides what was asked.
    stand.policy("deny", [OTHER])
    while True:
        said = stand.server.recv().body
        if said["op"] == "questions" and said["cell"] == CELL and said["ended"]:
            break
    ((host, why),) = [(each["host"], each["why"]) for each in said["ended"]]
    assert (host, why) == (OTHER, "decided")
    assert said["questions"] == []
