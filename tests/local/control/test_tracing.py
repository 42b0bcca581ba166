"""One request followed through the control plane: its id in the answer, in the log and at the other processes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.local.control.lab import control_plane, run
from tests.local.control.test_keys import free_port

from irons_local.log.line import Line, parse
from irons_local.log.setup import Lines

MARKER = "marker-5e1f"


@pytest.fixture
def logged() -> Iterator[list[Line]]:
    """What irons logs, down to debug."""
    found: list[Line] = []

    def write(text: str) -> None:
        found.extend(line for line in map(parse, text.splitlines()) if line is not None)

    ours, handler = logging.getLogger("irons_local"), Lines(write)
    before = ours.level
    ours.addHandler(handler)
    ours.setLevel(logging.DEBUG)
    yield found
    ours.removeHandler(handler)
    ours.setLevel(before)


def test_a_request_is_followed_from_its_answer_to_the_other_processes(
    tmp_path: Path, logged: list[Line]
) -> None:
    """The id that a client sends comes back, is in the lines of what is done for it, and goes to the gateway."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            lab.client.headers["X-Irons-Request"] = "abc-123"
            answer = await lab.client.get("/version")
            assert answer.headers["x-irons-request"] == "abc-123"
            found = await lab.create()
            lab.client.headers["X-Irons-Request"] = "of-the-end"
            await lab.client.post("/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            await lab.client.delete("/sandboxes/box")
            assert {each.get("request") for each in lab.kept if each.get("cell") == found["id"]} <= {
                "abc-123",
                "of-the-end",
            }
            assert [each["request"] for each in lab.kept if each["op"] == "cell.drop"] == ["of-the-end"]

    run(work())
    of = [line for line in logged if line.request == "abc-123"]
    assert any(line.text.startswith("POST /sandboxes: 202 in ") for line in of)
    assert any(line.text.startswith("GET /version: 200 in ") and line.level == "DEBUG" for line in of)


def test_work_that_a_request_began_is_logged_with_its_id(tmp_path: Path, logged: list[Line]) -> None:
    """A start that fails after the answer names the request, and the sandbox."""

    async def work() -> str:
        async with control_plane(tmp_path) as lab:
            lab.engine.trouble["start"] = OSError("no such luck")
            answer = await lab.client.post(
                "/sandboxes",
                json={
                    "name": "box",
                    "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGnJ8Rk9jvXKBv9J8U6Zzr0mFQ4d1vJcS3uJ0Gk4mV5h x",
                },
                headers={"X-Irons-Request": "failing"},
            )
            await lab.reaches("box", "error")
            return str(answer.json()["id"])

    identity = run(work())
    (line,) = [line for line in logged if "no such luck" in line.text]
    assert (line.request, line.sandbox, line.level) == ("failing", identity, "WARNING")


@pytest.mark.parametrize("value", ["", "a b", "x" * 200, "a\tb"])
def test_an_id_that_is_none_is_replaced(tmp_path: Path, value: str) -> None:
    """A client that sends none, or something else, gets the id that was made."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            answer = await lab.client.get("/version", headers={"X-Irons-Request": value})
            assert len(answer.headers["x-irons-request"]) == 16

    run(work())


def test_the_log_of_requests_has_no_query_key_or_body(tmp_path: Path, logged: list[Line]) -> None:
    """At debug level too: neither Authorization, Cookie, a query string nor the values of variables are logged."""
    port = free_port()

    async def work() -> None:
        async with control_plane(tmp_path, host="127.0.0.1", port=port) as lab:
            secret = {"Authorization": f"Bearer {MARKER}", "Cookie": MARKER, "Proxy-Authorization": MARKER}
            await lab.client.get(f"/audit/egress?host={MARKER}", headers=secret)
            await lab.client.get(f"/nothing?{MARKER}", headers=secret)
            await lab.client.post("/keys", content=f'{{"label": "{MARKER}"')
            await lab.create(environment={"API_KEY": MARKER})

    run(work())
    assert [
        line.text.partition(":")[0]
        for line in logged
        if line.text.startswith(("GET /audit", "GET /nothing", "POST /keys"))
    ] == [
        "GET /audit/egress",
        "GET /nothing",
        "POST /keys",
    ]
    assert [line for line in logged if MARKER in line.text] == []
