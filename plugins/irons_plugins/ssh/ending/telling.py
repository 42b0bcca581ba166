"""What is printed on stderr when a program in a sandbox has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irons.errors import IronsError
from irons_plugins.ssh.openssh.endings import interrupted

if TYPE_CHECKING:
    from irons.context import Context
    from irons_plugins.ssh.ending.denial_summary import Refusals
    from irons_plugins.ssh.execute.program import ProgramRun


def tell(ctx: Context, ran: ProgramRun, refusals: Refusals) -> None:
    """Print how it ended, where the exit code does not say all, and what egress refused, however it ended."""
    if ran.ending.sentence and ran.interrupt is None:
        ctx.progress(f"irons: {ran.ending.sentence}")
    refusals.report()


def asked_form(ctx: Context) -> str:
    """Return `json` or `jsonl` where this call asks for it by option; a default for all commands leaves stdout to the program."""
    output = ctx.settings.values["output"]
    return str(output.value) if output.source == "flag" and output.value in ("json", "jsonl") else ""


def ended_by(interrupt: KeyboardInterrupt) -> BaseException:
    """Return what a call raises that Ctrl-C, TERM or HUP ended."""
    ending = interrupted(interrupt)
    if not ending.sentence:
        return interrupt
    error = IronsError(ending.sentence)
    error.exit_code = ending.code
    return error
