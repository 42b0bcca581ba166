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
from irons_repl.xonsh_face.verbatim import needs_wrapping, unwrapped, wrapped

HERE = "__irons__"
"""The alias that runs a command in this process; the dispatcher alone calls it."""

HERE_VERBATIM = "__irons_verbatim__"
"""The same for wrapped words."""

PROCESS = (sys.executable, "-P", "-m", "irons")
"""What runs a command in a process of its own. xonsh puts it in the alias's place also where it completes.

-P: what lies in the working directory must not be imported.
"""

PROCESS_VERBATIM = (sys.executable, "-P", "-m", "irons_repl.xonsh_face.verbatim")
"""The same for wrapped words."""


def aliases(face: Face) -> dict[str, Callable[..., Any]]:
    """Return every alias by its name."""
    return {
        "irons": _dispatcher(face),
        HERE: _runner(face, list),
        HERE_VERBATIM: _runner(face, unwrapped),
    }


def _dispatcher(face: Face) -> Callable[..., list[str]]:
    """Return the alias that turns `irons WORDS…` into the command xonsh is to run."""

    def irons(words: Sequence[str], **_: object) -> list[str]:
        """Sandboxes for agents: create them, enter them, judge and see what they connect to. `irons help` shows more."""
        quick = bool(words) and _is_quick(face, words)
        if needs_wrapping(words):
            return [*((HERE_VERBATIM,) if quick else PROCESS_VERBATIM), *wrapped(words)]
        return [*((HERE,) if quick else PROCESS), *words]

    irons.return_what = "command"  # type: ignore[attr-defined]
    return irons


def _is_quick(face: Face, words: Sequence[str]) -> bool:
    from irons.cli.parsing import split_globals
    from irons.errors import UsageError

    try:
        rest = split_globals(words).words
    except UsageError:
        return True
    if not rest:
        # Only options: help, the version, or the prompt, which owns the terminal.
        return any(word in ("-h", "--help", "-V", "--version") for word in words)
    match = face.host.tree.find(rest)
    if match is None:
        # A name that nothing here has, or an alias of the configuration, which may mean anything.
        return face.host.tree.is_group(tuple(rest[:1]))
    return match.command.pace_of(match.rest) == "quick"


def _runner(face: Face, read: Callable[[Sequence[str]], list[str]]) -> Callable[..., int]:
    """Return the alias that runs a quick command in this process, after `read` has had its words."""

    def irons_here(words: Sequence[str], stdin: Any, stdout: Any, stderr: Any, spec: Any) -> int:
        """Run a quick irons command; the alias `irons` calls this."""
        from irons.cli.main import run_words
        from irons.terminal.streams import Streams

        shown = stdout_is_tty(stdout, spec)
        streams = Streams(
            stdin or io.StringIO(),
            stdout or sys.stdout,
            stderr or sys.stderr,
            _sized(face.env()) if shown else face.env(),
            stdin_tty=False,
            stdout_tty=shown,
        )
        try:
            return run_words(read(words), face.host, streams, face="xonsh", session=face)
        except BrokenPipeError:
            return 0
        except SystemExit as error:
            return error.code if isinstance(error.code, int) else int(error.code is not None)

    return irons_here


def stdout_is_tty(stdout: Any, spec: Any) -> bool:
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


def _sized(env: dict[str, str]) -> dict[str, str]:
    """The variables with the terminal's width in them, which can't be asked of xonsh's pipe."""
    import shutil

    return {**env, "COLUMNS": str(shutil.get_terminal_size().columns)}
