"""The routes of the fake v0 API: what a request changes and what it is answered."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from irons.record import NamedTuple
from irons_policy.modes import MODES, wire_mode
from irons_policy.patterns import HTTPS

if TYPE_CHECKING:
    from irons.testing.fake_state import Call, FakeSandbox, FakeState

_JSON = {"Content-Type": "application/json"}


class FakeAnswer(NamedTuple):
    """An HTTP answer."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = {}


class FakeRefusal(Exception):
    """An error answer: its status and text; without a text there is no such route."""

    def __init__(self, status: int, text: str = "") -> None:
        """Take both."""
        super().__init__(text)
        self.status = status
        self.text = text


def answer(api: FakeState, call: Call, raw_path: str) -> FakeAnswer:
    """Answer one request; `raw_path` still has its percent signs."""
    try:
        if api.key is not None and call.headers.get("Authorization") != f"Bearer {api.key}":
            raise FakeRefusal(401, "invalid API key")
        told = _route(api, call, [unquote(part) for part in raw_path.strip("/").split("/")])
    except FakeRefusal as refusal:
        if not refusal.text:
            return FakeAnswer(404, b"404 page not found\n", {"Content-Type": "text/plain"})
        return FakeAnswer(refusal.status, json.dumps({"error": refusal.text}).encode(), _JSON)
    return FakeAnswer(204) if told is None else FakeAnswer(200, json.dumps(told).encode(), _JSON)


def _route(api: FakeState, call: Call, path: list[str]) -> Any:
    with api.lock:
        match path:
            case ["sandboxes"]:
                return _sandboxes(api, call)
            case ["sandboxes", name, "audit", "egress"]:
                _of(api, name)
                return _audit(api, call, name)
            case ["sandboxes", name, "audit", "hosts"] if "audit-hosts" in api.extensions:
                _of(api, name)
                return {"hosts": [row for row in api.hosts if _wanted(row, call.query)]}
            case ["sandboxes", name, "audit", "changes"] if "change-log" in api.extensions:
                _of(api, name)
                return _change_log(api, call, name)
            case ["sandboxes", name, "audit", "totals"] if "audit-totals" in api.extensions:
                _of(api, name)
                counts = [(event.get("count", 1), event.get("allowed")) for event in api.events]
                return {
                    "connections": sum(count for count, _ in counts),
                    "refused": sum(count for count, allowed in counts if not allowed),
                }
            case ["sandboxes", name, "egress", *rest] if "rules" in api.extensions:
                return _egress(api, call, rest, _of(api, name))
            case ["sandboxes", name, "access", *rest] if "access" in api.extensions:
                return _access(call, _of(api, name), rest)
            case ["sandboxes", name, "snapshots" | "fork" | "restore" as what] if (
                "snapshots" in api.extensions
            ):
                return _copies(api, call, _of(api, name), what)
            case ["snapshots", *rest] if "snapshots" in api.extensions:
                return _snapshots(api, call, rest)
            case ["sandboxes", name, *rest]:
                return _sandbox(api, call, _of(api, name), rest)
            case ["egress", *rest]:
                return _egress(api, call, rest, None)
            case ["audit", "egress"] if "audit-filters" in api.extensions:
                return _audit(api, call, None)
            case ["audit", "changes"] if "change-log" in api.extensions:
                return _change_log(api, call, None)
            case ["questions", *rest] if "questions" in api.extensions:
                return _questions(api, call, rest)
            case ["images"] if "images" in api.extensions and call.method == "GET":
                return {"images": api.images}
            case ["version"] if api.extensions:
                return {"name": "fake", "version": "1", "api": "v0", "extensions": list(api.extensions)}
    raise FakeRefusal(404)


def _questions(api: FakeState, call: Call, rest: list[str]) -> Any:
    if not rest:

        def token() -> int:
            return zlib.crc32(repr(api.questions).encode())

        after, wait = call.query.get("after"), float(call.query.get("wait") or 0)
        api.lock.wait_for(lambda: str(token()) != after or api.closing.is_set(), wait)
        seen = {"questions": api.questions, "token": token(), "watched": "watch" in call.query}
        return {**seen, "answers": api.answers}
    found = next((each for each in api.questions if each["id"] == rest[0]), None)
    if found is None:
        raise FakeRefusal(404, f"there is no open question {rest[0]}")
    api.questions.remove(found)
    said, rule = call.body["answer"], f"{found['host']}:{found['port']}"
    answer = {**found, "answer": said, "waited": found.get("waiting", 0)}
    answer["scope"] = call.body.get("scope", "sandbox")
    answer["rule"] = None if said in ("once", "no") else call.body.get("pattern", rule)
    put = call.body.get("patterns") or ([answer["rule"]] if answer["rule"] else [])
    return {**answer, "rules": put}


