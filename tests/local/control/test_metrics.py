"""`GET /metrics`: what is counted, in the text that Prometheus reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from tests.local.control.lab import Lab, control_plane, run, until
from tests.local.control.team import team

from irons_local.control.metrics.exposition import Metric, Sample, text_of
from irons_policy.causes import Cause
from irons_policy.modes import VERDICTS

RUN = "1700000000000000-4242-0"
HEADER = re.compile(r"# (HELP [a-z_]+ \S.*|TYPE [a-z_]+ (counter|gauge))")
SAMPLE = re.compile(r'([a-z_]+)(\{[a-z]+="((?:[^"\\]|\\.)*)"\})? (-?[0-9]+(?:\.[0-9]+)?)')
LABELS = {"version", "verdict", "cause", "worker", "status"}
"""All that there may be: no host, no sandbox, no key."""


def read(answer: httpx.Response) -> Mapping[tuple[str, str], float]:
    """The samples of an answer, by name and the value of their label; each line must be of the format."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.text.endswith("\n")
    found: dict[tuple[str, str], float] = {}
    typed: list[str] = []
    for line in answer.text.splitlines():
        if line.startswith("#"):
            assert HEADER.fullmatch(line), line
            typed += [line.split()[2]] if line.startswith("# TYPE") else []
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample is not None, line
        # All samples of a metric are together, below its type.
        assert sample[1] == typed[-1]
        assert not sample[2] or sample[2][1:].partition("=")[0] in LABELS
        assert (sample[1], sample[3] or "") not in found
        found[sample[1], sample[3] or ""] = float(sample[4])
    assert len(typed) == len({*typed})
    return found


async def scraped(lab: Lab) -> Mapping[tuple[str, str], float]:
    """Read them on the unix socket."""
    return read(await lab.client.get("/metrics"))


def test_what_is_tried_is_counted_once(tmp_path: Path) -> None:
    """Attempts add up by verdict and refusals by cause, repeats included, each once; all series are there from the beginning."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box"))["id"]
            before = await scraped(lab)
            assert {before["irons_attempts_total", each] for each in VERDICTS} == {0}
            assert {before["irons_refusals_total", each.value] for each in Cause} == {0}
            assert before["irons_sandboxes", "ready"] == 1
            assert before["irons_policy_age_seconds", ""] >= 0
            assert before["irons_gateway_worker_up", "0"] == 1
            assert before["irons_gateway_worker_restarts_total", "0"] == 0

            about = {"cell": cell, "host": "a.test", "port": 443, "mode": "deny", "at": 1_700_000_000_000_000}
            blocked = {"kind": "event", "verdict": "blocked", "cause": "uncovered", **about}
            lab.write_log(RUN, {"kind": "verdict", "conn": 1, "verdict": "allowed", "cause": "rule", **about})
            # One that is of a clock which was set back since counts too.
            floor = {**blocked, "conn": 3, "cause": "floor", "at": 4_000_000_000_000_000}
            lab.write_log(RUN, {**blocked, "conn": 2, "count": 5}, floor)
            await lab.gateway.link.send({"op": "audit", "run": RUN})

            async def counted() -> bool:
                return (await scraped(lab))["irons_attempts_total", "blocked"] > 0

            await until(counted)
            for _ in range(2):
                after = await scraped(lab)
                assert after["irons_attempts_total", "allowed"] == 1
                assert after["irons_attempts_total", "blocked"] == 6
                assert after["irons_refusals_total", "uncovered"] == 5
                assert after["irons_refusals_total", "floor"] == 1
                assert after["irons_refusals_total", "rule"] == 0
                assert after["irons_audit_backlog_bytes", ""] == 0

    run(work())


def test_a_worker_that_is_replaced_is_counted(tmp_path: Path) -> None:
    """The number of restarts of a worker grows by one with each process that takes its place."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            assert (await scraped(lab))["irons_gateway_worker_restarts_total", "0"] == 0
            await lab.start_gateway()

            async def counted() -> bool:
                return (await scraped(lab)).get(("irons_gateway_worker_restarts_total", "0")) == 1

            await until(counted)

    run(work())


def test_a_worker_that_is_gone_is_down(tmp_path: Path) -> None:
    """It is there with 0 and not missing, so that an alarm can be set on it."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            assert (await scraped(lab))["irons_gateway_worker_up", "0"] == 1
            lab.gateway.link.close()

            async def is_down() -> bool:
                return (await scraped(lab))["irons_gateway_worker_up", "0"] == 0

            await until(is_down)

    run(work())


@pytest.mark.slow
def test_who_may_read_them(tmp_path: Path) -> None:
    """By TCP the roles auditor and admin read them, a user does not, and without a key there is nothing."""

    async def work() -> None:
        async with team(tmp_path) as found:
            for client in (found.auditor, found.admin):
                counted = read(await client.get("/metrics"))
                assert counted["irons_questions_open", ""] == 2
            assert (await found.user.get("/metrics")).status_code == 403
            found.auditor.headers.pop("authorization")
            assert (await found.auditor.get("/metrics")).status_code == 401

    run(work())


def test_odd_texts_are_escaped() -> None:
    """Backslashes, quotes and line ends of a label's value or of a help text end no line and no value."""
    text = text_of([Metric("a", "gauge", "one\ntwo \\", [Sample(1.5, {"b": 'x"y\\z\n'}), Sample(2)])])
    assert text == '# HELP a one\\ntwo \\\\\n# TYPE a gauge\na{b="x\\"y\\\\z\\n"} 1.500\na 2\n'
