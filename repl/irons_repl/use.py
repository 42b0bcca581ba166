"""`use NAME`: the sandbox that is meant where a command names none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irons.errors import Unreachable, UsageError

if TYPE_CHECKING:
    from irons.context import Context


def use(ctx: Context, *, name: str | None, none: bool) -> str | None:
    """Choose a sandbox, or none; without either tell which one is chosen.

    Raises:
        NotFound: There is no such sandbox.
        UsageError: Nothing here would remember the choice.
    """
    if name is None and not none:
        chosen: str | None = ctx.settings["sandbox"]
        if chosen is None:
            ctx.progress("no sandbox is in use")
        return chosen
    if name is not None and none:
        raise UsageError("use takes a name or --none, not both")
    if ctx.session is None:
        raise UsageError(
            "irons use works at the irons> prompt and in xonsh only",
            hint="in this shell: unset IRONS_SANDBOX"
            if none
            else f"in this shell: export IRONS_SANDBOX={name}",
        )
    if name is not None and name not in ctx.names.read():
        try:
            ctx.names.put(name, ctx.api.status(name).status)
        except Unreachable as error:
            ctx.progress(f"{error.message}; whether there is a sandbox {name} is not known")
    ctx.session.use(name)
    return None