def _sandboxes(api: FakeState, call: Call) -> Any:
    if call.method == "GET":
        if not api.has_list:
            raise FakeRefusal(404)
        known = [each for each in api.sandboxes.values() if _labelled(each, call.query.get("label"))]
        return {"sandboxes": [_sandbox_json(each) for each in known]}
    if call.method != "POST":
        raise FakeRefusal(405, "method not allowed")
    body = dict(call.body or {})
    name = body.pop("name", "")
    if name in api.sandboxes:
        raise FakeRefusal(409, f"sandbox {name} exists already")
    made = api.add(name, "creating", becomes="ready", polls=api.polls)
    made.public_key = body.pop("public_key", "")
    made.mode = body.pop("mode", None)
    made.rules = list(body.pop("rules", None) or [])
    made.never = list(body.pop("never", None) or [])
    made.held = body.pop("held", False)
    made.labels = dict(body.pop("labels", None) or {})
    if "terms" in api.extensions:
        terms = {key: body.pop(key) for key in ("ttl", "rm", "idle_stop") if key in body}
        _give(made, terms)
    made.extra = body
    return {"id": made.id, "name": name, "status": made.status}


def _give(sandbox: FakeSandbox, terms: Mapping[str, Any]) -> None:
    """Record terms as they are returned; the fake's clock does not move."""
    sandbox.terms.update({key: value for key, value in terms.items() if key != "rm"})
    if "rm" in terms:
        sandbox.terms["ends_with"] = "destroy" if terms["rm"] else "stop"
    if "ttl" in terms:
        sandbox.terms |= {"ends_in": terms["ttl"], "ends_by": "ttl"}
        sandbox.terms.setdefault("ends_with", "stop")


def _access(call: Call, sandbox: FakeSandbox, rest: list[str]) -> Any:
    lines = sandbox.public_key.splitlines()
    if call.method == "POST":
        lines += [line for line in (call.body or {})["public_key"].splitlines() if line not in lines]
    if call.method == "DELETE":
        lines = [line for line in lines if _key(line)["id"] not in rest]
    sandbox.public_key = "".join(f"{line}\n" for line in lines)
    return {"keys": [_key(line) for line in lines]}


def _key(line: str) -> dict[str, str]:
    kind, encoded, comment = (*line.split(None, 2), "", "")[:3]
    digest = hashlib.sha256(base64.b64decode(encoded)).digest()
    fingerprint = "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
    return {"id": digest.hex()[:16], "type": kind, "fingerprint": fingerprint, "comment": comment}


def _labelled(sandbox: FakeSandbox, asked: str | None) -> bool:
    for word in asked.split(",") if asked else ():
        key, equals, value = word.partition("=")
        if key not in sandbox.labels or (equals and sandbox.labels[key] != value):
            return False
    return True


def _sandbox(api: FakeState, call: Call, sandbox: FakeSandbox, rest: list[str]) -> Any:
    match call.method, rest:
        case "GET", []:
            told = _sandbox_json(sandbox)
            if sandbox.becomes:
                if api.progress:
                    told["metadata"] = {**sandbox.metadata, "progress": api.progress.pop(0)}
                # One that holds its answer has nothing else to say until the state changes.
                sandbox.polls = 0 if "wait" in call.query and not api.progress else sandbox.polls - 1
                if sandbox.polls <= 0:
                    sandbox.status, sandbox.becomes = sandbox.becomes, ""
            return told
        case "POST", ["start"]:
            return _change(api, sandbox, "starting", "ready")
        case "POST", ["stop"]:
            return _change(api, sandbox, "stopping", "stopped")
        case "PATCH", [] if "terms" in api.extensions:
            _give(sandbox, call.body)
            return _sandbox_json(sandbox)
        case "POST", ["extend"] if "terms" in api.extensions:
            if sandbox.terms.get("ttl") is None:
                raise FakeRefusal(409, f"{sandbox.name} has no deadline to extend")
            sandbox.terms["ends_in"] += call.body["seconds"]
            return _sandbox_json(sandbox)
        case "POST", ["hold"] if "holds" in api.extensions:
            api.lock.wait_for(
                lambda: not sandbox.held or api.closing.is_set(), float(call.query.get("wait") or 0)
            )
            return {"held": sandbox.held}
        case "DELETE", ["hold"] if "holds" in api.extensions:
            sandbox.held = False
            api.lock.notify_all()
            return {}
        case "DELETE", []:
            if sandbox.status in ("running", "ready"):
                raise FakeRefusal(409, f"sandbox {sandbox.name} is running")
            del api.sandboxes[sandbox.name]
            sandbox.held = False
            api.lock.notify_all()
            return None
        case "GET", ["ssh"]:
            if sandbox.status not in ("running", "ready"):
                raise FakeRefusal(409, f"sandbox {sandbox.name} is {sandbox.status}")
            return api.ssh
    raise FakeRefusal(404)


