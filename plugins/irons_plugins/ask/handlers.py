"""The handlers of `irons ask`: questions as rows, an answer, and the pane where there is a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, cast

from irons.command import Result
from irons.errors import UsageError

if TYPE_CHECKING:
    from irons.client.models.questions import Answer, OpenQuestion, QuestionAnswered
    from irons.context import Context
    from irons.presets.offers import PresetOffers

POLL = 2.0
"""Seconds between two looks: the server keeps a request no longer."""


def ask(ctx: Context, *, listed: bool, stay: bool) -> Iterator[OpenQuestion] | list[OpenQuestion] | Result:
    """Return the open questions, follow them, or show them in a pane; while they are followed, someone watches."""
    if listed:
        return list(_offers(ctx).page(ctx.api.questions()).questions)
    if ctx.settings["output"] == "json":
        raise UsageError(
            "one JSON document never ends while questions are followed",
            hint="-o jsonl prints an object a line; --list ends",
        )
    hint = _hint_where_nothing_asks(ctx)
    if ctx.streams.stdin_is_tty and ctx.streams.stdout_is_tty and ctx.settings["output"] is None:
        from irons.asking.title import has_title
        from irons_plugins.ask.pane import show

        has = has_title(ctx.settings)
        offers = partial(_offers, ctx)
        return Result(None, exit=show(ctx.api, ctx.streams, offers, stay=stay, hint=hint, has_title=has))
    if hint:
        ctx.progress(hint)
    return _followed(ctx, _offers(ctx), stay=stay)


def _offers(ctx: Context) -> PresetOffers:
    from irons.presets.offers import offers_of

    return offers_of(ctx.host, ctx.settings, ctx.progress)


def answer(ctx: Context, *, id: str, answer: str, everywhere: bool, pattern: str | None) -> QuestionAnswered:  # noqa: A002
    """Answer a question; returns what that did."""
    if answer in ("once", "no") and (everywhere or pattern is not None):
        raise UsageError(f"{answer} is for the connections that wait, and not a rule")
    return ctx.api.answer_question(id, cast("Answer", answer), all_sandboxes=everywhere, pattern=pattern)


def _followed(ctx: Context, offers: PresetOffers, *, stay: bool) -> Iterator[OpenQuestion]:
    """Each question as it comes."""
    began, token, said = time.monotonic(), None, False
    known: set[str] = set()
    while not ctx.streams.is_unread:
        idle = None if stay else time.monotonic() - began
        page = ctx.api.questions(token, wait=POLL, watch=True, idle=idle)
        if not page.watched and not said:
            said = True
            ctx.progress("no one counts as watching any more; --stay keeps connections waiting")
        token = page.token
        yield from (offers.question(each) for each in page.questions if each.id not in known)
        known = {each.id for each in page.questions}


def _hint_where_nothing_asks(ctx: Context) -> str:
    """What to do where no sandbox is in mode `ask`; empty where one may be."""
    ctx.api.need("questions", "a server whose connections can wait for a person")
    found = ctx.api.mode()
    if found.mode == "ask" or "ask" in found.differs.values():
        return ""
    return "no sandbox is in mode ask; irons egress mode ask --sandbox NAME sets it"
