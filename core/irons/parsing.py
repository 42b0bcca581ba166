"""argparse, built for the one command that was called; errors are `UsageError`, never an exit.

Global options are taken out of the words first, wherever they stand before a `--`, so that `irons -o json list` and
`irons list -o json` are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

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
    by_flag = {flag: option for option in GLOBAL_OPTIONS for flag in option.flags}
    values: dict[str, object] = {}
    rest = list(words)
    wants_help = version = False
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        if word in ("-h", "--help"):
            wants_help = True
            continue
        if word in ("-V", "--version"):
            version = True
            continue
        name, has_value, value = word.partition("=") if word.startswith("--") else (word, "", "")
        option = by_flag.get(name)
        if option is None and not word.startswith("--") and word[:2] in by_flag:
            option, has_value, value = by_flag[word[:2]], "=", word[2:]
        if option is None:
            raise UsageError(
                f"unknown option {word!r}", hint=_near(word, by_flag) or "irons --help lists them"
            )
        if isinstance(option, Flag):
            values[option.dest] = True
            continue
        if not has_value:
            if not rest:
                raise UsageError(f"{name} needs a value ({option.shown})")
            value = rest.pop(0)
        if option.choices and value not in option.choices:
            raise UsageError(f"{name} takes {_either(option.choices)}, not {value!r}")
        values[option.dest] = value
    return Globals(values, rest, wants_help, version)


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
    parser = Parser(prog=f"irons {command.name}", add_help=False, allow_abbrev=False, exit_on_error=True)
    parser.add_argument("-h", "--help", action="store_true", dest="_help")
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
    if "-h" in before or "--help" in before:
        return Parsed({}, {}, help=True)
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
    given = {o.dest: found[f"_global_{o.dest}"] for o in GLOBAL_OPTIONS if found.get(f"_global_{o.dest}")}
    return Parsed(values, given, help=False)


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
        choices=option.choices or None,
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
    if option.kind in ("sandbox", "new-sandbox"):
        return check_sandbox_name(word)
    return read_value(option.type, word, name)


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
    return f"irons {command.name}: {message}"


def _near(word: str, options: object) -> str | None:
    from difflib import get_close_matches

    near = get_close_matches(word, list(options), n=1)  # type: ignore[call-overload]
    return f"did you mean {near[0]}?" if near else None


def _either(choices: Sequence[str]) -> str:
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"
