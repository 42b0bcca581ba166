"""argparse, built for the one command that was called; errors are `UsageError`, never an exit.

Global options are taken out of the words first, wherever they stand before a `--`, so that `irons -o json list` and
`irons list -o json` are the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

from irons.command import GLOBAL_OPTIONS, Arg, Command, Flag, Opt
from irons.errors import UsageError
from irons.values import check_sandbox_name, read_value


class Globals(NamedTuple):
    """The global options found among the words, and the words without those that stand before the command."""

    values: dict[str, object]
    words: list[str]
    help: bool
    version: bool


def split_globals(words: Sequence[str]) -> Globals:
    """Take the global options that stand before the command out of `words`.

    Raises:
        UsageError: An option lacks its value, or an option before the command is not a global one.
    """
    values: dict[str, object] = {}
    rest = list(words)
    wants_help = version = False
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        if word in ("-h", "--help"):
            wants_help = True
        elif word in ("-V", "--version"):
            version = True
        else:
            option, value = _global(word)
            if option is None:
                known = [flag for known in GLOBAL_OPTIONS for flag in known.flags]
                raise UsageError(
                    f"unknown option {word!r}", hint=_near(word, known) or "irons --help lists them"
                )
            if isinstance(option, Opt) and value is None:
                if not rest:
                    raise UsageError(f"{word} needs a value ({option.shown})")
                value = rest.pop(0)
            values[option.dest] = True if isinstance(option, Flag) else _chosen(option, word, str(value))
    return Globals(values, rest, wants_help, version)


def globals_among(words: Iterable[str]) -> dict[str, object]:
    """Return the global options in words that are still being typed, wherever they stand; what makes no sense is passed over."""
    values: dict[str, object] = {}
    rest = iter(words)
    for word in _until(rest, "--"):
        option, value = _global(word)
        if isinstance(option, Flag):
            values[option.dest] = True
        elif option is not None:
            value = next(rest, None) if value is None else value
            if value is not None and (not option.choices or value in option.choices):
                values[option.dest] = value
    return values


def _until(words: Iterator[str], end: str) -> Iterator[str]:
    for word in words:
        if word == end:
            return
        yield word


def _global(word: str) -> tuple[Opt | Flag | None, str | None]:
    """The global option a word gives, and its value where the word has that too (`--output=json`, `-ojson`)."""
    by_flag = {flag: option for option in GLOBAL_OPTIONS for flag in option.flags}
    name, equals, value = word.partition("=")
    option = by_flag.get(name)
    if isinstance(option, Opt):
        return option, value if equals else None
    if option is not None:
        return (None, None) if equals else (option, None)
    short = by_flag.get(word[:2])
    if isinstance(short, Opt) and not word.startswith("--"):
        return short, word[2:]
    return None, None


class Parsed(NamedTuple):
    """A command's own parameters by their `dest`, and the global options that stood behind the command."""

    arguments: dict[str, object]
    globals: dict[str, object]
    help: bool


def parse(
    command: Command,
    words: Sequence[str],
    in_use: Callable[[dict[str, object]], str | None] = lambda _: None,
) -> Parsed:
    """Read the words behind a command's path.

    Args:
        command: The command.
        words: The words.
        in_use: Given the global options found, tells the sandbox that is meant where none is named.

    Raises:
        UsageError: An unknown option, a missing or an extra argument, a value that makes no sense, a bad sandbox name.
    """
    implied = next((a for a in command.arguments if a.kind == "sandbox" and a.implied), None)
    if implied is None:
        return _parse(command, words)
    refusal: UsageError | None = None
    try:
        parsed = _parse(command, words)
    except UsageError as error:
        refusal = error
        try:
            parsed = _parse(_without(command, implied), words)
        except UsageError:
            raise error from None
    if parsed.help or parsed.arguments[implied.dest] not in (None, ()):
        return parsed
    sandbox = in_use(parsed.globals)
    if sandbox is not None:
        name = check_sandbox_name(sandbox)
        parsed.arguments[implied.dest] = (name,) if implied.takes in ("*", "+") else name
    elif refusal is not None:
        raise refusal
    return parsed


def _without(command: Command, argument: Arg) -> Command:
    """The command with an argument that may be left out."""
    free = argument._replace(takes="*" if argument.takes in ("*", "+") else "?")
    return command._replace(params=tuple(free if p is argument else p for p in command.params))


