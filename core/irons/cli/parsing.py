"""Parse words into a command's parameters; anything invalid raises `UsageError` and never exits.

Written by hand rather than with argparse: global options stand before the command, after it or both, so the same scanner serves
the two places; messages are ours on every Python; and the import is saved at every start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from irons.cli.values import check_sandbox_name, read_value
from irons.command import ALL_SANDBOXES, GLOBAL_OPTIONS, Arg, Command, Flag, Opt
from irons.errors import UsageError
from irons.record import NamedTuple
from irons.settings.scope import ALL, NAMED, Scope

_HELP = Flag(("-h", "--help"), name="help")
_VERSION = Flag(("-V", "--version"), name="version")


_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
"""What the reference client's flags take (strconv.ParseBool of Go)."""


class Globals(NamedTuple):
    """The global options in the words of a command line, as one scan finds them.

    Attributes:
        values: Those before the command, by their `dest`.
        words: The words from the command on.
        help: Help is asked for before the command.
        version: The version is asked for before the command.
        fault: What is wrong with the first words that are not valid before the command.
        waiting: The option whose value would come next, where the words end before it.
        anywhere: Those before and after the command, up to `--`; what is not valid is left out.
    """

    values: dict[str, object]
    words: list[str]
    help: bool = False
    version: bool = False
    fault: UsageError | None = None
    waiting: Opt | None = None
    anywhere: Mapping[str, object] = {}


class Parsed(NamedTuple):
    """A command's own parameters by their `dest`, and the global options that followed the command.

    Where `help` or `version` is asked for, nothing else is read. `scope` says which sandbox is meant, and what chose it, for a
    command that has a scope and for one whose sandbox is implied; None for all others.
    """

    arguments: dict[str, object]
    globals: dict[str, object]
    help: bool = False
    version: bool = False
    scope: Scope | None = None


def scan_globals(words: Sequence[str]) -> Globals:
    """Find the global options in `words`, which may still be being typed: nothing is refused here."""
    by_flag = _by_flag((*GLOBAL_OPTIONS, _HELP, _VERSION))
    given: dict[tuple[str, ...], list[str]] = {}
    all_given: dict[tuple[str, ...], list[str]] = {}
    fault: UsageError | None = None
    waiting: Opt | None = None
    own: list[str] | None = None
    rest = list(words)
    while rest and rest[0] != "--":
        if own is None and (not rest[0].startswith("-") or rest[0] == "-"):
            own = list(rest)
        word = rest.pop(0)
        option, value, more = _match(word, by_flag)
        rest[:0] = more
        try:
            if option is None:
                # Behind the command it may be one of the command's own.
                if own is None:
                    raise _unknown(word, by_flag, "irons")
            elif isinstance(option, Opt) and value is None:
                waiting = option if own is None and not rest else None
                value = _next(rest, option, word, by_flag, "irons")
            if option is not None:
                for found in (all_given,) if own is not None else (given, all_given):
                    _give(found, option, value, word)
        except UsageError as refused:
            if own is None:
                fault = fault or refused
    values, wrong = _valid(given)
    anywhere, _ = _valid(all_given)
    return Globals(
        values,
        rest[1:] if own is None else own,
        _HELP.flags in given,
        _VERSION.flags in given,
        fault or wrong,
        waiting,
        anywhere,
    )


def _valid(given: Mapping[tuple[str, ...], list[str]]) -> tuple[dict[str, object], UsageError | None]:
    """Return the values of global options that were given and are valid, and what is wrong with the first that is not."""
    values: dict[str, object] = {}
    fault: UsageError | None = None
    for option in GLOBAL_OPTIONS:
        try:
            value = _value(option, given.get(option.flags))
        except UsageError as refused:
            fault = fault or refused
        else:
            if value:
                values[option.dest] = value
    return values, fault


def split_globals(words: Sequence[str]) -> Globals:
    """Take the global options that stand before the command out of `words`.

    Raises:
        UsageError: An option lacks its value, or an option before the command is not a global one.
    """
    found = scan_globals(words)
    if found.fault is not None:
        raise found.fault
    return found


