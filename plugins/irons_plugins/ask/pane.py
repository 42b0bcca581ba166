"""The pane of `irons ask`: a terminal in which keys answer, and a thread that follows the questions."""

from __future__ import annotations

import os
import select
import signal
import termios
import threading
import time
import tty
from collections.abc import Callable
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from irons.asking.answers import answered
from irons.asking.following import POLL, QuestionFollower, QuestionsHeard
from irons.asking.screen import AskScreen
from irons.asking.title import QuestionTitle
from irons.errors import IronsError
from irons.terminal.cells import cut
from irons.text import clean
from irons_plugins.ssh.openssh.signals import handling
from irons_plugins.ssh.openssh.subprocess import Signalled, ended_by_signals

if TYPE_CHECKING:
    from irons.client.api import Api
    from irons.presets.offers import PresetOffers
    from irons.terminal.streams import Streams

ENTER, LEAVE = "\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\x1b[?1049l"
"""A line does not go on in the next row: what a terminal draws wider than it says would push the questions away."""
CLEAR, BELL = "\x1b[H\x1b[J", "\a"


class _Following:
    """Follows the questions, and rings where a look gave something."""

    def __init__(self, api: Api, offers: Callable[[], PresetOffers], *, stay: bool) -> None:
        self.ringing, self._ring = os.pipe()
        self._lock = threading.Lock()
        self._heard: QuestionsHeard | None = None
        self._follower = QuestionFollower(lambda: api, self._hear, stay=stay, offers=offers)
        self.pressed = self._follower.pressed
        self._follower.want()

    def taken(self) -> QuestionsHeard | None:
        """What is new."""
        os.read(self.ringing, 4096)
        with self._lock:
            heard, self._heard = self._heard, None
            return heard

    def wake(self) -> None:
        """Ring with nothing new."""
        os.write(self._ring, b"!")

    def close(self) -> None:
        """Follow no more; what a look on its way rings is left to it."""
        if self._follower.stop(POLL):
            os.close(self.ringing)
            os.close(self._ring)

    def _hear(self, heard: QuestionsHeard) -> None:
        with self._lock:
            # What is heard next takes its place, and not its bell.
            rings = heard.rings or (self._heard is not None and self._heard.rings)
            self._heard = heard._replace(rings=rings)
        os.write(self._ring, b"!")


def show(
    api: Api,
    streams: Streams,
    offers: Callable[[], PresetOffers],
    *,
    stay: bool,
    hint: str = "",
    has_title: bool = False,
) -> int:
    """Show the questions and take answers until the person leaves; returns the exit code, which names TERM or HUP where one came.

    `hint` is shown until there is a question, or a key. With `has_title` the terminal's title counts the questions.
    """
    keys = streams.stdin.fileno()
    before = termios.tcgetattr(keys)
    follower = _Following(api, offers, stay=stay)

    def write(text: str) -> None:
        streams.stdout.write(text)

    title = QuestionTitle(write, on=has_title)
    write(ENTER)
    try:
        with ended_by_signals(), handling(signal.SIGWINCH, lambda *_: follower.wake()):
            tty.setcbreak(keys)
            _take_no_suspension(keys)
            _take_keys(api, streams, keys, follower, title, hint)
    except Signalled as ended:
        return 128 + ended.number
    finally:
        termios.tcsetattr(keys, termios.TCSADRAIN, before)
        title.restore()
        write(LEAVE)
        streams.stdout.flush()
        follower.close()
    return 0


def _take_no_suspension(keys: int) -> None:
    """Have Ctrl-Z be a key: whoever comes back from it would find the shell's settings, and another screen."""
    attributes = termios.tcgetattr(keys)
    attributes[6][termios.VSUSP] = b"\0"
    termios.tcsetattr(keys, termios.TCSANOW, attributes)


def _take_keys(
    api: Api, streams: Streams, keys: int, follower: _Following, title: QuestionTitle, hint: str
) -> None:
    screen, trouble = AskScreen(), ""
    screen.note = hint
    drawn = ("", get_terminal_size())
    while not screen.left:
        size = columns, rows = get_terminal_size()
        lines = screen.lines(columns, rows - (1 if trouble else 0))
        text = CLEAR + "\r\n".join([*([cut(trouble, columns)] if trouble else []), *lines])
        if (text, size) != drawn:
            drawn = (text, size)
            streams.stdout.write(text)
        title.show(screen.page)
        streams.stdout.flush()
        now = time.monotonic()
        screen.drawn(now)
        try:
            ready, _, _ = select.select([keys, follower.ringing], [], [], screen.settles_in(now))
        except Signalled:
            raise
        except KeyboardInterrupt:
            return
        if keys not in ready:
            screen.settle(now)
        if follower.ringing in ready:
            heard = follower.taken()
            if heard is not None:
                trouble = heard.trouble
                screen.take(heard.page, trouble)
                if screen.chosen and screen.note == hint:
                    screen.note = ""
                if heard.rings:
                    streams.stdout.write(BELL)
        if keys in ready:
            typed = os.read(keys, 4096).decode("utf-8", "replace")
            if not typed:
                return
            follower.pressed()
            if get_terminal_size() != size:
                # The picture of that key is not the terminal's any more.
                screen.hidden()
                continue
            wanted = screen.key(typed)
            if wanted is not None:
                try:
                    screen.answered(answered(wanted.give(api)))
                except IronsError as error:
                    screen.answered(clean(error.message))
