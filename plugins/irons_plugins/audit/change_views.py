"""How changes are shown to a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from irons.terminal.words import mode_word
from irons.text import clean, local_time

if TYPE_CHECKING:
    from irons.client.models.changes import ChangeRecord

_ALL = "all sandboxes"
_SAID = 12
_NAME = 16
"""Characters of a client's claim, and of a sandbox's or a key's name, in a table."""

_TERMS = {"ends_at": "ends at", "idle_stop": "idle stop", "rm": "destroyed at its end:"}
_VERBS = {
    "rule-added": "added",
    "rule-changed": "changed",
    "rule-removed": "removed",
    "rule-ended": "ended",
    "key-made": "made API key",
    "key-revoked": "revoked API key",
    "member-added": "made a token for member",
    "member-joined": "joined as member",
    "member-removed": "removed member",
    "access-added": "access for",
    "access-removed": "no access for",
}


def who(row: Mapping[str, Any]) -> str:
    """Return who made a change: the user's number, the key, or `irons` for the server itself."""
    if row["by"] == "uid":
        return f"uid {row['uid']}"
    if row["by"] == "key":
        return f"key {clean(row['key_label'] or row['key_id'], limit=_NAME)}"
    return str(row["by"])


def who_here(row: Mapping[str, Any]) -> str:
    """Return the same with the user's name on this machine."""
    if row["by"] != "uid":
        return who(row)
    from pwd import getpwuid

    try:
        name = getpwuid(row["uid"]).pw_name
    except (KeyError, OverflowError, TypeError):
        return who(row)
    # A user may have any name; those of other origins are theirs.
    return who(row) if name == "irons" else name


def claim(row: Mapping[str, Any]) -> str:
    """Return what the client claims to be, which nothing checks."""
    return clean(row["claimed_face"], limit=_SAID)


def scope(row: Mapping[str, Any]) -> str:
    """Return the sandbox that was changed, or that it was all of them; nothing for an API key."""
    if row["what"].startswith("key-"):
        return ""
    return str(row["sandbox"] or _ALL)


def place(row: Mapping[str, Any]) -> str:
    """Return the scope, cut to what a table has room for."""
    return clean(scope(row), limit=_NAME)


def told(row: Mapping[str, Any]) -> str:
    """Return a change in a few words."""
    what, subject, before, after = row["what"], row["subject"], row["before"], row["after"]
    kind, _, _ = what.partition("-")
    match kind:
        case "rule":
            text = f"{_VERBS.get(what, what)} {_rule(after or before)} {subject}{_differs(before, after)}"
        case "mode":
            text = f"mode {_mode(after)}, was {_mode(before)}"
        case "policy":
            text = f"policy of {after.get('rules', 0)} rules applied"
        case "key":
            text = f"{_VERBS.get(what, what)} {subject}"
        case "access":
            text = f"{_VERBS.get(what, what)} {(after or before).get('comment') or subject}"
        case "terms":
            text = "; ".join(
                f"{_TERMS.get(name, name)} {_term(after.get(name))}, was {_term(before.get(name))}"
                for name in dict.fromkeys((*before, *after))
                if before.get(name) != after.get(name)
            )
        case "question":
            text = _question(what, subject, after)
        case "hold":
            text = "lives on without its client"
        case "sandbox":
            text = what.removeprefix("sandbox-")
            if what == "sandbox-created" and after:
                text += f" {_state({key: after[key] for key in ('image', 'mode', 'ttl') if key in after})}"
        case _:
            text = f"{what} {subject}"
    return f"{text.rstrip()}: {row['reason']}" if row["reason"] else text.rstrip()


def _question(what: str, subject: str, after: Mapping[str, Any]) -> str:
    if what != "question-answered":
        return f"no answer about {subject}"
    terminal = after.get("terminal")
    return f"answered {after.get('answer', '')} about {subject}{f' at {terminal}' if terminal else ''}"


def colour(row: Mapping[str, Any]) -> str:
    """Return the colour of a change: yellow for what opens something, red for what failed."""
    if row["what"] == "sandbox-failed":
        return "red"
    opens = (
        row["after"].get("list") == "allow"
        or row["before"].get("list") == "deny"
        or row["after"].get("mode") == "warn"
        or row["what"] in ("key-made", "access-added")
    )
    return "yellow" if opens else ""


def exact(time: object) -> str:
    """Return a time to the second."""
    from irons_plugins.audit.views import exact as to_the_second

    return to_the_second(time)


def state_before(row: Mapping[str, Any]) -> str:
    """Return the state before."""
    return _state(row["before"])


def state_after(row: Mapping[str, Any]) -> str:
    """Return the state then."""
    return _state(row["after"])


def fields(change: ChangeRecord) -> str:
    """Return a change as tab-separated fields: time, who, claimed face, request, sandbox, what, subject, before, after, reason."""
    row = change._asdict()
    texts = (
        f"key {change.key_label or change.key_id}" if change.by == "key" else who(row),
        change.claimed_face,
        change.request,
        change.sandbox,
        change.what,
        change.subject,
        _state(change.before),
        _state(change.after),
        change.reason,
    )
    return "\t".join((local_time(change.time) if change.time else "", *map(clean, texts)))


def live(change: ChangeRecord, columns: int | None) -> list[tuple[str, str]]:
    """Return the parts of a line that a person follows."""
    return _live(change, columns, who(change._asdict()))


def live_here(change: ChangeRecord, columns: int | None) -> list[tuple[str, str]]:
    """Return the same with users' names."""
    return _live(change, columns, who_here(change._asdict()))


def _live(change: ChangeRecord, columns: int | None, author: str) -> list[tuple[str, str]]:
    from irons_plugins.audit.views import clock, cut

    row = change._asdict()
    said = claim(row)
    by = f"{clean(author)} (claims {said})" if said else clean(author)
    where = scope(row)
    parts = [
        ("bright_black", f"{clock(change.time)}  "),
        ("", f"{by}  {clean(where, limit=_NAME)}{'  ' if where else ''}"),
        (colour(row), clean(told(row))),
    ]
    return cut(parts, columns)


def _rule(state: Mapping[str, Any]) -> str:
    return clean(str(state.get("list", "")))


def _differs(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return what of a rule is other than it was; what of a rule beyond its pattern matters where it comes or goes."""
    if before and after:
        parts = [
            f"{name} {_value(after.get(name))}, was {_value(before.get(name))}"
            for name in dict.fromkeys((*before, *after))
            if before.get(name) != after.get(name)
        ]
        return f" ({'; '.join(parts)})" if parts else ""
    pins = (after or before).get("private")
    return f" (private {_value(pins)})" if pins else ""


def _term(value: object) -> str:
    """Return a limit of a sandbox's life: seconds, a time, or whether it is destroyed."""
    if type(value) is int:
        return f"{value:,} s"
    if not isinstance(value, str):
        return _value(value) if value else "none" if value is None else "no"
    from datetime import datetime

    try:
        return f"{datetime.fromisoformat(value).astimezone():%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return value


def _mode(state: Mapping[str, Any]) -> str:
    mode = state.get("mode")
    return mode_word(str(mode)) if mode else "of all sandboxes"


def _state(state: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in state.items())


def _value(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value in (None, "") else str(value)