def _parse(command: Command, words: Sequence[str]) -> Parsed:
    import argparse

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise UsageError(
                _reworded(message, command), hint=f"irons {command.name} --help shows how it is called"
            )

    before, tail = _split_tail(command, words)
    if "-h" in before or "--help" in before:
        return Parsed({}, {}, help=True)
    parser = Parser(prog=f"irons {command.name}", add_help=False, allow_abbrev=False, exit_on_error=True)
    own = {flag for option in command.options for flag in option.flags}
    for option in command.options:
        _add(parser, option, option.flags)
    for option in GLOBAL_OPTIONS:
        flags = tuple(flag for flag in option.flags if flag not in own)
        if flags:
            _add(parser, option, flags, dest=f"_global_{option.dest}")
    positional = [argument for argument in command.arguments if argument.takes != "--"]
    for argument in positional:
        parser.add_argument(
            argument.dest, nargs=None if argument.takes == "1" else argument.takes, metavar=argument.shown
        )
    namespace, left = parser.parse_known_intermixed_args(before)
    unknown = list(left)
    if unknown:
        word = unknown[0]
        if word.startswith("-"):
            offered = [flag for option in (*command.options, *GLOBAL_OPTIONS) for flag in option.flags]
            raise UsageError(
                f"irons {command.name} has no option {word!r}",
                hint=_near(word, offered) or f"irons {command.name} --help lists them",
            )
        raise UsageError(
            f"irons {command.name} does not take {word!r}: one argument too many",
            hint=f"irons {command.name} --help shows how it is called",
        )
    found = vars(namespace)
    values: dict[str, object] = {}
    for argument in positional:
        value = found[argument.dest]
        values[argument.dest] = (
            tuple(_checked(argument, v) for v in value)
            if isinstance(value, list)
            else _checked(argument, value)
        )
    for argument in command.arguments:
        if argument.takes == "--":
            values[argument.dest] = tuple(tail)
    for option in command.options:
        values[option.dest] = _value(option, found[option.dest])
    return Parsed(values, _given(found), help=False)


def _given(found: dict[str, Any]) -> dict[str, object]:
    """The global options that stood behind the command, each checked as before it."""
    given: dict[str, object] = {}
    for option in GLOBAL_OPTIONS:
        value = found.get(f"_global_{option.dest}")
        if value:
            given[option.dest] = (
                _chosen(option, option.flags[-1], value) if isinstance(option, Opt) else value
            )
    return given


def _split_tail(command: Command, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words before and behind the first `--`, for a command whose last argument takes another program's words."""
    if not any(argument.takes == "--" for argument in command.arguments):
        return list(words), []
    if "--" in words:
        at = list(words).index("--")
        return list(words[:at]), list(words[at + 1 :])
    return list(words), []


def _add(parser: object, option: Opt | Flag, flags: tuple[str, ...], dest: str | None = None) -> None:
    import argparse

    assert isinstance(parser, argparse.ArgumentParser)  # noqa: S101 - the type is argparse's, imported late
    if isinstance(option, Flag):
        parser.add_argument(*flags, action="store_true", dest=dest or option.dest)
        return
    parser.add_argument(
        *flags,
        action="append" if option.many else "store",
        dest=dest or option.dest,
        metavar=option.shown,
    )


def _value(option: Opt | Flag, raw: object) -> object:
    if isinstance(option, Flag):
        return bool(raw)
    name = max(option.flags, key=len)
    if option.many:
        words = raw if isinstance(raw, list) else []
        return tuple(_one(option, name, word) for word in words)
    return option.default if raw is None else _one(option, name, str(raw))


def _one(option: Opt, name: str, word: str) -> object:
    _chosen(option, name, word)
    if option.kind in ("sandbox", "new-sandbox"):
        return check_sandbox_name(word)
    return read_value(option.type, word, name)


def _chosen(option: Opt, name: str, word: str) -> str:
    if option.choices and word not in option.choices:
        raise UsageError(
            f"{name} takes {_either(option.choices)}, not {word!r}", hint=_near(word, option.choices) or ""
        )
    return word


def _checked(argument: Arg, value: object) -> object:
    if value is None:
        return None
    word = str(value)
    if argument.choices and word not in argument.choices:
        raise UsageError(
            f"{argument.shown} is {_either(argument.choices)}, not {word!r}",
            hint=_near(word, argument.choices) or "",
        )
    if argument.kind in ("sandbox", "new-sandbox"):
        return check_sandbox_name(word)
    if not word and argument.kind != "text":
        raise UsageError(f"{argument.shown} is empty")
    return word


def _reworded(message: str, command: Command) -> str:
    required = "the following arguments are required: "
    if message.startswith(required):
        return f"irons {command.name} needs {message.removeprefix(required).replace(', ', ' and ')}"
    found = re.fullmatch(r"argument (\S+?)(?:/\S+)?: expected (?:one|at least one) argument", message)
    if found:
        return f"irons {command.name}: {found[1]} needs a value"
    return f"irons {command.name}: {message.removeprefix('argument ')}"


def _near(word: str, options: Iterable[str]) -> str | None:
    from difflib import get_close_matches

    near = get_close_matches(word, list(options), n=1)
    return f"did you mean {near[0]}?" if near else None


def _either(choices: Sequence[str]) -> str:
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"
