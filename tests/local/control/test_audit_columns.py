"""The audit log in columns, from a real control plane to a real client."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.local.control.lab import control_plane, run, until
from tests.ports import reserved_port

from irons.testing import Runner
from irons_local.control.api import audit as routes_audit
from irons_plugins.audit import following

RUN = "1700000000000000-4242-0"
SIZE = 7
"""Events of one page."""


@pytest.mark.parametrize("words", [["audit", "--all"], ["audit", "egress", "--all"], ["audit", "one"]])
@pytest.mark.parametrize("count", [3 * SIZE, 3 * SIZE + 2])
def test_a_client_reads_every_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], count: int
) -> None:
    """A log of several pages has each event once, in order, with the values that it has as an object."""
    monkeypatch.setattr(following, "COLUMNS_SIZE", SIZE)
    monkeypatch.setattr(routes_audit, "NEWEST", SIZE)
    asked: list[str] = []
    columns_of = routes_audit.columns_of

    def noted(text: str) -> tuple[str, ...]:
        asked.append(text)
        return columns_of(text)

    monkeypatch.setattr(routes_audit, "columns_of", noted)

    async def work(port: int) -> None:
        async with control_plane(tmp_path, host="127.0.0.1", port=port) as lab:
            cells = [(await lab.create(name))["id"] for name in ("one", "two")]
            record: dict[str, Any] = {"kind": "verdict", "port": 443, "verdict": "blocked", "mode": "deny"}
            for number in range(2 * count):
                row = {**record, "conn": number + 1, "cell": cells[number % 2], "host": f"h{number}.test"}
                lab.write_log(RUN, row)
            path = "/sandboxes/one/audit/egress" if "one" in words else "/audit/egress"
            rows: list[dict[str, Any]] = []

            async def all_taken_in() -> bool:
                rows[:] = (await lab.client.get(path, params={"page_size": 1000})).json()["events"]
                return len(rows) == (count if "one" in words else 2 * count)

            await until(all_taken_in)
            assert asked == []
            key = (await lab.client.post("/keys", json={"label": "reader"})).json()["key"]
            env = {"IRONS_API_URL": f"http://127.0.0.1:{port}", "IRONS_API_KEY": key, "HOME": str(tmp_path)}
            done = await asyncio.to_thread(Runner(env), *words, "-o", "jsonl")
            found = [(each["id"], each["sandbox"], each["host"]) for each in done.ok().jsonl()]
            assert found == [(row["id"], row["sandbox_name"], row["host"]) for row in rows]
            assert len(asked) >= len(rows) // SIZE

    with reserved_port() as port:
        run(work(port))
