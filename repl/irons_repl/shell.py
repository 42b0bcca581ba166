"""`irons shell`: the prompt where a person types, a script where nobody does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irons.command import Result
from irons_repl.running import Runner
from irons_repl.session import ShellSession

if TYPE_CHECKING:
    from irons.context import Context


def run(ctx: Context, *, lines: str | None) -> Result:
    """Open the prompt, or run `lines`, or the lines on stdin where that is no terminal; the exit code is the result's."""
    session = ShellSession(ctx.host, ctx.streams, ctx.settings.flags)
    try:
        if lines is not None:
            from irons_repl.script import run_script

            return Result(None, run_script(Runner(session, strict=True), [lines]))
        if not ctx.streams.reads_person:
            from irons_repl.script import run_script

            return Result(None, run_script(Runner(session, strict=True), ctx.streams.stdin))
        from irons_repl.prompt import Prompt

        return Result(None, Prompt(session, ctx.settings).run())
    finally:
        session.close()
