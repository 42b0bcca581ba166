"""What a person is told on stderr when a program in a sandbox has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irons.context import Context
    from irons_plugins.ssh.program import Ran
    from irons_plugins.ssh.refused import Refusals


def tell(ctx: Context, ran: Ran, refusals: Refusals) -> None:
    """Print how it ended, where the exit code does not say all, and what egress refused, however it ended."""
    if ran.ending.sentence and ran.interrupt is None:
        ctx.progress(f"irons: {ran.ending.sentence}")
    refusals.report()