def parse(
    command: Command,
    words: Sequence[str],
    in_use: Callable[[dict[str, object]], Scope] = lambda _: Scope(),
) -> Parsed:
    """Read the words after a command's path.

    Args:
        command: The command.
        words: The words.
        in_use: Given the global options found, returns the sandbox in use and what chose it.

    Raises:
        UsageError: An unknown option, a missing or an extra argument, a value that is invalid, a bad sandbox name.
    """
    name = f"irons {command.name}"
    taken = {flag for option in command.options for flag in option.flags}
    shared = [option for option in GLOBAL_OPTIONS if taken.isdisjoint(option.flags)]
    found = _scan(words, (*command.options, *shared, _HELP, _VERSION), name, command.arguments)
    if _HELP.flags in found.given or _VERSION.flags in found.given:
        return Parsed({}, {}, help=_HELP.flags in found.given, version=_HELP.flags not in found.given)
    given = {option.dest: _value(option, found.given.get(option.flags)) for option in shared}
    given = {dest: value for dest, value in given.items() if value}
    tail = next((argument for argument in command.arguments if argument.takes == "--"), None)
    values: dict[str, object] = {} if tail is None else {tail.dest: tuple(found.tail)}
    positional = [argument for argument in command.arguments if argument is not tail]
    spoken = found.words if tail is not None else [*found.words, *found.tail]
    chosen = {option.dest: _value(option, found.given.get(option.flags)) for option in command.options}
    positional = [
        argument._replace(takes="*", implied=False)
        if any(chosen.get(dest) for dest in argument.instead)
        else argument._replace(takes="?", implied=False)
        if command.scope == argument.dest
        else argument
        for argument in positional
    ]
    implied: list[Scope] = []

    def asked() -> str | None:
        implied.append(in_use(given))
        return implied[-1].sandbox

    try:
        values |= _arguments(command, positional, spoken, asked)
    except UsageError as refusal:
        if tail is not None and not found.tail and not refusal.hint:
            refusal.hint = _behind(command, tail)
        raise
    values |= chosen
    arguments = {param.dest: values[param.dest] for param in command.params}
    if not command.scope:
        return Parsed(arguments, given, scope=implied[-1] if implied else None)
    everything = arguments.pop(ALL_SANDBOXES.dest, False)
    scope = _scope(command, arguments.pop(command.scope), lambda: in_use(given), everything=bool(everything))
    return Parsed({**arguments, "scope": scope}, given, scope=scope)


def _scope(command: Command, named: object, in_use: Callable[[], Scope], *, everything: bool) -> Scope:
    """Return the scope of a command that has one: the sandbox that is named, all, or the sandbox in use.

    Raises:
        UsageError: A sandbox is named beside `--all`, or none is where the command needs one; or the name in use is invalid.
    """
    if isinstance(named, str):
        if everything:
            raise UsageError(f"{named} is named together with --all", hint="give a name, or --all")
        return Scope(named, NAMED)
    if everything:
        return Scope(None, ALL)
    used = in_use()
    if used.sandbox is not None:
        check_sandbox_name(used.sandbox)
        return used
    needed = next((a for a in command.arguments if a.dest == command.scope and a.takes == "1"), None)
    if needed is not None:
        raise UsageError(
            f"irons {command.name} needs {needed.shown} or --all", hint=f"see irons {command.name} --help"
        )
    return Scope()


# A plain class: it is made at every start, and a named tuple takes several times as long to make.
class _Scanned:
    """Options by their flags with the words each was given, the other words, and those after a `--`."""

    __slots__ = ("given", "tail", "words")

    def __init__(self, given: dict[tuple[str, ...], list[str]], words: list[str], tail: list[str]) -> None:
        self.given, self.words, self.tail = given, words, tail


