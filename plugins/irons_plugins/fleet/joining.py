"""What `fleet join` and `member join` have in common: the extra that they need, and a token that a person gives, never as an argument."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irons.errors import UsageError

if TYPE_CHECKING:
    from irons.context import Context

INSTALL = "install irons[fleet]"
_LONGEST = 65_536


def missing_extra(error: ImportError) -> str:
    """What to say where a package of the extra is missing."""
    return f"the package {(error.name or 'of the extra').partition('.')[0]} is missing"


def given_token(ctx: Context, otherwise: str) -> str:
    """The token, typed where no one sees it, or from standard input.

    Args:
        ctx: of the command.
        otherwise: what to run where no one is there to type it.

    Raises:
        UsageError: No one is.
    """
    streams = ctx.streams
    if not streams.stdin_is_tty:
        return streams.stdin.read(_LONGEST)
    if ctx.settings.no_input:
        raise UsageError("there is no token on standard input", hint=otherwise)
    import getpass

    return getpass.getpass("Token: ", stream=streams.stderr)
