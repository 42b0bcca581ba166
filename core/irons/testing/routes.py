"""The routes of the fake v0 API: what a request changes and what it is answered."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from irons.testing.answers import FakeAnswer, FakeRefusal, sandbox_of
from irons.testing.audit_routes import audit, change_log, is_wanted
from irons.testing.egress_routes import egress

if TYPE_CHECKING:
    from irons.testing.fake_state import Call, FakeSandbox, FakeState

_JSON = {"Content-Type": "application/json"}


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
                sandbox_of(api, name)
                return audit(api, call, name)
            case ["sandboxes", name, "audit", "hosts"] if "audit-hosts" in api.extensions:
                sandbox_of(api, name)
                return {"hosts": [row for row in api.hosts if is_wanted(row, call.query)]}
            case ["sandboxes", name, "audit", "changes"] if "change-log" in api.extensions:
                sandbox_of(api, name)
                return change_log(api, call, name)
            case ["sandboxes", name, "audit", "totals"] if "audit-totals" in api.extensions:
                sandbox_of(api, name)
                counts = [(event.get("count", 1), event.get("allowed")) for event in api.events]
                return {
                    "connections": sum(count for count, _ in counts),
                    "refused": sum(count for count, allowed in counts if not allowed),
                }
            case ["sandboxes", name, "egress", *rest] if "rules" in api.extensions:
                return egress(api, call, rest, sandbox_of(api, name))
            case ["sandboxes", name, "access", *rest] if "access" in api.extensions:
                return _access(call, sandbox_of(api, name), rest)
            case ["sandboxes", name, "snapshots" | "fork" | "restore" as what] if (
                "snapshots" in api.extensions
            ):
                return _copies(api, call, sandbox_of(api, name), what)
            case ["snapshots", *rest] if "snapshots" in api.extensions:
                return _snapshots(api, call, rest)
            case ["sandboxes", name, *rest]:
                return _sandbox(api, call, sandbox_of(api, name), rest)
            case ["egress", *rest]:
                return egress(api, call, rest, None)
            case ["audit", "egress"] if "audit-filters" in api.extensions:
                return audit(api, call, None)
            case ["audit", "changes"] if "change-log" in api.extensions:
                return change_log(api, call, None)
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
