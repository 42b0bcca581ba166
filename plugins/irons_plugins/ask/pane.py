"""The pane of `irons ask`: a terminal in which keys answer, and a thread that follows the questions."""

from __future__ import annotations

import os
import select
import termios
import threading
import time
import tty
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from irons.client.models.questions import QuestionPage
from irons.errors import IronsError
from irons.text import clean
from irons_plugins.ask.screen import AskScreen, answered
from irons_plugins.ssh.openssh.subprocess import Signalled, ended_by_signals

if TYPE_CHECKING:
    from irons.client.api import Api
    from irons.terminal.streams import Streams

POLL = 1.0
"""Seconds that one look at the questions takes at most: the pane is left that soon."""
AGAIN = 1.0
"""Seconds until a look that failed is made again."""
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
CLEAR, BELL = "\x1b[H\x1b[J", "\a"


class _Follower:
    """Follows the questions in a thread of its own, and rings where there is something new."""

    def __init__(self, api: Api, *, stay: bool) -> None:
        self._api, self._stay = api, stay
        self.ringing, self._ring = os.pipe()
        self._lock = threading.Lock()
        self._page: QuestionPage | None = None
        self._trouble = ""
        self._key = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="questions", daemon=True)
        self._thread.start()

    def pressed(self) -> None:
        """A key was pressed: the person is there."""
        self._key = time.monotonic()

    def taken(self) -> tuple[QuestionPage | None, str]:
        """What is new, and why the last look failed."""
        os.read(self.ringing, 4096)
        with self._lock:
            page, self._page = self._page, None
            return page, self._trouble

    def close(self) -> None:
        """Follow no more; a look at a server that stands still is left to itself, with what it rings."""
        self._over.set()
        self._thread.join(POLL)
        if not self._thread.is_alive():
            os.close(self.ringing)
            os.close(self._ring)

    def _run(self) -> None:
        token: int | None = None
        told = self._key
        while not self._over.is_set():
            key = self._key
            # Who stays counts without keys, and a key still says that someone is there.
            idle = None if self._stay and key == told else time.monotonic() - key
            try:
                page = self._api.questions(token, wait=POLL, watch=True, idle=idle)
            except IronsError as error:
                self._fail(error.message)
            except Exception as error:  # noqa: BLE001 (a picture that stands still would say that someone is asked)
                self._fail(f"{type(error).__name__}: {error}")
            else:
                token, told = page.token, key
                self._tell(page, "")
                continue
            token = None
            self._over.wait(AGAIN)

    def _fail(self, why: str) -> None:
        """What was open before is not asked by anyone who can be reached."""
        self._tell(QuestionPage(), clean(why))

    def _tell(self, page: QuestionPage, trouble: str) -> None:
        with self._lock:
            self._page, self._trouble = page, trouble
        os.write(self._ring, b"!")


def show(api: Api, streams: Streams, *, stay: bool) -> int:
    """Show the questions and take answers until the person leaves; returns the exit code, which names TERM or HUP where one came."""
    keys = streams.stdin.fileno()
    before = termios.tcgetattr(keys)
    follower = _Follower(api, stay=stay)
    write = streams.stdout.write
    write(ENTER)
    try:
        with ended_by_signals():
            tty.setcbreak(keys)
            _take_no_suspension(keys)
            _take_keys(api, streams, keys, follower)
    except Signalled as ended:
        return 128 + ended.number
    finally:
        termios.tcsetattr(keys, termios.TCSADRAIN, before)
        write(LEAVE)
        streams.stdout.flush()
        follower.close()
    return 0


def _take_no_suspension(keys: int) -> None:
    """Have Ctrl-Z be a key: whoever comes back from it would find the shell's settings, and another screen."""
    attributes = termios.tcgetattr(keys)
    attributes[6][termios.VSUSP] = b"\0"
    termios.tcsetattr(keys, termios.TCSANOW, attributes)


def _take_keys(api: Api, streams: Streams, keys: int, follower: _Follower) -> None:
    screen, trouble, drawn = AskScreen(), "", ""
    while not screen.left:
        columns, rows = get_terminal_size()
        lines = screen.lines(columns, rows - (1 if trouble else 0))
        text = CLEAR + "\r\n".join([*([trouble[:columns]] if trouble else []), *lines])
        if text != drawn:
            drawn = text
            streams.stdout.write(text)
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
            page, trouble = follower.taken()
            if page is not None and screen.take(page):
                streams.stdout.write(BELL)
        if keys in ready:
            typed = os.read(keys, 4096).decode("utf-8", "replace")
            if not typed:
                return
            follower.pressed()
            wanted = screen.key(typed)
            if wanted is not None:
                try:
                    screen.answered(answered(api.answer_question(wanted.id, wanted.answer)))
                except IronsError as error:
                    screen.answered(clean(error.message))
