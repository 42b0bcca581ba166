"""Help made from the command tree: the overview, a group, one command; no handler is imported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from irons.cli.help.sections import DAILY, TOPICS, sections
from irons.command import GLOBAL_OPTIONS, Arg, Command, Flag, Opt
from irons.errors import EXIT_CODES, UsageError
from irons.tree import Tree

WIDTH = 96
"""The widest that help gets; narrower on a narrower terminal, down to `NARROW`."""

NARROW = 40


def help_text(
    tree: Tree,
    words: Sequence[str],
    *,
    face: str = "cli",
    width: int | None = None,
    owners: Mapping[str, str] | None = None,
) -> str:
    """Return the help for these words: everything, a group of commands, or one command.

    Args:
        tree: The commands.
        words: A command's words and any words after them, a group's, or none.
        face: Who asks; at the prompt commands go without the word `irons`.
        width: The terminal's columns, where there is one.
        owners: The plugin of each command that is not part of irons; the overview lists them under its name.

    Raises:
        UsageError: The words name nothing.
    """
    page = _Page("" if face == "prompt" else "irons ", max(NARROW, min(width or WIDTH, WIDTH)))
    if not words:
        return page.overview(tree, owners or {})
    match = tree.find(words)
    if match is not None:
        return page.command(match.command, tree)
    if tree.is_group(tuple(words)):
        return page.group(tree, tuple(words))
    raise UsageError(f"there is no command or topic {' '.join(words)!r}", hint=_meant(tree, words))


def _meant(tree: Tree, words: Sequence[str]) -> str:
    """Return the hint for words that name no command and no topic."""
    from irons.cli.suggesting import commands_like, either, topics_like

    if words[0] in ("topic", "topics"):
        return f"the topics are {', '.join(TOPICS)}"
    found = topics_like(words[0], TOPICS) if len(words) == 1 else ()
    return either(found or commands_like(tree, words)) or "irons help lists the commands and topics"


def usage(command: Command, word: str = "irons ") -> str:
    """Return the one-line usage of a command."""
    parts = [f"{word}{command.name}"]
    parts += [f"[{_flag(option)}]" for option in command.options]
    shapes = {"1": "{}", "?": "[{}]", "*": "[{}...]", "+": "{}...", "--": "[-- {}...]"}
    parts += [
        shapes["*" if argument.instead else argument.takes].format(argument.shown)
        for argument in command.arguments
    ]
    return " ".join(parts)


def wrap(text: str, width: int) -> list[str]:
    """Break text into lines of at most `width` characters at its spaces; a longer word stands alone."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line] if line else lines


