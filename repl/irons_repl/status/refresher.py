"""The thread that looks at the server while a person types: names, domains, mode, denials; nothing else in the prompt waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from irons.client import refreshing
from irons.client.names import NameCache
from irons.client.scoped_names import ends_on_hand
from irons.ending import ENDS, soonest
from irons.errors import IronsError, LocalError, Unreachable, Unsupported
from irons.plugin.hook_data import PromptStatus
from irons.settings.settings import Settings
from irons_repl.forecast.gathering import Gathering
from irons_repl.run.session import BackendKey, ShellSession, backend_key
from irons_repl.status.lateness import LATE, Lateness
from irons_repl.status.remedies import Remedies
from irons_repl.status.rule_ends import told
from irons_repl.status.status_model import Outlook, backend_of, counted

if TYPE_CHECKING:
    from irons.client.api import Api
    from irons_repl.forecast.ground import Ground
    from irons_repl.status.denials import Denials

INTERVAL = 2.0
"""Seconds between two looks."""

SLOWEST = 15.0
"""The most seconds between two looks, at a server that does not answer or has much to tell."""

SHARE = 40
"""A look that computed for a second is followed by a pause of so many: it slows down the keys typed during it."""

IDLE = 0.4
"""Seconds without a key after which a look may begin or go on."""

HELD = 20.0
"""The most seconds for which keys put off a part of a look."""

RULES_EVERY = 5
"""Looks between two that ask for the rules, the latest hosts and the images; after each own command they are asked for at once."""


def _time_of_day() -> str:
    return time.strftime("%H:%M:%S")


class Refresher:
    """Looks at the server in the background, keeps the caches fresh, and has the latest `outlook`."""

    _denials: Denials
    """Those of the backend that is followed, from the first look on."""

    def __init__(
        self,
        session: ShellSession,
        changed: Callable[[], None],
        say: Callable[[str], None],
        interval: float = INTERVAL,
        on_hand: Sequence[Callable[[], object]] = (),
        late_after: float = LATE,
        clock: Callable[[], float] = time.monotonic,
        asking: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """Take the session and what to call.

        Args:
            session: The prompt.
            changed: Called when there is something new to show.
            say: Says a line to the person.
            interval: Seconds between two looks.
            on_hand: Each is called after a look: it reads again what keys are completed from, so that no key has to.
            late_after: Seconds without an answer after which the facts are marked as stale.
            clock: Tells the seconds by which keys put off a look.
            asking: Hears at each look whether a sandbox is in mode `ask`.
        """
        self._session = session
        self._clock = clock
        self._changed = changed
        self._say = say
        self._interval = interval
        self._on_hand = on_hand
        self._asking = asking
        self.remedies = Remedies()
        self._wake = threading.Event()
        self._over = threading.Event()
        self._resting = threading.Event()
        self._typed = float("-inf")
        self._looks = 0
        self._failures = 0
        self._looked = ""
        self._down = False
        self._has_images = True
        self._backend: BackendKey | None = None
        self._forecasts = Gathering()
        self._asked: set[str | None] = set()
        self._poked = False
        self._thread = threading.Thread(target=self._work, name="irons-refresher", daemon=True)
        self._lateness = Lateness(self._mark_late, late_after)
        self.outlook = self._shown = Outlook()

    @property
    def running(self) -> bool:
        """True once it has begun."""
        return self._thread.ident is not None

    def start(self) -> None:
        """Begin."""
        self._thread.start()
        self._lateness.start()

    def stop(self) -> None:
        """Look no more. A look that is on its way is not waited for."""
        self._over.set()
        self._wake.set()
        self._lateness.stop()

    def typing(self) -> None:
        """Put off what would slow down the next key: one has just been typed."""
        self._typed = self._clock()

    def rest(self) -> None:
        """Leave the server and the terminal to a command that runs now."""
        self._resting.set()

    def poke(self, code: int = 0) -> None:
        """Look at once, and at the rules too: a command has just run, and ended with `code`."""
        if code == Unreachable.exit_code and self._session.asked == self._backend:
            # It has reported this itself. What another backend answered (--api-url, --profile) says nothing of this one.
            self._down = True
        self._looks = 0
        self._poked = True
        self._forecasts.forget()
        self._asked.clear()
        self._resting.clear()
        self._wake.set()

    def forecast(self, sandbox: str | None) -> tuple[Ground | None, bool]:
        """Return what a change of a scope's rules is judged on, and whether that is still to be gathered; nothing here waits.

        Args:
            sandbox: The scope; None for all sandboxes.
        """
        ground, missing = self._forecasts.want(sandbox)
        if missing and sandbox not in self._asked:
            self._asked.add(sandbox)
            self._wake.set()
        return ground, missing

    def _work(self) -> None:
        due = time.monotonic()
        while not self._over.is_set():
            pause = self._interval
            if not self._resting.is_set():
                if self._forecasts.due:
                    self._gather()
                if self._poked or time.monotonic() >= due:
                    self._poked = False
                    due = time.monotonic() + self._timed_look()
                pause = max(0.0, due - time.monotonic())
            self._wake.wait(pause)
            self._wake.clear()

    def _timed_look(self) -> float:
        """Look, show what is new, and return the seconds until the next look."""
        began, busy = time.monotonic(), time.thread_time()
        if self._backend is not None:
            self._leave_room()
        self._look()
        for read in self._on_hand:
            read()
        self._show()
        took, busy = time.monotonic() - began, time.thread_time() - busy
        pause = max(self._interval * 2 ** min(self._failures, 6), took, busy * SHARE)
        return float(min(pause, max(SLOWEST, self._interval)))

    def _gather(self) -> None:
        """Gather what forecasts need. Where that fails there is none; a look says why."""
        try:
            settings = self._session.settings(in_passing=True)
            self._follow(settings)
            self._forecasts.gather(self._session.api_in_passing(settings))
        except Exception:  # noqa: BLE001 - a plugin's backend may raise anything, and the next look reports it
            return
        self._changed()

    def _leave_room(self) -> None:
        """Wait until no one has typed for a moment, but not for ever."""
        until = self._clock() + HELD
        while (now := self._clock()) < min(self._typed + IDLE, until):
            if self._over.wait(self._typed + IDLE - now):
                return

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
            # An answer that came late had it marked.
            self.outlook = self.outlook._replace(trouble="", as_of="")
            if self._down:
                self._down = False
                self._say(f"{self.outlook.backend} answers again.")

    def _fail(self, trouble: str) -> None:
        """Say in the outlook that the look failed, and of when its facts are."""
        self._failures += 1
        self.outlook = self.outlook._replace(trouble=trouble, as_of=self._looked)

    def _mark_late(self) -> None:
        """Say of when the facts are while an answer is late: the mode may have changed since."""
        if not self.outlook.trouble:
            self.outlook = self.outlook._replace(trouble="no answer yet", as_of=self._looked)
            self._changed()

    def _follow(self, settings: Settings) -> None:
        """Begin again where the settings choose another backend than at the last look."""
        chosen = backend_key(settings)
        if chosen != self._backend:
            self._backend = chosen
            # Imported here, in its own thread: the first prompt does not wait for it.
            from irons_repl.status.denials import Denials

            self.remedies = Remedies()
            self._denials = Denials(self.remedies.add)
            self._forecasts = Gathering()
            self._looks = 0
            self._down = False
            self._has_images = True
            self._looked = ""
            self.outlook = Outlook(backend_of(settings.api_url), settings.profile)

    def _ask(self, settings: Settings) -> None:
        api = self._session.api_in_passing(settings)
        used = settings["sandbox"]
        with self._lateness.asking():
            if self._denials.count is None:
                # Refusals count from now on, also where keys put off the rest of this look.
                self._denials.look(api, ())
            facts = refreshing.refresh_facts(api, settings)
        self._asking("ask" in facts.values())
        # At once, before anything waits for keys: what is refused from here on counts.
        self._denials.begin(api)
        states: dict[str, str] | None = None
        self._leave_room()
        try:
            with self._lateness.asking():
                states = refreshing.refresh_names(api, settings)
        except Unreachable:
            raise
        except IronsError:
            pass  # an older server has no list; what else is known is shown all the same
        self.outlook = self.outlook._replace(
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
            self._leave_room()
            refreshing.refresh_domains(api, settings, states or ())
            self._ask_for_images(api, settings)
            with suppress(Unsupported):
                refreshing.refresh_snapshots(api, settings)
            self._ask_for_keys(api, settings, states or ())
        self._looks += 1
        self._leave_room()
        with self._lateness.asking():
            denied = self._denials.look(api, states or ())
        timed = told(ends_on_hand(settings, used), time.time()) if used else ""
        self.outlook = self.outlook._replace(denied=denied, denied_by=self._denials.by_sandbox, timed=timed)
        self.outlook = self.outlook._replace(extras=self._extras(settings))

    def _extras(self, settings: Settings) -> tuple[str, ...]:
        """What plugins show; they are asked in this thread, and no key waits for them."""
        seen = self.outlook
        status = PromptStatus(
            seen.backend, seen.profile, seen.sandbox, seen.mode, seen.states, seen.denied_here
        )
        answers = self._session.host.answers("irons_toolbar", settings, warn=self._say, status=status)
        return tuple(str(answer) for _, answer in answers)

    def _ask_for_images(self, api: Api, settings: Settings) -> None:
        if not self._has_images:
            return
        try:
            refreshing.refresh_images(api, settings)
        except Unsupported:
            self._has_images = False

    def _ask_for_keys(self, api: Api, settings: Settings, sandboxes: Iterable[str]) -> None:
        """Ask for what `access NAME remove` completes; another server has no keys, or none for who asks."""
        try:
            refreshing.refresh_keys(api, settings, sandboxes)
        except Unreachable:
            raise
        except IronsError:
            return
