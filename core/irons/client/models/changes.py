"""The change log: who changed rules, modes, keys and sandboxes, and when."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypedDict

from irons.client.models.fields import count_of, rows_of, text_of, time_of, whole_of
from irons.record import NamedTuple


class ChangeFilters(TypedDict, total=False):
    """Which changes are wanted. None is left out.

    Attributes:
        since: From this time on (RFC 3339).
        until: Up to this time (RFC 3339).
        limit: Only the newest so many.
        wait: Seconds that the server may hold its answer until there is a change.
        page_size: Changes of one page, the oldest first.
    """

    since: str | None
    until: str | None
    limit: int | None
    wait: float | None
    page_size: int | None


class ChangeRecord(NamedTuple):
    """One change, as the server recorded it.

    Attributes:
        id: Its number; numbers only grow.
        time: When it was made.
        what: The kind of change, such as `rule-added`, `mode-set` or `sandbox-stopped`.
        by: `uid` for a user of the server's machine, `key` for an API key, `irons` for the server itself.
        uid: The user, as the server's kernel knows it.
        key_id: The id of the API key.
        key_label: The label that the key had.
        claimed_face: What the client claims to be (`cli`, `prompt`, `library`, …); nothing checks this.
        request: The id of the request, as the server's logs have it.
        sandbox: The sandbox's name at the time; empty where the change is for all sandboxes.
        sandbox_id: Its id.
        subject: What was changed: a pattern, a fingerprint, the label of a key.
        before: The state before; empty where there was none.
        after: The state then; empty where nothing is left.
        reason: Why, where no client asked for it.
    """

    id: int
    time: datetime | None
    what: str
    by: str
    uid: int | None = None
    key_id: str = ""
    key_label: str = ""
    claimed_face: str = ""
    request: str = ""
    sandbox: str = ""
    sandbox_id: str = ""
    subject: str = ""
    before: Mapping[str, Any] = {}
    after: Mapping[str, Any] = {}
    reason: str = ""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> ChangeRecord:
        """Read a row of `GET /audit/changes`."""
        get = row.get
        before, after = get("before"), get("after")
        return cls(
            id=count_of(get("id")),
            time=time_of(get("timestamp")),
            what=text_of(get("what")),
            by=text_of(get("by")),
            uid=whole_of(get("uid")),
            key_id=text_of(get("key_id")),
            key_label=text_of(get("key_label")),
            claimed_face=text_of(get("claimed_face")),
            request=text_of(get("request")),
            sandbox=text_of(get("sandbox_name")),
            sandbox_id=text_of(get("sandbox_id")),
            subject=text_of(get("subject")),
            before=before if isinstance(before, dict) else {},
            after=after if isinstance(after, dict) else {},
            reason=text_of(get("reason")),
        )


class ChangesPage(NamedTuple):
    """A part of the change log and the token that continues it (0: keep the one you have).

    `rotated` is how many changes between the token that was sent and this one made room for others, and `ever` how many there ever were;
    both are of all sandboxes.
    """

    changes: tuple[ChangeRecord, ...]
    token: int = 0
    rotated: int = 0
    ever: int = 0

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> ChangesPage:
        """Read an answer of `GET /audit/changes`."""
        return cls(
            tuple(map(ChangeRecord.of, rows_of(answer, "changes"))),
            count_of(answer.get("page_token")),
            count_of(answer.get("rotated")),
            count_of(answer.get("ever")),
        )
