"""The thread that brings events to the live view, each once and in order."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from irons.client.following.cursor import Cursor
from irons.client.models.audit import Pages
from irons.errors import AuthError, IronsError, NotFound, Unreachable, Unsupported
from irons_repl.status.lateness import LATE, Lateness
from irons_repl.status.mode_line import ModeFacts
from irons_repl.watch.changing import Reading, read_standing

if TYPE_CHECKING:
    from irons.client.api import Api
    from irons.client.models.audit import AuditPage
    from irons_policy.event import Event
    from irons_repl.watch.standing import KnownRules

WAIT = 2.0
"""Seconds that a server which can wait holds an answer until something happens."""

PAUSE = 0.5
"""Seconds between two questions to a server that can't."""

BACKLOG = 10_000
"""Events from before that the view begins with: hosts and totals are of these, and of all that come."""

READ_AGAIN = 200
"""Events of the last minutes that are read again at a server that tells no changes."""

OPEN_FOR = 120.0
"""Seconds for which events are read again at a server that tells no changes: longer than any wait for a server's answer."""

MODE_EVERY = 2.0
"""Seconds between two looks at the mode: as often as the line below the prompt has it."""


class Feed:
    """Follows the audit log of one sandbox, or of all."""

    def __init__(
        self,
        api: Api,
        sandbox: str | None,
        *,
        events: Callable[[tuple[Event, ...]], None],
        learned: Callable[[tuple[Event, ...]], None],
        rotated: Callable[[str], None],
        standing: Callable[[KnownRules], None],
        mode: Callable[[ModeFacts], None],
        trouble: Callable[[str], None],
        failed: Callable[[IronsError], None],
        late_after: float = LATE,
    ) -> None:
        """Take the functions to call, from the feed's thread.

        Args:
            api: The client.
            sandbox: Whose log; None is everybody's.
            events: Hears new events.
            learned: Hears of events that were brought before and have changed since: they ended, or were repeated.
            rotated: Hears how many events from before were rotated out.
            standing: Hears the rules, where they have changed.
            mode: Hears the egress mode.
            trouble: Hears why there is nothing new just now; an empty text when that is over.
            failed: Hears an error that makes going on pointless.
            late_after: Seconds without an answer after which that is trouble.
        """
        self._api = api
        self._sandbox = sandbox
        self._events = events
        self._learned = learned
        self._rotated = rotated
        self._standing = standing
        self._reading: Reading | None = None
        self._mode = mode
        self._trouble = trouble
        self._failed = failed
        self._over = threading.Event()
        self._waits = False
        self._looks_back = False
        self._open: deque[tuple[float, int]] = deque()
        self._cursor = Cursor(api, sandbox)
        self._thread = threading.Thread(target=self._work, name="irons-watch", daemon=True)
        self._lateness = Lateness(self._say_late, late_after)
        self._late = False

    def start(self) -> None:
        """Begin."""
        self._thread.start()
        self._lateness.start()

    def stop(self) -> None:
        """Stop; a question that is on its way is not waited for."""
        self._over.set()
        self._lateness.stop()

    def _work(self) -> None:
        begun = False
        failures = 0
        while not self._over.is_set():
            try:
                if not begun:
                    extensions = self._api.extensions
                    self._waits = "wait" in extensions
                    # Only irons' own server gives events an identity, by which they are known again.
                    self._looks_back = "audit-filters" in extensions and not self._cursor.tells_changes
                    self._begin()
                    begun = True
                    self._open.append((time.monotonic(), self._cursor.token))
                with self._lateness.asking():
                    self._mode(self._read_mode())
                    self._read_rules()
                if failures or self._late:
                    self._poll(wait=None)
                    failures = 0
                    self._late = False
                    self._trouble("")
                self._follow()
                self._look_back()
            except (NotFound, AuthError, Unsupported) as error:
                self._failed(error)
                return
            except IronsError as error:
                failures += 1
                self._trouble(
                    "the server does not answer" if isinstance(error, Unreachable) else error.message
                )
                self._over.wait(min(PAUSE * 2 ** min(failures, 5), 10.0))
            except Exception as error:  # noqa: BLE001 - the client is closed below a question that is on its way; else it is a bug to be shown
                if not self._over.is_set():
                    self._failed(IronsError(f"the view broke: {type(error).__name__}: {error}"))
                return

    def _say_late(self) -> None:
        if not self._over.is_set():
            self._late = True
            self._trouble("the server does not answer yet")

    def _read_mode(self) -> ModeFacts:
        """Read the mode that applies to what is watched; the title names the sandbox already."""
        found = self._api.mode(self._sandbox if self._waits else None)
        return ModeFacts(None, found.mode or None, {} if self._sandbox else found.differs)

    def _read_rules(self) -> None:
        """Bring the rules; at a server that shows none the view knows none."""
        try:
            found = read_standing(self._api, self._sandbox, self._reading)
        except (NotFound, Unsupported):
            return
        if found is not self._reading and not self._over.is_set():
            self._reading = found
            self._standing(found.standing)

    def _begin(self) -> None:
        """Bring the latest events."""
        page = self._cursor.read(limit=BACKLOG)
        self._say_rotated(page)
        latest, changed = page.events[-BACKLOG:], page.changed
        before, turned = 0, Pages()
        while page.events and self._cursor.token != before:
            before = self._cursor.token
            turned.to(before)
            page = self._cursor.read()
            latest = (*latest, *page.events)[-BACKLOG:]
            changed = (*changed, *page.changed)
        self._events(latest)
        self._learned(changed)

    def _look_back(self) -> None:
        """Read the events of the last minutes again: an event is brought when it is judged, and may end or be repeated."""
        if not self._looks_back or self._over.is_set():
            return
        now = time.monotonic()
        self._open.append((now, self._cursor.token))
        while len(self._open) > 1 and self._open[1][0] < now - OPEN_FOR:
            self._open.popleft()
        page = self._api.audit(self._sandbox, self._open[0][1], limit=READ_AGAIN)
        self._say_rotated(page)
        if page.events and not self._over.is_set():
            self._learned(page.events)

    def _say_rotated(self, page: AuditPage) -> None:
        if page.rotated:
            self._rotated("; ".join(each.line for each in page.rotated[:1]))

    def _follow(self) -> None:
        """Bring what comes in the next seconds."""
        until = time.monotonic() + MODE_EVERY
        while True:
            asked = time.monotonic()
            news = self._poll(wait=WAIT if self._waits else None)
            if not news:
                # Also a server that says it waits, and does not, is left in peace.
                self._over.wait(max(0.0, asked + PAUSE - time.monotonic()))
            if self._over.is_set() or time.monotonic() >= until:
                break

    def _poll(self, *, wait: float | None) -> bool:
        """Bring what is new and what changed; return whether there was anything, and the next question is another one."""
        before = self._cursor.place
        with self._lateness.asking():
            page = self._cursor.read(wait=wait)
        self._say_rotated(page)
        if self._over.is_set():
            return False
        if page.changed:
            self._learned(page.changed)
        if page.events:
            self._events(page.events)
        return bool(page.changed or page.events) and self._cursor.place != before
