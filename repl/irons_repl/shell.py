"""`irons shell`: the prompt where a person types, a script where no one does."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterable
from typing import TYPE_CHECKING

from irons.command import Result
from irons.errors import ConfigError, UsageError
from irons_repl.run.running import LineRunner
from irons_repl.run.session import ShellSession
from irons_repl.script import run_script

if TYPE_CHECKING:
    from irons.context import Context


def run(ctx: Context, *, lines: str | None) -> Result:
    """Open the prompt, or run `lines`, or the lines on stdin where that is not a terminal; the exit code is the result's.

    Raises:
        UsageError: A person types, but can't see what is printed; or the configuration is invalid.
    """
    if lines is not None:
        return Result(None, _script(ShellSession(ctx.host, ctx.streams, ctx.settings.flags), [lines]))
    if not ctx.streams.stdin_is_tty:
        # The lines are the script's alone: no command and no program it runs reads them.
        streams = ctx.streams.changed(stdin=io.StringIO(), stdin_tty=False)
        session = ShellSession(ctx.host, streams, ctx.settings.flags, stdin=subprocess.DEVNULL)
        return Result(None, _script(session, ctx.streams.stdin))
    if not ctx.streams.stdout_is_tty:
        raise UsageError(
            "the prompt needs a terminal to show itself on",
            hint="irons shell -c LINES runs lines without one",
        )
    return Result(None, _prompt(ctx))


def _script(session: ShellSession, lines: Iterable[str]) -> int:
    try:
        return run_script(LineRunner(session, strict=True), lines)
    finally:
        session.close()


def _prompt(ctx: Context) -> int:
    from irons_repl.line.quarantine import mended
    from irons_repl.opening import import_prompt_toolkit

    import_prompt_toolkit()
    from irons_repl.prompt import Prompt

    session = ShellSession(ctx.host, ctx.streams, ctx.settings.flags)
    said = ""
    try:
        settings = session.settings()
    except ConfigError:
        said = mended(ctx.settings)
        if not said:
            raise
        settings = session.settings()
    try:
        return Prompt(session, settings, said).run()
    finally:
        session.close()
