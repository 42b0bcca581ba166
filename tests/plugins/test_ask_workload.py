"""How often a person is asked while an agent works a day: an estimated workload, judged and asked about by the gateway's own code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest

from irons.testing import FakeApi, Runner
from irons_local.gateway.ask.asking import Asking, Place
from irons_policy.decide import decide
from irons_policy.hostnames import canonical_host
from irons_policy.idn import registrable
from irons_policy.policy import Policy
from irons_policy.rules import Rule, make_rule

ESTIMATE = Path(__file__).parent / "workload.tsv"
PRESETS = ("anthropic", "crates", "debian", "github", "npm", "pypi")
BEGAN = datetime(2026, 11, 27, 9, tzinfo=UTC)


class Visit(NamedTuple):
    """A connection: whose it is, and where it goes."""

    tool: str
    host: str
    port: int


class Waiting:
    """A connection that waits for an answer."""

    def heard(self, reply: object) -> None:
        """Take it."""


def estimated() -> Iterator[tuple[Visit, int]]:
    """Each place of the estimate, and how often it is tried."""
    for line in ESTIMATE.read_text().splitlines():
        if not line.startswith("#"):
            tool, host, port, count = line.split("\t")
            yield Visit(tool, host, int(port)), int(count)


@pytest.fixture(params=range(3), ids="order {}".format)
def workload(request: pytest.FixtureRequest) -> list[Visit]:
    """All connections, in another order each time: tools run in turns."""
    visits = [visit for visit, count in estimated() for _ in range(count)]
    Random(request.param).shuffle(visits)
    return visits


def asked_for(rules: Iterable[Rule], visits: Iterable[Visit]) -> list[str]:
    """The questions that a person gets who always answers `always`, and gets those of all connections that would wait."""
    policy, asking, questions = Policy("ask", tuple(rules)), Asking(), []
    for visit in visits:
        asking.watch(3.0, 4.0, 0)
        place = Place(canonical_host(visit.host), visit.port)
        if decide(policy, place.host, place.port).allowed:
            continue
        assert asking.would(policy, place)
        asking.ask(place, "tls", Waiting())
        (question,) = asking.open()
        questions.append(f"{question.place.host.text}:{question.place.port}")
        policy = Policy("ask", (*policy.rules, make_rule(questions[-1], "allow")))
        asking.put(policy)
        assert not asking.open()
        assert asking.held == 0
    return questions


def rules_of(api: FakeApi) -> list[Rule]:
    """The rules that the sandbox has by now."""
    given: list[dict[str, Any]] = [*api.rules, *api.sandboxes["one"].rules]
    return [Rule.from_json(each) for each in given]


def test_without_a_rule_each_place_is_asked_about_once(workload: list[Visit]) -> None:
    """The workload has at least 1,000 connections; each of its places is one question, however often it is tried."""
    assert len(workload) >= 1_000
    assert {visit.tool for visit in workload} >= {"apt", "pip", "npm", "cargo", "git", "agent"}
    questions = asked_for((), workload)
    assert sorted(questions) == sorted({f"{visit.host}:{visit.port}" for visit in workload})


def test_with_presets_alone_a_hundred_connections_ask_at_most_once(
    run_irons: Runner, own: FakeApi, workload: list[Visit]
) -> None:
    """What the tools' presets have not, such as a compiler's own downloads, is at most one question in 100 connections."""
    for name in PRESETS:
        run_irons("egress", "preset", "allow", name, "--sandbox", "one").ok()
    questions = asked_for(rules_of(own), workload)
    assert set(questions) == {
        "nodejs.org:443",
        "static.rust-lang.org:443",
        "github-cloud.githubusercontent.com:443",
        "statsig.anthropic.com:443",
        "downloads.claude.ai:443",
    }
    assert len(questions) * 100 <= len(workload)


def test_after_suggest_nothing_is_asked(run_irons: Runner, own: FakeApi, workload: list[Visit]) -> None:
    """What `egress suggest` prints of a first such day, allowed as it is, covers the second whole, and opens no domain beyond it."""
    own.events = [
        {
            "time": (BEGAN + timedelta(seconds=number)).isoformat(),
            "sandbox": "one",
            "sandbox_name": "one",
            "host": visit.host,
            "port": visit.port,
            "protocol": "tls",
            "allowed": True,
            "verdict": "warn",
            "count": 1,
            "outcome": "closed",
        }
        for number, visit in enumerate(workload)
    ]
    suggested = run_irons("egress", "suggest", "one", "-o", "json").ok().json()
    patterns = [str(each["pattern"]) for each in suggested]
    # Of `*` and of a public suffix the registrable domain is itself, and no host has it.
    wide = {registrable(pattern.partition(":")[0].removeprefix("*.")) for pattern in patterns}
    assert wide <= {registrable(visit.host) for visit in workload}
    run_irons("egress", "allow", *patterns, "--sandbox", "one").ok()
    assert asked_for(rules_of(own), workload) == []
