"""One shot: words -> command -> handler -> output -> exit code.

`run_words` is the same for every face; the prompt and xonsh give it a host that lives longer, and their own streams.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from irons.cli.aliases import expand_alias
from irons.cli.silence import silence_stdio
from irons.errors import ApiError, Interrupted, IronsError, NotFound, PluginError, Unsupported, UsageError

if TYPE_CHECKING:
    from irons.cli.parsing import Globals
    from irons.command import Command, Exec, View
    from irons.context import Session
    from irons.host import PluginHost
    from irons.settings.scope import Scope
    from irons.settings.settings import Settings
    from irons.terminal.streams import Streams


_SHORT = 60
"""Characters of a command that a hint repeats whole."""
_WIDER = "; --all is for all sandboxes"


def main(words: Sequence[str]) -> int:
    """Run `irons WORDS…` in this process and return its exit code."""
    if words and words[0] == "__complete":
        from irons.cli.shell_completion import answer

        return answer(words[1:])
    from irons.terminal.room import wait_for_room
    from irons.terminal.streams import Streams

    wait_for_room()
    streams = Streams()
    _be_lenient(streams)
    try:
        from irons.cli.parsing import scan_globals
        from irons.host import PluginHost

        found = scan_globals(words)
        if _opens_shell(found, streams):
            found = found._replace(words=["shell"])
        if "no_plugins" in found.anywhere:
            # Processes that this one starts load none either.
            os.environ["IRONS_PLUGINS"] = ""
        code = _run_scanned(words, found, PluginHost(), streams)
    except BrokenPipeError:
        return silence_stdio()
    try:
        streams.stdout.flush()
    except BrokenPipeError:
        return silence_stdio()
    except OSError:
        silence_stdio()
        return code or 1
    return code


def _opens_shell(found: Globals, streams: Streams) -> bool:
    """Without a command: a person gets the prompt, and lines on stdin (a file or a pipe) are run; all else gets the help."""
    if found.fault is not None or found.words or found.help or found.version:
        return False
    if streams.stdin_is_tty:
        return streams.stdout_is_tty
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
        words: The words after `irons`.
        host: The plugins and their commands.
        streams: Where to read and write.
        face: Who calls: `cli`, `prompt`, `xonsh`.
        session: What the face keeps between commands: an open client, the sandbox in use, how another program is run. Without
            one, each call opens its own client, and this process becomes the other program.

    Raises:
        BrokenPipeError: Whoever read stdout has gone.
    """
    from irons.cli.parsing import scan_globals

    return _run_scanned(words, scan_globals(words), host, streams, face, session)


def _run_scanned(
    words: Sequence[str],
    found: Globals,
    host: PluginHost,
    streams: Streams,
    face: str = "cli",
    session: Session | None = None,
) -> int:
    # A usage error too has the form that is asked for, wherever that stands.
    form = found.anywhere.get("output") or streams.env.get("IRONS_OUTPUT")
    call = _Call(host, streams, face, session, str(form) if form else None)
    try:
        return call.run(found)
    except KeyboardInterrupt:
        return call.fail(words, Interrupted("interrupted"))
    except BrokenPipeError:
        raise
    except SystemExit as leaving:
        told = call.left(leaving)
        if told is None:
            raise
        return call.fail(words, told)
    except Exception as error:  # noqa: BLE001 - the last net: one line, the traceback only when asked for
        return call.fail(words, call.blamed(error))


