"""The question of the first `create` on a new backend: how new sandboxes start. Its answer is the mode of all sandboxes."""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING

from irons.client.refreshing import refresh_after_change
from irons.errors import Interrupted
from irons.terminal.words import mode_word
from irons.text import clean

if TYPE_CHECKING:
    from typing import TextIO

    from irons.context import Context
    from irons.terminal.streams import Streams

_ANSWERS = {
    **dict.fromkeys(("", "1", "warn", "log only"), "warn"),
    **dict.fromkeys(("2", "ask"), "ask"),
    **dict.fromkeys(("3", "deny"), "deny"),
}
"""What is typed, and the mode that it means; Enter alone is the first, as the question says."""

_QUESTION = (
    "How do new sandboxes start? 1 log only (warn), 2 ask (you decide), 3 deny.",
    "This is asked once; irons egress mode MODE --all changes it later.",
)
_WHICH = "1, 2 or 3 [Enter: 1, log only]: "

_SHOWN = 40
"""Characters shown of what is not an answer."""

_LOOKS, _BETWEEN = 40, 0.05
"""How often a job looks whether the terminal is its own, and seconds between."""


def ask_first_mode(ctx: Context) -> None:
    """Ask which mode all sandboxes have, where no one has chosen it and no sandbox was ever created, and set it.

    Lines that were typed before the question are for what comes after the command: then nothing is asked. Nor is it of
    a command in the background, which may not read what is typed.

    Raises:
        Interrupted: Ctrl-C, or the end of the input, in place of an answer; nothing is changed.
    """
    if not ctx.api.is_mode_undecided() or not _is_free(ctx.streams.stdin):
        return
    for line in _QUESTION:
        ctx.progress(line)
    mode = _answer(ctx.streams)
    if not ctx.api.is_mode_undecided():
        now = mode_word(ctx.api.mode().mode)
        ctx.progress(f"The mode of all sandboxes was set elsewhere by now, and stays {now}.")
        return
    ctx.api.set_mode(mode)
    refresh_after_change(ctx.api, ctx.settings)
    ctx.progress(f"The mode of all sandboxes is {mode_word(mode)}.")


def _answer(streams: Streams) -> str:
    """Ask until there is an answer, and say of what is none why it is not taken; return the mode."""
    while True:
        streams.stderr.write(_WHICH)
        streams.stderr.flush()
        try:
            line = streams.stdin.readline()
        except KeyboardInterrupt:
            line = ""
        if not line:
            # What follows begins on a line of its own.
            streams.stderr.write("\n")
            raise Interrupted("interrupted; nothing was created, and no mode was set")
        word = line.strip()
        mode = _ANSWERS.get(word.lower())
        if mode is not None:
            return mode
        streams.stderr.write(
            f"{clean(word, limit=_SHOWN)} is not an answer; type 1 (warn), 2 (ask) or 3 (deny)\n"
        )


def _is_free(stdin: TextIO) -> bool:
    """Tell whether the next line that is typed comes to this process, and none waits to be read already."""
    try:
        terminal = stdin.fileno()
    except (OSError, ValueError):
        return True
    waiting = select.poll()
    waiting.register(terminal, select.POLLIN)
    return _has_terminal(terminal) and not waiting.poll(0)


def _has_terminal(terminal: int) -> bool:
    """Tell whether this process's job has the terminal, or gets it in a moment: a shell may give it to a job that already runs."""
    try:
        for _ in range(_LOOKS):
            if os.tcgetpgrp(terminal) == os.getpgrp():
                return True
            time.sleep(_BETWEEN)
    except OSError:
        return True  # not the terminal of this session, where there are no jobs
    return False
