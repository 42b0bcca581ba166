"""A whole policy as one TOML file, a line a rule, made to be reviewed.

mode = "deny"

[allow]
"example.com" = "the note: why it may be reached"
"*.example.org:443" = ""
"db.example.net:5432" = { note = "the test database", private = ["10.0.0.5"] }
"example.net" = { until = "2026-12-01T12:00:00Z" }

[deny]
"telemetry.example.com" = "not from here"

[ask]
never = ["*.paste.example", "*:25"]
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irons.errors import UsageError
from irons.record import NamedTuple
from irons.text import clean
from irons_plugins.egress.patterns import checked
from irons_policy.modes import MODES
from irons_policy.rules import LISTS, ListName

if TYPE_CHECKING:
    from irons_policy.ends import RuleEnd
    from irons_policy.rules import Rule

LARGEST = 4 * 1024 * 1024
"""Bytes that a policy file may have."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")


class PolicyFile(NamedTuple):
    """What the file says; `mode`, and `never`, what no person is asked about, are None where it does not say."""

    mode: str | None
    rules: tuple[Rule, ...]
    never: tuple[str, ...] | None = None


def read_policy(path: str) -> PolicyFile:
    """Read a policy file; `-` is stdin's business and not read here.

    Raises:
        UsageError: It can't be read, is not TOML, or has entries that are invalid; they are named by line.
    """
    try:
        with Path(path).open("rb") as file:
            raw = file.read(LARGEST + 1)
        text = raw.decode()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"the policy file {path!r} can't be read: {why}") from None
    if len(raw) > LARGEST:
        raise UsageError(f"{path} is too large to be a policy file")
    return parse_policy(text, path)


def parse_policy(text: str, name: str) -> PolicyFile:
    """Read a policy's text; `name` is what messages call it. Raises `UsageError`."""
    import tomllib

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{name} is not TOML: {error}") from None
    problems = list(_strangers(document, text))
    mode = document.get("mode")
    if mode is not None and mode not in MODES:
        problems.append((_line(text, "", "mode"), f"mode is {' or '.join(MODES)}, not {mode!r}"))
    rules: list[Rule] = []
    seen: dict[str, str] = {}
    for kind in LISTS:
        table = document.get(kind, {})
        if not isinstance(table, dict):
            problems.append((_line(text, "", kind), f"{kind} is a table of rules"))
            continue
        for key, value in table.items():
            try:
                rule = _rule(key, value, kind)
                pattern = rule.pattern.text
                if pattern in seen:
                    raise UsageError(f"{pattern} is in the file already, as {seen[pattern]!r}")
            except UsageError as error:
                problems.append((_line(text, kind, key), error.message))
            else:
                seen[pattern] = key
                rules.append(rule)
    never = _never(document, text, problems)
    if problems:
        told = "; ".join(f"line {line}: {why}" if line else why for line, why in problems[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UsageError(f"{name}: {told}{more}", hint="nothing was changed")
    return PolicyFile(mode, tuple(rules), never)


def render_policy(mode: str | None, rules: Iterable[Rule], never: Iterable[str] = ()) -> str:
    """Return a policy as the text of its file, which reads back as the same policy."""
    kept = list(rules)
    lines = [f"mode = {_quoted(mode)}"] if mode else []
    for kind in LISTS:
        lines += ["", f"[{kind}]"]
        lines += [f"{_quoted(rule.pattern.text)} = {_value(rule)}" for rule in kept if rule.list == kind]
    closed = [_quoted(each) for each in never]
    if closed:
        lines += ["", "[ask]", "never = [", *(f"  {each}," for each in closed), "]"]
    return "\n".join(lines).lstrip("\n") + "\n"


def _never(document: Mapping[str, Any], text: str, problems: list[tuple[int, str]]) -> tuple[str, ...] | None:
    """Return what no person is asked about, in its one spelling; None where the file does not say. Adds to the problems."""
    from irons_policy.patterns import PatternError, read_never

    ask = document.get("ask")
    if ask is None:
        return None
    if not isinstance(ask, dict) or not {*ask} <= {"never"}:
        problems.append(
            (_line(text, "", "ask"), "ask is a table with never, a list of patterns, and nothing else")
        )
        return None
    if "never" not in ask:
        return None
    try:
        return tuple(each.text for each in read_never(ask["never"]))
    except PatternError as error:
        problems.append((_line(text, "ask", "never"), f"never: {error}"))
        return None


def _rule(key: str, value: object, kind: ListName) -> Rule:
    fields: object = {"note": value} if isinstance(value, str) else value
    if not isinstance(fields, dict):
        raise UsageError(
            f'{key!r} has a note ("…") or a table {{ note = "…", private = ["…"] }}, not {value!r}'
        )
    for field in fields:
        if field not in ("note", "private", "broad", "until"):
            raise UsageError(f"{key!r} has {field!r}, which is not one of note, private, broad and until")
    note, private, broad = fields.get("note", ""), fields.get("private", []), fields.get("broad", False)
    if not isinstance(note, str) or not isinstance(broad, bool):
        raise UsageError(f"{key!r}: a note is text, and broad is true or false")
    if not isinstance(private, list) or not all(isinstance(item, str) for item in private):
        raise UsageError(f"{key!r}: private is a list of addresses")
    return checked(key, kind, private=private, broad=broad, note=note, until=_end(key, fields.get("until")))


def _end(key: str, until: object) -> RuleEnd | None:
    from irons_policy.ends import read_end

    if isinstance(until, datetime):
        until = until.isoformat()
    try:
        return None if until is None else read_end(str(until))
    except ValueError as error:
        raise UsageError(f"{key!r}: until: {error}") from None


def _strangers(document: Mapping[str, Any], text: str) -> Iterator[tuple[int, str]]:
    for key in document:
        if key not in ("mode", "ask", *LISTS):
            yield _line(text, "", key), f"{clean(key)!r} is none of mode, allow, deny and ask"


def _line(text: str, table: str, key: str) -> int:
    """The number of the line that has this key in this table (its header where the key is a table); 0 where it is not plain to see."""
    spellings = {_quoted(key), f"'{key}'"} | ({key} if _BARE.fullmatch(key) else set())
    current = ""
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("["):
            current = stripped.strip("[] \t").partition("]")[0].strip()
            if not table and current == key:
                return number
            continue
        if current == table and any(
            stripped.startswith(spelling) and stripped[len(spelling) :].lstrip().startswith(("=", "."))
            for spelling in spellings
        ):
            return number
    return 0


def _value(rule: Rule) -> str:
    if not rule.private and not rule.broad and rule.until is None:
        return _quoted(rule.note)
    fields = [f"note = {_quoted(rule.note)}"] if rule.note else []
    if rule.private:
        fields.append(f"private = [{', '.join(map(_quoted, rule.pins))}]")
    if rule.broad:
        fields.append("broad = true")
    if rule.until is not None:
        fields.append(f"until = {_quoted(rule.until.text)}")
    return "{ " + ", ".join(fields) + " }"


def _quoted(text: str) -> str:
    """Return a TOML basic string (TOML 1.0); what is not printable, bidi marks included, is escaped."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    point = ord(character)
    if 0xD800 <= point <= 0xDFFF:
        return "\\uFFFD"
    return f"\\u{point:04X}" if point < 0x10000 else f"\\U{point:08X}"
