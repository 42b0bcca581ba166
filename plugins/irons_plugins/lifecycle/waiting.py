"""Waiting for a sandbox's state as the commands do: with a spinner on a terminal, or a line for each stage elsewhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from irons.client.following.waiting import CREATE_GRACE, broken, wait_for_state

if TYPE_CHECKING:
    from irons.client.api import Sandbox
    from irons.context import Context

__all__ = ["CREATE_GRACE", "broken", "patience", "wait_for"]


def patience(ctx: Context, asked: float | None) -> float:
    """Return how many seconds to wait: what was asked for, else the setting."""
    return float(ctx.settings["wait_timeout"]) if asked is None else asked


def wait_for(
    ctx: Context,
    name: str,
    wanted: str,
    timeout: float,
    *,
    grace: float = 0.0,
    narrated: set[str] | None = None,
) -> Sandbox:
    """Ask for a sandbox until it is in the `wanted` state, and return it.

    Args:
        ctx: The call's context.
        name: The sandbox.
        wanted: The state.
        timeout: Seconds to wait.
        grace: Seconds in which the server may not know the sandbox yet.
        narrated: Gets each line about what takes its time that is printed.

    Raises:
        TimedOut: It did not come to pass in time.
        IronsError: The sandbox went into `error`; the message has the server's reason.
        NotFound: There is no such sandbox.
        AuthError: The key does not open it.
    """
    stage = ""
    with ctx.waiting(f"{name}: waiting for {wanted}") as spinner:

        def seen(found: Sandbox) -> None:
            nonlocal stage
            if found.status in (wanted, "error"):
                ctx.names.put(name, found.status)
                return
            progress = found.metadata.get("progress", "")
            spinner.tell(f"{name}: {progress or found.status}, waiting for {wanted}")
            if _stage(progress) != stage:
                stage = _stage(progress)
                # Elsewhere the spinner shows it, as long as it is so.
                if stage and not ctx.streams.stderr_is_tty:
                    ctx.progress(f"{name}: {stage}")
                    if narrated is not None:
                        narrated.add(stage)

        return wait_for_state(ctx.api, name, wanted, timeout, grace=grace, seen=seen)


def _stage(progress: str) -> str:
    """What is done now, without how far it is: `building (40%)` is `building`; the state itself is not a stage."""
    stage = re.sub(r" \([0-9]+%\)$", "", progress)
    return "" if stage in ("creating", "starting", "stopping") else stage
