"""A conversation without I/O and the live `Attempt` give the same verdict, the same bytes and the same records."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.local.gateway.conversations import TALKS, numbered
from tests.local.gateway.live_talks import live
from tests.local.gateway.talks import Talk, same, without_io


@pytest.mark.parametrize("talk", TALKS.values(), ids=TALKS.keys())
def test_both_agree(talk: Talk, tmp_path: Path) -> None:
    """Every conversation of the list: what each side hears, and every record in order."""
    new = without_io(talk)
    old = live(talk, tmp_path / "old", new)
    assert (old.out, old.back) == (new.out, new.back)
    assert old.records == new.records


@pytest.mark.parametrize("first", range(0, 80, 20))
def test_both_agree_on_what_is_made_up(first: int, tmp_path: Path) -> None:
    """Conversations by chance, well and ill formed: the same bytes, and the same records.

    `tools/compare_conversations.py` runs as many as there is time for.
    """
    for number in range(first, first + 20):
        talk = numbered(number)
        new = without_io(talk)
        old = live(talk, tmp_path / str(number), new)
        assert same(talk, old, new), (talk, old, new)