class _Call:
    """One call of `run_words`: what it was given, and how an error of it is shown as far as is known yet."""

    def __init__(
        self, host: PluginHost, streams: Streams, face: str, session: Session | None, form: str | None
    ) -> None:
        self._host = host
        self._streams = streams
        self._face = face
        self._session = session
        self._form = form
        self._debug = False
        self._split = False
        self._command: Command | None = None
        self._scope: Scope | None = None
        self._has_told_scope = False

    def run(self, found: Globals) -> int:
        if found.fault is not None:
            raise found.fault
        self._split = True
        self._debug = bool(found.values.get("debug"))
        if self._face != "cli" and "no_plugins" in found.anywhere:
            raise UsageError(
                "plugins are loaded already", hint="irons --no-plugins opens a prompt without them"
            )
        if found.version:
            return self._version()
        if found.help or not found.words:
            return self._help(found.words)
        tree = self._host.tree
        words = expand_alias(tree, found.words, lambda: self._aliases(found))
        match = tree.find(words)
        if match is None:
            return self._unknown(words if tree.is_group(tuple(words[:1])) else found.words)
        self._command = match.command
        return self._run(match.command, match.rest, found.values)

    def fail(self, words: Sequence[str], error: IronsError) -> int:
        """Show an error; return the exit code, which is the command's own where it has one for all failures."""
        command = self._command if self._split else self._meant(words)
        if command is not None and command.failure and not isinstance(error, Interrupted):
            # An exit code of its own is an attribute of the error, not of its class.
            error.exit_code = vars(error).get("exit_code", command.failure)
        # A line on stderr has it already; an error as an object is read by itself.
        told = self._has_told_scope and self._form not in ("json", "jsonl")
        if isinstance(error, ApiError) and command is not None and self._scope is not None and not told:
            _say_scope(error, command, self._scope)
        self._show_error(error)
        return error.exit_code

    def blamed(self, error: Exception) -> IronsError:
        """Return any exception as an error of irons that names the plugin at fault."""
        from irons.plugin.blame import blamed

        return blamed(error, self._host, self._command)

    def left(self, leaving: SystemExit) -> IronsError | None:
        """Return the error of a plugin that left with an exit code other than 0."""
        from irons.plugin.blame import left

        return left(leaving, self._host, self._command)

    def _meant(self, words: Sequence[str]) -> Command | None:
        """The first command among words that could not be read up to it (an unknown option before the command)."""
        plain = words[: words.index("--")] if "--" in words else words
        try:
            tree = self._host.tree
        except IronsError:
            return None
        found = (tree.find(plain[at:]) for at in range(len(plain)))
        return next((match.command for match in found if match is not None), None)

    def _show_error(self, error: IronsError) -> None:
        from irons.terminal.output import show_error

        if self._debug:
            import traceback

            traceback.print_exception(error, file=self._streams.stderr)
        if self._face == "prompt":
            from irons.tree import at_prompt

            error.message, error.hint = (
                at_prompt(text, self._host.tree) for text in (error.message, error.hint)
            )
        show_error(error, self._form, self._streams)

    def _run(self, command: Command, rest: Sequence[str], before: dict[str, object]) -> int:
        from irons.cli.parsing import parse

        parsed = parse(command, rest, lambda given: self._in_use(command, {**before, **given}))
        if parsed.help:
            return self._help(command.path)
        if parsed.version:
            return self._version()
        settings = self._settings(command, {**before, **parsed.globals})
        self._debug = settings.debug
        self._form = settings["output"]
        self._check_output(settings)
        self._scope = parsed.scope
        from irons.context import Context

        context = Context(settings, self._host, self._streams, face=self._face, session=self._session)
        try:
            if self._scope is not None and self._scope.implied and _hides_sandbox(command):
                context.progress(f"{self._scope.chosen}{_WIDER if command.scope else ''}")
                self._has_told_scope = True
            return self._show(command, rest, self._handler(command)(context, **parsed.arguments), settings)
        finally:
            context.close()

    def _handler(self, command: Command) -> Callable[..., Any]:
        module, _, name = command.run.partition(":")
        try:
            handler: Callable[..., Any] = getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            owner = self._host.owner(command)
            if owner is None:
                raise
            raise PluginError(
                f"plugin {owner.name}, command {command.name}: run={command.run!r} names nothing: "
                f"{type(error).__name__}: {error}",
                hint="irons plugins lists the faults of all plugins",
            ) from error
        return handler

    def _in_use(self, command: Command, flags: dict[str, object]) -> Scope:
        """Return the sandbox in use, and whether `use`, the variable or the setting chose it."""
        from irons.settings.scope import USE, Scope

        value, source = self._settings(command, flags).values["sandbox"]
        if value is None:
            return Scope()
        if source == "IRONS_SANDBOX":
            by_use = self._session is not None and self._session.used == value
            return Scope(value, USE if by_use else source)
        where = f" of {source}" if source.startswith("profile ") and source != "profile default" else ""
        return Scope(value, f"the setting sandbox{where}")

    def _settings(self, command: Command, flags: dict[str, object]) -> Settings:
        from irons.settings.settings import load

        return load(flags, self._streams.env, strict=not command.tolerant)

    def _show(self, command: Command, rest: Sequence[str], answer: object, settings: Settings) -> int:
        from irons.command import FORMATS, Exec, Result

        if isinstance(answer, Exec):
            return _become(answer, self._streams) if self._session is None else self._session.execute(answer)
        result = answer if isinstance(answer, Result) else Result(answer)
        if not isinstance(result.exit, int):
            message = f"the exit code of a Result is an integer, not {type(result.exit).__name__}"
            raise TypeError(message)
        if result.data is None and (result.exit or command.pace == "terminal"):
            # stdout is another program's there: not even a `null` goes after what it wrote.
            return result.exit
        from irons.terminal.output import choose_format, show

        pace = command.pace_of(rest)
        view, follow = (
            self._said(result.view or command.view),
            # Rows of a command of the terminal that has none come as they are found, as those of a flag that waits do.
            (pace == "waiting" and command.pace != "waiting")
            or (pace == "terminal" and isinstance(result.data, Iterator)),
        )
        form = settings["output"]
        if form is None or form in FORMATS:
            show(result.data, view, choose_format(form, self._streams), self._streams, follow=follow)
        else:
            from irons.terminal.formats import show_by_plugin

            show_by_plugin(form, self._host, result.data, view, self._streams, follow=follow)
        return result.exit

    def _said(self, view: View) -> View:
        """Return a view whose sentence for no rows can be followed where it is read: at the prompt without the word `irons`."""
        if self._face != "prompt" or not view.empty:
            return view
        from irons.tree import at_prompt

        return view._replace(empty=at_prompt(view.empty, self._host.tree))

    def _check_output(self, settings: Settings) -> None:
        """Refuse an output format that does not exist, before the handler changes anything."""
        from irons.command import FORMATS

        if settings["output"] not in (None, *FORMATS):
            from irons.terminal.formats import check_format

            check_format(settings.values["output"], self._host)

    def _aliases(self, found: Globals) -> Mapping[str, str]:
        from irons.settings.settings import load

        return load(found.values, self._streams.env, strict=False).aliases

    def _help(self, words: Sequence[str]) -> int:
        from irons.cli.help.pages import help_text
        from irons.cli.help.sections import third_parties

        owners = None if words else third_parties(self._host.plugins)
        text = help_text(self._host.tree, words, face=self._face, width=self._streams.columns, owners=owners)
        self._streams.stdout.write(text)
        return 0

    def _version(self) -> int:
        from irons.version import __version__

        self._streams.stdout.write(f"irons {__version__}\n")
        return 0

    def _unknown(self, words: Sequence[str]) -> int:
        """Say what is wrong with words that name no command; those of a group may still ask for its help."""
        tree = self._host.tree
        path: tuple[str, ...] = ()
        for word in words:
            if not tree.is_group((*path, word)):
                break
            path = (*path, word)
        rest = words[len(path) :]
        if path and rest and rest[0] in ("-h", "--help"):
            return self._help(path)
        own = "" if self._face == "prompt" else "irons "
        if not rest or rest[0].startswith("-"):
            raise UsageError(
                f"{own}{' '.join(path)} needs one of: {', '.join(tree.below(path))}",
                hint=f"see {own}{' '.join(path)} --help",
            )
        from irons.cli.suggesting import commands_like, either

        is_program = self._face == "prompt" and not path and self._is_program(rest[0])
        near = [f"{own}{each}" for each in commands_like(tree, words, is_typo=not is_program)]
        hints = [either(near)]
        if is_program:
            hints.append(f"!{_short(words)} runs it in your shell")
        below = f"{own}{' '.join(path)} has {', '.join(tree.below(path))}" if path else ""
        raise UsageError(
            f"there is no command {' '.join((*path, rest[0]))!r}",
            hint="; ".join(filter(None, hints)) or below or f"{own or 'help or '}--help lists them",
        )

    def _is_program(self, word: str) -> bool:
        """Tell whether a word is a program of this machine, which the prompt's `!` runs."""
        from shutil import which

        return word.isprintable() and which(word, path=self._streams.env.get("PATH")) is not None


