"""Which worker serves which cell, and what becomes of cells whose worker dies."""

from __future__ import annotations

import pytest

from irons_local.keeper.supervise.assignment import MOST_ALONE, Assignment


class Clock:
    """Seconds that pass when the test says it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


def test_a_cell_goes_to_the_worker_with_the_fewest_and_stays(clock: Clock) -> None:
    """Cells are spread evenly as they come and go, and none ever changes its worker by itself."""
    known = Assignment(3, clock)
    assert [known.of(name) for name in "abcdef"] == [0, 1, 2, 0, 1, 2]
    assert [known.of(name) for name in "fedcba"] == [2, 1, 0, 2, 1, 0]
    assert known.release("b") == 1
    assert known.release("b") is None
    assert known.of("g") == 1
    assert known.cells(1) == ["e", "g"]
    assert known.served("g") == (1,)


def test_two_deaths_within_a_minute_put_every_cell_of_the_worker_apart(clock: Clock) -> None:
    """After the second death each of its cells has a worker of its own, whichever it was; cells of others stay."""
    known = Assignment(2, clock)
    for name in "abcd":
        known.of(name)
    assert known.died(0) == {}
    clock.now += 59
    assert known.died(0) == {"a": 2, "c": 3}
    assert known.of("a") == 2
    assert known.served("a") == (0, 2)
    assert known.cells(0) == []
    assert known.cells(1) == ["b", "d"]
    # It goes on dying, and no one else is concerned.
    clock.now += 1
    assert known.died(2) == {}
    assert known.of("e") == 0


def test_deaths_that_are_far_apart_do_not_count(clock: Clock) -> None:
    """Two deaths with more than a minute between them move nothing."""
    known = Assignment(1, clock)
    known.of("a")
    for _ in range(5):
        assert known.died(0) == {}
        clock.now += 61


def test_a_cell_that_comes_to_a_worker_after_its_death_is_not_suspected(clock: Clock) -> None:
    """Only a cell that was served at both deaths is put apart."""
    known = Assignment(1, clock)
    known.of("a")
    known.died(0)
    known.of("b")
    assert known.died(0) == {"a": 1}
    assert known.of("b") == 0


def test_a_suspected_cell_is_alone_until_it_was_quiet_for_ten_minutes(clock: Clock) -> None:
    """Stopping and starting its sandbox does not bring it back among others before; each death begins the time again."""
    known = Assignment(1, clock)
    known.of("a")
    known.died(0)
    assert known.died(0) == {"a": 1}
    clock.now += 300
    assert known.died(1) == {}
    clock.now += 599
    known.release("a")
    assert known.of("a") == 1
    clock.now += 2
    known.release("a")
    assert known.of("a") == 0


def test_workers_of_their_own_are_bounded(clock: Clock) -> None:
    """Where there are very many suspected cells they share the workers beyond those for all."""
    known = Assignment(1, clock)
    names = [f"sb_{number:016x}" for number in range(MOST_ALONE + 5)]
    for name in names:
        known.of(name)
    known.died(0)
    moved = known.died(0)
    assert set(moved) == set(names)
    assert set(moved.values()) == set(range(1, MOST_ALONE + 1))


def test_the_next_keeper_learns_it(clock: Clock) -> None:
    """What one keeper decided another one takes up, with every worker that a cell ever had."""
    known = Assignment(2, clock)
    for name in "abc":
        known.of(name)
    known.died(0)
    known.died(0)
    other = Assignment(2, clock)
    for cell, served in known.state().items():
        other.learn(cell, served)
    assert {name: other.served(name) for name in "abc"} == {"a": (0, 2), "b": (1,), "c": (0, 3)}
    assert other.of("d") == 0
