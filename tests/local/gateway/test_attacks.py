"""The attack cases without root, network or namespaces: nothing of the other host goes on, however its bytes are cut."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.local.gateway.attacks import ATTACKS, FLOODED, NO_REFUSAL, OTHER, flood
from tests.local.gateway.live_talks import live
from tests.local.gateway.talks import without_io
from tests.local.gateway.test_cuts import CUTS, in_pieces

from irons_local.gateway.conversation.events import Side

NAMED = pytest.mark.parametrize("name", ATTACKS)


@NAMED
def test_nothing_of_it_goes_on(name: str) -> None:
    """The server hears nothing that names the other host, and there is a refusal."""
    found = without_io(ATTACKS[name])
    assert b"evil" not in found.out
    assert b"/two" not in found.out
    assert any(kind == "refused" for kind, _ in found.records) == (name not in NO_REFUSAL)


@NAMED
def test_the_live_gateway_does_the_same(name: str, tmp_path: Path) -> None:
    """The same bytes to both sides, and the same records, over sockets."""
    new = without_io(ATTACKS[name])
    old = live(ATTACKS[name], tmp_path / "old", new)
    assert (old.out, old.back, old.records) == (new.out, new.back, new.records)


@settings(max_examples=150)
@given(name=st.sampled_from(list(ATTACKS)), at=CUTS, sides=st.sets(st.sampled_from(Side)))
def test_however_it_is_cut(name: str, at: list[int], sides: set[Side]) -> None:
    """Reads of any size, of either side."""
    found = without_io(in_pieces(ATTACKS[name], at, *sides))
    # A ClientHello in the middle of a message goes on as it comes, and never whole.
    assert (OTHER if name.startswith("MySQL") else b"evil") not in found.out
    assert b"/two" not in found.out


@pytest.mark.parametrize("name", FLOODED)
def test_a_flood_with_the_first_request(name: str) -> None:
    """All that has come with the first request is looked through before the dial, so nothing outside hears of a flood."""
    found = without_io(flood(name))
    assert found.out == b""
    assert found.records[-1][1]["cause"] == "cap"
