"""What an export asks the audit log: which events may still change, how many there were, and some by their ids."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from tests.local.control.lab import Lab, control_plane, run
from tests.local.control.test_audit_api import RUN, Writer

from irons_local import times
from irons_local.control.audit import retention
from irons_local.control.audit.retention import Retention
from irons_local.control.audit.settled import SETTLES_AFTER

OLD = SETTLES_AFTER + 1_000_000
FRESH = 3_600_000_000
"""Microseconds by which what may still change is ahead, however long this takes."""


async def read(lab: Lab, path: str = "/audit/egress", **params: Any) -> Any:
    """Return the answer to an export's question."""
    answer = await lab.client.get(path, params={"page_size": 100, "export": "true", **params})
    assert answer.status_code == 200, answer.text
    return answer.json()


def attempt(kind: str, conn: int, cell: str, **more: Any) -> dict[str, Any]:
    """One record of the gateway."""
    about = {"host": f"h{conn}.test", "port": 443, "verdict": "blocked", "mode": "deny"}
    return {
        "kind": kind,
        "conn": conn,
        "cell": cell,
        **(about if kind in ("verdict", "event") else {}),
        **more,
    }


def test_what_may_still_change_is_told(tmp_path: Path) -> None:
    """A connection may change until it is closed, a refusal until its repeats are surely counted; the rest is final."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box"))["id"]
            writer = Writer(lab)
            old, fresh = times.now() - OLD, times.now() + FRESH
            lab.write_log(
                RUN,
                attempt("verdict", 1, cell, verdict="allowed", at=old),
                attempt("verdict", 2, cell, verdict="allowed", at=old),
                attempt("close", 2, cell, outcome="reached"),
                attempt("event", 3, cell, at=old, outcome="refused"),
                attempt("event", 4, cell, at=fresh, outcome="refused"),
                # It began long ago, and was refused just now.
                attempt("open", 5, cell, at=old),
                attempt("event", 5, cell, at=fresh, outcome="refused"),
            )
            page = await read(lab)
            assert [event["host"] for event in page["events"]] == [f"h{n}.test" for n in range(1, 6)]
            assert page["unsettled"] == [1, 4, 5]
            lab.write_log(RUN, attempt("close", 1, cell, outcome="reached", bytes_in=5))
            again = await read(lab, ids="1,4,77")
            assert [(event["id"], event.get("bytes_in")) for event in again["events"]] == [(1, 5), (4, None)]
            assert again["unsettled"] == [4]
            assert "unsettled" not in (await lab.client.get("/audit/egress")).json()
            writer.close()
            # Its log ends: what it wrote is final.
            assert (await read(lab))["unsettled"] == []

    run(work())


def test_a_count_that_was_noted_before_a_kill_is_there_once_it_is_final(tmp_path: Path) -> None:
    """A worker that is killed leaves counts next to its log: an event is final only with them."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box"))["id"]
            writer = Writer(lab)
            lab.write_log(RUN, attempt("event", 0, cell, at=times.now() + FRESH, outcome="refused"))
            page = await read(lab)
            assert (page["unsettled"], page["events"][0]["count"]) == ([1], 1)
            (lab.paths.gateway / "audit" / f"{RUN}.counts").write_bytes(struct.pack("=qq", 0, 41))
            writer.close()
            page = await read(lab)
            assert (page["unsettled"], page["events"][0]["count"]) == ([], 41)

    run(work())


def test_counts_say_what_retention_took(tmp_path: Path) -> None:
    """What there ever was, less what is left and what was read, is what an export has missed: of one sandbox and of all."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            boxes = {name: (await lab.create(name))["id"] for name in ("one", "two")}
            writer = Writer(lab)
            for number in range(8):
                await writer.attempt(boxes["one" if number % 2 else "two"], f"h{number}.test")
            page = await read(lab, "/sandboxes/one/audit/egress")
            assert page["counts"] == {"ever": 4, "left": 4, "sandbox": boxes["one"]}
            assert (await read(lab))["counts"] == {"ever": 8, "left": 8, "sandbox": ""}
            await lab.store.write(lambda c: retention.rotate(c, Retention(events=1)))
            page = await read(lab, "/sandboxes/one/audit/egress", pageToken=2)
            assert page["counts"] == {"ever": 4, "left": 1, "sandbox": boxes["one"]}
            assert (await read(lab))["counts"] == {"ever": 8, "left": 2, "sandbox": ""}
            writer.close()

    run(work())


@pytest.mark.parametrize(
    "ids", ["", "a", "1,,2", "-1", ",".join(["1"] * 2001), ",".join(map(str, range(501)))]
)
def test_ids_that_are_none_are_refused(tmp_path: Path, ids: str) -> None:
    """Ids are numbers with commas between them, five hundred at most."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            answer = await lab.client.get("/audit/egress", params={"ids": ids})
            assert answer.status_code == 400
            assert list(json.loads(answer.text)) == ["error"]

    run(work())
