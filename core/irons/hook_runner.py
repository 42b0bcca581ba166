"""Calls the hooks `irons_event` and `irons_lifecycle` for what comes in, one line of JSON each; the process around it is another's."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from irons.client.models.audit import event_of
from irons.errors import IronsError
from irons.plugin.hook_data import LifecycleChange

if TYPE_CHECKING:
    from types import FrameType

    from irons.host import PluginHost
    from irons.settings.settings import Settings

HOOKS = ("irons_event", "irons_lifecycle")
"""What is called here."""

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
        longest: Seconds that plugins may take for one event.
    """

    def __init__(
        self, host: PluginHost, settings: Settings, begun: Callable[[int], None], longest: float = LONGEST
    ) -> None:
        self._host = host
        self._settings = settings
        self._begun = begun
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
        if isinstance(lost, int):
            self._call("irons_lifecycle", change=LifecycleChange("lost", "", lost=lost))

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