def _snapshots(api: FakeState, call: Call, rest: list[str]) -> Any:
    if call.method == "DELETE":
        if not any(each["name"] in rest for each in api.snapshots):
            raise FakeRefusal(404, f"there is no snapshot {rest[0]}")
        api.snapshots[:] = [each for each in api.snapshots if each["name"] not in rest]
        return {}
    return {"snapshots": api.snapshots}


def _copies(api: FakeState, call: Call, sandbox: FakeSandbox, what: str) -> Any:
    body = call.body or {}
    pause = 0.25 if sandbox.status == "ready" else None
    if call.method == "GET":
        return {"snapshots": [each for each in api.snapshots if each["sandbox"] == sandbox.name]}
    if what == "fork":
        taken = [name for name in body["names"] if name in api.sandboxes]
        if taken:
            raise FakeRefusal(409, f"there is a sandbox named {taken[0]!r} already; none was made")
        made = [api.add(name, "creating", becomes="ready", polls=api.polls) for name in body["names"]]
        for each in made:
            each.mode = body.get("mode") or sandbox.mode
            each.rules = body.get("rules") or list(sandbox.rules)
            each.held = body.get("held", False)
        return {"sandboxes": [_sandbox_json(each) for each in made], "pause": pause}
    if what == "restore" and sandbox.status != "stopped":
        raise FakeRefusal(409, f"{sandbox.name} is {sandbox.status}; stop it first")
    name = body.get("name") or f"{sandbox.name}-{len(api.snapshots) + 1}"
    row = {"name": name, "id": f"sn_{len(api.snapshots) + 1:016x}", "sandbox": sandbox.name, "pause": pause}
    api.snapshots.append(
        {**row, "created_at": sandbox.created_at, "note": body.get("note") or "", "size": None}
    )
    return api.snapshots[-1]


def _change(api: FakeState, sandbox: FakeSandbox, now: str, then: str) -> Any:
    if sandbox.status == then:
        raise FakeRefusal(409, f"sandbox {sandbox.name} is {then} already")
    sandbox.status, sandbox.becomes, sandbox.polls = now, then, api.polls
    return {}


def _egress(api: FakeState, call: Call, rest: list[str], sandbox: FakeSandbox | None) -> Any:
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
                api.mode = body["mode"]
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
    told: dict[str, Any] = wire_mode(api.mode)
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
    sandbox = _of(api, call.query["sandbox"]) if "sandbox" in call.query else None
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


