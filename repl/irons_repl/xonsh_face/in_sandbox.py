"""`python -m irons_repl.xonsh_face.in_sandbox NAME WORDS…`: what the alias `@NAME` runs, in a process of its own.

Several words are a program and its arguments, as xonsh made them; one is a line for the sandbox's shell. So it is with `irons ssh`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from irons_repl.line.sandbox_line import shell_program


def exec_words(words: Sequence[str]) -> list[str]:
    """Return the irons command for a sandbox's name and the words after it; without words it is one that says what is missing."""
    name, program = words[:1], words[1:]
    return ["exec", *name, "--", *(shell_program(program[0]) if len(program) == 1 else program)]


def main() -> int:
    """Be `irons exec`."""
    from irons.cli.main import main as run

    return run(exec_words(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
