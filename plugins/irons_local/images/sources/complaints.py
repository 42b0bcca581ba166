"""What a failed build says, found in the lines that mmdebstrap, apt and dpkg write; they run in the C locale."""

from __future__ import annotations

_NOT_FETCHED = ("Err:", "E: Failed to fetch", "W: Failed to fetch", "E: Some index files failed")
"""How apt reports that the mirror, or the way to it, failed."""
_BROKEN = "dpkg: error processing "
_STAGES = (
    "Setting up ",
    "Selecting ",
    "Preparing ",
    "Unpacking ",
    "Processing ",
    "(Reading ",
    "dpkg: ",
    "I: ",
)
"""How lines begin that say what is done, not what went wrong."""
_WORDS_AT_MOST = 300


class Complaints:
    """The lines of one build, of which only the cause is kept."""

    def __init__(self) -> None:
        self._before = ""
        self._apt = ""
        self._package = ""
        self._script = ""
        self._reason = ""
        self._fetching = False

    def take(self, line: str) -> None:
        """Look at the next line."""
        told = " ".join(line.split())
        if told.startswith(_BROKEN) and not self._package:
            self._package = told.removeprefix(_BROKEN).removeprefix("package ").removeprefix("archive ")
            # The output of the package's own script comes right before.
            self._script = "" if self._before.startswith(_STAGES) else self._before
        elif self._package and not self._reason:
            self._reason = told
        self._fetching = self._fetching or told.startswith(_NOT_FETCHED)
        # apt announces a failure, and says why only in the line of the error itself.
        if told.startswith("E:") and not self._apt:
            self._apt = told.removeprefix("E:").strip()
        if told:
            self._before = told

    @property
    def cause(self) -> str:
        """Why the build failed, in one line: dpkg's own words where a package failed, else apt's first error."""
        if not self._package:
            return self._apt or "no reason given"
        words = (self._package.rstrip(":").partition(" (")[0], self._script, self._reason)
        return "; ".join(word[:_WORDS_AT_MOST] for word in words if word)

    @property
    def was_fetching(self) -> bool:
        """True where packages or their lists could not be fetched, which is the cause then."""
        return self._fetching and not self._package