def _scan(
    words: Sequence[str], options: Sequence[Opt | Flag], name: str, arguments: Sequence[Arg] = ()
) -> _Scanned:
    by_flag = _by_flag(options)
    given: dict[tuple[str, ...], list[str]] = {}
    plain: list[str] = []
    rest = list(words)
    if not set(_HELP.flags).isdisjoint(_before_dashes(words)):
        return _Scanned({_HELP.flags: []}, [], [])
    while rest:
        word = rest.pop(0)
        if word == "--":
            return _Scanned(given, plain, rest)
        if not word.startswith("-") or word == "-":
            plain.append(word)
            continue
        option, value, more = _match(word, by_flag)
        rest[:0] = more
        if option is None:
            raise _unknown(word, by_flag, name, arguments)
        if isinstance(option, Opt) and value is None:
            value = _next(rest, option, word, by_flag, name)
        _give(given, option, value, word)
    return _Scanned(given, plain, [])


def _give(given: dict[tuple[str, ...], list[str]], option: Opt | Flag, value: str | None, word: str) -> None:
    """Note what a word gives an option; a flag may be given false."""
    if isinstance(option, Opt):
        given.setdefault(option.flags, []).append(value or "")
    elif value is None or _truth(value, word.partition("=")[0]):
        given[option.flags] = []
    else:
        given.pop(option.flags, None)


def _next(rest: list[str], option: Opt, word: str, by_flag: Mapping[str, object], name: str) -> str:
    """Take the value of an option from the words after it."""
    if not rest or rest[0] == "--" or rest[0] in by_flag:
        raise UsageError(f"{word} needs a value ({option.shown})", hint=f"see {name} --help")
    return rest.pop(0)


def _unknown(
    word: str, by_flag: Mapping[str, Opt | Flag], name: str, arguments: Sequence[Arg] = ()
) -> UsageError:
    # What follows the equals sign of a misspelt --api-key may be the key, so it is not shown.
    told = word.partition("=")[0]
    from irons.cli.suggesting import either, options_like

    shown = [flag for option in dict.fromkeys(by_flag.values()) for flag in option.flags]
    hint = either(options_like(told, shown)) or f"see {name} --help"
    if told == "--json":
        hint = "did you mean -o json?"
    sandbox = next((argument for argument in arguments if argument.kind == "sandbox"), None)
    if told == "--sandbox" and sandbox is not None:
        # Beside it there are commands that take the option.
        hint = f"the sandbox is a word of its own here: {name} {sandbox.shown}"
    return UsageError(f"{name} has no option {told!r}", hint=hint)


def _truth(value: str, told: str) -> bool:
    if value not in _TRUE and value not in _FALSE:
        raise UsageError(f"{told} takes no value but true or false", hint=f"{told} alone is true")
    return value in _TRUE


def _before_dashes(words: Sequence[str]) -> Sequence[str]:
    return words[: words.index("--")] if "--" in words else words


def _by_flag(options: Iterable[Opt | Flag]) -> dict[str, Opt | Flag]:
    return {flag: option for option in options for flag in (*option.flags, *option.old)}


def _match(word: str, by_flag: dict[str, Opt | Flag]) -> tuple[Opt | Flag | None, str | None, list[str]]:
    """The option a word gives, its value where the word has that too (`--output=json`, `-ojson`, `--async=true`), and the rest of a bundle (`-rf`)."""
    exact = by_flag.get(word)
    if exact is not None:
        return exact, None, []
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        option = by_flag.get(name)
        return (option, value, []) if equals else (None, None, [])
    option = by_flag.get(word[:2])
    if isinstance(option, Opt):
        return option, word[2:].removeprefix("="), []
    if option is not None and word[2] == "=":
        return option, word[3:], []
    if option is not None and f"-{word[2]}" in by_flag:
        return option, None, [f"-{word[2:]}"]
    return None, None, []


