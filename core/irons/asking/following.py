"""Follows the open questions in a thread of its own; while it does, someone watches, so that connections wait for an answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from irons.asking.ringing import Ringing
from irons.client.models.questions import QuestionPage
from irons.errors import IronsError
from irons.record import NamedTuple
from irons.text import clean

if TYPE_CHECKING:
    from irons.client.api import Api
    from irons.presets.offers import PresetOffers

POLL = 1.0
"""Seconds that one look at the questions takes at most: a face is left that soon."""
PAUSE = 0.1
"""Seconds for each look, in the long run: a flood changes the questions without end."""
AT_ONCE = 5
"""Looks that are made without a pause after a while without any: a question that comes right after an answer is on the screen at once."""
AGAIN = 1.0
"""Seconds until a look that failed is made again."""


class LookPace:
    """How fast one look may come after another: a leaky bucket with room for `AT_ONCE`, which loses one each `PAUSE`."""

    def __init__(self) -> None:
        self._full_until = float("-inf")

    def pause(self, now: float) -> float:
        """Count a look that ended at `now`, by `time.monotonic`; return how many seconds the next one has to wait."""
        self._full_until = max(self._full_until, now) + PAUSE
        return max(0.0, self._full_until - now - AT_ONCE * PAUSE)


class QuestionsHeard(NamedTuple):
    """What a look at the questions gave.

    Attributes:
        page: The open questions; none where the look failed, since no one who can be reached asks them.
        api: The client that they came from, and that answers go to; None where there is none.
        trouble: Why the look failed; empty where it did not.
        rings: Whether it is worth a bell. One that was held back is heard once its time has come, with what was heard before.
    """

    page: QuestionPage = QuestionPage()
    api: Api | None = None
    trouble: str = ""
    rings: bool = False


class QuestionFollower:
    """Follows the questions while it is wanted and someone is here to answer. Its methods may be called from any thread."""

    def __init__(
        self,
        client: Callable[[], Api],
        heard: Callable[[QuestionsHeard], None],
        *,
        stay: bool = False,
        again: float = AGAIN,
        key: float | None = None,
        ringing: Ringing | None = None,
        offers: Callable[[], PresetOffers] | None = None,
    ) -> None:
        """Take what it follows and who hears of it.

        Args:
            client: Returns the client to ask by; a face may change its backend. Called in a thread of its own.
            heard: Hears what is new; must not wait. Nothing is asked once it is not wanted, which it hears too.
            stay: Someone watches as long as this runs, without keys.
            again: Seconds until a look that failed is made again.
            key: When the last key was pressed, by `time.monotonic`; None is now.
            ringing: Tells which questions are worth a bell; None is a new one.
            offers: Returns what finds the preset of a question. Called once, in a thread of its own; no question waits for it.
        """
        self._client, self._heard, self._stay, self._again = client, heard, stay, again
        self._ringing = ringing or Ringing()
        self._offers = offers
        self._presets: PresetOffers | None = None
        self._key = time.monotonic() if key is None else key
        self._lock = threading.Lock()
        self._wanted = self._resting = False
        # What was heard last; None where the next look is news in any case.
        self._latest: QuestionsHeard | None = QuestionsHeard()
        # How often it left off: the next look asks for all there is.
        self._breaks = 0
        # Whether the look next to the thread's own is to be made, and whether one is.
        self._is_due = self._is_looking = False
        self._over = threading.Event()
        self._going = threading.Event()
        self._thread = threading.Thread(target=self._run, name="irons-questions", daemon=True)

    def want(self, *, asks: bool = True) -> None:
        """Follow from now on; or no more, where no sandbox is in mode `ask`."""
        with self._lock:
            self._wanted = asks
            self._step()
            if not asks:
                self._breaks += 1
                self._tell(QuestionsHeard())

    def rest(self, *, resting: bool) -> None:
        """Leave off while no one could answer here; a look on its way ends within a second.

        What ends in that time is not heard, and what ends first after it is, also where it has nothing new: what was heard before may be over.
        """
        with self._lock:
            if resting and not self._resting:
                self._breaks += 1
                self._latest = None
            self._resting = resting
            self._step()

    def look(self) -> None:
        """Look once now, next to the look on its way; while one such look goes on, once after it, however often this is called."""
        with self._lock:
            self._is_due = True
            if self._is_looking:
                return
            self._is_looking = True
        threading.Thread(target=self._look, name="irons-look", daemon=True).start()

    def pressed(self) -> None:
        """Note that a key was pressed: the person is there."""
        self._key = time.monotonic()

    def stop(self, patience: float = 0.0) -> bool:
        """Look no more; return whether the thread has ended.

        Args:
            patience: Seconds to wait for that. A look at a server that stands still is left to itself.
        """
        with self._lock:
            # Nothing is told after that.
            self._over.set()
        self._going.set()
        if self._thread.ident is None:
            return True
        self._thread.join(patience)
        return not self._thread.is_alive()

    def _step(self) -> None:
        if not self._wanted or self._resting:
            self._going.clear()
            return
        self._going.set()
        if self._thread.ident is None:
            self._thread.start()

    def _run(self) -> None:
        token: int | None = None
        asked: Api | None = None
        told = self._key
        pace = LookPace()
        breaks = self._breaks
        while not self._over.is_set():
            if not self._going.is_set():
                self._going.wait()
                continue
            key = self._key
            if breaks != self._breaks:
                breaks, token = self._breaks, None
            # Who stays counts without keys, and a key still says that someone is there.
            idle = None if self._stay and key == told else time.monotonic() - key
            try:
                api = self._client()
                token = token if api is asked else None
                asked = api
                page = api.questions(token, wait=POLL, watch=True, idle=idle)
            except IronsError as error:
                self._hear(QuestionsHeard(trouble=clean(error.message)))
            except Exception as error:  # noqa: BLE001 (a picture that stands still would say that someone is asked)
                self._hear(QuestionsHeard(trouble=clean(f"{type(error).__name__}: {error}")))
            else:
                told = key
                token = page.token if self._hear(QuestionsHeard(page, api)) else None
                self._over.wait(pace.pause(time.monotonic()))
                continue
            token = None
            self._over.wait(self._again)

    def _look(self) -> None:
        while self._takes_look():
            # What fails is said by the look on its way.
            with suppress(Exception):
                api = self._client()
                self._hear(QuestionsHeard(api.questions(), api))

    def _takes_look(self) -> bool:
        with self._lock:
            self._is_looking = is_due = self._is_due
            self._is_due = False
            return is_due

    def _offered(self, page: QuestionPage) -> QuestionPage:
        """The questions with their presets, once these are there and do not fail: a question is worth more than they are."""
        if not page.questions:
            return page
        offers, self._offers = self._offers, None
        if offers is not None:
            threading.Thread(target=self._find, args=(offers,), name="irons-presets", daemon=True).start()
        if self._presets is not None:
            with suppress(Exception):
                return self._presets.page(page)
        return page

    def _find(self, offers: Callable[[], PresetOffers]) -> None:
        """Find the presets, which may take a plugin long, and tell again what was told without them."""
        with suppress(Exception):
            found = offers()
            with self._lock:
                self._presets = found
                latest = self._latest
                if latest is not None and not self._over.is_set():
                    self._tell(latest._replace(page=found.page(latest.page)))

    def _hear(self, heard: QuestionsHeard) -> bool:
        """Tell what a look gave; return whether that was wanted: not once the last sandbox has left mode ask, nor while a command runs."""
        with self._lock:
            if not self._wanted or self._resting or self._over.is_set():
                return False
            rings = not heard.trouble and self._ringing.rings(heard.page)
            self._tell(heard._replace(page=self._offered(heard.page)), rings=rings)
            return True

    def _tell(self, heard: QuestionsHeard, *, rings: bool = False) -> None:
        if heard != self._latest or rings:
            self._latest = heard
            self._heard(heard._replace(rings=rings))
