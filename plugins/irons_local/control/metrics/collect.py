"""What is measured, and where it is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from irons.version import __version__
from irons_local import times
from irons_local.control.clients.gateways import Gateways
from irons_local.control.metrics.exposition import Metric, Sample
from irons_local.control.metrics.tally import Counts, EventTally, backlog
from irons_local.control.store import sandboxes
from irons_local.control.store.database import Store
from irons_policy.causes import Cause
from irons_policy.modes import VERDICTS

_WITHIN = 2.0
"""Seconds for a worker: one that hangs must not cost the whole answer."""


class Measured(NamedTuple):
    """What is measured.

    Attributes:
        store: the database.
        logs: the directory of the gateway's logs.
        tally: counts of the audit log.
        gateways: the gateway's workers.
        questions: how many questions are open.
        began: when the server was started, microseconds since 1970.
    """

    store: Store
    logs: Path
    tally: EventTally
    gateways: Gateways
    questions: int
    began: int


async def collect(of: Measured) -> list[Metric]:
    """Measure everything.

    Raises:
        StoreError: the database failed.
    """
    known = await of.store.read(sandboxes.all_of)
    waiting = await of.store.read(partial(backlog, directory=of.logs))
    counts = await of.tally.read(of.store)
    workers = await of.gateways.stats(within=_WITHIN)
    return [
        Metric(
            "irons_info",
            "gauge",
            "The version of irons; the value is 1.",
            [Sample(1, {"version": __version__})],
        ),
        Metric(
            "irons_start_time_seconds",
            "gauge",
            "When the server was started, in seconds since 1970.",
            [Sample(of.began / 1e6)],
        ),
        *_of_log(counts),
        Metric(
            "irons_audit_backlog_bytes",
            "gauge",
            "Bytes of the gateway's logs that are not in the audit log yet.",
            [Sample(waiting)],
        ),
        Metric(
            "irons_audit_unrecorded",
            "gauge",
            "Refusals that the gateway can't record now.",
            [Sample(sum(of.gateways.unrecorded.values()))],
        ),
        Metric(
            "irons_questions_open",
            "gauge",
            "Questions of mode ask that are open.",
            [Sample(of.questions)],
        ),
        *_of_workers(workers, of.gateways.restarts),
        *_of_policies(of.gateways.confirmed_at),
        Metric(
            "irons_sandboxes",
            "gauge",
            "Sandboxes, by their status.",
            _each("status", Counter(each.status for each in known)),
        ),
    ]


def _of_log(counts: Counts) -> Iterator[Metric]:
    """What was tried; series that have nothing yet are there with 0."""
    verdicts: Counter[str] = Counter(dict.fromkeys(VERDICTS, 0))
    causes: Counter[str] = Counter(dict.fromkeys((each.value for each in Cause), 0))
    for (verdict, cause), times_ in counts.items():
        verdicts[verdict] += times_
        if verdict == "blocked":
            causes[cause or "none"] += times_
    about = "Connections and requests that were tried, by verdict, since this was first read."
    yield Metric("irons_attempts_total", "counter", about, _each("verdict", verdicts))
    about = "Those of them that were refused, by cause."
    yield Metric("irons_refusals_total", "counter", about, _each("cause", causes))


def _of_workers(said: Mapping[int, Mapping[str, Any]], restarts: Mapping[int, int]) -> Iterator[Metric]:
    def of(name: str) -> Iterable[Sample]:
        found = {number: each.get(name) for number, each in said.items()}
        return [Sample(n, {"worker": str(number)}) for number, n in found.items() if isinstance(n, int)]

    # One that is gone reports nothing, and is known by its restarts.
    numbers = sorted({*said, *restarts})
    up = [Sample("error" not in said.get(n, {"error": ""}), {"worker": str(n)}) for n in numbers]
    yield Metric("irons_gateway_worker_up", "gauge", "Whether a worker of the gateway answers.", up)
    again = {str(number): restarts.get(number, 0) for number in numbers}
    about = "How often a worker was replaced, since the server was started."
    yield Metric("irons_gateway_worker_restarts_total", "counter", about, _each("worker", again))
    yield Metric("irons_connections_open", "gauge", "Connections that are open.", of("connections"))
    yield Metric("irons_gateway_memory_bytes", "gauge", "Memory of a worker.", of("memory"))


def _of_policies(confirmed_at: int | None) -> Iterator[Metric]:
    """How old the latest policy is that a worker confirmed; nothing where none was needed yet."""
    ages = [] if confirmed_at is None else [Sample(max(0, times.now() - confirmed_at) / 1e6)]
    about = "Seconds since the gateway last confirmed a policy."
    yield Metric("irons_policy_age_seconds", "gauge", about, ages)


def _each(label: str, counts: Mapping[str, int]) -> list[Sample]:
    return [Sample(value, {label: name}) for name, value in sorted(counts.items())]
