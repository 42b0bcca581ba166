"""The machine without I/O and the live `Attempt` give the same verdict, the same bytes and the same records."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from tests.local.gateway.conversations import TALKS, made_up
from tests.local.gateway.talks import Talk, live, without_io


@pytest.mark.parametrize("talk", TALKS.values(), ids=TALKS.keys())
def test_both_agree(talk: Talk, tmp_path: Path) -> None:
    """Every conversation of the list: what each side hears, and every record in order."""
    new = without_io(talk)
    old = live(talk, tmp_path / "old", new)
    assert (old.out, old.back) == (new.out, new.back)
    assert old.records == new.records


@pytest.mark.parametrize("seed", range(4))
def test_both_agree_on_what_is_made_up(seed: int, tmp_path: Path) -> None:
    """Conversations by chance, well and ill formed: the same bytes, and the same records."""
    chance = Random(seed)
    for number in range(25):
        talk = made_up(chance)
        new = without_io(talk)
        old = live(talk, tmp_path / str(number), new)
        assert (old.out, old.back, old.records) == (new.out, new.back, new.records), talk
