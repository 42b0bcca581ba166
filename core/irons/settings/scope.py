"""The scope of a command: one sandbox or all sandboxes, and what chose it."""

from __future__ import annotations

from irons.record import NamedTuple

NAMED, ALL, USE = "named", "--all", "use"
"""Sources of a scope: a word of the command line, `--all`, and the command `use`. Other sources are shown as they are."""


class Scope(NamedTuple):
    """The sandboxes that a command is for.

    Attributes:
        sandbox: The one sandbox; None for all sandboxes.
        source: What chose it: `NAMED`, `ALL`, `USE`, `IRONS_SANDBOX`, a setting; empty where nothing chose, which means all.
    """

    sandbox: str | None = None
    source: str = ""

    @property
    def implied(self) -> bool:
        """True where no word of the command line names the sandbox: it is the one in use."""
        return self.sandbox is not None and self.source not in (NAMED, ALL)

    @property
    def who(self) -> str:
        """The sandbox's name, or `all sandboxes`."""
        return self.sandbox or "all sandboxes"

    @property
    def flags(self) -> str:
        """The option that names the same scope in a command, whichever sandbox is in use."""
        return f"--sandbox {self.sandbox}" if self.sandbox else "--all"

    @property
    def chosen(self) -> str:
        """The sandbox that no word names and what chose it, for a person; empty where a word names it."""
        return f"for {self.sandbox}, chosen by {self.source}" if self.implied else ""
