"""One line of a log: rendered where it is written, parsed where it is shown."""

from __future__ import annotations

import re
import time
from typing import NamedTuple

from irons.text import clean

LONGEST = 1000
"""Characters of text in a line; some of it comes from sandboxes."""

VARIABLE = "IRONS_LOG"
"""The environment variable that sets the level."""

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
"""Values of `IRONS_LOG`, and their numbers in `logging`."""

_LINE = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) (?P<level>[A-Z]+)"
    r"(?: request=(?P<request>\S+))?(?: sandbox=(?P<sandbox>\S+))?(?: connection=(?P<connection>\S+))?: (?P<text>.*)"
)


class Line(NamedTuple):
    """A line of a log.

    Attributes:
        text: what happened.
        level: `DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`.
        request: id of the request that it belongs to.
        sandbox: id of the sandbox.
        connection: id of the connection in the gateway.
        time: local time, as logged; empty before it is rendered.
    """

    text: str
    level: str = "INFO"
    request: str = ""
    sandbox: str = ""
    connection: str = ""
    time: str = ""

    def render(self, now: float) -> str:
        """Return the line with its end; control characters are escaped and long text is cut.

        Args:
            now: seconds since 1970.
        """
        stamp = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now))}.{int(now * 1000) % 1000:03}"
        names = (("request", self.request), ("sandbox", self.sandbox), ("connection", self.connection))
        known = "".join(f" {name}={value}" for name, value in names if value)
        return f"{stamp} {self.level}{known}: {clean(self.text, limit=LONGEST)}\n"


def parse(text: str) -> Line | None:
    """Return the line that `text` is; None for what is not one, such as a line of a traceback."""
    found = _LINE.fullmatch(text.rstrip("\n"))
    if found is None:
        return None
    return Line(**{name: value or "" for name, value in found.groupdict().items()})


def level_of(value: str) -> int:
    """Return the number of a level's name, as `IRONS_LOG` has it; that of `info` for every other text."""
    return LEVELS.get(value.strip().lower(), LEVELS["info"])
