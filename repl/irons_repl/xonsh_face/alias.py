"""The alias `irons`: quick commands run in xonsh's process, what waits or owns the terminal in one of its own.

xonsh runs a callable alias in a thread that Ctrl-C does not reach, so only what answers at once may run there. The dispatcher is called
at every Tab, too (with no words): it looks things up and does nothing.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from typing import Any

from irons_repl.xonsh_face.face import Face

IN_PROCESS = "__irons__"
"""The alias that runs a command in this process; the dispatcher alone calls it."""

OWN_PROCESS = (sys.executable, "-m", "irons")
"""What runs a command in a process of its own. xonsh puts it in the alias's place also where it completes."""


def dispatcher(face: Face) -> Callable[..., list[str]]:
    """Return the alias that turns `irons WORDS…` into the command xonsh is to run."""

    def irons(words: Sequence[str], **_: object) -> list[str]:
        """Sandboxes for agents: create them, enter them, judge and see what they connect to. `irons help` tells more."""
        if words and _is_quick(face, words):
            return [IN_PROCESS, *words]
        return [*OWN_PROCESS, *words]

    irons.return_what = "command"  # type: ignore[attr-defined]
    return irons


def _is_quick(face: Face, words: Sequence[str]) -> bool:
    from irons.errors import UsageError
    from irons.parsing import split_globals

    try:
        rest = split_globals(words).words
    except UsageError:
        return True
    match = face.host.tree.find(rest)
    return match is None or match.command.pace_of(match.rest) == "quick"


def runner(face: Face) -> Callable[..., int]:
    """Return the alias that runs a quick command in this process."""

    def irons_here(words: Sequence[str], stdin: Any, stdout: Any, stderr: Any, spec: Any) -> int:
        """Run a quick irons command; the alias `irons` calls this."""
        from irons.cli import run_words
        from irons.streams import Streams

        shown = shows_person(stdout, spec)
        streams = Streams(
            stdin or io.StringIO(),
            stdout or sys.stdout,
            stderr or sys.stderr,
            face.env(),
            stdin_tty=False,
            stdout_tty=shown,
        )
        try:
            return run_words(list(words), face.host, streams, face="xonsh", session=face)
        except BrokenPipeError:
            return 0
        except SystemExit as error:
            return error.code if isinstance(error.code, int) else int(error.code is not None)

    return irons_here


def shows_person(stdout: Any, spec: Any) -> bool:
    """Tell whether a person reads what an alias prints: its stdout is a pipe of xonsh's own even at the prompt."""
    if stdout is not None and stdout.isatty():
        return True
    return bool(
        spec is not None
        and spec.captured == "hiddenobject"
        and spec.last_in_pipeline
        and spec.captured_stdout is not None
        and sys.__stdout__ is not None
        and sys.__stdout__.isatty()
    )