def _short(words: Sequence[str]) -> str:
    """Return a command as it is typed; of a long one its beginning."""
    from shlex import join

    whole = join(words)
    return whole if len(whole) <= _SHORT else f"{join(words[:1])} …"


def _hides_sandbox(command: Command) -> bool:
    """Tell whether the answer of a command may not name its sandbox, and is not another program's."""
    if command.pace == "terminal":
        return False
    columns = () if command.view is None else command.view.columns
    # A command without columns says in a line of its own what it did.
    named = not columns or any(column.key in ("name", "sandbox") for column in columns)
    return bool(command.scope) or not named


def _say_scope(error: ApiError, command: Command, scope: Scope) -> None:
    """Add to what a server lacks which sandbox was meant, where no word of the command line names it."""
    if not scope.implied or not isinstance(error, NotFound | Unsupported):
        return
    more = f"{scope.chosen}{_WIDER if command.scope else ''}"
    error.hint = f"{error.hint} ({more})" if error.hint else more


def _become(program: Exec, streams: Streams) -> int:
    """Turn this process into another program, so that signals and the exit code are its own."""
    streams.stdout.flush()
    streams.stderr.flush()
    env = dict(streams.env if program.env is None else program.env)
    try:
        os.execvpe(program.argv[0], program.argv, env)  # noqa: S606 - no shell is wanted
    except FileNotFoundError:
        raise IronsError(
            f"{program.argv[0]} is not installed", hint=f"install the package that has {program.argv[0]}"
        ) from None
    except OSError as error:
        raise IronsError(f"{program.argv[0]} can't be run: {error.strerror}") from None


def _be_lenient(streams: Streams) -> None:
    """Never fail on a character that the terminal's encoding lacks: it is written in ASCII."""
    codecs.register_error(_ASCII, _in_ascii)
    for stream in (streams.stdout, streams.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=_ASCII)


_ASCII = "irons-ascii"


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    from irons.terminal.fallbacks import spelled

    return spelled(error)
