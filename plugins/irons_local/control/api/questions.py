"""Questions over HTTP: what people are asked in mode `ask`, and their answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from irons_local import times
from irons_local.control.api.routing import ApiCall, ApiRoute
from irons_local.control.egress.questions import ANSWERS, LONGEST_WAIT, Answer, RuleSet
from irons_local.control.schema.rules_schema import NOTE, PATTERN
from irons_local.control.schema.schemas import Schema, listing, optional, record, text
from irons_policy.event import LARGEST
from irons_policy.rules import SCOPES

MOST_OF_A_SET = 500
"""Hosts of a set that an answer allows."""
_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "integer"}
_TIME: Schema = {"type": "string", "format": "date-time"}
_PAGE: Schema = {
    "type": "object",
    "properties": {
        "questions": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "id": _TEXT,
                    "sandbox_name": _TEXT,
                    "sandbox_id": _TEXT,
                    "host": _TEXT,
                    "port": _NUMBER,
                    "protocol": _TEXT,
                    "pattern": {**_TEXT, "description": "The pattern of a rule for just that."},
                    "since": _TIME,
                    "last": _TIME,
                    "count": {**_NUMBER, "description": "Connections that were tried."},
                    "waiting": {**_NUMBER, "description": "Those of them that wait for the answer."},
                    "requests": {
                        **_NUMBER,
                        "description": "How often the agent inside asked for it, without a connection.",
                    },
                    "reason": {
                        **_TEXT,
                        "description": "The agent's last words for it: the sandbox's text, and not to be believed.",
                    },
                    "program": {
                        **_TEXT,
                        "description": "The program that waits, as the sandbox shows it: its text, and not to be believed. It comes a moment "
                        "after the question; empty where it is not known, as in a virtual machine.",
                    },
                    "pid": {
                        "type": ["integer", "null"],
                        "description": "Its process id inside.",
                    },
                    "new": {"type": "boolean", "description": "The sandbox had not tried the host before."},
                    "refused": {
                        **_NUMBER,
                        "description": "Connections there that were refused before, which a rule would have let pass.",
                    },
                    "below": {
                        "type": "array",
                        "items": _TEXT,
                        "description": "Other names below the same domain that the sandbox tried: the last ones.",
                    },
                    "below_count": {**_NUMBER, "description": "How many there are."},
                    "marks": {
                        "type": "array",
                        "items": _TEXT,
                        "description": "`random`: the name looks made by a machine. `punycode`: it stands for other letters. `paste`, "
                        "`tunnel`, `webhook`, `doh`: a known relay.",
                    },
                },
                "required": ["id", "sandbox_name", "sandbox_id", "host", "port", "since"],
            },
        },
        "others": {
            "type": "array",
            "description": "Places of a sandbox beyond its questions.",
            "items": {
                "type": "object",
                "properties": {"sandbox_name": _TEXT, "sandbox_id": _TEXT, "places": _NUMBER},
            },
        },
        "answers": {
            "type": "array",
            "description": "Answers that are not rules and count for a while yet.",
            "items": {
                "type": "object",
                "properties": {
                    "sandbox_name": _TEXT,
                    "sandbox_id": _TEXT,
                    "host": _TEXT,
                    "port": _NUMBER,
                    "pattern": _TEXT,
                    "answer": {
                        "type": "string",
                        "enum": ["once", "no"],
                        "description": "The next connection passes, or each is refused without a question.",
                    },
                    "seconds": {**_NUMBER, "description": "How long it counts yet."},
                },
            },
        },
        "token": {**_NUMBER, "description": "For `after` of the next request."},
        "watched": {"type": "boolean", "description": "Whether connections wait: someone watches."},
    },
    "required": ["questions", "token"],
}
_ANSWERED: Schema = {
    "type": "object",
    "properties": {
        "id": _TEXT,
        "answer": {"type": "string", "enum": list(ANSWERS)},
        "sandbox_name": _TEXT,
        "sandbox_id": _TEXT,
        "host": _TEXT,
        "port": _NUMBER,
        "rule": {"type": ["string", "null"], "description": "The pattern of the rule that was put."},
        "scope": {"type": "string", "enum": list(SCOPES), "description": "Who the answer is for."},
        "rules": {"type": "array", "items": _TEXT, "description": "The patterns of all rules that were put."},
        "waited": {**_NUMBER, "description": "Connections that waited for it."},
    },
}


async def list_questions(call: ApiCall) -> Mapping[str, Any]:
    """GET /questions."""
    questions, given = call.plane.questions, call.query
    wait = min(given.get("wait", 0.0), LONGEST_WAIT)
    only = None if call.owned is None else tuple(call.owned.sandboxes)
    if given.get("watch"):
        questions.watchers.watch(wait, given.get("idle"), only)
    found = await questions.page(given.get("after"), wait, only)
    return {
        "questions": [
            {
                "id": each.id,
                "sandbox_name": sandbox.name,
                "sandbox_id": sandbox.id,
                "host": each.host.text,
                "port": each.port,
                "protocol": each.protocol,
                "pattern": each.pattern,
                "since": times.rfc3339(each.since),
                "last": times.rfc3339(each.last),
                "count": each.count,
                "waiting": each.waiting,
                "requests": each.requests,
                "reason": each.reason,
                "program": found.programs[each.id].words,
                "pid": found.programs[each.id].pid,
                **found.details[each.id]._asdict(),
            }
            for each, sandbox in found.questions
        ],
        "others": [
            {"sandbox_name": sandbox.name, "sandbox_id": sandbox.id, "places": places}
            for sandbox, places in found.others
        ],
        "answers": [
            {
                "sandbox_name": sandbox.name,
                "sandbox_id": sandbox.id,
                "host": each.host,
                "port": each.port,
                "pattern": each.pattern,
                "answer": each.reply,
                "seconds": math.ceil(left),
            }
            for each, sandbox, left in found.answers
        ],
        "token": found.token,
        "watched": questions.watchers.watched(only),
    }


async def answer_question(call: ApiCall) -> Mapping[str, Any]:
    """POST /questions/{id}."""
    body = call.body
    said = cast("Answer", body["answer"])
    patterns = body.get("patterns")
    done = await call.plane.questions.answer(
        call.path["id"],
        said,
        all_of=body.get("scope") == "account",
        pattern=body.get("pattern"),
        hosts=None if patterns is None else RuleSet(tuple(patterns), body.get("note") or ""),
    )
    return {
        "id": done.question.id,
        "answer": said,
        "scope": body.get("scope") or "sandbox",
        "sandbox_name": done.sandbox.name,
        "sandbox_id": done.sandbox.id,
        "host": done.question.host.text,
        "port": done.question.port,
        "rule": done.rule,
        "rules": list(done.rules),
        "waited": done.waited,
    }


ROUTES = (
    ApiRoute(
        "GET",
        "/questions",
        list_questions,
        "What people are asked in mode `ask`, as soon as that is something else than at `after`: after "
        f"{LONGEST_WAIT:.0f} seconds at most. With `watch` the asker is there to answer, so connections wait; `idle` says for how "
        "many seconds no key was pressed there.",
        _PAGE,
        query={
            "after": {"type": "integer", "minimum": 0, "maximum": LARGEST},
            "wait": {"type": "number", "minimum": 0, "maximum": 86_400},
            "watch": {"type": "boolean"},
            "idle": {"type": "number", "minimum": 0, "maximum": 1_000_000_000},
        },
        fails=(503,),
    ),
    ApiRoute(
        "POST",
        "/questions/{id}",
        answer_question,
        "Answer a question: `once` and `no` are for what waits; `stop`, `hour`, `always` and `never` are rules, of its sandbox or, with "
        "the scope `account`, of all; with a `pattern` wider than the question's own, or `patterns`, a set of hosts that is allowed in place "
        "of that one: one covers it, and one that has a rule keeps it. `note` is kept with each rule of a set.",
        _ANSWERED,
        body=record(
            {
                "answer": text(8, enum=list(ANSWERS)),
                "scope": optional(text(8, enum=list(SCOPES))),
                "pattern": optional(PATTERN),
                "patterns": optional(listing(PATTERN, MOST_OF_A_SET)),
                "note": NOTE,
            },
            required=("answer",),
        ),
        fails=(404, 409, 503),
    ),
)
