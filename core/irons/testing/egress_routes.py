"""The routes of the fake v0 API about egress: rules, modes, policies and checks."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from irons.testing.answers import FakeRefusal, sandbox_of
from irons_policy.modes import MODES, wire_mode
from irons_policy.patterns import HTTPS

if TYPE_CHECKING:
    from irons.testing.fake_state import Call, FakeSandbox, FakeState


def egress(api: FakeState, call: Call, rest: list[str], sandbox: FakeSandbox | None) -> Any:
    """Answer what is asked below `egress` of a sandbox, or of all (None); `rest` is the path after that."""
    rules = api.rules if sandbox is None else sandbox.rules
    extended = "rules" in api.extensions
    body = call.body or {}
    match call.method, rest:
        case "GET", []:
            return _rules(api, rules, sandbox, extended=extended)
        case "POST", ["allow" | "deny" as kind]:
            done = _put(api, call, rules, kind)
            return {**_mode(api, sandbox), **done, **_followers(api, sandbox)} if extended else {}
        case "DELETE", ["rules"] if extended:
            return {**_remove(api, call, rules, [call.query["domain"]]), **_followers(api, sandbox)}
        case "POST", ["remove"] if "rule-batches" in api.extensions:
            return {**_remove(api, call, rules, body["domains"]), **_followers(api, sandbox)}
        case "PUT", [] if extended:
            return {**_replace(api, call, rules, sandbox), **_followers(api, sandbox)}
        case "GET", ["mode"]:
            return _mode(api, sandbox)
        case "PUT", ["mode"]:
            if _is_dry(api, call):
                return {**wire_mode(body["mode"]), "cut": api.cut}
            if sandbox is not None:
                sandbox.mode = body["mode"]
            elif body["mode"] in MODES:
                api.mode, api.undecided = body["mode"], False
            else:
                raise FakeRefusal(400, f"the mode is {' or '.join(MODES)}")
            return _followers(api, sandbox, of_mode=True) if extended else None
        case "GET", ["check"] if "check" in api.extensions:
            return _check(api, call)
    raise FakeRefusal(404)


def _followers(api: FakeState, sandbox: FakeSandbox | None, *, of_mode: bool = False) -> dict[str, Any]:
    """How many sandboxes a change for all of them is for."""
    if sandbox is not None:
        return {}
    return {"followers": sum(each.mode is None or not of_mode for each in api.sandboxes.values())}


def _put(api: FakeState, call: Call, rules: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """Put the rules of a request in one list; what it says of each."""
    body = dict(call.body)
    several = body.pop("domains", None) if "rule-batches" in api.extensions else None
    domains = [body.pop("domain")] if several is None else several
    if (seconds := body.pop("for", None)) is not None:
        body["until"] = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
    kept, told = list(rules), []
    for domain in domains:
        rule = {"pattern": domain, "list": kind, **body}
        old = next((r for r in kept if r["pattern"] == domain), None)
        kept = [r for r in kept if r is not old] + [rule]
        told.append({"pattern": domain, "list": kind, "changed": old != rule})
    return _ruled(api, call, rules, kept, told)


def _remove(api: FakeState, call: Call, rules: list[dict[str, Any]], domains: list[str]) -> dict[str, Any]:
    known = {rule["pattern"]: rule["list"] for rule in rules}
    for domain in domains:
        if domain not in known:
            raise FakeRefusal(404, f"there is no rule {domain}")
    kept = [rule for rule in rules if rule["pattern"] not in domains]
    told = [{"pattern": domain, "list": known[domain], "changed": True} for domain in domains]
    return _ruled(api, call, rules, kept, told)


def _ruled(
    api: FakeState,
    call: Call,
    rules: list[dict[str, Any]],
    kept: list[dict[str, Any]],
    told: list[dict[str, Any]],
) -> dict[str, Any]:
    if not _is_dry(api, call):
        rules[:] = kept
    one = told[0] if len(told) == 1 else {}
    return {**one, "cut": api.cut, **({"rules": told} if "rule-batches" in api.extensions else {})}


def _is_dry(api: FakeState, call: Call) -> bool:
    return "rule-batches" in api.extensions and call.query.get("dry_run") == "true"


def _rules(
    api: FakeState, rules: list[dict[str, Any]], sandbox: FakeSandbox | None, *, extended: bool
) -> dict[str, Any]:
    told: dict[str, Any] = {
        "allowed_domains": [r["pattern"] for r in rules if r["list"] == "allow"],
        "denied_domains": [r["pattern"] for r in rules if r["list"] == "deny"],
    }
    if extended:
        told |= {**_mode(api, sandbox), "rules": [{"private": [], "note": None, **rule} for rule in rules]}
        told["revision"] = _revision(api, rules, sandbox)
    if "policy-never" in api.extensions:
        told["never"] = list((sandbox or api).never)
    return told


def _revision(api: FakeState, rules: list[dict[str, Any]], sandbox: FakeSandbox | None) -> str:
    return str(
        zlib.crc32(repr((rules, sandbox.mode if sandbox else api.mode, (sandbox or api).never)).encode())
    )


def _mode(api: FakeState, sandbox: FakeSandbox | None) -> dict[str, Any]:
    if sandbox is not None:
        return {**wire_mode(sandbox.mode or api.mode), "source": "sandbox" if sandbox.mode else "account"}
    told: dict[str, Any] = {**wire_mode(api.mode), **({"undecided": True} if api.undecided else {})}
    if api.extensions:
        differs = {s.name: s.mode for s in api.sandboxes.values() if s.mode not in (None, api.mode)}
        told["differs"] = {name: wire_mode(mode or "")["mode"] for name, mode in differs.items()}
        told["asking"] = [name for name, mode in differs.items() if mode == "ask"]
    return told


def _replace(
    api: FakeState, call: Call, rules: list[dict[str, Any]], sandbox: FakeSandbox | None
) -> dict[str, Any]:
    if call.body.get("revision") not in (None, _revision(api, rules, sandbox)):
        raise FakeRefusal(409, "the policy has changed since it was read; read it again")
    before = {r["pattern"]: r for r in rules}
    after = {r["pattern"]: r for r in call.body["rules"]}
    told = {
        "added": [after[p] for p in after if p not in before],
        "removed": [before[p] for p in before if p not in after],
        "changed": [after[p] for p in after if p in before and _plain(after[p]) != _plain(before[p])],
        "cut": api.cut,
    }
    if call.query.get("dry_run") != "true":
        rules[:] = list(after.values())
        (sandbox or api).never = list(call.body.get("never", (sandbox or api).never))
        if "mode" in call.body and sandbox is not None:
            sandbox.mode = call.body["mode"]
        elif call.body.get("mode"):
            api.mode = call.body["mode"]
    return told


def _plain(rule: dict[str, Any]) -> tuple[Any, ...]:
    return (
        rule["list"],
        sorted(rule.get("private") or ()),
        rule.get("note") or "",
        rule.get("broad") is True,
        rule.get("until"),
    )


def _check(api: FakeState, call: Call) -> dict[str, Any]:
    host, _, port = call.query["host"].partition(":")
    sandbox = sandbox_of(api, call.query["sandbox"]) if "sandbox" in call.query else None
    own = [] if sandbox is None else sandbox.rules
    mode = (sandbox and sandbox.mode) or api.mode
    rule = next((r for r in (*own, *api.rules) if r["pattern"] == host), None)
    scope = "sandbox" if rule in own else "account"
    allowed = rule is not None and rule["list"] == "allow"
    verdict = "allowed" if allowed else ("warn" if mode == "warn" else "blocked")
    live = "live-check" in api.extensions and call.query.get("live") == "true" and verdict != "blocked"
    reached = {
        "outcome": "reached",
        "addresses": ["192.0.2.1"],
        "resolve_ms": 3,
        "address": "192.0.2.1",
        "connect_ms": 12,
        "proxy": False,
    }
    missed = {"outcome": "unresolved", "error": "its name was not resolved"}
    return {
        **({"live": missed if host.endswith(".invalid") else reached} if live else {}),
        "host": host,
        "port": int(port or HTTPS),
        "allowed": verdict != "blocked",
        "verdict": verdict,
        **wire_mode(mode),
        "rule": rule["pattern"] if rule else None,
        "list": rule["list"] if rule else None,
        "scope": scope if rule else None,
        "reason": f"rule {host} ({'this sandbox' if rule in own else 'all sandboxes'}) {rule['list']}s it"
        if rule
        else f"no rule allows {host}",
        "cause": "rule" if rule else "uncovered",
    }
