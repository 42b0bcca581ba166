"""The thread that brings events to the live view, each once and in order."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from irons.client.models.audit import Pages
from irons.errors import AuthError, IronsError, NotFound, Unreachable, Unsupported
from irons_repl.watch.model import LOST

if TYPE_CHECKING:
    from irons.client.api import Api
    from irons.client.models.audit import AuditPage
    from irons_policy.event import Event

WAIT = 5.0
"""Seconds that a server which can wait holds an answer until something happens."""

PAUSE = 0.5
"""Seconds between two questions to a server that can't."""

BACKLOG = 200
"""Events from before that the view begins with."""

OPEN_FOR = 120.0
"""Seconds for which the end of an event is looked for: longer than any wait for a server's answer."""

MODE_EVERY = 5.0
"""Seconds between two looks at the mode."""


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
        mode: Callable[[str], None],
        trouble: Callable[[str], None],
        failed: Callable[[IronsError], None],
    ) -> None:
        """Take the functions to call, from the feed's thread.

        Args:
            api: The client.
            sandbox: Whose log; None is everybody's.
            events: Hears new events.
            learned: Hears how earlier events ended, where they were not reached.
            rotated: Hears how many events from before were rotated out.
            mode: Hears the egress mode.
            trouble: Hears why there is nothing new just now; an empty text when that is over.
            failed: Hears an error that makes going on pointless.
        """
        self._api = api
        self._sandbox = sandbox
        self._events = events
        self._learned = learned
        self._rotated = rotated
        self._mode = mode
        self._trouble = trouble
        self._failed = failed
        self._over = threading.Event()
        self._waits = False
        self._ends = False
        self._open: deque[tuple[float, int]] = deque()
        self._thread = threading.Thread(target=self._work, name="irons-watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; a question that is on its way is not waited for."""
        self._over.set()

    def _work(self) -> None:
        token: int | None = None
        failures = 0
        while not self._over.is_set():
            try:
                if token is None:
                    extensions = _extensions(self._api)
                    self._waits, self._ends = "wait" in extensions, "audit-outcomes" in extensions
                    token = self._begin()
                    self._open.append((time.monotonic(), token))
                self._mode(self._api.mode(self._sandbox if self._waits else None).mode)
                if failures:
                    token = self._poll(token, wait=None)
                    failures = 0
                    self._trouble("")
                token = self._follow(token)
                self._look_back(token)
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

    def _begin(self) -> int:
        """Bring the latest events, and return the token after them."""
        page = self._api.audit(self._sandbox, limit=BACKLOG)
        self._say_rotated(page)
        latest = page.events[-BACKLOG:]
        token, turned = 0, Pages()
        while page.events and page.token not in (0, token):
            token = page.token
            turned.to(token)
            page = self._api.audit(self._sandbox, token)
            latest = (*latest, *page.events)[-BACKLOG:]
        self._events(latest)
        return token

    def _look_back(self, token: int) -> None:
        """Ask how the events of the last minutes ended: an event is followed when it is judged, before its end is known."""
        if not self._ends or self._over.is_set():
            return
        now = time.monotonic()
        self._open.append((now, token))
        while len(self._open) > 1 and self._open[1][0] < now - OPEN_FOR:
            self._open.popleft()
        page = self._api.audit(self._sandbox, self._open[0][1], outcome=",".join(LOST), limit=BACKLOG)
        self._say_rotated(page)
        if page.events and not self._over.is_set():
            self._learned(page.events)

    def _say_rotated(self, page: AuditPage) -> None:
        if page.rotated:
            self._rotated("; ".join(each.line for each in page.rotated[:1]))

    def _follow(self, token: int) -> int:
        """Bring what comes in the next seconds, and return the token after it."""
        for _ in range(max(1, int(MODE_EVERY / (WAIT if self._waits else PAUSE)))):
            asked, before = time.monotonic(), token
            token = self._poll(token, wait=WAIT if self._waits else None)
            if self._over.is_set():
                break
            if token == before:
                # Also a server that says it waits, and does not, is left in peace.
                self._over.wait(max(0.0, asked + PAUSE - time.monotonic()))
        return token

    def _poll(self, token: int, *, wait: float | None) -> int:
        """Bring what there is after a token, and return the token after that."""
        page = self._api.audit(self._sandbox, token, wait=wait)
        if page.events and not self._over.is_set():
            self._events(page.events)
            return page.token or token
        return token


def _extensions(api: Api) -> tuple[str, ...]:
    try:
        return api.version().extensions
    except Unsupported:
        return ()
