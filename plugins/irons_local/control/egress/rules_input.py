"""Parse and check the rules and patterns of API requests; an error names what is wrong, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from irons_local import clocks
from irons_local.control.schema.errors import HttpError, bad, conflict
from irons_local.control.store.terms import SECOND
from irons_policy.ends import LONGEST, Moment, RuleEnd, read_end
from irons_policy.patterns import Pattern, PatternError, read_never, read_pattern
from irons_policy.rules import ListName, Rule, RuleError, make_rule

Given = TypeVar("Given")
Read = TypeVar("Read")


class _EndError(ValueError):
    """An end that no rule can have; the message says why."""


def rule_of(given: Mapping[str, Any], *, may_be_over: bool = False) -> Rule:
    """A rule as a request gives it, in its one spelling.

    Args:
        given: `pattern` and `list`, and optionally `private`, `note`, `broad`, and `for` or `until`.
        may_be_over: take it also where its end has come; see `refuse_ended`.

    Raises:
        HttpError: the pattern, an address or the end is not one; the text says why.
    """
    text = str(given.get("pattern", ""))
    kind: ListName = "deny" if given.get("list") == "deny" else "allow"
    try:
        return make_rule(
            text,
            kind,
            private=given.get("private") or (),
            broad=bool(given.get("broad")),
            note=given.get("note") or "",
            until=_end(given, may_be_over=may_be_over),
        )
    except _EndError as error:
        raise bad(f"{shown(text)}: {error}") from None
    except RuleError as error:
        if error.private:
            raise bad(f"private {shown(error.private)} of {shown(text)}: {error}") from error
        raise bad(f"{shown(text)}: {error}") from error


def rules_of(given: Sequence[Mapping[str, Any]], *, may_be_over: bool = False) -> tuple[Rule, ...]:
    """Rules as a request gives them, in its order.

    Args:
        given: the rules.
        may_be_over: take also those whose end has come; see `refuse_ended`.

    Raises:
        HttpError: one of them is bad or over, or two have the same pattern; the text says which.
    """
    return _each_once(
        "rules", given, lambda each: rule_of(each, may_be_over=may_be_over), lambda rule: rule.pattern.text
    )


def refuse_ended(rules: Iterable[Rule], now: Moment, read: Iterable[Rule]) -> None:
    """Refuse rules whose end has come.

    Args:
        rules: in the order of the request.
        now: the moment.
        read: the rules that the client has read: the request is not at fault where one of these has ended since.

    Raises:
        HttpError: there is one; 409 where it is one of `read`, so that the client reads them again, else 400.
    """
    known = {(rule.pattern.text, rule.until) for rule in read}
    for index, rule in enumerate(rules):
        if rule.until is not None and rule.until.over(now):
            problem = conflict if (rule.pattern.text, rule.until) in known else bad
            raise problem(f"rules[{index}]: {shown(rule.pattern.text)}: {_over(rule.until)}")


def rules_to_put(body: Mapping[str, Any], listed: ListName) -> tuple[Rule, ...]:
    """The rules of a request to allow or deny: one for `domain`, or one for each of `domains`.

    Args:
        body: the request; its `private`, `note`, `broad`, `for` and `until` are of all rules.
        listed: the list they go to.

    Raises:
        HttpError: one of them is bad, or two have the same pattern; the text says which.
    """
    common = {key: body[key] for key in ("private", "note", "broad", "for", "until") if key in body}

    def rule(text: str) -> Rule:
        return rule_of({**common, "pattern": text, "list": listed})

    if _is_single(body):
        return (rule(body["domain"]),)
    return _each_once("domains", body["domains"], rule, lambda rule: rule.pattern.text)


def patterns_to_remove(body: Mapping[str, Any]) -> tuple[str, ...]:
    """The patterns of a request to remove rules, in their one spelling: `domain`, or each of `domains`.

    Raises:
        HttpError: one is not a pattern, or two are the same; the text says which.
    """

    def spelled(text: str) -> str:
        try:
            return read_pattern(text).text
        except PatternError as error:
            raise bad(f"{shown(text)}: {error}") from error

    if _is_single(body):
        return (spelled(body["domain"]),)
    return _each_once("domains", body["domains"], spelled, str)


def check_ends(rules: Iterable[Rule], sandbox: str | None) -> None:
    """Refuse rules for all sandboxes that end when one stops.

    Raises:
        HttpError: there is one.
    """
    for rule in rules if sandbox is None else ():
        if rule.until is not None and rule.until.at is None:
            raise bad(f"{shown(rule.pattern.text)}: a rule until stop is for one sandbox, not for all")


def _end(given: Mapping[str, Any], *, may_be_over: bool) -> RuleEnd | None:
    """When a rule ends by itself, by both clocks.

    Raises:
        _EndError: it is no time, or too far away, or is over and may not be.
    """
    seconds, text = given.get("for"), given.get("until")
    if seconds is None and text is None:
        return None
    if seconds is not None and text is not None:
        raise _EndError("a rule has 'for' or 'until', and not both")
    now = clocks.moment()
    if seconds is not None:
        return RuleEnd(now.wall + seconds * SECOND, now.up + seconds * SECOND)
    try:
        until = read_end(str(text))
    except ValueError as error:
        raise _EndError(f"until: {error}") from error
    left = until.left(now)
    if left is None or until.at is None:
        return until
    if left <= 0 and not may_be_over:
        raise _EndError(_over(until))
    if left > LONGEST * SECOND:
        raise _EndError(f"until {until.text}: that is more than a year away")
    return RuleEnd(until.at, now.up + left)


def _over(until: RuleEnd) -> str:
    return f"until {until.text}: that is over"


def never_of(given: Sequence[str]) -> tuple[Pattern, ...]:
    """What no person is to be asked about, as a request gives it.

    Raises:
        HttpError: one of it is not a pattern; the text says which and why.
    """
    try:
        return read_never(given)
    except PatternError as error:
        raise bad(f"never: {error}") from error


def shown(text: str) -> str:
    """What was typed, for an error: quoted, and cut."""
    return repr(text if len(text) <= 100 else f"{text[:100]}…")


def _is_single(body: Mapping[str, Any]) -> bool:
    if ("domain" in body) == ("domains" in body):
        raise bad("the body must have 'domain' or 'domains', and not both")
    return "domain" in body


def _each_once(
    where: str, given: Sequence[Given], read: Callable[[Given], Read], pattern_of: Callable[[Read], str]
) -> tuple[Read, ...]:
    found: dict[str, Read] = {}
    for index, each in enumerate(given):
        try:
            one = read(each)
        except HttpError as error:
            raise HttpError(error.status, f"{where}[{index}]: {error.text}") from error
        pattern = pattern_of(one)
        if pattern in found:
            raise bad(f"{where}[{index}]: {pattern} is there twice")
        found[pattern] = one
    return tuple(found.values())
