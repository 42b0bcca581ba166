"""The commands that would allow what was refused while the prompt was open, in the narrow scope."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from irons.record import NamedTuple

if TYPE_CHECKING:
    from irons_policy.event import Event

MOST = 20
"""Refusals that are remembered."""


LONG_AGO = datetime.min.replace(tzinfo=UTC)
"""When a refusal was that its server gives no time for."""


class Remedy(NamedTuple):
    """A command that would allow what was refused to a sandbox: the whole of it, and when that was."""

    sandbox: str
    command: str
    at: datetime

    def text(self, used: str | None) -> str:
        """Return the command as it is typed while the sandbox `used` is in use."""
        return (
            self.command.removesuffix(f" --sandbox {self.sandbox}") if used == self.sandbox else self.command
        )


class TypedLine(NamedTuple):
    """A line that was typed, the sandbox in use then, and the time."""

    line: str
    used: str | None
    at: datetime

    @property
    def whole(self) -> str:
        """The line with its scope, as remedies have it."""
        scoped = " --sandbox " in self.line or self.line.endswith(" --all")
        return self.line if scoped or self.used is None else f"{self.line} --sandbox {self.used}"


class Remedies:
    """Refusals, the latest first, each with its command. One thread adds, another one reads."""

    def __init__(self) -> None:
        """Begin with none."""
        self._known: deque[Remedy] = deque(maxlen=MOST)

    def add(self, event: Event) -> None:
        """Take in a refusal, if there is a command that would allow it."""
        command = _command(event)
        if command:
            self._known.append(Remedy(event.sandbox, command, event.time or LONG_AGO))

    def of(self, *sandboxes: str | None) -> list[Remedy]:
        """Return those of these sandboxes, or of all where one is None: the latest first, each command once."""
        found: dict[str, Remedy] = {}
        for remedy in reversed(tuple(self._known)):
            if None in sandboxes or remedy.sandbox in sandboxes:
                found.setdefault(remedy.command, remedy)
        return list(found.values())


def _command(event: Event) -> str:
    """Return the command that would let a refused connection pass; empty where no rule can, or a deny rule is what refused it."""
    from ipaddress import ip_address

    from irons_policy.causes import Cause
    from irons_policy.patterns import HTTPS
    from irons_policy.remedy import suggestion

    if event.host == "*" or event.protocol in ("udp", "icmp") or event.rule or not event.sandbox:
        return ""
    if event.cause not in ("", Cause.UNCOVERED, Cause.FLOOR):
        return ""
    private = None
    if event.cause == Cause.FLOOR:
        try:
            private = ip_address(event.address)
        except ValueError:
            return ""
    found = suggestion(event.host, event.port or HTTPS, sandbox=event.sandbox, private=private) or ""
    return found.removeprefix("irons ")


def still_open(remedies: Iterable[Remedy], typed: Iterable[TypedLine]) -> list[Remedy]:
    """Return those whose command was not typed since the refusal, for that sandbox or for all."""
    last = {line.whole: line.at for line in typed}
    return [
        remedy
        for remedy in remedies
        if all(last.get(whole, LONG_AGO) <= remedy.at for whole in _spellings(remedy))
    ]


def _spellings(remedy: Remedy) -> tuple[str, str, str]:
    """Return the whole lines that allow what was refused: for its sandbox, and for all with and without a sandbox in use."""
    command = remedy.command.removesuffix(f" --sandbox {remedy.sandbox}")
    return remedy.command, command, f"{command} --all"