def _audit(api: FakeState, call: Call, name: str | None) -> dict[str, Any]:
    token = int(call.query.get("pageToken") or 0)
    filters = "audit-filters" in api.extensions
    deadline = time.monotonic() + (float(call.query.get("wait") or 0) if "wait" in api.extensions else 0)
    while True:
        found = [
            (at, event)
            for at, event in enumerate(api.events[token:], token + 1)
            if (name is None or event["sandbox_name"] == name) and at not in api.rotated_ids
        ]
        if filters:
            found = [each for each in found if _wanted(each[1], call.query)]
        if "ids" in call.query:
            asked = set(map(int, call.query["ids"].split(",")))
            found = [each for each in found if each[0] in asked]
        changed = _changed(api, call, name, token)
        left = deadline - time.monotonic()
        if found or changed or left <= 0 or api.closing.is_set():
            break
        api.lock.wait(left)
    if filters and "limit" in call.query:
        found = found[-int(call.query["limit"]) :] if int(call.query["limit"]) else []
    part = found[: int(call.query.get("page_size") or api.page)]
    told: dict[str, Any] = {"events": [event for _, event in part]}
    if filters and call.query.keys().isdisjoint(("limit", "wait", "page_size")):
        part = found[: api.newest] if token else found[-api.newest :]
        told = {"events": [event for _, event in part]}
        if len(part) < len(found) and not token:
            told["left_out"] = len(found) - len(part)
    if api.tokens and (part or (filters and api.events)):
        # Irons' own server says up to where it has looked.
        told["page_token"] = (
            max(token, len(api.events)) if filters and len(part) == len(found) else part[-1][0]
        )
    if api.rotated and filters:
        told["rotated"] = api.rotated
    if api.unrecorded and filters:
        told["unrecorded"] = api.unrecorded
    if "export" in call.query and "audit-export" in api.extensions:
        told["unsettled"] = [at for at, _ in part if at in api.unsettled]
        of = [event["id"] for event in api.events if name in (None, event["sandbox_name"])]
        left = sum(1 for number in of if number > token and number not in api.rotated_ids)
        told["counts"] = {"ever": len(of), "left": left, "sandbox": "" if name is None else _of(api, name).id}
    if "columns" in call.query and "audit-columns" in api.extensions:
        names = [
            *call.query["columns"].split(","),
            *(["ask"] if any("ask" in row for row in told["events"]) else []),
        ]
        told |= {"columns": {name: [row.get(name) for row in told["events"]] for name in names}, "events": []}
    if "changes" in call.query and "audit-changes" in api.extensions:
        told |= {"changed": changed, "change_token": len(api.changes) + 1}
    return told


def _changed(api: FakeState, call: Call, name: str | None, token: int) -> list[dict[str, Any]]:
    """Events up to a token that changed after the cursor in a question; cursors count from 1."""
    since = min(int(call.query.get("changes") or sys.maxsize), len(api.changes) + 1)
    return [
        event
        for event in api.changes[since - 1 :]
        if event["id"] <= token and name in (None, event["sandbox_name"]) and _wanted(event, call.query)
    ]


def _change_log(api: FakeState, call: Call, name: str | None) -> dict[str, Any]:
    token = int(call.query.get("pageToken") or 0)
    deadline = time.monotonic() + float(call.query.get("wait") or 0)
    while True:
        found = [
            row
            for row in api.change_log
            if row["id"] > token
            and row["id"] not in api.rotated_changes
            and name in (None, row.get("sandbox_name"))
        ]
        left = deadline - time.monotonic()
        if found or left <= 0 or api.closing.is_set():
            break
        api.lock.wait(left)
    if "limit" in call.query:
        found = found[-int(call.query["limit"]) :]
    part = found[: int(call.query.get("page_size") or api.page)]
    last = part[-1]["id"] if len(part) < len(found) else max(token, len(api.change_log))
    rotated = sum(1 for gone in api.rotated_changes if token < gone <= last)
    return {
        "changes": part,
        "page_token": last,
        "ever": len(api.change_log),
        **({"rotated": rotated} if rotated else {}),
    }


_FILTERS: Mapping[str, Callable[[dict[str, Any], str], bool]] = {
    "since": lambda event, value: event["timestamp"] >= value,
    "until": lambda event, value: event["timestamp"] <= value,
    "verdict": lambda event, value: (
        event.get("verdict", "allowed" if event.get("allowed") else "blocked") == value
    ),
    "outcome": lambda event, value: event.get("outcome") in value.split(","),
    "host": lambda event, value: fnmatchcase(
        event["host"], value.lower().replace("[", "[[]").replace("?", "[?]")
    ),
}


def _wanted(event: dict[str, Any], query: Mapping[str, str]) -> bool:
    return all(holds(event, query[name]) for name, holds in _FILTERS.items() if name in query)


def _of(api: FakeState, name: str) -> FakeSandbox:
    found = api.sandboxes.get(name)
    if found is None:
        raise FakeRefusal(404, f"there is no sandbox {name}")
    return found


def _sandbox_json(sandbox: FakeSandbox) -> dict[str, Any]:
    return {
        "name": sandbox.name,
        "id": sandbox.id,
        "status": sandbox.status,
        "created_at": sandbox.created_at,
        "updated_at": sandbox.updated_at,
        "metadata": sandbox.metadata,
        **({"labels": sandbox.labels} if sandbox.labels else {}),
        # Texts are returned as they were sent, such as a note; clients leave out what they do not know.
        **{key: value for key, value in sandbox.extra.items() if isinstance(value, str)},
        **{key: value for key, value in sandbox.terms.items() if value is not None},
    }
