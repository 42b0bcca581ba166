"""Questions of mode `ask` in xonsh: a line above the prompt, how many there are in `{irons}`, and a chord that opens them.

Where no sandbox is in mode `ask`, all that is done is a look at one small file at times.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from irons_repl.xonsh_face.face import Face

if TYPE_CHECKING:
    from irons.asking.following import QuestionFollower, QuestionsHeard
    from irons.asking.screen import AskScreen
    from irons.client.api import Api
    from irons.client.names import NameCache
    from irons.settings.settings import Settings
    from irons_repl.chord import AskChords

EVERY = 2.0
"""Seconds between two looks at the modes on hand."""
MOMENT = 0.2
"""Seconds that a prompt waits at most for what became of the questions that were open before the command."""


class FaceQuestions:
    """The questions of one loaded xontrib."""

    def __init__(self, face: Face) -> None:
        """Take what xonsh keeps between irons commands."""
        self._face = face
        self._settings: Settings | None = None
        self._env: dict[str, str] = {}
        self._facts: NameCache | None = None
        self._follower: QuestionFollower | None = None
        self._screen: AskScreen | None = None
        self._key = time.monotonic()
        self._is_running = False
        self._over = threading.Event()
        self._looking = threading.Thread(target=self._look, name="irons-modes", daemon=True)
        # Held while it is decided whether it rests. The follower's lock may be taken within, and this one within that never.
        self._resting = threading.Lock()
        # Held for what is shown; no other lock is taken within.
        self._lock = threading.Lock()
        # What the screen has is of after the last command; a line of it is to be shown, and with a bell.
        self._fresh = threading.Event()
        self._due = self._rings = False
        self._chords = Chords(face.xsh, self.pressed, self._take_line)

    @property
    def count(self) -> int:
        """How many places a person is asked about."""
        screen = self._screen
        return 0 if screen is None else len(screen.page.questions) + sum(screen.page.others.values())

    def pressed(self) -> None:
        """Note that a key was pressed."""
        self._key = time.monotonic()
        if self._follower is not None:
            self._follower.pressed()

    def at_prompt(self) -> None:
        """Show what is asked above the next prompt, and follow again: a line has just been typed."""
        from irons.client.names import NameCache
        from irons.errors import IronsError

        try:
            settings = self._face.settings(in_passing=True)
        except IronsError:
            return
        self._chords.add(str(settings["ask_chord"]))
        if not self._chords.name:
            # No bell and no line could be shown while a line is typed: no one watches here.
            return
        # Read here alone: another thread must not walk through xonsh's variables while they change.
        self._settings, self._env = settings, self._face.env()
        self._facts = NameCache.of(settings, what="facts")
        self.pressed()
        with self._lock:
            # Each prompt has it above.
            self._due = True
        self._rest(resting=False)
        if self._follower is not None and self.count and not self._fresh.is_set():
            # Those there were may be over. What comes later is shown once it does.
            self._follower.look()
            self._fresh.wait(MOMENT)
        line = self._take_line()
        if line:
            sys.stdout.write(line)
            sys.stdout.flush()
        if self._looking.ident is None:
            self._looking.start()

    def at_command(self) -> None:
        """Leave off while a command has the terminal."""
        self._rest(resting=True)

    def remove(self) -> None:
        """Follow no more, and take the chords back."""
        self._over.set()
        self._chords.remove()
        if self._follower is not None:
            self._follower.stop()

    def _rest(self, *, resting: bool) -> None:
        with self._resting:
            self._is_running = resting
            if self._follower is not None:
                self._follower.rest(resting=resting)
        if resting:
            with self._lock:
                self._fresh.clear()
                self._due = False

    def _look(self) -> None:
        """Follow while a sandbox is in mode `ask`, as far as is on hand. A thread of its own, which imports what that needs."""
        while not self._over.wait(0.0 if self._follower is None and self._asks() else EVERY):
            asks = self._asks()
            if asks and self._follower is None:
                from irons.asking.following import QuestionFollower
                from irons.asking.screen import AskScreen

                self._screen = AskScreen()
                with self._resting:
                    self._follower = QuestionFollower(self._client, self._hear, key=self._key)
                    self._follower.rest(resting=self._is_running)
            if self._follower is not None:
                self._follower.want(asks=asks)

    def _asks(self) -> bool:
        return self._facts is not None and "ask" in self._facts.read().values()

    def _client(self) -> Api:
        assert self._settings is not None  # noqa: S101 - the modes on hand are of these settings
        self._face.made_with(self._env)
        return self._face.api(self._settings)

    def _hear(self, heard: QuestionsHeard) -> None:
        """Take what is new, and show it above the prompt where it is worth a bell or the first since the last command."""
        screen = self._screen
        if screen is None or self._over.is_set():
            return
        with self._lock:
            screen.take(heard.page, heard.trouble)
            self._rings = self._rings or heard.rings
            self._due = self._due or heard.rings
            self._fresh.set()
        # What comes soon after a line of the same sandbox is in the next one.
        self._chords.show()

    def _take_line(self) -> str:
        """Return the line that is to be shown, with its bell and its end: the questions, or what has just ended. Each is shown once."""
        screen = self._screen
        if screen is None:
            return ""
        from shutil import get_terminal_size

        from irons.asking.question_line import question_line
        from irons.text import clean

        columns = get_terminal_size().columns
        with self._lock:
            if not self._due or not self._fresh.is_set():
                return ""
            bell = "\a" if self._rings else ""
            self._due = self._rings = False
            ended = clean(screen.note)
            screen.put_back()
            line = question_line(screen.page, columns, self._chords.name) or ended[:columns]
            return f"{bell}{line}\n" if line else ""


class Chords:
    """What opens the questions where xonsh's shell is prompt_toolkit's: keys of the setting `ask_chord`."""

    def __init__(self, xsh: Any, pressed: Callable[[], None], due: Callable[[], str]) -> None:
        """Take xonsh's session object, who hears that a key was pressed, and what is to be shown above the prompt; nothing where empty."""
        self._xsh, self._pressed, self._due = xsh, pressed, due
        self._shell: Any = None
        self._added: list[Callable[[object], None]] = []
        self._setting = ""
        self._chords: AskChords | None = None

    @property
    def name(self) -> str:
        """The chord to press; empty where there is none."""
        if self._shell is None or self._chords is None:
            return ""
        return self._chords.name(vi=bool(self._xsh.env.get("VI_MODE")))

    def add(self, setting: str) -> None:
        """Add the chords to the shell, once it is there, and others where the setting has changed."""
        if self._shell is not None and setting != self._setting:
            self.remove()
        shell: Any = getattr(self._xsh.shell, "shell", None)
        if self._shell is not None or not hasattr(shell, "prompter") or not hasattr(shell, "key_bindings"):
            return
        from irons_repl.chord import read_chords

        self._shell, self._setting, self._chords = shell, setting, read_chords(setting)
        if self._chords.trouble:
            print(f"irons: {self._chords.trouble}", file=sys.stderr)
        keys = shell.key_bindings
        for chord in self._chords.all:
            # A handler of its own: `remove` takes a handler of two bindings out of one of them.
            self._added.append(partial(self._open))
            keys.add(*chord.keys, filter=chord.filter)(self._added[-1])
        shell.prompter.app.key_processor.before_key_press += self._hear
        # What came between the line above the prompt and the prompt.
        shell.prompter.app.after_render += self._rendered

    def remove(self) -> None:
        """Take them back."""
        if self._shell is not None:
            for added in self._added:
                self._shell.key_bindings.remove(added)
            self._added = []
            self._shell.prompter.app.key_processor.before_key_press -= self._hear
            self._shell.prompter.app.after_render -= self._rendered
            self._shell = None

    def show(self) -> None:
        """Show what is to be shown above the prompt, while a line is typed. Called from any thread."""
        if self._shell is None:
            return
        app = self._shell.prompter.app
        loop = app.loop
        if loop is None or loop.is_closed() or not app.is_running:
            return
        # The loop may be closed by now.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(self._rendered, app)

    def _rendered(self, app: Any) -> None:
        """Show it, in the thread that draws."""
        if app.is_running and not app.is_done:
            line = self._due()
            if line:
                from prompt_toolkit.application import run_in_terminal

                run_in_terminal(lambda: print(line, end="", flush=True))

    def _hear(self, _: object) -> None:
        self._pressed()

    def _open(self, _: object) -> None:
        """Show the questions on the whole screen, by a process of its own; the line that is typed stays as it is."""
        from prompt_toolkit.application import run_in_terminal

        run_in_terminal(self._ask)

    def _ask(self) -> None:
        import signal
        import subprocess

        from irons_repl.xonsh_face.alias import PROCESS

        # Ctrl-C there is a key of the questions, and not xonsh's; a function is not inherited, as ignoring it would be.
        before = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            subprocess.call([*PROCESS, "ask"], env=dict(self._xsh.env.detype()))
        finally:
            signal.signal(signal.SIGINT, before)


def listeners_of(questions: FaceQuestions) -> tuple[Callable[..., None], Callable[..., None]]:
    """Return what xonsh calls before each prompt and before each command; they must be functions, as xonsh sets attributes of them."""

    def irons_questions(**_: object) -> None:
        questions.at_prompt()

    def irons_rests(**_: object) -> None:
        questions.at_command()

    return irons_questions, irons_rests
