"""What the prompt does for its questions: a client, a redraw, a line to the person, and time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from prompt_toolkit.enums import EditingMode
from prompt_toolkit.utils import get_cwidth

from irons.asking.title import has_title
from irons.presets.offers import offers_of
from irons_repl.questions.asked import AskedQuestions
from irons_repl.questions.picture import drawn_rows, rows_of

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession

    from irons.client.api import Api
    from irons.client.models.questions import QuestionAnswered
    from irons.presets.offers import PresetOffers
    from irons_repl.chord import AskChords
    from irons_repl.run.session import ShellSession
    from irons_repl.status.refresher import Refresher


class PromptAround:
    """The prompt as its questions see it. Implements `irons_repl.questions.asked.AskingFace`."""

    def __init__(
        self,
        session: ShellSession,
        lines: PromptSession[str],
        changed: Callable[[], None],
        say: Callable[[str], None],
        refresher: Refresher,
        chords: AskChords,
    ) -> None:
        """Take the session, the line that is typed, how it is drawn again, how a line is printed, who looks at the server, and the chords."""
        self._session, self._lines, self._refresher = session, lines, refresher
        self.chords = chords
        self.changed, self.say = changed, say

    @property
    def vi(self) -> bool:
        """Whether the line has vi keys, and not those of emacs."""
        return self._lines.app.editing_mode == EditingMode.VI

    def write(self, text: str) -> None:
        """Write to the terminal at once, as it is."""
        self._lines.app.output.write_raw(text)
        self._lines.app.output.flush()

    def client(self) -> Api:
        """Return the client that the session's settings choose now. Raises `IronsError`."""
        api = self._session.api_in_passing(self._session.settings(in_passing=True))
        # The change log names the face that answers; a command, such as `watch`, has its own while it runs.
        api.face = "prompt"
        return api

    def offers(self) -> PresetOffers:
        """Return what finds the preset of a question, among those of irons and of the session's plugins."""
        return offers_of(self._session.host, self._session.settings(in_passing=True), self.say)

    def answered(self, done: QuestionAnswered) -> None:
        """Have the new rule looked at, and offer a refused line again that it lets pass."""
        self._refresher.poke()
        if done.answer not in ("no", "never"):
            scope = None if done.scope == "account" else done.sandbox
            self._session.hear_allowed(scope, done.rules or (done.rule or done.pattern,))

    def rows_of_line(self, prompt: str) -> int:
        """Return how many rows the line takes that is typed after this prompt, with what is suggested after it."""
        size, buffer = self._lines.app.output.get_size(), self._lines.default_buffer
        suggested = buffer.suggestion.text if buffer.suggestion is not None else ""
        return rows_of(f"{buffer.text}{suggested}", get_cwidth(prompt), size.columns, size.rows)

    def has_drawn(self, lines: Sequence[str]) -> bool:
        """Tell whether the terminal has each of these lines whole and alone."""
        screen = self._lines.app.renderer.last_rendered_screen
        return screen is not None and drawn_rows(screen, self._lines.app.output.get_size()).issuperset(
            line.rstrip() for line in lines
        )

    def later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        """Call after so many seconds, while a line is typed; return what cancels that."""
        loop: asyncio.AbstractEventLoop | None = self._lines.app.loop
        if loop is None or loop.is_closed():
            return lambda: None
        return loop.call_later(seconds, call).cancel


def asked_in(
    session: ShellSession,
    lines: PromptSession[str],
    changed: Callable[[], None],
    say: Callable[[str], None],
    refresher: Refresher,
    pressed: float,
    chords: AskChords,
) -> AskedQuestions:
    """Return the questions of a prompt; `pressed` is when a key was pressed there last."""
    around = PromptAround(session, lines, changed, say, refresher, chords)
    has = has_title(session.settings(in_passing=True))
    return AskedQuestions(around, session.streams.stdin.fileno(), pressed, has_title=has)
