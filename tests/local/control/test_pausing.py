"""Pauses in work that no one waits for."""

from __future__ import annotations

from tests.local.control.gateway_logs import Logs, close_record, open_record, verdict_record

from irons_local.control.audit.ingest import Ingest
from irons_local.control.audit.pauses import PAUSE, WORK, Pauses


class Clock:
    """A time that passes as the test sets it, a little with each look."""

    def __init__(self, step: float = 0.0) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self._step = step

    def __call__(self) -> float:
        self.now += self._step
        return self.now

    def sleep(self, seconds: float) -> None:
        """Wait."""
        self.slept.append(seconds)
        self.now += seconds


def test_there_is_a_pause_after_some_work() -> None:
    """Not before, and the work after it is counted from its end."""
    clock = Clock()
    pauses = Pauses(clock, clock.sleep)
    pauses.begin()
    for now, count in ((WORK / 2, 0), (WORK, 1), (WORK * 1.5, 1), (WORK * 3, 2)):
        clock.now = now
        pauses()
        assert clock.slept == [PAUSE] * count
    clock.now = WORK * 10
    pauses.begin()
    pauses()
    assert len(clock.slept) == 2


def test_the_intake_of_many_records_pauses_again_and_again(logs: Logs) -> None:
    """While they are read, and while events are written: never are more than a few gone through in one go."""
    clock = Clock(WORK / 10)
    logs.ingest = Ingest(logs.directory, None, Pauses(clock, clock.sleep))
    for conn in range(1, 101):
        logs.write(open_record(conn), verdict_record(conn), close_record(conn))
    assert logs.take() == 100
    # Three records, one event that is summed up and one row for each attempt.
    assert len(clock.slept) >= 5 * 100 // 11
