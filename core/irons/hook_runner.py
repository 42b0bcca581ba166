"""Calls the hooks `irons_event`, `irons_lifecycle` and `irons_ask` for what comes in, one line of JSON each; the process around it is another's."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from irons.client.models.events import event_of
from irons.errors import IronsError
from irons.plugin.hook_data import AskedQuestion, LifecycleChange

if TYPE_CHECKING:
    from types import FrameType

    from irons.host import PluginHost
    from irons.settings.settings import Settings

HOOKS = ("irons_event", "irons_lifecycle", "irons_ask")
"""What is called here."""

LONGEST_ANSWER = 60
"""Characters of an answer to a question that are passed on."""

LONGEST = 30.0
"""Seconds that the plugins may take for one event, all of them together; then a `TimeoutError` is raised in the one that runs."""

_ALARMS = 3
"""So often a plugin may go on after that; then the process ends."""


class HookRunner:
    """Plugins that are loaded, and what is called in them.

    Args:
        host: The plugins.
        settings: Those of the machine's user.
        begun: Called with the id of each event before plugins get it.
        answered: Called with the id of each question, the plugin that answers it and its answer; with two empty texts once all plugins are done.
        longest: Seconds that plugins may take for one event.
    """

    def __init__(
        self,
        host: PluginHost,
        settings: Settings,
        begun: Callable[[int], None],
        longest: float = LONGEST,
        answered: Callable[[str, str, str], None] = lambda *_: None,
    ) -> None:
        self._host = host
        self._settings = settings
        self._begun = begun
        self._answered = answered
        self._longest = longest
        self._alarms = 0

    @property
    def hooks(self) -> tuple[str, ...]:
        """The hooks that a plugin implements."""
        return tuple(hook for hook in HOOKS if self._host.has(hook))

    def prepare(self) -> None:
        """Import all that a call takes: afterwards this process may be unable to read files."""
        for info in self._host.plugins:
            with contextlib.suppress(IronsError):
                self._host.plugin_settings(info.name, self._settings)

    def run(self, lines: Iterable[bytes]) -> None:
        """Call hooks until the lines end. What a plugin raises is a warning; a line that is not understood is passed over."""
        signal.signal(signal.SIGALRM, self._late)
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if isinstance(message, dict):
                self._take(message)

    def _take(self, message: Mapping[str, Any]) -> None:
        event, change, lost = message.get("event"), message.get("change"), message.get("lost")
        if isinstance(event, Mapping):
            read = event_of(event, "")
            self._begun(read.id or 0)
            self._call("irons_event", event=read)
        if isinstance(change, Mapping):
            kind, sandbox, identity, at = (
                str(change.get(name, "")) for name in ("kind", "sandbox", "id", "at")
            )
            self._call("irons_lifecycle", change=LifecycleChange(kind, sandbox, identity, at))
        question = message.get("question")
        if isinstance(question, Mapping):
            self._ask(_question(question))
        if isinstance(lost, int):
            self._call("irons_lifecycle", change=LifecycleChange("lost", "", lost=lost))

    def _ask(self, question: AskedQuestion) -> None:
        """Have plugins hear of a question, and say what each answers."""
        try:
            with self._bounded():
                for info, answer in self._host.answers("irons_ask", self._settings, question=question):
                    # What is not a text is none: to make it one may raise, and here that would end the process.
                    if isinstance(answer, str) and answer:
                        self._answered(question.id, info.name, str(answer)[:LONGEST_ANSWER])
        finally:
            self._answered(question.id, "", "")

    def _call(self, hook: str, **arguments: Any) -> None:
        with self._bounded():
            for _ in self._host.answers(hook, self._settings, **arguments):
                pass

    @contextlib.contextmanager
    def _bounded(self) -> Iterator[None]:
        self._alarms = 0
        signal.setitimer(signal.ITIMER_REAL, self._longest, self._longest)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _late(self, _signal: int, frame: FrameType | None) -> None:
        # Between two plugins, and after the last one, nobody would take the exception: it would end this process.
        if not self._host.is_asking(frame):
            return
        self._alarms += 1
        if self._alarms > _ALARMS:
            os._exit(os.EX_SOFTWARE)
        message = f"it took longer than {self._longest:g} s"
        raise TimeoutError(message)


def _question(given: Mapping[str, Any]) -> AskedQuestion:
    """Read a question; what a newer control plane has beyond the fields is passed over."""
    known = {name: value for name, value in given.items() if name in AskedQuestion._fields}
    may = tuple(str(each) for each in known.get("may", ()))
    return AskedQuestion(**{"id": "", "sandbox": "", "host": "", "port": 0, **known, "may": may})
