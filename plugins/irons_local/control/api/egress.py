"""Egress rules and modes over HTTP, of the account and of each sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from irons_local import clocks
from irons_local.control.api.routing import ApiCall, ApiRoute, Handler
from irons_local.control.egress.rules_and_modes import PolicyChange
from irons_local.control.egress.rules_input import (
    check_ends,
    never_of,
    patterns_to_remove,
    rules_of,
    rules_to_put,
)
from irons_local.control.schema.errors import bad
from irons_local.control.schema.rules_schema import (
    BROAD,
    FOR,
    MOST_RULES,
    NEVER,
    NOTE,
    PATTERN,
    PRIVATE,
    RULES,
    SHOWN_MODE,
    SHOWN_RULE,
    UNTIL,
)
from irons_local.control.schema.schemas import Schema, listing, optional, record, text
from irons_local.control.store.sandboxes import NAME
from irons_local.times import rfc3339
from irons_policy.causes import Cause
from irons_policy.modes import MODES, VERDICTS, wire_mode
from irons_policy.patterns import HTTPS, covers, read_pattern
from irons_policy.rules import LISTS, SCOPES, ListName, Rule

_MODE: Schema = text(8, enum=list(MODES))
_PATTERNS: dict[str, Schema] = {"domain": PATTERN, "domains": listing(PATTERN, MOST_RULES)}
"""One pattern, as a v0 client sends it, or several."""
_PUT_RULES = record(
    {**_PATTERNS, "private": PRIVATE, "note": NOTE, "broad": BROAD, "for": FOR, "until": UNTIL}
)
_REMOVE_RULES = record(_PATTERNS)
_DRY_RUN: Schema = {"type": "boolean"}
_CHANGED_RULE: dict[str, Schema] = {
    "pattern": {"type": "string"},
    "covers": {"type": "string"},
    "list": {"type": "string", "enum": list(LISTS)},
    "changed": {"type": "boolean"},
}
_FOLLOWERS: Schema = {
    "type": "integer",
    "description": "For all sandboxes: how many there are that follow what was changed.",
}
_RULE_ANSWER: Schema = {
    "type": "object",
    "properties": {
        **_CHANGED_RULE,
        "followers": _FOLLOWERS,
        "cut": {"type": "integer"},
        **SHOWN_MODE,
        "rules": {"type": "array", "items": {"type": "object", "properties": _CHANGED_RULE}},
    },
}
_SHOWN: Schema = {
    "type": "object",
    "properties": {
        "allowed_domains": {"type": "array", "items": {"type": "string"}},
        "denied_domains": {"type": "array", "items": {"type": "string"}},
        **SHOWN_MODE,
        "rules": {"type": "array", "items": SHOWN_RULE},
        "never": {"type": "array", "items": {"type": "string"}},
        "revision": {
            "type": "string",
            "description": "Names just this state of mode, rules and `never`, for PUT.",
        },
    },
    "required": ["allowed_domains", "denied_domains"],
}
_DIFFERENCE: Schema = {
    "type": "object",
    "properties": {
        **{name: {"type": "array", "items": SHOWN_RULE} for name in ("added", "removed", "changed")},
        "cut": {"type": "integer"},
        "followers": _FOLLOWERS,
    },
}
_DECISION: Schema = {
    "type": "object",
    "properties": {
        "host": {"type": "string"},
        "port": {"type": "integer"},
        "allowed": {"type": "boolean"},
        "verdict": {"type": "string", "enum": list(VERDICTS)},
        **SHOWN_MODE,
        "rule": {"type": ["string", "null"]},
        "list": {"type": ["string", "null"]},
        "scope": {"type": ["string", "null"]},
        "reason": {"type": "string"},
        "covered": {
            "type": "boolean",
            "description": "Where a deny rule decides: an allow rule covers it, too.",
        },
        "live": {
            "type": "object",
            "properties": {
                "outcome": {"type": "string"},
                "addresses": {"type": "array", "items": {"type": "string"}},
                "resolve_ms": {"type": "integer"},
                "address": {"type": ["string", "null"]},
                "connect_ms": {"type": "integer"},
                "proxy": {"type": "boolean"},
                "cause": {"type": "string"},
                "error": {"type": "string"},
            },
        },
        "cause": {"type": "string", "enum": list(Cause)},
    },
}


async def show_rules(call: ApiCall) -> Mapping[str, Any]:
    """GET …/egress."""
    shown = await call.plane.egress.show(_name(call))
    return {
        "allowed_domains": [rule.pattern.text for rule in shown.rules if rule.list == "allow"],
        "denied_domains": [rule.pattern.text for rule in shown.rules if rule.list == "deny"],
        **wire_mode(shown.mode),
        "rules": [_rule(rule) for rule in shown.rules],
        "never": [each.text for each in shown.never],
        "revision": shown.revision,
    }


async def replace_rules(call: ApiCall) -> Mapping[str, Any]:
    """PUT …/egress."""
    _account_has_a_mode(call)
    new = await asyncio.to_thread(rules_of, call.body["rules"], may_be_over=True)
    check_ends(new, _name(call))
    never = None if "never" not in call.body else await asyncio.to_thread(never_of, call.body["never"])
    found, cut = await call.plane.egress.replace(_name(call), new, call.body, dry=_dry(call), never=never)
    return {
        **{
            kind: [_rule(change.rule) for change in found if change.kind == kind]
            for kind in ("added", "removed", "changed")
        },
        "cut": cut,
        **await _followers(call, of_mode=False),
    }


async def allow(call: ApiCall) -> Mapping[str, Any]:
    """POST …/egress/allow."""
    return await _put(call, "allow")


async def deny(call: ApiCall) -> Mapping[str, Any]:
    """POST …/egress/deny."""
    return await _put(call, "deny")


async def remove_rule(call: ApiCall) -> Mapping[str, Any]:
    """DELETE …/egress/rules."""
    return await _remove(call, {"domain": call.query["domain"]})


async def remove_rules(call: ApiCall) -> Mapping[str, Any]:
    """POST …/egress/remove."""
    return await _remove(call, call.body)


async def show_mode(call: ApiCall) -> Mapping[str, Any]:
    """GET …/egress/mode."""
    name = _name(call)
    shown = await call.plane.egress.show(name)
    if name is None:
        others = await call.plane.egress.differing()
        asking = sorted(each for each, mode in others.items() if mode == "ask")
        return {
            **wire_mode(shown.mode),
            "differs": {each: wire_mode(mode)["mode"] for each, mode in others.items()},
            **({"asking": asking} if asking else {}),
            **({"undecided": True} if await call.plane.egress.is_undecided() else {}),
        }
    return {**wire_mode(shown.mode), "source": shown.source}


async def set_mode(call: ApiCall) -> Mapping[str, Any]:
    """PUT …/egress/mode."""
    _account_has_a_mode(call)
    done = await call.plane.egress.set_mode(_name(call), call.body["mode"], dry=_dry(call))
    return {
        **wire_mode(done.mode),
        "changed": done.changed,
        "cut": done.cut,
        **await _followers(call, of_mode=True),
    }


async def check_host(call: ApiCall) -> Mapping[str, Any]:
    """GET /egress/check."""
    host, port = _host_and_port(call.query["host"])
    live = bool(call.query.get("live"))
    judged, decision, found = await call.plane.egress.check(call.query.get("sandbox"), host, port, live=live)
    answer = {"host": judged.text, "port": port, **decision._asdict(), **wire_mode(decision.mode)}
    return answer if found is None else {**answer, "live": found}


def _of_both(
    method: str,
    path: str,
    handler: Handler,
    summary: str,
    answer: Schema,
    *,
    conflicts: bool = False,
    **more: Any,
) -> tuple[ApiRoute, ApiRoute]:
    fails = (404, *((409,) if conflicts else ()), 413, 503)
    return (
        ApiRoute(method, f"/egress{path}", handler, summary, answer, fails=fails, **more),
        ApiRoute(
            method,
            f"/sandboxes/{{name}}/egress{path}",
            handler,
            f"{summary} For one sandbox.",
            answer,
            fails=fails,
            **more,
        ),
    )


ROUTES = (
    *_of_both("GET", "", show_rules, "The rules and the mode.", _SHOWN),
    *_of_both(
        "PUT",
        "",
        replace_rules,
        "Replace the whole policy; a `mode` or `never` that is left out stays as it was. "
        "With the `revision` of the policy it was made from, it is refused (409) where that policy has changed since.",
        _DIFFERENCE,
        body=record(
            {"mode": optional(_MODE), "rules": RULES, "never": NEVER, "revision": optional(text(64))},
            required=("rules",),
        ),
        conflicts=True,
        query={"dry_run": _DRY_RUN},
    ),
    *_of_both(
        "POST",
        "/allow",
        allow,
        "Allow a pattern, or several `domains` at once; they leave the deny list.",
        _RULE_ANSWER,
        body=_PUT_RULES,
        query={"dry_run": _DRY_RUN},
    ),
    *_of_both(
        "POST",
        "/deny",
        deny,
        "Deny a pattern, or several `domains` at once; they leave the allow list.",
        _RULE_ANSWER,
        body=_PUT_RULES,
        query={"dry_run": _DRY_RUN},
    ),
    *_of_both(
        "POST",
        "/remove",
        remove_rules,
        "Remove the rules of several `domains` at once, or none of them where one has no rule.",
        _RULE_ANSWER,
        body=_REMOVE_RULES,
        query={"dry_run": _DRY_RUN},
    ),
    *_of_both(
        "DELETE",
        "/rules",
        remove_rule,
        "Remove a rule.",
        _RULE_ANSWER,
        query={"domain": PATTERN, "dry_run": _DRY_RUN},
        needs=("domain",),
    ),
    *_of_both(
        "GET",
        "/mode",
        show_mode,
        "The mode.",
        {
            "type": "object",
            "properties": {
                **SHOWN_MODE,
                "source": {"type": "string", "enum": list(SCOPES)},
                "differs": {"type": "object", "additionalProperties": SHOWN_MODE["mode"]},
                "asking": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": "Those of `differs` whose mode is `ask`.",
                },
                "undecided": {
                    "type": "boolean",
                    "description": "True while no sandbox was ever created and the mode of all was never set.",
                },
            },
            "required": ["mode"],
        },
    ),
    *_of_both(
        "PUT",
        "/mode",
        set_mode,
        "Set the mode; null lets a sandbox follow the account.",
        {"type": "object", "properties": {**SHOWN_MODE, "followers": _FOLLOWERS}},
        body=record({"mode": optional(_MODE)}, required=("mode",)),
        query={"dry_run": _DRY_RUN},
    ),
    ApiRoute(
        "GET",
        "/egress/check",
        check_host,
        "What the gateway would decide about a host and port, and by which rule; with `live` the gateway connects as well.",
        _DECISION,
        query={
            "host": text(300, minLength=1, pattern=r"^\S+$"),
            "sandbox": text(300, pattern=NAME),
            "live": {"type": "boolean"},
        },
        needs=("host",),
        fails=(404, 503),
    ),
)


async def _put(call: ApiCall, listed: ListName) -> Mapping[str, Any]:
    rules = await asyncio.to_thread(rules_to_put, call.body, listed)
    check_ends(rules, _name(call))
    done = _done(call.body, await call.plane.egress.put(_name(call), rules, dry=_dry(call)))
    return {**done, **await _followers(call, of_mode=False)}


async def _remove(call: ApiCall, given: Mapping[str, Any]) -> Mapping[str, Any]:
    patterns = await asyncio.to_thread(patterns_to_remove, given)
    done = _done(given, await call.plane.egress.remove(_name(call), patterns, dry=_dry(call)))
    return {**done, **await _followers(call, of_mode=False)}


async def _followers(call: ApiCall, *, of_mode: bool) -> Mapping[str, Any]:
    """How many sandboxes a change for all of them is for; nothing for a change of one."""
    return {} if _name(call) else {"followers": await call.plane.egress.followers(of_mode=of_mode)}


def _done(given: Mapping[str, Any], done: PolicyChange) -> Mapping[str, Any]:
    """What a change of rules did; the one rule of a `domain` is there as v0 clients know it, too."""
    rules = [
        {**each._asdict(), "covers": covers(read_pattern(each.pattern, mapped=True))} for each in done.rules
    ]
    one = rules[0] if "domain" in given else {}
    return {**one, "changed": done.changed, "cut": done.cut, **wire_mode(done.mode), "rules": rules}


def _dry(call: ApiCall) -> bool:
    return bool(call.query.get("dry_run"))


def _name(call: ApiCall) -> str | None:
    return call.path.get("name")


def _account_has_a_mode(call: ApiCall) -> None:
    if _name(call) is None and call.body.get("mode", "") is None:
        raise bad(f"the mode of all sandboxes is {' or '.join(MODES)}; only that of one can follow another")


def _rule(rule: Rule) -> Mapping[str, Any]:
    shown: dict[str, Any] = {
        "pattern": rule.pattern.text,
        "list": rule.list,
        "private": list(rule.pins),
        "broad": rule.broad,
        "note": rule.note or None,
        "covers": covers(rule.pattern),
    }
    if rule.until is not None:
        shown["until"] = rule.until.text
        left = rule.until.left(clocks.moment())
        if left is not None:
            shown["left"] = max(0, round(left / 1_000_000))
    return {**shown, "created_at": rfc3339(rule.created_at)} if rule.created_at else shown


def _host_and_port(given: str) -> tuple[str, int]:
    """HOST, HOST:PORT or [IPV6]:PORT; that of HTTPS where no port is given."""
    host, colon, port = given.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")) or given.endswith("]"):
        return given, HTTPS
    if not port.isascii() or not port.isdigit() or not 0 < int(port[:6]) < 65536:
        raise bad(f"{port[:20]!r} is not a port: a number from 1 to 65535")
    return host, int(port)
