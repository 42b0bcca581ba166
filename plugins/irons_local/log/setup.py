"""Logging of a process: `logging` records as lines that name what they belong to, within a budget."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping

from irons.text import clean
from irons_local.log.budget import LineBudget
from irons_local.log.context import CONNECTION, REQUEST, SANDBOX, Named
from irons_local.log.line import VARIABLE, Line, level_of

_OURS = ("irons", "irons_local", "irons_plugins", "__main__")
_TRACEBACK = 8000
"""Characters of a traceback."""


class Lines(logging.Handler):
    """Writes records.

    A record's `sandbox`, or the connection that it is `of`, may come with it (`extra`), else from the context.

    Args:
        write: takes a line, or several.
        clock: seconds that never go back, for the budget.
    """

    def __init__(self, write: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._write, self._clock = write, clock
        self._budget = LineBudget(clock())

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, or count it where its sandbox wrote too much."""
        try:
            line = self._line(record)
            text = line.render(record.created)
            if record.exc_info:
                text += _traceback(record)
            omitted = self._budget.admit(line.sandbox, len(text.encode()), self._clock())
            if omitted is None:
                return
            if omitted:
                note = f"{omitted} lines were left out: there were too many"
                text = line._replace(text=note, level="WARNING").render(record.created) + text
            self._write(text)
        except Exception:  # noqa: BLE001 (as every handler: what logs must not fail)
            self.handleError(record)

    @staticmethod
    def _line(record: logging.LogRecord) -> Line:
        of: Named | None = getattr(record, "of", None) or CONNECTION.get()
        sandbox: str = getattr(record, "sandbox", "") or SANDBOX.get() or ("" if of is None else of.sandbox)
        connection = "" if of is None else of.connection
        return Line(record.getMessage(), record.levelname, REQUEST.get(), sandbox, connection)


def _traceback(record: logging.LogRecord) -> str:
    """The traceback of a record, each line indented: none of them can be taken for a line of the log."""
    text = logging.Formatter().formatException(record.exc_info)  # type: ignore[arg-type]
    return "".join(f"  {clean(each)}\n" for each in text[-_TRACEBACK:].splitlines())


def begin(environ: Mapping[str, str]) -> None:
    """Have this process log to its stderr.

    Only what irons itself logs can be set to `debug`: other libraries may log what they send.

    Args:
        environ: names the level.
    """
    level = level_of(environ.get(VARIABLE, ""))

    def write(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()

    logging.basicConfig(level=max(level, logging.INFO), handlers=[Lines(write)], force=True)
    for name in _OURS:
        logging.getLogger(name).setLevel(level)
