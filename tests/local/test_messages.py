"""The messages between the backend's processes: what is on the wire, what is refused on arrival."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irons_local.ipc import messages
from irons_local.ipc.fields import BadMessageError, UnknownMessageError
from irons_local.ipc.keeper_requests import (
    AdoptCell,
    CellNamespaces,
    CellServed,
    ConnectCell,
    Down,
    DropCell,
    FindProgram,
    Greet,
    MakeCell,
    PlaceCell,
    Ready,
    Restart,
    Retire,
    TellStatus,
)
from irons_local.ipc.messages import (
    CONTROL_TO_WORKER,
    KEEPER_TO_CONTROL,
    KEEPER_TO_WORKER,
    TO_KEEPER,
    WORKER_TO_CONTROL,
    WORKER_TO_KEEPER,
    AnyMessage,
    body_of,
    call_of,
    read,
)

CELL = "sb_0123456789abcdef"
WIRE: list[tuple[Any, AnyMessage, dict[str, Any]]] = [
    (
        KEEPER_TO_WORKER,
        messages.Attach("sb_1", {"tcp": 1, "dns": 2}),
        {"op": "attach", "cell": "sb_1", "ports": {"tcp": 1, "dns": 2}},
    ),
    (KEEPER_TO_WORKER, messages.Detach("sb_1"), {"op": "detach", "cell": "sb_1"}),
    (KEEPER_TO_WORKER, messages.Missed("sb_1", 3), {"op": "missed", "cell": "sb_1", "count": 3}),
    (KEEPER_TO_WORKER, messages.Surrender(), {"op": "surrender"}),
    (KEEPER_TO_WORKER, messages.Surrender("sb_1"), {"op": "surrender", "cell": "sb_1"}),
    (KEEPER_TO_WORKER, messages.NewLink(), {"op": "peer"}),
    (KEEPER_TO_WORKER, messages.Stats(), {"op": "stats"}),
    (KEEPER_TO_CONTROL, messages.NewWorker(2, ["sb_1"]), {"op": "peer", "worker": 2, "cells": ["sb_1"]}),
    (KEEPER_TO_CONTROL, messages.Moved("sb_1", [0, 2]), {"op": "moved", "cell": "sb_1", "served": [0, 2]}),
    (
        CONTROL_TO_WORKER,
        messages.PutPolicy("sb_1", {"mode": "deny"}, {"id": "sb_1", "name": "box", "connections": 5}),
        {
            "op": "policy",
            "cell": "sb_1",
            "policy": {"mode": "deny"},
            "sandbox": {"id": "sb_1", "name": "box", "connections": 5},
        },
    ),
    (
        CONTROL_TO_WORKER,
        messages.Impact("sb_1", {"mode": "warn"}),
        {"op": "impact", "cell": "sb_1", "policy": {"mode": "warn"}},
    ),
    (CONTROL_TO_WORKER, messages.CountLive("sb_1"), {"op": "live", "cell": "sb_1"}),
    (CONTROL_TO_WORKER, messages.Forget("sb_1"), {"op": "forget", "cell": "sb_1"}),
    (CONTROL_TO_WORKER, messages.Stats(), {"op": "stats"}),
    (
        CONTROL_TO_WORKER,
        messages.Listeners([["127.0.0.1", 8080]], keep=False),
        {"op": "listeners", "listeners": [["127.0.0.1", 8080]], "keep": False},
    ),
    (
        CONTROL_TO_WORKER,
        messages.Listeners([], upstream=None, pool="198.18.0.0/15"),
        {"op": "listeners", "listeners": [], "keep": True, "upstream": None, "pool": "198.18.0.0/15"},
    ),
    (
        CONTROL_TO_WORKER,
        messages.ProbeHost({}, "a.example", 443),
        {"op": "probe", "policy": {}, "host": "a.example", "port": 443},
    ),
    (
        CONTROL_TO_WORKER,
        messages.ProbeHost({}, "a.example", 443, "sb_1"),
        {"op": "probe", "policy": {}, "host": "a.example", "port": 443, "cell": "sb_1"},
    ),
    (
        CONTROL_TO_WORKER,
        messages.WatchQuestions(3.0, 4.0, 2),
        {"op": "questions.watch", "lease": 3.0, "hold": 4.0, "keys": 2},
    ),
    (
        CONTROL_TO_WORKER,
        messages.WatchQuestions(3.0, 4.0, 2, {"sb_1": {"lease": 1.0, "hold": 4.0, "keys": 3}}),
        {
            "op": "questions.watch",
            "lease": 3.0,
            "hold": 4.0,
            "keys": 2,
            "cells": {"sb_1": {"lease": 1.0, "hold": 4.0, "keys": 3}},
        },
    ),
    (
        CONTROL_TO_WORKER,
        messages.ReplyQuestion("sb_1", "a.example", 443, "once", 7),
        {
            "op": "questions.reply",
            "cell": "sb_1",
            "host": "a.example",
            "port": 443,
            "reply": "once",
            "since": 7,
        },
    ),
    (
        WORKER_TO_CONTROL,
        messages.OpenQuestions(
            "sb_1", [{"host": "a.example"}], 4, [{"host": "b.example"}], [{"host": "c.example"}]
        ),
        {
            "op": "questions",
            "cell": "sb_1",
            "questions": [{"host": "a.example"}],
            "others": 4,
            "ended": [{"host": "b.example"}],
            "answers": [{"host": "c.example"}],
        },
    ),
    (CONTROL_TO_WORKER, messages.Followed(120.0), {"op": "audit.followed", "lease": 120.0}),
    (CONTROL_TO_WORKER, messages.HoldLog(full=True), {"op": "log.hold", "full": True}),
    (WORKER_TO_CONTROL, messages.Grown("1-2-0"), {"op": "audit", "run": "1-2-0"}),
    (WORKER_TO_CONTROL, messages.LostRecords({"sb_1": 4}), {"op": "unrecorded", "cells": {"sb_1": 4}}),
    (WORKER_TO_KEEPER, messages.Alive(), {"op": "alive"}),
    (TO_KEEPER, MakeCell(CELL), {"op": "cell.make", "cell": CELL}),
    (TO_KEEPER, AdoptCell(CELL, 7, 900), {"op": "cell.adopt", "cell": CELL, "pid": 7, "started": 900}),
    (TO_KEEPER, DropCell(CELL), {"op": "cell.drop", "cell": CELL}),
    (TO_KEEPER, CellNamespaces(CELL), {"op": "cell.namespaces", "cell": CELL}),
    (
        TO_KEEPER,
        ConnectCell(CELL, "127.0.0.1", 22, 2.5),
        {"op": "cell.connect", "cell": CELL, "address": "127.0.0.1", "port": 22, "timeout": 2.5},
    ),
    (
        TO_KEEPER,
        FindProgram(CELL, "100.64.0.2", 40_000, "203.0.113.7", 443),
        {
            "op": "cell.program",
            "cell": CELL,
            "address": "100.64.0.2",
            "port": 40_000,
            "peer": "203.0.113.7",
            "peer_port": 443,
        },
    ),
    (TO_KEEPER, PlaceCell(CELL), {"op": "cell.place", "cell": CELL}),
    (TO_KEEPER, CellServed(CELL), {"op": "cell.served", "cell": CELL}),
    (TO_KEEPER, Greet("0.2.0"), {"op": "hello", "version": "0.2.0"}),
    (TO_KEEPER, TellStatus(), {"op": "status"}),
    (TO_KEEPER, Ready(), {"op": "ready"}),
    (TO_KEEPER, Restart(), {"op": "restart"}),
    (TO_KEEPER, Restart("gateway", 1), {"op": "restart", "name": "gateway", "worker": 1}),
    (TO_KEEPER, Retire(), {"op": "retire"}),
    (TO_KEEPER, Down(), {"op": "down"}),
    (WORKER_TO_KEEPER, messages.Alive(1 << 20), {"op": "alive", "memory": 1 << 20}),
]
"""By link: a message, and what both older and newer versions have of it on the wire."""
TABLES = [
    KEEPER_TO_WORKER,
    KEEPER_TO_CONTROL,
    CONTROL_TO_WORKER,
    WORKER_TO_CONTROL,
    WORKER_TO_KEEPER,
    TO_KEEPER,
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["sb_1", "a.example"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = sorted({name for table in TABLES for kind in table.values() for name in kind._fields})
CASES = [
    (table, body, name) for table, message, body in WIRE for name in body if name not in ("op", "sandbox")
]


@pytest.mark.parametrize(("table", "message", "body"), WIRE, ids=range(len(WIRE)))
def test_a_message_on_the_wire(table: Any, message: AnyMessage, body: dict[str, Any]) -> None:
    """It has these keys and no others, and is read as the same message; keys of a later version are passed over."""
    assert body_of(message) == body
    assert call_of(message) == (body["op"], {key: value for key, value in body.items() if key != "op"})
    assert read(table, {**body, "id": 7, "request": "r", "later": [1]}) == message


def test_every_message_is_tried() -> None:
    """The list above has each message of each link."""
    assert {type(message) for _, message, _ in WIRE} == {kind for table in TABLES for kind in table.values()}


@pytest.mark.parametrize(("table", "body", "name"), CASES, ids=range(len(CASES)))
def test_a_field_of_another_type_is_refused(table: Any, body: dict[str, Any], name: str) -> None:
    """The refusal shows what came, whichever field it is."""
    wrong: object = {"sb_1": {}} if name == "run" else "../x"
    if name in ("host", "pool", "address", "peer", "version", "name"):
        wrong = ["a.example"]
    with pytest.raises(BadMessageError, match="is n"):
        read(table, {**body, name: wrong})


def test_a_message_without_a_field_is_refused() -> None:
    """The refusal names the fields that are missing, and the message."""
    with pytest.raises(BadMessageError, match="policy lacks cell, policy"):
        read(CONTROL_TO_WORKER, {"op": "policy"})
    with pytest.raises(UnknownMessageError, match="no operation 'attach'"):
        read(CONTROL_TO_WORKER, {"op": "attach", "cell": "sb_1", "ports": {}})


def test_a_worker_is_believed_as_far_as_it_counts() -> None:
    """Counts that are not numbers above 0, and what is unknown of a sandbox, are passed over."""
    said = {"sb_1": 2, "sb_2": 0, "sb_3": True, "sb_4": "5"}
    assert read(WORKER_TO_CONTROL, {"op": "unrecorded", "cells": said}) == messages.LostRecords({"sb_1": 2})
    about = {"id": 7, "name": "box", "connections": "many", "later": 1}
    put = read(CONTROL_TO_WORKER, {"op": "policy", "cell": "sb_1", "policy": {}, "sandbox": about})
    assert put == messages.PutPolicy("sb_1", {}, {"name": "box"})
    assert read(CONTROL_TO_WORKER, {"op": "policy", "cell": "sb_1", "policy": {}, "sandbox": 3}) == (
        messages.PutPolicy("sb_1", {}, {})
    )


@settings(max_examples=200, deadline=None)
@given(
    table=st.sampled_from(TABLES),
    op=st.sampled_from(sorted({op for table in TABLES for op in table})) | JSON,
    fields=st.dictionaries(st.sampled_from(NAMES), JSON, max_size=5),
)
def test_whatever_arrives_is_a_message_or_is_refused(table: Any, op: object, fields: dict[str, Any]) -> None:
    """Nothing else happens, and what was read is sent as something that reads as the same."""
    try:
        message = read(table, {"op": op, **fields})
    except BadMessageError:
        return
    again = read(table, json.loads(json.dumps(body_of(message))))
    assert body_of(again) == json.loads(json.dumps(body_of(message)))
