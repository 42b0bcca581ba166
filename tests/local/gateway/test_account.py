"""What the log says of one attempt."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from tests.local.gateway.stand import policy

from irons_local.gateway.attempt.account import OTHERS, Account
from irons_local.gateway.decide.verdicts import Judged
from irons_policy.decide import decide
from irons_policy.hostnames import Host
from irons_policy.policy import Policy


def test_every_other_name_is_recorded_and_few_are_remembered() -> None:
    """In warn a connection may say a new name in each request for ever: each has its event, and memory stays bounded."""
    events: list[str] = []
    journal = SimpleNamespace(event=lambda _, **fields: events.append(fields["host"]))
    context, cell = SimpleNamespace(journal=journal), SimpleNamespace(name="sb_1")
    account = Account(cast("Any", context), cast("Any", cell), 80)
    host = Host("web.example.test")
    judged = Judged(host, decide(Policy.from_json(policy("warn")), host, 80))
    names = [f"n{number}.example.test" for number in range(3 * OTHERS)]
    for name in names:
        for _ in range(2):
            account.others(judged._replace(others=(Host(name),)))
    assert events == names
    assert len(account._others) <= OTHERS
