"""One shot: words -> command -> handler -> output -> exit code.

`run_words` is the same for every face; the prompt and xonsh give it a host that lives longer, and their own streams.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from irons.errors import Interrupted, IronsError, UsageError

if TYPE_CHECKING:
    from irons.command import Command, Exec
    from irons.context import Session
    from irons.host import PluginHost
    from irons.streams import Streams


def main(words: Sequence[str]) -> int:
    """Run `irons WORDS…` in this process and return its exit code."""
    if words and words[0] == "__complete":
        from irons.shell_completion import answer

        return answer(words[1:])
    from irons.streams import Streams

    streams = Streams()
    _be_lenient(streams)
    try:
        from irons.host import PluginHost

        asked = [*words, "shell"] if _opens_shell(words, streams) else list(words)
        code = run_words(asked, PluginHost(), streams)
        streams.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return _quietly()
    return code


def _opens_shell(words: Sequence[str], streams: Streams) -> bool:
    """Without a command: a person gets the prompt, and lines on stdin (a file or a pipe) are run; all else gets the help."""
    if words and not words[0].startswith("-"):
        return False
    from irons.parsing import split_globals

    try:
        found = split_globals(words)
    except UsageError:
        return False
    if found.words or found.help or found.version:
        return False
    if streams.reads_person:
        return streams.shows_person
    import stat

    try:
        mode = os.fstat(streams.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return False
    return stat.S_ISREG(mode) or stat.S_ISFIFO(mode)


def run_words(
    words: Sequence[str],
    host: PluginHost,
    streams: Streams,
    *,
    face: str = "cli",
    session: Session | None = None,
) -> int:
    """Find the command in `words`, run it and show its answer; return the exit code.

    Args:
        words: The words behind `irons`.
        host: The plugins and their commands.
        streams: Where to read and write.
        face: Who calls: `cli`, `prompt`, `xonsh`.
        session: What the face keeps between commands: an open client, the sandbox in use, how another program is run. Without
            one, each call opens its own client, and this process becomes the other program.

    Raises:
        BrokenPipeError: Whoever read stdout has gone.
    """
    form: str | None = streams.env.get("IRONS_OUTPUT") or _asked_format(words)
    debug = "--debug" in words
    try:
        from irons.parsing import split_globals

        found = split_globals(words)
        if found.version:
            from irons.version import __version__

            streams.stdout.write(f"irons {__version__}\n")
            return 0
        if found.help or not found.words:
            return _help(host, found.words, streams, face)
        match = host.tree.find(found.words)
        if match is None:
            return _unknown(host, found.words, streams)
        return _call(match.command, match.rest, found.values, host, streams, face, session)
    except IronsError as error:
        _show_error(error, form, streams, debug=debug)
        return error.exit_code
    except KeyboardInterrupt:
        _show_error(Interrupted("interrupted"), form, streams, debug=False)
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - the last net: one line, the traceback only when asked for
        wrapped = IronsError(
            f"something broke inside irons: {type(error).__name__}: {error}",
            hint="run it again with --debug for the traceback",
        )
        wrapped.__cause__ = error
        _show_error(wrapped, form, streams, debug=debug)
        return 1


def _call(
    command: Command,
    rest: Sequence[str],
    before: dict[str, object],
    host: PluginHost,
    streams: Streams,
    face: str,
    session: Session | None,
) -> int:
    from irons.command import Exec, Result
    from irons.parsing import parse
    from irons.settings import load

    def in_use(given: dict[str, object]) -> str | None:
        named: str | None = load({**before, **given}, streams.env)["sandbox"]
        return named

    parsed = parse(command, rest, in_use)
    if parsed.help:
        return _help(host, list(command.path), streams, face)
    settings = load({**before, **parsed.globals}, streams.env)
    from irons.context import Context

    context = Context(settings, host, streams, face=face, session=session)
    try:
        answer: object = _handler(command)(context, **parsed.arguments)
        if isinstance(answer, Exec):
            return _become(answer) if session is None else session.execute(answer)
        result = answer if isinstance(answer, Result) else Result(answer)
        from irons.output import choose_format, show

        follow = command.pace_of(rest) == "waiting" and command.pace != "waiting"
        show(
            result.data,
            result.view or command.view,
            choose_format(settings["output"], streams),
            streams,
            follow=follow,
        )
        return result.exit
    finally:
        context.close()


def _handler(command: Command) -> Callable[..., Any]:
    module, _, name = command.run.partition(":")
    handler: Callable[..., Any] = getattr(import_module(module), name)
    return handler


def _become(program: Exec) -> int:
    """Turn this process into another program, so that signals and the exit code are its own."""
    sys.stdout.flush()
    sys.stderr.flush()
    env = dict(os.environ if program.env is None else program.env)
    try:
        os.execvpe(program.argv[0], program.argv, env)  # noqa: S606 - no shell is wanted
    except FileNotFoundError:
        raise IronsError(
            f"{program.argv[0]} is not installed", hint=f"install the package that has {program.argv[0]}"
        ) from None


def _help(host: PluginHost, words: Sequence[str], streams: Streams, face: str) -> int:
    from irons.help import help_text

    streams.stdout.write(help_text(host.tree, list(words), face=face))
    return 0


def _unknown(host: PluginHost, words: Sequence[str], streams: Streams) -> int:
    path: tuple[str, ...] = ()
    for word in words:
        if not host.tree.is_group((*path, word)):
            break
        path = (*path, word)
    if len(path) == len(words) or (len(words) > len(path) and words[len(path)] in ("-h", "--help")):
        if words[-1] in ("-h", "--help"):
            return _help(host, path, streams, "cli")
        raise UsageError(f"irons {' '.join(path)} needs one of: {', '.join(host.tree.below(path))}")
    near = host.tree.suggest(words)
    called = " ".join((*path, words[len(path)]))
    raise UsageError(
        f"there is no command {called!r}",
        hint=f"did you mean irons {near}?" if near else "irons --help lists them",
    )


def _asked_format(words: Sequence[str]) -> str | None:
    """What `-o` asks for, told before the words are parsed, so that a usage error has the right form too."""
    for at, word in enumerate(words):
        if word == "--":
            break
        if word in ("-o", "--output") and at + 1 < len(words):
            return words[at + 1]
        if word.startswith("--output="):
            return word.partition("=")[2]
        if word.startswith("-o") and len(word) > 2 and not word.startswith("--"):
            return word[2:]
    return None


def _show_error(error: IronsError, form: str | None, streams: Streams, *, debug: bool) -> None:
    if debug:
        import traceback

        traceback.print_exception(error, file=streams.stderr)
    from irons.output import show_error

    show_error(error, form, streams)


def _be_lenient(streams: Streams) -> None:
    """Never fail on a character that the terminal's encoding lacks."""
    for stream in (streams.stdout, streams.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _quietly() -> int:
    """End without a word when whoever read our output has gone (`irons … | head`)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
