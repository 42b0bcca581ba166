"""The open questions above the input: shown as they come, opened by a chord, answered by one letter; keys of the line stay its own."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from prompt_toolkit.key_binding import KeyPress
from prompt_toolkit.keys import Keys

from irons.asking.following import QuestionFollower, QuestionsHeard
from irons.asking.screen import DOWN, UP, AskScreen
from irons.asking.title import QuestionTitle
from irons.text import clean
from irons_repl.questions.sending import send
from irons_repl.questions.settling import Settling, nothing

if TYPE_CHECKING:
    from irons.client.api import Api
    from irons.client.models.questions import QuestionAnswered
    from irons.presets.offers import PresetOffers
    from irons_repl.chord import AskChords

LEFT_OPEN = 60.0
"""Seconds without a key after which the list closes by itself: whoever comes back types a line, and not an answer."""
LEFT_EMPTY = 2.0
"""Seconds for which a list stays whose last question has just ended: the letter that was on its way is not part of the line."""
MOST_LINES = 16
"""Lines that the list takes at most."""
LEAST_ROWS = 4
"""Rows of a terminal that has room for a line above the input."""

_NAMED = {
    Keys.Up: UP[0],
    Keys.Down: DOWN[0],
    Keys.Escape: "\x1b",
    Keys.ControlC: "\x03",
    Keys.ControlD: "\x04",
}
_PASSED = (Keys.CPRResponse, Keys.Vt100MouseEvent, Keys.Ignore)
"""What a terminal reports by itself."""


class AskingFace(Protocol):
    """What the prompt does for its questions."""

    chords: AskChords
    """What opens the list, and closes it."""

    @property
    def vi(self) -> bool:
        """Whether the line has vi keys, and not those of emacs."""
        ...

    def write(self, text: str, /) -> None:
        """Write to the terminal at once, as it is."""
        ...

    def client(self) -> Api:
        """Return the client to follow by. Called in another thread."""
        ...

    def offers(self) -> PresetOffers:
        """Return what finds the preset of a question. Called in another thread."""
        ...

    def changed(self) -> None:
        """Have the prompt drawn again, and `take_news` called in its thread. Called from any thread."""
        ...

    def say(self, line: str, /) -> None:
        """Say a line to the person. Called from any thread."""
        ...

    def answered(self, done: QuestionAnswered) -> None:
        """Hear what an answer did. Called in another thread."""
        ...

    def rows_of_line(self, prompt: str, /) -> int:
        """Return how many rows the line takes that is typed after this prompt."""
        ...

    def has_drawn(self, lines: Sequence[str], /) -> bool:
        """Tell whether the terminal has each of these lines whole and alone."""
        ...

    def later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        """Call in the prompt's thread after so many seconds; return what cancels that."""
        ...