def _arguments(
    command: Command, arguments: Sequence[Arg], words: Sequence[str], in_use: Callable[[], str | None]
) -> dict[str, object]:
    """Each argument's value; a sandbox that no word names is the one in use, if there is one."""
    implied = next((a for a in arguments if a.kind == "sandbox" and a.implied), None)
    shares, refusal = _shares(command, arguments, words, implied)
    if implied is not None and not shares[implied.dest]:
        sandbox = in_use()
        if sandbox is not None:
            shares[implied.dest], refusal = [sandbox], None
    if refusal is not None:
        raise refusal
    values: dict[str, object] = {}
    for argument in arguments:
        read = [_checked(argument, word) for word in shares[argument.dest]]
        values[argument.dest] = tuple(read) if argument.takes in ("*", "+") else (read[0] if read else None)
    return values


def _shares(
    command: Command, arguments: Sequence[Arg], words: Sequence[str], implied: Arg | None
) -> tuple[dict[str, list[str]], UsageError | None]:
    """The words of each argument; where they only fit with the implied one left out, also the refusal that stands otherwise."""
    try:
        return _shared_out(command, arguments, words), None
    except UsageError as refusal:
        if implied is None:
            raise
        free = [a._replace(takes="?" if a.takes == "1" else "*") if a is implied else a for a in arguments]
        try:
            return _shared_out(command, free, words), refusal
        except UsageError:
            raise refusal from None


def _shared_out(command: Command, arguments: Sequence[Arg], words: Sequence[str]) -> dict[str, list[str]]:
    """The words of each argument: each takes what it needs, an open one also what those after it leave."""
    shares: dict[str, list[str]] = {}
    rest = list(words)
    needs = [int(argument.takes in ("1", "+")) for argument in arguments]
    hint = f"see irons {command.name} --help"
    for at, argument in enumerate(arguments):
        spare = len(rest) - sum(needs[at + 1 :])
        if spare < needs[at]:
            missing = [a.shown for a, need in zip(arguments[at:], needs[at:], strict=True) if need][
                len(rest) :
            ]
            raise UsageError(f"irons {command.name} needs {' and '.join(missing)}", hint=hint)
        takes = spare if argument.takes in ("*", "+") else min(spare, 1)
        shares[argument.dest] = rest[:takes]
        del rest[:takes]
    if rest:
        behind = next((argument for argument in command.arguments if argument.takes == "--"), None)
        if behind is not None:
            hint = _behind(command, behind)
        raise UsageError(f"irons {command.name} does not take {rest[0]!r}: one argument too many", hint=hint)
    return shares


def _behind(command: Command, tail: Arg) -> str:
    """Where the words of another program's command line belong."""
    return f"{tail.shown} goes after --: irons {command.name} … -- {tail.shown}"


def _value(option: Opt | Flag, words: list[str] | None) -> object:
    """An option's value: of several, the last, unless it takes many."""
    if isinstance(option, Flag):
        return words is not None
    name = max(option.flags, key=len)
    if option.many:
        return tuple(_one(option, name, word) for word in words or ())
    return _one(option, name, words[-1]) if words else option.default


def _one(option: Opt, name: str, word: str) -> object:
    word = meant_choice(option, word)
    if option.choices and word not in option.choices and option.kind != "format":
        raise UsageError(
            f"{name} takes {_either(option.choices)}, not {word!r}", hint=_near(word, option.choices) or ""
        )
    if option.kind in ("sandbox", "new-sandbox"):
        return check_sandbox_name(word)
    return read_value(option.type, word, name)


def meant_choice(param: Arg | Opt, word: str) -> str:
    """Return the choice that a word stands for; the word itself where it stands for none."""
    if not param.synonyms:
        return word
    meant = dict(param.synonyms).get(word.lower(), word.lower())
    return meant if meant in param.choices else word


def _checked(argument: Arg, word: str) -> str:
    word = meant_choice(argument, word)
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


def _near(word: str, options: Iterable[str]) -> str | None:
    from difflib import get_close_matches

    near = get_close_matches(word, list(options), n=1)
    return f"did you mean {near[0]}?" if near else None


def _either(choices: Sequence[str]) -> str:
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"
