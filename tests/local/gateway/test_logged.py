"""One connection followed through the gateway's log, and what of it is never logged."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.local.gateway.stand import policy

from irons_local.gateway.attempt.account import NOTHING, Account, Ending
from irons_local.gateway.decide.verdicts import Judged
from irons_local.gateway.record.journal import Journal
from irons_local.log.line import Line, parse
from irons_local.log.setup import Lines
from irons_policy.causes import Outcome
from irons_policy.decide import decide
from irons_policy.hostnames import Host
from irons_policy.policy import Policy

CELL = "sb_0123456789abcdef"


def account(directory: Path) -> tuple[Account, Journal]:
    """The account of a connection, and the log where its records are."""
    journal = Journal(directory / "audit", lambda *_: None)
    context = SimpleNamespace(journal=journal)
    return Account(cast("Any", context), cast("Any", SimpleNamespace(name=CELL)), 80), journal


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
def test_a_connection_has_one_id_from_accept_to_its_end(tmp_path: Path, level: int) -> None:
    """Each line names it as its records do, by run and number; without debug there is none."""
    found: list[Line | None] = []
    ours = logging.getLogger("irons_local.gateway")
    handler = Lines(lambda text: found.append(parse(text)))
    before = ours.level
    ours.addHandler(handler)
    ours.setLevel(level)
    try:
        of, journal = account(tmp_path)
        host = Host("web.example.test")
        of.accepted(host)
        of.reach(host)
        judged = Judged(host, decide(Policy.from_json(policy("warn")), host, 80))
        of.verdict(judged)
        of.close(host, judged, NOTHING, Ending("closed", Outcome.REACHED, None))
        journal.close()
    finally:
        ours.removeHandler(handler)
        ours.setLevel(before)
    lines = [line for line in found if line is not None]
    if level == logging.INFO:
        assert lines == []
        return
    assert {(line.sandbox, line.connection) for line in lines} == {(CELL, f"{journal.run}.1")}
    assert [line.text.partition(" ")[0] for line in lines] == ["accepted,", "let", "closed:"]
    assert all(host.text in line.text for line in lines[:2])
