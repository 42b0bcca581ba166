"""The `irons>` prompt: reads lines, runs them, shows how they ended."""

from __future__ import annotations

from prompt_toolkit import PromptSession
from prompt_toolkit.formatted_text import StyleAndTextTuples

from irons.completing import Candidate, Sources
from irons.names import Names
from irons_repl.completer import PromptCompleter
from irons_repl.running import Leave, Runner
from irons_repl.session import ShellSession

OWN_WORDS = (
    Candidate("exit", "Leave the prompt."),
    Candidate("quit", "Leave the prompt."),
)
"""What the prompt answers beside the commands."""


class Prompt:
    """One open prompt."""

    def __init__(self, session: ShellSession) -> None:
        """Take the session."""
        self._session = session
        self._runner = Runner(session)

    def run(self) -> int:
        """Read and run lines until the person leaves; return the exit code."""
        session = self._session
        settings = session.settings()
        names = Names.of(settings, lambda: {s.name: s.status for s in session.api(settings).list()})
        lines: PromptSession[str] = PromptSession(
            completer=PromptCompleter(session.host.tree, Sources(sandboxes=names), OWN_WORDS),
            complete_while_typing=True,
            complete_in_thread=True,
        )
        names.when_fresh(lambda: _offer_again(lines))
        names()
        while True:
            try:
                line = lines.prompt(self._message)
            except KeyboardInterrupt:
                session.code = 130
                continue
            except EOFError:
                return 0
            try:
                self._runner.run(line)
            except Leave as leave:
                return leave.code

    def _message(self) -> StyleAndTextTuples:
        session = self._session
        message: StyleAndTextTuples = []
        if session.code:
            message.append(("ansired", f"[{session.code}] "))
        if session.sandbox:
            message.append(("ansicyan", f"{session.sandbox} "))
        return [*message, ("bold", "irons> ")]


def _offer_again(lines: PromptSession[str]) -> None:
    """Complete what is being typed once more, now that fresh names are there, unless a menu is open."""
    app = lines.app
    buffer = lines.default_buffer

    def again() -> None:
        if app.is_running and buffer.text and buffer.complete_state is None:
            buffer.start_completion()

    if app.loop is not None:
        app.loop.call_soon_threadsafe(again)
