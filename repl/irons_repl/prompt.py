"""The `irons>` prompt: reads lines, runs them, shows how they ended."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.auto_suggest import Suggestion
from prompt_toolkit.cursor_shapes import CursorShapeConfig, DynamicCursorShapeConfig, ModalCursorShapeConfig
from prompt_toolkit.enums import EditingMode
from prompt_toolkit.filters import Always
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.shortcuts.prompt import PromptSession

from irons.cli.completing import Sources
from irons.text import clean
from irons.version import __version__
from irons_repl.chord import read_chords
from irons_repl.forecast.forecast_line import Clause, forecast_line
from irons_repl.forecast.typed_change import typed_change
from irons_repl.line.completer import PromptCompleter
from irons_repl.line.highlight import LineLexer
from irons_repl.line.history import FileHistory
from irons_repl.line.keys import LONGEST, bindings
from irons_repl.line.paste_detection import BurstInput
from irons_repl.line.suggest import PromptSuggest
from irons_repl.line.unforced import unforced
from irons_repl.opening import import_widths
from irons_repl.run.dumb_terminal import is_plain, read_plain
from irons_repl.run.external import INTERRUPTED
from irons_repl.run.own_words import OWN_WORDS
from irons_repl.run.pauses import between_lines, short_pauses
from irons_repl.run.running import Leave, LineRunner
from irons_repl.run.signals import Ended, ended_by_signals
from irons_repl.status.refresher import Refresher
from irons_repl.status.remedies import Remedy, TypedLine, still_open
from irons_repl.status.sources import sources
from irons_repl.status.toolbar import toolbar
from irons_repl.status.vi_mode import vi_mode
from irons_repl.styles import COLOURED, PLAIN

if TYPE_CHECKING:
    from prompt_toolkit.key_binding import KeyPress

    from irons.settings.settings import Settings
    from irons_repl.forecast.ground import Ground
    from irons_repl.forecast.typed_change import TypedChange
    from irons_repl.questions.asked import AskedQuestions
    from irons_repl.run.session import ShellSession
    from irons_repl.status.status_model import Outlook

MENU = 6
"""Lines kept free below the prompt for the menu, so that it does not jump where one opens."""

REMEMBERED = 100
"""Lines and suggestions of this prompt that are remembered, so that nothing is suggested after it was typed."""


class Prompt:
    """One open prompt."""

    def __init__(self, session: ShellSession, settings: Settings, said: str = "") -> None:
        """Take the session, the settings it begins with, and what the person should know at once."""
        self._session = session
        self._runner = LineRunner(session)
        on_hand = sources(session)
        read = (on_hand.sandboxes, on_hand.domains, on_hand.images, on_hand.labels, import_widths)
        self._refresher = Refresher(
            session, self._changed, self._say, on_hand=read, asking=self._follow_questions
        )
        self._questions: AskedQuestions | None = None
        self._is_running = False
        # Held while it is decided whether the questions rest; they may be made at the same moment by another thread.
        self._resting = threading.Lock()
        self._key_at = time.monotonic()
        self._has_refused = False
        self._in_use: str | None = None
        self._foreseen: tuple[TypedChange | None, Ground | None, list[Clause]] = (None, None, [])
        self._typed: deque[TypedLine] = deque(maxlen=REMEMBERED)
        self._suggested: deque[str] = deque(maxlen=REMEMBERED)
        self._offered = ""
        self._unsaid: queue.SimpleQueue[str] = queue.SimpleQueue()
        tree = session.host.tree
        history = FileHistory(
            settings.state_dir / "history", settings.api_key, lambda line: unforced(line, tree)
        )
        session.pages = not is_plain(session.streams)
        session.history = lambda: history.lines
        if history.is_new:
            self._greet()
            history.begin()
        for line in filter(None, (said, history.said)):
            self._print(line)
        self._chords = read_chords(str(settings["ask_chord"]))
        if self._chords.trouble:
            self._print(self._chords.trouble)
        self._completer = PromptCompleter(session.host.tree, on_hand, OWN_WORDS)
        self._lines = self._made(settings, history, on_hand)

    def run(self) -> int:
        """Read and run lines until the person leaves; return the exit code."""
        try:
            with short_pauses(), ended_by_signals(self._lines.app):
                return self._run()
        except Ended as ended:
            return ended.status
        finally:
            self._refresher.stop()
            if self._questions is not None:
                self._questions.stop()

    def _run(self) -> int:
        while True:
            try:
                self._turn()
            except KeyboardInterrupt:
                # On a running command Ctrl-C is the runner's; here it clears the line, or comes between two lines.
                self._session.code = INTERRUPTED
            except EOFError:
                return 0
            except Leave as leave:
                return leave.code

    def _turn(self) -> None:
        """Read one line and run it."""
        self._say_all()
        self._has_refused = False
        self._completer.asked = ""
        self._in_use = self._session.sandbox
        self._offered = ""
        line = self._read()
        if not line.strip():
            return
        typed = TypedLine(line.strip(), self._in_use, datetime.now(UTC))
        self._typed.append(typed)
        if self._offered and self._offered != typed.whole:
            self._suggested.append(self._offered)
        self._refresher.rest()
        self._rest(resting=True)
        try:
            self._runner.run(line)
        finally:
            between_lines()
            self._rest(resting=False)
            self._refresher.poke(self._session.code)

    def _read(self) -> str:
        streams = self._session.streams
        if is_plain(streams):
            return read_plain(streams, "".join(fragment[1] for fragment in self._message()))
        self._begin_line()
        self._ring()
        return self._lines.prompt(self._message, pre_run=self._suggest)

    def _remedies(self) -> list[Remedy]:
        """What would allow what was refused to the sandbox in use, and to the line that ran last; not what was typed since."""
        sandboxes = {self._in_use, self._session.again.refused_in or self._in_use}
        return still_open(self._refresher.remedies.of(*sandboxes), self._typed)

    def _texts(self) -> list[str]:
        """The commands of these, the latest first, as they are typed now."""
        return [remedy.text(self._in_use) for remedy in self._remedies()]

    def _suggest(self) -> None:
        """Suggest the latest remedy on an empty line; what was suggested there once is suggested again only where it is begun."""
        buffer = self._lines.default_buffer
        remedy = next(iter(self._remedies()), None)
        if buffer.text or remedy is None or remedy.command in self._suggested:
            return
        buffer.suggestion = Suggestion(remedy.text(self._in_use))
        self._offered = remedy.command

    def _begin_line(self) -> None:
        """Go to a line of its own, after output that ended in the middle of one, and after keys that were typed in between.

        As many blanks as there are columns stay in an empty line, and run on into the next one from any other.
        """
        output = self._lines.app.output
        output.write_raw(" " * output.get_size().columns + "\r")
        output.erase_end_of_line()
        output.flush()

    def _made(self, settings: Settings, history: FileHistory, on_hand: Sources) -> PromptSession[str]:
        colour = self._session.streams.colour(tty=True)
        tree = self._session.host.tree
        lines: PromptSession[str] = PromptSession(
            input=BurstInput(self._session.streams.stdin, self._keys_of_line),
            completer=self._completer,
            complete_while_typing=True,
            lexer=LineLexer(tree, OWN_WORDS, on_hand.aliases),
            history=history,
            auto_suggest=PromptSuggest(self._texts),
            editing_mode=EditingMode.VI if settings["editing_mode"] == "vi" else EditingMode.EMACS,
            tempfile_suffix=".irons",
            search_ignore_case=True,
            multiline=True,
            prompt_continuation=lambda width, _number, _wrapped: f"{'…':>{max(1, width - 1)}} ",
            key_bindings=bindings(
                self._refused, self._open_questions, self._chords, self._suspend, self._edit
            ),
            bottom_toolbar=self._toolbar,
            cursor=DynamicCursorShapeConfig(self._cursor_shape),
            style=COLOURED if colour else PLAIN,
            color_depth=None if colour else ColorDepth.DEPTH_1_BIT,
            include_default_pygments_style=False,
            reserve_space_for_menu=MENU,
        )
        # Not an option of the session: there it would keep the menu from opening while one types.
        lines.default_buffer.enable_history_search = Always()
        lines.default_buffer.on_text_changed += lambda _: self._refresher.typing()
        # A key is drawn at once; by itself that waits up to 10 ms while anything is ready to run, such as the search for the key's menu.
        lines.app.max_render_postpone_time = None
        lines.app.before_render += lambda _: self._make_room()
        lines.app.after_render += lambda _: self._drawn()
        lines.app.key_processor.before_key_press += lambda _: self._pressed()
        return lines

    def _drawn(self) -> None:
        """Start looking at the server once the first prompt is on the screen: nothing before that waits for it."""
        if not self._refresher.running:
            self._refresher.start()
        if self._questions is not None and not self._lines.app.is_done and not self._is_running:
            self._questions.was_drawn()

    def _make_room(self) -> None:
        """Keep no more room for the menu than a low terminal can spare."""
        rows = self._lines.app.output.get_size().rows
        is_listed = self._questions is not None and self._questions.is_open
        self._lines.reserve_space_for_menu = (
            0 if is_listed else max(0, min(MENU, rows - 3 - len(self._asked())))
        )

    def _message(self) -> StyleAndTextTuples:
        return [*[("class:asked", f"{line}\n") for line in self._asked()], *self._prompt()]

    def _prompt(self) -> StyleAndTextTuples:
        """Return what is before the line that is typed."""
        message: StyleAndTextTuples = []
        if self._session.code:
            message.append(("class:code", f"[{self._session.code}] "))
        if self._in_use:
            message.append(("class:sandbox", f"{clean(self._in_use, limit=24)} "))
        return [*message, ("class:prompt", "irons> ")]

    def _toolbar(self) -> StyleAndTextTuples:
        outlook = self._refresher.outlook.for_sandbox(self._in_use)
        if self._questions is not None:
            outlook = outlook._replace(questions=self._questions.count)
        keys = vi_mode(self._lines.app) if self._is_vi else ""
        columns = self._lines.app.output.get_size().columns
        return list(self._forecast(outlook, columns, keys) or toolbar(outlook, columns, keys))

    def _forecast(self, outlook: Outlook, columns: int, keys: str) -> list[tuple[str, str]]:
        """Return what the change of rules that is typed would do, for the line below; nothing while none is."""
        text = self._lines.default_buffer.document.text_before_cursor
        change = typed_change(text, self._session.host.tree, self._in_use) if text else None
        if change is None:
            return []
        ground, missing = self._refresher.forecast(change.sandbox)
        if missing:
            return [] if outlook.trouble else forecast_line([Clause("reading the log …")], columns, keys)
        if ground is None:
            return []
        if self._foreseen[0] != change or self._foreseen[1] is not ground:
            # The thread that gathered has imported it: no key waits for that.
            from irons_repl.forecast.effects import effects

            self._foreseen = (change, ground, effects(change, ground))
        return forecast_line(self._foreseen[2], columns, keys, outlook.as_of)

    @property
    def _is_vi(self) -> bool:
        return self._lines.app.editing_mode == EditingMode.VI

    def _cursor_shape(self) -> CursorShapeConfig | None:
        """Show the mode of vi keys by the cursor; with emacs keys it stays as the person has it."""
        return ModalCursorShapeConfig() if self._is_vi else None

    def _greet(self) -> None:
        """Say in two lines where the person is, once."""
        stdout = self._session.streams.stdout
        stdout.write(f"irons {__version__}: sandboxes for AI agents\nTab completes, ? helps, Ctrl-D leaves\n")
        stdout.flush()

    def _changed(self) -> None:
        """Show the new outlook, and offer what has become known for the word being typed. Called from the refresher's thread.

        A line that the history brought is left alone: a menu there would take the arrows.
        """
        app, buffer = self._lines.app, self._lines.default_buffer

        def show() -> None:
            app.invalidate()
            self._ring()
            self._suggest()
            waits = buffer.complete_state is None and buffer.document.is_cursor_at_the_end
            if buffer.text and waits and buffer.text == self._completer.asked:
                buffer.start_completion()

        loop = app.loop
        if loop is not None and app.is_running:
            # The line may have ended by now, and its loop with it.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(show)

    # Questions of mode `ask`.

    def _follow_questions(self, asks: bool) -> None:
        """Follow the questions while a sandbox is in mode `ask`. Called from the refresher's thread, which imports what that needs."""
        if self._questions is None:
            if not asks:
                return
            from irons_repl.questions.around import asked_in

            made = asked_in(
                self._session,
                self._lines,
                self._changed,
                self._say,
                self._refresher,
                self._key_at,
                self._chords,
            )
            with self._resting:
                made.rest(resting=self._is_running)
                self._questions = made
        self._questions.want(asks=asks)

    def _rest(self, *, resting: bool) -> None:
        """While a command or an editor has the terminal no one can answer here."""
        with self._resting:
            self._is_running = resting
            if self._questions is not None:
                self._questions.rest(resting=resting)

    def _suspend(self) -> None:
        """Leave the terminal to the shell until `fg`: no one could answer there, and the title is what it was."""
        self._rest(resting=True)
        try:
            os.kill(0, signal.SIGTSTP)
        finally:
            self._rest(resting=False)

    def _edit(self) -> None:
        """Open the line in an editor, which has the terminal for itself, and run what that left."""
        self._rest(resting=True)
        self._lines.app.create_background_task(self._edited())

    async def _edited(self) -> None:
        try:
            await self._lines.default_buffer.open_in_editor(validate_and_handle=True)
        finally:
            self._rest(resting=False)
            self._lines.app.invalidate()

    def _ring(self) -> None:
        """Take what is new of the questions, with a bell for one that is."""
        if self._questions is not None and self._questions.take_news():
            self._lines.app.output.bell()
            self._lines.app.output.flush()

    def _asked(self) -> list[str]:
        """Return the lines above the input; none once the line was typed."""
        if self._questions is None or self._lines.app.is_done:
            return []
        size = self._lines.app.output.get_size()
        before = "".join(fragment[1] for fragment in self._prompt())
        return self._questions.lines(size.columns, size.rows, before)

    def _open_questions(self) -> None:
        if self._questions is None:
            self._say("no sandbox is in mode ask; egress mode ask --sandbox NAME sets it")
        else:
            # No menu lies over the list.
            self._lines.default_buffer.cancel_completion()
            self._questions.open_or_close()

    def _keys_of_line(self, keys: list[KeyPress]) -> list[KeyPress]:
        return keys if self._questions is None else self._questions.pass_on(keys)

    def _pressed(self) -> None:
        self._key_at = time.monotonic()
        if self._questions is not None:
            self._questions.pressed()

    def _say(self, line: str) -> None:
        """Say a line above the prompt, from whichever thread; while a command runs it waits for its end."""
        self._unsaid.put(line)
        loop = self._lines.app.loop
        if loop is not None and self._lines.app.is_running:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(lambda: run_in_terminal(self._say_all))

    def _say_all(self) -> None:
        while not self._unsaid.empty():
            self._print(self._unsaid.get())

    def _refused(self, size: int) -> None:
        """Say once for each line that it takes no more."""
        if self._has_refused:
            return
        self._has_refused = True
        self._say(
            f"{size:,} characters are too many for one line (the most is {LONGEST:,}): put them into a file, and: irons < FILE"
        )

    def _print(self, line: str) -> None:
        stderr = self._session.streams.stderr
        stderr.write(f"irons: {clean(line)}\n")
        stderr.flush()
