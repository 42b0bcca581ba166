"""The live view on the terminal. The terminal is restored, also when the program is signalled to end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from prompt_toolkit.application import Application, run_in_terminal
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import FormattedTextControl, Layout, Window
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.styles import Style

from irons.asking.following import QuestionFollower, QuestionsHeard
from irons.asking.screen import AskScreen
from irons.asking.title import QuestionTitle, has_title
from irons.errors import IronsError, UsageError
from irons.presets.offers import PresetOffers, offers_of
from irons_repl.questions.sending import send
from irons_repl.questions.settling import Settling
from irons_repl.run.signals import ended_by_signals
from irons_repl.watch.changing import apply, read_standing, undo
from irons_repl.watch.feed import Feed
from irons_repl.watch.guard import TerminalGuard
from irons_repl.watch.state import AnswerQuestion, Apply, CloseView, Effect, Undo, ViewState
from irons_repl.watch.view import picture

if TYPE_CHECKING:
    from irons.client.api import Api
    from irons.client.models.questions import QuestionAnswered
    from irons.context import Context
    from irons.settings.scope import Scope
    from irons_repl.status.mode_line import ModeFacts

STYLE = Style.from_dict(
    {"allowed": "ansigreen", "denied": "ansired", "warned": "ansiyellow", "dim": "ansibrightblack"}
)

REDRAWN = 0.25
"""Seconds between two pictures where nothing happens: the list is put in order again, and questions become answerable."""

NAMED = {
    "enter": "enter",
    "tab": "tab",
    "escape": "escape",
    "backspace": "backspace",
    **dict.fromkeys(("f2", "c-c", "c-d", "up", "down", "pageup", "pagedown", "home", "end"), ""),
}
"""Keys that are no characters, with the names that the state knows them by; an empty one is the same."""


def watch(ctx: Context, *, scope: Scope) -> None:
    """Show connections as they happen until the person leaves.

    Raises:
        UsageError: There is no terminal.
        NotFound: There is no such sandbox.
    """
    if not (ctx.streams.stdin_is_tty and ctx.streams.stdout_is_tty):
        raise UsageError(
            "audit watch needs a terminal", hint="for programs there is irons audit egress --follow -o jsonl"
        )
    api = ctx.api
    api.face = "watch"
    offers = partial(offers_of, ctx.host, ctx.settings, lambda _: None)
    colour = ctx.streams.colour(tty=True)
    has = has_title(ctx.settings)
    WatchView(api, scope.sandbox, colour=colour, allowed=ctx.allowed, offers=offers, has_title=has).run()


class WatchView:
    """One open view: it brings keys and news to the state, draws what that says, and has its effects done."""

    def __init__(
        self,
        api: Api,
        sandbox: str | None,
        *,
        colour: bool,
        allowed: Callable[[str | None, Sequence[str]], None] = lambda *_: None,
        offers: Callable[[], PresetOffers] | None = None,
        has_title: bool = False,
    ) -> None:
        """Take the client and the sandbox whose connections to show; None is all.

        `allowed` hears of patterns that were allowed here, and `offers` returns what finds the preset of a question. With `has_title`
        the terminal's title shows that questions are open.
        """
        self._api = api
        self._allowed = allowed
        self._colour = colour
        # Who watches one sandbox answers for all, so that no connection waits for no one.
        self._state = ViewState(sandbox, asked=AskScreen("of all sandboxes" if sandbox else ""))
        self._app: Application[IronsError | None] = Application(
            layout=Layout(Window(FormattedTextControl(self._fragments, show_cursor=False), wrap_lines=False)),
            key_bindings=self._keys(),
            full_screen=True,
            style=STYLE,
            color_depth=None if colour else ColorDepth.DEPTH_1_BIT,
            erase_when_done=True,
            min_redraw_interval=0.05,
            refresh_interval=REDRAWN,
        )
        state = self._state
        self._feed = Feed(
            api,
            sandbox,
            events=lambda events: self._soon(lambda: state.model.take(events)),
            learned=lambda events: self._soon(lambda: state.model.learn(events)),
            rotated=lambda text: self._soon(lambda: setattr(state.model, "rotated", text)),
            standing=lambda standing: self._soon(lambda: setattr(state, "standing", standing)),
            mode=self._take_mode,
            trouble=lambda text: self._soon(lambda: setattr(state, "trouble", text)),
            failed=lambda error: self._soon(lambda: self._app.exit(result=error)),
        )
        # Followed only once a sandbox is in mode ask.
        self._questions = QuestionFollower(
            lambda: api, lambda heard: self._soon(lambda: self._take_questions(heard)), offers=offers
        )
        self._guard = TerminalGuard()
        self._title = QuestionTitle(self._write, on=has_title, kept=self._guard.note_title)
        self._settling = Settling(state.asked, self._app.input.fileno(), self._later)
        self._app.after_render += lambda _: self._drawn()
        self._in_burst = False

    def run(self) -> None:
        """Show the view.

        Raises:
            IronsError: What made going on pointless.
            Ended: A signal ended the program, of which the view may be but a part.
        """
        try:
            with self._guard.around(self._app.output), ended_by_signals(self._app):
                error = self._app.run(pre_run=self._feed.start)
        except EOFError:
            return  # the terminal has gone
        finally:
            self._feed.stop()
            self._settling.stop()
            self._questions.stop()
            self._title.restore()
        if error is not None:
            raise error

    def _soon(self, change: Callable[[], object]) -> None:
        """Have the terminal's thread make a change, and show it."""

        def made() -> None:
            if self._app.is_running and not self._app.is_done:
                change()
                self._app.invalidate()

        loop = self._app.loop
        if loop is not None:
            # It may be closed by now.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(made)

    # Questions of mode `ask`.

    def _take_mode(self, mode: ModeFacts) -> None:
        """Take the mode; while it is `ask` for a sandbox that is watched here, someone watches. Called from the feed's thread."""
        self._soon(lambda: setattr(self._state, "mode", mode))
        self._questions.want(asks=mode.mode == "ask" or "ask" in mode.differs.values())

    def _take_questions(self, heard: QuestionsHeard) -> None:
        self._state.asked.take(heard.page, heard.trouble)
        self._title.show(self._state.asked.page)
        if heard.rings:
            self._app.output.bell()
        if self._state.shown != "asked":
            # The line above shows the first.
            note = self._state.asked.note
            self._state.said = note or self._state.said
            self._state.asked.put_back()
            self._state.asked.choose_first()

    def _write(self, text: str) -> None:
        self._app.output.write_raw(text)
        self._app.output.flush()

    def _drawn(self) -> None:
        self._title.show(self._state.asked.page)
        if self._state.shown == "asked":
            self._settling.drawn()
        else:
            self._state.asked.hidden()

    def _later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        loop = self._app.loop
        return (lambda: None) if loop is None or loop.is_closed() else loop.call_later(seconds, call).cancel

    def _hear_answer(self, done: QuestionAnswered) -> None:
        if done.answer not in ("no", "never"):
            scope = None if done.scope == "account" else done.sandbox
            self._allowed(scope, done.rules or (done.rule or done.pattern,))

    def _say_answer(self, line: str) -> None:
        def said() -> None:
            if self._state.shown == "asked":
                self._state.asked.answered(line)
            else:
                self._state.said = line

        self._soon(said)

    def _fragments(self) -> StyleAndTextTuples:
        size = self._app.output.get_size()
        fragments: StyleAndTextTuples = []
        for line in picture(self._state, size.columns, size.rows, time.monotonic(), colour=self._colour):
            fragments.extend(line)
            fragments.append(("", "\n"))
        return fragments[:-1]

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()
        keys.add("c-z")(lambda _: run_in_terminal(self._suspend))
        for key, name in NAMED.items():
            keys.add(key, eager=True)(lambda _, name=name or key: self._press(name))
        keys.add(Keys.Any)(self._typed)
        keys.add(Keys.BracketedPaste)(lambda event: self._state.paste(event.data))
        return keys

    def _suspend(self) -> None:
        """Leave the terminal to the shell until `fg`, with the title that it had."""
        self._title.restore()
        self._state.asked.hidden()
        os.kill(0, signal.SIGTSTP)

    def _typed(self, event: KeyPressEvent) -> None:
        if len(event.data) == 1 and event.data.isprintable():
            self._press(event.data)

    def _press(self, key: str) -> None:
        self._questions.pressed()
        # Keys that were read together, as what is pasted is.
        more = bool(self._app.key_processor.input_queue)
        alone, self._in_burst = not (more or self._in_burst), more
        self._do(self._state.press(key, time.monotonic(), alone=alone))

    def _do(self, effect: Effect | None) -> None:
        if isinstance(effect, CloseView):
            if not self._app.is_done:
                self._app.exit(result=None)
        elif isinstance(effect, AnswerQuestion):
            send(self._api, effect.wanted, effect.asked, self._say_answer, self._hear_answer)
        elif effect is not None:
            threading.Thread(
                target=self._change, args=(effect,), name="irons-watch-rule", daemon=True
            ).start()

    def _change(self, effect: Apply | Undo) -> None:
        """Change rules, in a thread of its own, and show what came of it."""
        try:
            if isinstance(effect, Apply):
                text, change = apply(self._api, effect.proposal)
                if effect.proposal.verb == "allow":
                    self._allowed(effect.proposal.sandbox, [effect.proposal.pattern])
                self._soon(lambda: self._state.done(text, change))
            else:
                undone = undo(self._api, effect.change)
                self._soon(lambda: self._state.undone(undone.text, gone=undone.gone))
            standing = read_standing(self._api, self._state.sandbox).standing
            self._soon(lambda: setattr(self._state, "standing", standing))
        except IronsError as error:
            message = error.message
            self._soon(lambda: self._state.done(message))
