"""A line in an open session when its sandbox is about to be stopped or destroyed by time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from irons.ending import NEAR, ending, near
from irons.errors import IronsError
from irons.text import clean

if TYPE_CHECKING:
    from irons.client.models.sandboxes import Sandbox
    from irons.context import Context

FIRST = 5.0
"""Seconds into a session before the server is asked: a short one costs nothing."""

EVERY = 60.0
"""Seconds between two questions."""

PATIENCE = 2.0


@contextmanager
def telling_end(ctx: Context, name: str, *, raw: bool, first: float = FIRST) -> Iterator[None]:
    """Say on stderr, while the body runs, that the sandbox ends within `NEAR` seconds; once for each such time.

    Args:
        ctx: The call's context.
        name: The sandbox.
        raw: The terminal is in raw mode, where a line ends with a carriage return too.
        first: Seconds until the server is asked for the first time.
    """
    over = threading.Event()
    thread = threading.Thread(
        target=_watch, args=(ctx, name, over, first, raw), name="irons-ending", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(PATIENCE)


def _watch(ctx: Context, name: str, over: threading.Event, pause: float, raw: bool) -> None:
    said = False
    while not over.wait(pause):
        try:
            if "terms" not in ctx.api.extensions:
                return
            found = ctx.api.status(name, within=PATIENCE)
        except IronsError:
            pause = EVERY
            continue
        close = near(found.status, found.ends_in)
        if raw and "end-notices" in ctx.api.extensions:
            # The server writes to the terminal itself, but had no session to write to before this one began.
            if close:
                _say(ctx, found, raw=raw)
            return
        if close and not said and not over.is_set():
            _say(ctx, found, raw=raw)
        said = close
        pause = min(EVERY, max(1.0, (found.ends_in or 0) - NEAR)) if not close else EVERY


def _say(ctx: Context, found: Sandbox, *, raw: bool) -> None:
    name = clean(found.name)
    line = f"irons: {name} {ending(found.ends_in or 0, found.ends_with)}; irons extend {name} 2h gives it more time"
    if not raw:
        ctx.progress(line)
        return
    ctx.streams.stderr.write(f"\r\n{line}\r\n")
    ctx.streams.stderr.flush()
