"""What people are asked in mode `ask`: what the API answers about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from irons.client.models.fields import count_of, rows_of, text_of, texts_of, time_of, whole_of, word_of
from irons.record import NamedTuple

if TYPE_CHECKING:
    from datetime import datetime

Answer = Literal["once", "stop", "hour", "always", "no", "never"]
"""`once` and `no` are for the connections that wait; `stop` (until the sandbox stops), `hour`, `always` and `never` are rules."""


class _QuestionFields(NamedTuple):
    id: str
    sandbox: str
    pattern: str
    protocol: str = ""
    waiting: int = 0
    count: int = 0  # type: ignore[assignment]
    since: datetime | None = None
    host: str = ""
    port: int | None = None
    requests: int = 0
    reason: str = ""
    new: bool = False
    refused: int = 0
    below: tuple[str, ...] = ()
    below_count: int = 0
    marks: tuple[str, ...] = ()
    preset: str = ""
    preset_hosts: tuple[str, ...] = ()
    preset_version: str = ""
    preset_sends: str = ""
    program: str = ""
    pid: int | None = None


class OpenQuestion(_QuestionFields):
    """A question that no one has answered yet.

    Attributes:
        id: Its id, which an answer carries.
        sandbox: The sandbox that tries.
        pattern: The pattern of a rule for just that, HOST:PORT.
        protocol: What the first connection spoke.
        waiting: Connections that wait for the answer.
        count: Connections that were tried.
        since: When it was asked.
        host: The host.
        port: The port.
        requests: How often the agent inside asked for it, without a connection.
        reason: The agent's last words for that: the sandbox's text.
        new: The sandbox had not tried the host before.
        refused: Connections there that were refused before, which a rule would have let pass.
        below: Other names below the same domain that the sandbox tried: the last ones.
        below_count: How many there are.
        marks: `random` where the name looks made by a machine, `punycode` where it stands for other letters, and the kind of relay
            that it is known as: `paste`, `tunnel`, `webhook`, `doh`.
        preset: The preset that the host belongs to; found by who shows the question, not by the server.
        preset_hosts: All of that preset.
        preset_version: The date of that preset.
        preset_sends: What a sandbox can send there.
        program: The program that waits, where it is known: the sandbox's text.
        pid: Its process id inside.
    """

    __slots__ = ()

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> OpenQuestion:
        """Read a question of `GET /questions`."""
        host, port = text_of(row.get("host")), whole_of(row.get("port"))
        return cls(
            text_of(row.get("id")),
            text_of(row.get("sandbox_name")),
            text_of(row.get("pattern")) or f"{host}:{port}",
            text_of(row.get("protocol")),
            count_of(row.get("waiting")),
            count_of(row.get("count")),
            time_of(row.get("since")),
            host,
            port,
            count_of(row.get("requests")),
            text_of(row.get("reason")),
            row.get("new") is True,
            count_of(row.get("refused")),
            texts_of(row.get("below")),
            count_of(row.get("below_count")),
            texts_of(row.get("marks")),
            program=text_of(row.get("program")),
            pid=whole_of(row.get("pid")),
        )


class LastingAnswer(NamedTuple):
    """An answer that is not a rule, and that counts for a while.

    Attributes:
        sandbox: The sandbox.
        pattern: What it is for, HOST:PORT.
        answer: `once` lets the next connection pass, `no` refuses each without a question.
        seconds: How long it counts yet.
    """

    sandbox: str
    pattern: str
    answer: str
    seconds: int = 0

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> LastingAnswer:
        """Read an answer of `GET /questions`."""
        sandbox, pattern, answer = (text_of(row.get(key)) for key in ("sandbox_name", "pattern", "answer"))
        return cls(sandbox, pattern, answer, count_of(row.get("seconds")))


class QuestionPage(NamedTuple):
    """The open questions: the oldest of each sandbox, then the second of each, and so on.

    Attributes:
        questions: The questions.
        others: How many places each sandbox tries beyond its questions.
        token: For the next request.
        watched: Whether connections wait: someone watches.
        answers: Answers that are not rules and count for a while yet.
    """

    questions: tuple[OpenQuestion, ...] = ()
    others: Mapping[str, int] = {}
    token: int = 0
    watched: bool = False
    answers: tuple[LastingAnswer, ...] = ()

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> QuestionPage:
        """Read an answer of `GET /questions`."""
        others = {
            text_of(row.get("sandbox_name")): count_of(row.get("places")) for row in rows_of(answer, "others")
        }
        return cls(
            tuple(map(OpenQuestion.of, rows_of(answer, "questions"))),
            others,
            count_of(answer.get("token")),
            answer.get("watched") is True,
            tuple(map(LastingAnswer.of, rows_of(answer, "answers"))),
        )


class QuestionAnswered(NamedTuple):
    """What an answer did.

    Attributes:
        id: The question's id.
        answer: The answer.
        sandbox: The sandbox that tried.
        pattern: What was asked about, HOST:PORT.
        rule: The pattern of the rule that was put; None where the answer is not a rule.
        scope: Who it is for: `sandbox`, or `account` for a rule of all sandboxes.
        waited: How many connections waited for it.
        rules: The patterns of all rules that were put.
    """

    id: str
    answer: str = ""
    sandbox: str = ""
    pattern: str = ""
    rule: str | None = None
    scope: str = "sandbox"
    waited: int = 0
    rules: tuple[str, ...] = ()

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> QuestionAnswered:
        """Read an answer of `POST /questions/ID`."""
        question = OpenQuestion.of(answer)
        return cls(
            question.id,
            text_of(answer.get("answer")),
            question.sandbox,
            question.pattern,
            word_of(answer.get("rule")),
            text_of(answer.get("scope")) or "sandbox",
            count_of(answer.get("waited")),
            texts_of(answer.get("rules")),
        )
