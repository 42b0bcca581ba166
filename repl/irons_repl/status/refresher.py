"""The thread that looks at the server while a person types: names, domains, mode, denials; nothing else in the prompt waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from irons.client import refreshing
from irons.client.names import NameCache
from irons.ending import ENDS, soonest
from irons.errors import IronsError, LocalError, Unreachable, Unsupported
from irons.settings.settings import Settings
from irons_repl.run.session import ShellSession
from irons_repl.status.denials import Denials
from irons_repl.status.status_model import Outlook, backend_of, counted

if TYPE_CHECKING:
    from irons.client.api import Api

INTERVAL = 2.0
"""Seconds between two looks."""

SLOWEST = 15.0
"""The most seconds between two looks, at a server that does not answer or has much to tell."""

SHARE = 40
"""A look that computed for a second is followed by a pause of so many: it slows down the keys typed during it."""

RULES_EVERY = 5
"""Looks between two that ask for the rules, the latest hosts and the images; after each own command they are asked for at once."""


def _time_of_day() -> str:
    return time.strftime("%H:%M:%S")


class Refresher:
    """Looks at the server in the background, keeps the caches fresh, and has the latest `outlook`."""

    def __init__(
        self,
        session: ShellSession,
        changed: Callable[[], None],
        say: Callable[[str], None],
        interval: float = INTERVAL,
    ) -> None:
        """Take the session, what to call when there is something new to show, and how to say a line to the person."""
        self._session = session
        self._changed = changed
        self._say = say
        self._interval = interval
        self._denials = Denials()
        self._wake = threading.Event()
        self._over = threading.Event()
        self._resting = threading.Event()
        self._looks = 0
        self._failures = 0
        self._looked = ""
        self._down = False
        self._has_images = True
        self._backend: tuple[object, ...] | None = None
        self._thread = threading.Thread(target=self._work, name="irons-refresher", daemon=True)
        self.outlook = self._shown = Outlook()

    @property
    def running(self) -> bool:
        """True once it has begun."""
        return self._thread.ident is not None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more. A look that is on its way is not waited for."""
        self._over.set()
        self._wake.set()

    def rest(self) -> None:
        """Leave the server and the terminal to a command that runs now."""
        self._resting.set()

    def poke(self, code: int = 0) -> None:
        """Look at once, and at the rules too: a command has just run, and ended with `code`."""
        if code == Unreachable.exit_code and not self._down:
            # It has reported this itself.
            self._down = True
        self._looks = 0
        self._resting.clear()
        self._wake.set()

    def _work(self) -> None:
        while not self._over.is_set():
            began, busy = time.monotonic(), time.thread_time()
            if not self._resting.is_set():
                self._look()
                self._show()
            took, busy = time.monotonic() - began, time.thread_time() - busy
            pause = max(self._interval * 2 ** min(self._failures, 6), took, busy * SHARE)
            pause = min(pause, max(SLOWEST, self._interval))
            self._wake.wait(pause)
            self._wake.clear()

    def _show(self) -> None:
        """Have the outlook shown where it is another than the one shown last."""
        if self.outlook != self._shown and not self._over.is_set():
            self._shown = self.outlook
            self._changed()

    def _look(self) -> None:
        try:
            settings = self._session.settings(in_passing=True)
        except IronsError:
            self._fail("configuration broken")
            return
        self._follow(settings)
        try:
            self._ask(settings)
        except Unreachable as error:
            self._fail("unreachable")
            if not self._down:
                self._down = True
                self._say(f"{error.message}. The prompt continues with the last known state.")
        except LocalError:
            self._fail("not up")
        except IronsError as error:
            self._fail(error.code)
        except Exception as error:  # noqa: BLE001 - a plugin's backend may raise anything; the toolbar says so and the prompt goes on
            self._fail(f"broken ({type(error).__name__})")
        else:
            self._failures = 0
            self._looked = _time_of_day()
            if self._down:
                self._down = False
                self._say(f"{self.outlook.backend} answers again.")

    def _fail(self, trouble: str) -> None:
        """Say in the outlook that the look failed, and of when its facts are."""
        self._failures += 1
        self.outlook = replace(self.outlook, trouble=trouble, as_of=self._looked)

    def _follow(self, settings: Settings) -> None:
        """Begin again where the settings choose another backend than at the last look."""
        chosen = (settings.api_url, settings.profile, settings.api_key)
        if chosen != self._backend:
            self._backend = chosen
            self._denials = Denials()
            self._looks = 0
            self._down = False
            self._has_images = True
            self._looked = ""
            self.outlook = Outlook(backend_of(settings.api_url), settings.profile)

    def _ask(self, settings: Settings) -> None:
        api = self._session.api(settings)
        used = settings["sandbox"]
        facts = refreshing.refresh_facts(api, settings)
        states: dict[str, str] | None = None
        try:
            states = refreshing.refresh_names(api, settings)
        except Unreachable:
            raise
        except IronsError:
            pass  # an older server has no list; what else is known is shown all the same
        self.outlook = replace(
            self.outlook,
            sandbox=used,
            mode=refreshing.mode_for(facts, used),
            differs={} if used else refreshing.differing(facts),
            states=None if states is None else counted(states),
            ending="" if states is None else soonest(NameCache.of(settings, what=ENDS).read()),
            trouble="",
            as_of="",
        )
        if self._looks % RULES_EVERY == 0:
            self._show()
            refreshing.refresh_domains(api, settings, states or ())
            self._ask_for_images(api, settings)
        self._looks += 1
        self.outlook = replace(self.outlook, denied=self._denials.look(api, states or ()))

    def _ask_for_images(self, api: Api, settings: Settings) -> None:
        if not self._has_images:
            return
        try:
            refreshing.refresh_images(api, settings)
        except Unsupported:
            self._has_images = False
