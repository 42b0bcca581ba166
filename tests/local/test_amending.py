"""Which processes a session of a sandbox's SSH server has."""

from __future__ import annotations

from irons_local.engines.namespace.amend import descendants


def test_descendants_however_deep() -> None:
    """A chain of processes that is deeper than this program's own stack hides nothing."""
    children = {pid: [pid + 1] for pid in range(1, 5000)}
    assert descendants(1, children) == list(range(2, 5001))


def test_descendants_that_were_read_at_different_moments() -> None:
    """Numbers that were used again in between, so that a process seems to descend from itself, end the search."""
    assert descendants(1, {1: [2, 3], 3: [4], 4: [1, 3]}) == [2, 3, 4]
