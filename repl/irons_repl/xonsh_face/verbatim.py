"""Words on their way through xonsh, which expands `$NAME` and `~` once more in what an alias returns.

`python -m irons_repl.xonsh_face.verbatim WORDS…` takes wrapped words and is `irons` with the words as they were.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

_WRAPPED = {"%": "%25", "$": "%24", "~": "%7E"}


def needs_wrapping(words: Sequence[str]) -> bool:
    """Tell whether xonsh would change any of the words."""
    return any("$" in word or "~" in word for word in words)


def wrapped(words: Sequence[str]) -> list[str]:
    """Return words that xonsh leaves alone."""
    table = str.maketrans(_WRAPPED)
    return [word.translate(table) for word in words]


def unwrapped(words: Sequence[str]) -> list[str]:
    """Return the words that were wrapped."""
    found: list[str] = []
    for word in words:
        for character in ("$", "~", "%"):
            word = word.replace(_WRAPPED[character], character)  # noqa: PLW2901
        found.append(word)
    return found


def main() -> int:
    """Be `irons`."""
    from irons.cli.main import main as run

    return run(unwrapped(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
