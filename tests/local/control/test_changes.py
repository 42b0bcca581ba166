"""The last changes of the audit log are remembered by a cursor, in bounded memory."""

from __future__ import annotations

import pytest
from tests.local.control.gateway_logs import Logs, close_record, open_record, verdict_record

from irons_local.control.audit import changes
from irons_local.control.audit.changes import Changes

NOW = 2**63 - 1


def test_a_cursor_gives_what_changed_after_it() -> None:
    """Each event that changed is given once, the earliest change first, in parts of the wanted size."""
    known = Changes()
    start = known.since(NOW, 10).cursor
    known.note([(1, 7), (2, 8), (3, 7), (1, 7)])
    assert known.since(start, 10).events == [2, 3, 1]
    part = known.since(start, 2)
    assert part.events == [2, 3]
    assert known.since(part.cursor, 2).events == [1]
    assert known.since(known.since(start, 10).cursor, 10).events == []
    assert known.since(NOW, 10).events == []


def test_a_cursor_of_an_earlier_process_is_before_all() -> None:
    """After a restart a follower gets all that changed since."""
    earlier = Changes().since(NOW, 10).cursor
    later = Changes()
    later.note([(1, 7)])
    assert later.since(earlier, 10).events == [1]


def test_a_flood_pushes_out_only_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded per sandbox, and so is the number of sandboxes."""
    monkeypatch.setattr(changes, "MOST", 2)
    monkeypatch.setattr(changes, "MOST_SUBJECTS", 3)
    known = Changes()
    start = known.since(NOW, 10).cursor
    known.note([(1, 7), *((event, 8) for event in range(2, 50))])
    assert known.since(start, 100).events == [1, 48, 49]
    known.note([(50, 9), (51, 10)])
    assert known.since(start, 100).events == [48, 49, 50, 51]


def test_the_intake_says_what_changed(logs: Logs) -> None:
    """The end of an event that was shown before, and a higher count of one, are changes; the first showing is none."""

    def changed() -> list[int]:
        return [event for event, _ in logs.store.write_now(logs.ingest.take).changed]

    refused = {"host": "192.0.2.1", "port": 53, "protocol": "udp", "verdict": "blocked", "count": 1}
    logs.write(open_record(), verdict_record(), open_record(2), {"kind": "event", "conn": 2, **refused})
    assert changed() == []
    logs.write(close_record())
    assert changed() == [1]
    logs.write(open_record(3), {"kind": "fold", "conn": 3, "into": 2, "count": 2})
    assert changed() == [2]
    logs.write(open_record(4), {"kind": "fold", "conn": 4, "into": 2, "count": 2})
    assert changed() == []
