"""`audit hosts`: each destination once, with its counts."""

from __future__ import annotations

from irons.testing import FakeApi, Runner

HOSTS = [
    {
        "host": "a.example",
        "port": 443,
        "verdict": "allowed",
        "first": "2026-02-19T20:00:00Z",
        "last": "2026-02-19T21:00:00Z",
        "count": 12,
        "reached": 11,
        "bytes_in": 34_567,
        "bytes_out": 891,
    },
    {
        "host": "*.flood.example",
        "verdict": "blocked",
        "first": "2026-02-19T20:00:00Z",
        "last": "2026-02-19T22:00:00Z",
        "count": 60_000,
        "reached": 0,
        "folded": "domain",
    },
]


def test_hosts(run_irons: Runner, own: FakeApi) -> None:
    """A row per host, port and verdict, with times, counts and bytes."""
    own.hosts = HOSTS
    table = run_irons("audit", "hosts", "one", tty=True, env={"COLUMNS": "200", "TZ": "UTC"}).ok().lines
    assert table[0].split()[:6] == ["LAST", "VERDICT", "HOST", "PORT", "COUNT", "REACHED"]
    assert "891 / 34,567" in table[1]
    assert "*.flood.example" in table[2]
    found = run_irons("audit", "hosts", "one", "-o", "json").ok().json()
    assert found[0] == {**HOSTS[0], "folded": ""}
    assert (found[1]["folded"], found[1]["port"], found[1]["bytes_in"]) == ("domain", None, None)


def test_hosts_filtered(run_irons: Runner, own: FakeApi) -> None:
    """Verdict, host and number are asked of the server; a number below one is refused."""
    own.hosts = HOSTS
    args = ("audit", "hosts", "one", "--verdict", "blocked", "--host", "*.flood.*", "--limit", "99999")
    assert len(run_irons(*args, "-o", "json").ok().json()) == 1
    assert own.calls[-1].query == {"verdict": "blocked", "host": "*.flood.*", "limit": "20000"}
    assert run_irons("audit", "hosts", "one", "--limit", "0").code == 2


def test_hosts_at_a_plain_server(run_irons: Runner, one: FakeApi) -> None:
    """For a server without summaries there is an error."""
    assert "sums up what sandboxes tried" in run_irons("audit", "hosts", "one").err
