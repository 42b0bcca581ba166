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
            "a choice lasts as long as the prompt, and this is a command of its own",
            hint="unset IRONS_SANDBOX does it for a shell"
            if none
            else f"export IRONS_SANDBOX={name} does it for a shell",
        )
    if name is not None and name not in ctx.names.read():
        try:
            ctx.names.put(name, ctx.api.status(name).status)
        except Unreachable as error:
            ctx.progress(f"{error.message}; whether there is a sandbox {name} is not known")
    ctx.session.use(name)
    return None
