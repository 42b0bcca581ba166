"""A gateway that is killed while connections wait for a person."""

from __future__ import annotations

from tests.local.gateway.stand import Stand
from tests.local.gateway.test_held import OTHER, ask, asked, get, watch


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