class _Page:
    """Help for one width and one face; `word` is what stands before a command there."""

    def __init__(self, word: str, width: int) -> None:
        self._word = word
        self._width = width

    def overview(self, tree: Tree, owners: Mapping[str, str]) -> str:
        word = self._word
        named = [(title, _rows(commands)) for title, commands in sections(tree, owners).items()]
        # One column for all sections, so that the eye finds the names.
        left = self._left(row for _, rows in named for row in rows)
        lines = [
            f"usage: {word}COMMAND … [options]" if word else "COMMAND … [options]",
            "",
            *wrap(
                "Real machines for AI agents, without the internet: every outbound connection is judged outside the "
                "sandbox, and logged.",
                self._width,
            ),
            "",
            "Daily use:",
            *self._table([(f"{word}{line}", about) for line, about in DAILY], most=45),
        ]
        for title, rows in named:
            lines += ["", f"{title}:", *self._table(rows, left=left)]
        lines += [
            "",
            "Topics:",
            *self._table([(f"help {name}", about) for name, about in TOPICS.items()], left=left),
        ]
        lines += ["", *self._shared(GLOBAL_OPTIONS)]
        lines += ["", *wrap(f"`{word}COMMAND --help` has details and examples.", self._width)]
        return _joined(*lines)

    def group(self, tree: Tree, path: tuple[str, ...]) -> str:
        name = " ".join(path)
        lines = [
            f"usage: {self._word}{name} COMMAND … [options]",
            "",
            "Commands:",
            *self._table(_rows(c for c in tree if c.path[: len(path)] == path and not c.hidden)),
            "",
            *wrap(f"`{self._word}{name} COMMAND --help` has details and examples.", self._width),
        ]
        if name in TOPICS:
            lines += wrap(f"`{self._word}help {name}`: {TOPICS[name]}", self._width)
        return _joined(*lines)

    def command(self, command: Command, tree: Tree) -> str:
        lines = [f"usage: {usage(command, self._word)}", "", *wrap(command.help, self._width)]
        if command.about:
            for paragraph in command.about.split("\n\n"):
                lines += ["", *wrap(paragraph, self._width)]
        if command.arguments:
            rows = [(argument.shown, _with_choices(argument)) for argument in command.arguments]
            lines += ["", "Arguments:", *self._table(rows)]
        if command.options:
            lines += ["", "Options:", *self._table([_option(option) for option in command.options])]
        below = _rows(c for c in tree if command.leads and not c.hidden and _is_below(c, command))
        if below:
            lines += ["", "Commands:", *self._table(below)]
        if command.aliases:
            lines += ["", f"Also: {', '.join(' '.join(alias) for alias in command.aliases)}"]
        if command.examples:
            lines += ["", "Examples:", *(f"  {self._example(example)}" for example in command.examples)]
        failures = {command.failure} if command.failure else {1, 2}
        own = {flag for option in command.options for flag in option.flags}
        lines += ["", *self._shared(o for o in GLOBAL_OPTIONS if not own.issuperset(o.flags))]
        codes = sorted({0, *failures, 130, *command.exits})
        lines += ["", "Exit codes:", *self._table([(str(code), EXIT_CODES.get(code, "")) for code in codes])]
        return _joined(*lines)

    def _example(self, example: str) -> str:
        return example if self._word else example.removeprefix("irons ")

    def _shared(self, options: Iterable[Opt | Flag]) -> list[str]:
        rows = [_option(option) for option in options]
        rows += [("-h, --help", "Show help."), ("-V, --version", "Show the version.")]
        return ["Options of every command:", *self._table(rows)]

    def _left(self, rows: Iterable[tuple[str, str]], most: int = 30) -> int:
        return min(max((len(left) for left, _ in rows), default=0), most, self._width // 2)

    def _table(self, rows: Sequence[tuple[str, str]], *, left: int = 0, most: int = 30) -> list[str]:
        left_width = left or self._left(rows, most)
        indent = " " * (left_width + 4)
        lines: list[str] = []
        for name, right in rows:
            wrapped = wrap(right, self._width - left_width - 4) or [""]
            if len(name) > left_width:
                lines += [f"  {name}", f"{indent}{wrapped[0]}".rstrip()]
            else:
                lines.append(f"  {name:<{left_width}}  {wrapped[0]}".rstrip())
            lines += [f"{indent}{line}" for line in wrapped[1:]]
        return lines


def _rows(commands: Iterable[Command]) -> list[tuple[str, str]]:
    return [(command.name, command.help) for command in commands]


def _is_below(command: Command, other: Command) -> bool:
    return len(command.path) > len(other.path) and command.path[: len(other.path)] == other.path


def _joined(*lines: str) -> str:
    return "\n".join(lines) + "\n"


def _flag(option: Opt | Flag) -> str:
    return option.flags[0] if isinstance(option, Flag) else f"{option.flags[0]} {option.shown}"


def _option(option: Opt | Flag) -> tuple[str, str]:
    names = ", ".join(option.flags)
    if isinstance(option, Flag):
        return names, option.help
    told = option.default in (None, "", ()) or "[default:" in option.help
    default = "" if told else f" [default: {option.default}]"
    return f"{names} {option.shown}", f"{option.help}{default}"


def _with_choices(argument: Arg) -> str:
    return f"{argument.help} One of: {', '.join(argument.choices)}." if argument.choices else argument.help
