"""The live view on the terminal, and its keys. The terminal is restored, also when the program is signalled to end."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from prompt_toolkit.application import Application
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.layout import FormattedTextControl, Layout, Window
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.styles import Style

from irons.errors import IronsError, UsageError
from irons_repl.run.signals import ended_by_signals
from irons_repl.watch.feed import Feed
from irons_repl.watch.guard import given_back
from irons_repl.watch.model import Model
from irons_repl.watch.view import hosts_shown, picture

if TYPE_CHECKING:
    from irons.client.api import Api
    from irons.context import Context
    from irons.scope import Scope

STYLE = Style.from_dict(
    {"allowed": "ansigreen", "denied": "ansired", "warned": "ansiyellow", "dim": "ansibrightblack"}
)


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
    WatchView(ctx.api, scope.sandbox, colour=ctx.streams.colour(tty=True)).run()


class WatchView:
    """One open view."""

    def __init__(self, api: Api, sandbox: str | None, *, colour: bool) -> None:
        """Take the client and whose connections to show; None is everybody's."""
        self._api = api
        self._colour = colour
        self._model = Model(sandbox)
        self._held: Model | None = None
        self._app: Application[IronsError | None] = Application(
            layout=Layout(Window(FormattedTextControl(self._fragments, show_cursor=False), wrap_lines=False)),
            key_bindings=self._keys(),
            full_screen=True,
            style=STYLE,
            color_depth=None if colour else ColorDepth.DEPTH_1_BIT,
            erase_when_done=True,
            min_redraw_interval=0.05,
        )
        self._feed = Feed(
            api,
            sandbox,
            events=lambda events: self._soon(lambda: self._model.take(events)),
            learned=lambda events: self._soon(lambda: self._model.learn(events)),
            rotated=lambda text: self._soon(lambda: setattr(self._model, "rotated", text)),
            mode=lambda mode: self._soon(lambda: setattr(self._model, "mode", mode)),
            trouble=lambda text: self._soon(lambda: setattr(self._model, "trouble", text)),
            failed=lambda error: self._soon(lambda: self._app.exit(result=error)),
        )

    def run(self) -> None:
        """Show the view.

        Raises:
            IronsError: What made going on pointless.
            Ended: A signal ended the program, of which the view may be but a part.
        """
        try:
            with given_back(self._app.output), ended_by_signals(self._app):
                error = self._app.run(pre_run=self._feed.start)
        except EOFError:
            return  # the terminal has gone
        finally:
            self._feed.stop()
        if error is not None:
            raise error

    def _soon(self, change: Callable[[], object]) -> None:
        """Have the terminal's thread make a change, and show it."""

        def made() -> None:
            if self._app.is_running and not self._app.is_done:
                change()
                self._app.invalidate()

        loop = self._app.loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(made)

    def _fragments(self) -> StyleAndTextTuples:
        size = self._app.output.get_size()
        fragments: StyleAndTextTuples = []
        for line in picture(self._shown, size.columns, size.rows, colour=self._colour):
            fragments.extend(line)
            fragments.append(("", "\n"))
        return fragments[:-1]

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()
        actions: dict[str, Callable[[], None]] = {
            **dict.fromkeys(("q", "escape", "c-d", "c-c"), self._leave),
            **dict.fromkeys(("up", "k"), lambda: self._move(-1)),
            **dict.fromkeys(("down", "j"), lambda: self._move(1)),
            "a": lambda: self._rule("allow"),
            "d": lambda: self._rule("deny"),
            "space": self._pause,
        }
        keys.add("c-z")(lambda event: event.app.suspend_to_background())
        for key, action in actions.items():
            keys.add(key, eager=True)(lambda _, action=action: action())
        return keys

    def _leave(self) -> None:
        if not self._app.is_done:
            self._app.exit(result=None)

    def _pause(self) -> None:
        """Stop the display, or continue it; events are counted in between."""
        if self._held is None:
            self._held = copy.deepcopy(self._model)
            self._held.paused = True
        else:
            self._model.selected, self._held = self._held.selected, None

    @property
    def _shown(self) -> Model:
        """The model that the picture shows."""
        return self._model if self._held is None else self._held

    def _move(self, by: int) -> None:
        self._shown.said = ""
        self._shown.move(by, hosts_shown(self._app.output.get_size().rows))

    def _rule(self, verb: str) -> None:
        """Allow or deny the selected host: for the one sandbox that is watched, else for all; what came of it is shown."""
        target = self._shown.selected
        if target is None:
            return
        sandbox = self._model.sandbox
        self._shown.said = f"{verb} {target} …"

        def ask() -> None:
            try:
                answer = (self._api.allow if verb == "allow" else self._api.deny)(target, sandbox)
            except IronsError as error:
                told = error.message
            else:
                whom = f" for {sandbox}" if sandbox else ""
                told = f"{'allowed' if verb == 'allow' else 'denied'}{whom}: {answer.rules[0].pattern}"
                if verb == "deny" and answer.mode == "warn":
                    told += "; mode warn blocks nothing yet"
            self._soon(lambda: setattr(self._shown, "said", told))

        threading.Thread(target=ask, name="irons-watch-rule", daemon=True).start()
