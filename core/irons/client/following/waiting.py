"""Waiting for a sandbox's state: fast at first, then every two seconds, through failed polls, until a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from irons.errors import ApiError, AuthError, IronsError, NotFound, TimedOut, Unreachable
from irons.text import clean

if TYPE_CHECKING:
    from irons.client.api import Api, Sandbox

FIRST_PAUSE = 0.02
GROWTH = 1.25
LONGEST_PAUSE = 2.0
"""Seconds between polls: the first pause, how it grows, and where it stays."""

HELD = 0.5
"""Seconds that irons' own server holds its answer for while the sandbox is worked on; then its progress is shown."""

LEAST = 1.0
"""Seconds that a poll may take at least, however little is left of the wait."""

CREATE_GRACE = 5.0
"""Seconds in which a sandbox just created may not be found yet."""

FIX = "; to fix it: "
"""What precedes, in a reason of irons' own server, the line that fixes the machine."""

_REASONS = ("error", "reason", "message")


def wait_for_state(
    api: Api,
    name: str,
    wanted: str,
    timeout: float,
    *,
    grace: float = 0.0,
    seen: Callable[[Sandbox], None] = lambda _: None,
) -> Sandbox:
    """Ask for a sandbox until it is in the `wanted` state, and return it.

    A server that can holds its answer until the sandbox is there; another one is polled.

    Args:
        api: The client.
        name: The sandbox.
        wanted: The state.
        timeout: Seconds to wait.
        grace: Seconds in which the server may not know the sandbox yet.
        seen: Called with each answer.

    Raises:
        TimedOut: It did not come to pass in time.
        IronsError: The sandbox went into `error`; the message has the server's reason.
        NotFound: There is no such sandbox.
        AuthError: The key does not open it.
    """
    began = time.monotonic()
    slow = False
    pause = FIRST_PAUSE
    state, failed, held = "", "", 0.0
    while True:
        asked = time.monotonic()
        left = timeout - (asked - began)
        waits = min(held, max(left, 0.0))
        try:
            found = api.status(name, within=max(left, LEAST), wait=waits)
        except AuthError:
            raise
        except NotFound as error:
            if time.monotonic() - began >= grace:
                raise
            failed = error.message
        except (ApiError, Unreachable) as error:
            failed = error.message
        else:
            state, failed = found.status, ""
            seen(found)
            if state == wanted:
                return found
            if state == "error":
                raise broken(found)
            held = held or _held(api, slow=slow)
            slow = True
        now = time.monotonic()
        left = timeout - (now - began)
        if left <= 0:
            raise _late(name, wanted, state, timeout, failed)
        if waits and now - asked >= waits:
            # It was held for its whole time.
            continue
        if held and not waits and not failed:
            continue
        time.sleep(min(pause, left))
        pause = min(pause * GROWTH, LONGEST_PAUSE)


def _held(api: Api, *, slow: bool) -> float:
    """Seconds for which the server can hold its answer; another one than this machine's is asked for that only where it is slow."""
    if not (slow or api.backend.local):
        return 0.0
    try:
        return HELD if "status-wait" in api.extensions else 0.0
    except (ApiError, Unreachable):
        return 0.0


def broken(sandbox: Sandbox) -> IronsError:
    """Return the error that says why a sandbox is in the state `error`."""
    told = (sandbox.metadata.get(key) for key in _REASONS)
    why, _, fix = next((text for text in told if text), "").partition(FIX)
    name = clean(sandbox.name)
    return IronsError(
        f"{name} is in the state error"
        + (f": {clean(why, limit=600)}" if why else ", and the server does not say why"),
        hint=clean(fix, limit=300)
        or f"irons status {name} shows all that is known; irons start {name} tries again, irons destroy {name} removes it",
    )


def _late(name: str, wanted: str, state: str, timeout: float, failed: str) -> TimedOut:
    doing = f"it is {clean(state)}" if state else "its state is unknown"
    return TimedOut(
        f"{name} is not {wanted} after {timeout:g} s; {doing}"
        + (f" (the last poll: {failed})" if failed else ""),
        hint=f"irons wait {name} --for {wanted} goes on waiting",
    )