class AskedQuestions:
    """The questions of one prompt. All but `want` and what the follower calls happens in the prompt's thread."""

    def __init__(
        self,
        around: AskingFace,
        keys: int,
        pressed: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        has_title: bool = False,
    ) -> None:
        """Take what the prompt does for it, and begin to follow.

        Args:
            around: The prompt.
            keys: The descriptor of the terminal's keys.
            pressed: When the last key was pressed, by `time.monotonic`; None is now.
            clock: Tells the seconds.
            has_title: The terminal's title shows that questions are open.
        """
        self._around = around
        self._screen = AskScreen()
        self._news: deque[QuestionsHeard] = deque(maxlen=1)
        self._rings = threading.Event()
        self._api: Api | None = None
        self._ended = ""
        self._settling = Settling(self._screen, keys, around.later, clock)
        self._title = QuestionTitle(around.write, on=has_title)
        self._closing = nothing
        self._has_room = False
        self.is_open = False
        self._follower = QuestionFollower(around.client, self.hear, key=pressed, offers=around.offers)

    # Who watches.

    def want(self, *, asks: bool) -> None:
        """Follow while there is a sandbox in mode `ask`; called by whoever looks at the modes."""
        self._follower.want(asks=asks)

    def rest(self, *, resting: bool) -> None:
        """Leave off while a command has the terminal: no one could answer."""
        if resting:
            self._close()
            self._screen.hidden()
            self._title.restore()
        self._follower.rest(resting=resting)

    def stop(self) -> None:
        """Follow no more."""
        self._settling.stop()
        self._closing()
        self._title.restore()
        self._follower.stop()

    def hear(self, heard: QuestionsHeard) -> None:
        """Take what is new; called from the thread that follows."""
        self._news.append(heard)
        if heard.rings:
            # What is heard next takes its place, and not its bell.
            self._rings.set()
        self._around.changed()

    # What is shown.

    @property
    def count(self) -> int:
        """How many places are asked about."""
        page = self._screen.page
        return len(page.questions) + sum(page.others.values())

    def take_news(self) -> bool:
        """Take what the follower heard; return whether that is worth a bell."""
        new = False
        rings = self._rings.is_set()
        if rings:
            # One that is set after the look stays for the next.
            self._rings.clear()
        while self._news:
            heard = self._news.popleft()
            self._api = heard.api
            new = self._screen.take(heard.page, heard.trouble) or new
        if not self.is_open:
            self._ended = "" if new else self._screen.note or self._ended
            self._screen.put_back()
            self._screen.choose_first()
        elif self._screen.question is None:
            self._close_in(LEFT_EMPTY)
        return rings

    def lines(self, columns: int, rows: int, prompt: str = "") -> list[str]:
        """Return what is shown above the input, as lines that fit.

        Args:
            columns: The terminal's width.
            rows: Its height.
            prompt: What is before the line that is typed.
        """
        self._has_room = rows >= LEAST_ROWS
        if not self._has_room:
            return []
        if self.is_open:
            # A long line leaves it half of the terminal.
            free = max((rows - 1) // 2, rows - 2 - self._around.rows_of_line(prompt))
            return self._screen.lines(columns, min(MOST_LINES, free))
        line = (
            self._screen.line(columns, self._around.chords.name(vi=self._around.vi))
            or clean(self._ended)[:columns]
        )
        return [line] if line else []

    def was_drawn(self) -> None:
        """Note that the picture is on the terminal: from now on a key may be meant for it.

        What the terminal had no room for, or a menu lies over, is answered by no key.
        """
        if not self._has_room or (self.is_open and not self._around.has_drawn(self._screen.needed)):
            self._screen.hidden()
        self._settling.drawn()
        self._title.show(self._screen.page)

    # Keys.

    def open_or_close(self) -> None:
        """Take the chord: show the questions as a list, or close it."""
        if self.is_open:
            self._close()
            return
        self._ended = ""
        if self._screen.question is None:
            self._ended = "Nothing is asked."
        else:
            self.is_open = True
            self._close_in(LEFT_OPEN)
        self._around.changed()

    def pressed(self) -> None:
        """Note that a key was pressed."""
        self._follower.pressed()
        self._ended = ""

    def pass_on(self, keys: Sequence[KeyPress]) -> list[KeyPress]:
        """Take the keys that are for an open list, and return the others: those of the line."""
        typed = [key for key in keys if key.key not in _PASSED]
        if not self.is_open or not typed:
            return list(keys)
        self._follower.pressed()
        chords = [chord.keys for chord in self._around.chords.of(vi=self._around.vi)]
        if tuple(key.key for key in typed) in chords:
            self._close()
            return [key for key in keys if key.key in _PASSED]
        if len(typed) > 1 and any(_text(key) not in (*DOWN, *UP) for key in typed):
            # Pasted, or typed before the list was seen.
            self._close()
            return list(keys)
        for key in typed:
            if not self._take(_text(key)):
                return list(keys)
        return [key for key in keys if key.key in _PASSED]

    def _take(self, text: str) -> bool:
        """Take one key; return whether it was for the list."""
        if text in ("\r", "\n"):
            self._close()
            return True
        if not self._screen.takes(text):
            self._close()
            return False
        asked = self._screen.question
        wanted = self._screen.key(text)
        if wanted is not None and asked is not None and self._api is not None:
            send(self._api, wanted, asked, self._around.say, self._around.answered)
            self._close()
        elif self._screen.left:
            self._close()
        elif asked is not None:
            self._close_in(LEFT_OPEN)
        else:
            # The next letter is of the line.
            self._close()
        self._around.changed()
        return True

    def _close(self) -> None:
        self._closing()
        self._closing = nothing
        if self.is_open:
            self.is_open = False
            self._screen.put_back()
            self._screen.choose_first()
            self._around.changed()

    def _close_in(self, seconds: float) -> None:
        self._closing()
        self._closing = self._around.later(seconds, self._close)


def _text(key: KeyPress) -> str:
    """A key as the list knows it: a character, or what a terminal sends for it."""
    if isinstance(key.key, Keys):
        return _NAMED.get(key.key, "\r" if key.key in (Keys.ControlM, Keys.ControlJ) else "")
    return key.key
