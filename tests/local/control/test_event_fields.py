"""Every field of an event comes from a gateway's record to a client, by the one list of fields."""

from __future__ import annotations

from typing import Any

from tests.local.control.gateway_logs import RUN, Logs

from irons.client.models.events import event_of
from irons_local.control.api.audit import ROUTES
from irons_policy.event import FIELDS, RECORDED, BoolField, Event, HeadField, NumberField, WordField, record


def _samples() -> dict[str, Any]:
    """A value of each field that a record may have, none of them its default."""
    found: dict[str, Any] = {}
    for place, (name, kind) in enumerate(RECORDED.items(), 2):
        if isinstance(kind, WordField):
            found[name] = kind.words[0]
        elif isinstance(kind, NumberField):
            found[name] = place
        else:
            found[name] = True if isinstance(kind, BoolField) else f"{name}.example"
    return found


def test_a_field_of_a_record_reaches_the_client(logs: Logs) -> None:
    """Intake, table, API and client pass each of them on: none has a list of its own that lacks one."""
    said = _samples()
    logs.write({"kind": "event", "conn": 1, **said})
    logs.take()
    (row,) = logs.events()
    event = event_of(row, "")
    # Which connection it was is not for the record to say.
    expected = said | {"connection": f"{RUN}.1"}
    assert {name: getattr(event, name) for name in said} == expected
    assert all((event.time, event.sandbox, event.sandbox_id, event.id))


def test_an_empty_text_of_a_record_is_none(logs: Logs) -> None:
    """What a later record empties is no longer on the wire, as if it had never been there; older gateways write null."""
    for conn, empty in enumerate(("", None), 1):
        said = record(host="a.example", verdict="blocked", rule="a.example")
        logs.write({"kind": "open", "conn": conn, "host": "a.example"})
        logs.write({"kind": "verdict", "conn": conn, **said})
        logs.write({"kind": "verdict", "conn": conn, **said, "rule": empty, "mode": empty})
    logs.take()
    for row in logs.events():
        assert not {"rule", "mode"} & row.keys()
        assert event_of(row, "").rule == Event().rule


def test_an_event_keeps_the_id_of_its_connection(logs: Logs) -> None:
    """It is the id of the gateway's log lines, from the opening record to the last, no matter what a record says of it."""
    logs.write({"kind": "open", "conn": 7, "host": "a.example"})
    logs.take()
    logs.write({"kind": "verdict", "conn": 7, "host": "a.example", "verdict": "allowed"})
    logs.take()
    logs.write({"kind": "close", "conn": 7, "ended": "closed", "connection": "another"})
    logs.take()
    (row,) = logs.events()
    assert row["connection"] == f"{RUN}.7"


def test_the_schema_describes_each_field() -> None:
    """The API's page has all fields of the wire, and no other."""
    page = next(route.answer for route in ROUTES if route.path == "/audit/egress")
    described = page["properties"]["events"]["items"]["properties"]
    keys = {kind.key if isinstance(kind, HeadField) else name for name, kind in FIELDS.items()}
    # The further field says which `deny` is `ask`.
    assert described.keys() == {"type", "ask"} | keys
