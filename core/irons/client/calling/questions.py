"""The calls about what people are asked in mode `ask`; all need irons' own server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irons.client.calling.calls import Calls, segment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from irons.client.models.questions import Answer, QuestionAnswered, QuestionPage


class QuestionCalls(Calls):
    """What `irons.client.api.Api` answers about questions."""

    def questions(
        self, after: int | None = None, *, wait: float = 0.0, watch: bool = False, idle: float | None = None
    ) -> QuestionPage:
        """Return the open questions.

        Args:
            after: The token of an answer: wait until there is something else than in that.
            wait: Seconds to wait at most; the server answers after 2 in any case.
            watch: A person is here to answer, so that connections wait.
            idle: Seconds since that person pressed a key; None for one who stays without keys.
        """
        from irons.client.models.questions import QuestionPage

        self._need_questions()
        params = {
            **({} if after is None else {"after": str(after)}),
            **({"wait": f"{wait:.3f}"} if wait else {}),
            **({"watch": "true"} if watch else {}),
            **({} if idle is None else {"idle": f"{idle:.3f}"}),
        }
        return QuestionPage.of(self.call("GET", "/questions", params=params or None, patience=wait))

    def answer_question(
        self, identity: str, answer: Answer, *, all_sandboxes: bool = False, pattern: str | None = None
    ) -> QuestionAnswered:
        """Answer a question.

        Args:
            identity: The question's id.
            answer: The answer.
            all_sandboxes: A rule is for all sandboxes.
            pattern: The rule's pattern, where it is wider than the question.

        Raises:
            NotFound: It is not open any more.
        """
        from irons.client.models.questions import QuestionAnswered

        self._need_questions()
        body: dict[str, str] = {"answer": answer}
        if all_sandboxes:
            body["scope"] = "account"
        if pattern is not None:
            body["pattern"] = pattern
        return QuestionAnswered.of(self.call("POST", f"/questions/{segment(identity)}", body, retry=False))

    def answer_question_by_set(
        self, identity: str, patterns: Sequence[str], *, note: str = ""
    ) -> QuestionAnswered:
        """Answer a question by allow rules for a set of hosts, all or none, of its sandbox.

        Args:
            identity: The question's id.
            patterns: Of the rules; one covers the question. One that has a rule there keeps it.
            note: Kept with each rule.

        Raises:
            NotFound: It is not open any more.
        """
        from irons.client.models.questions import QuestionAnswered

        self._need_questions()
        body = {"answer": "always", "patterns": list(patterns), **({"note": note} if note else {})}
        return QuestionAnswered.of(self.call("POST", f"/questions/{segment(identity)}", body, retry=False))

    def _need_questions(self) -> None:
        self.need("questions", "a server whose connections can wait for a person")
