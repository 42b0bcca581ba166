"""Commands as data: one immutable description serves the CLI, the prompt, xonsh, completion and the docs.

Nothing here imports anything worth timing. A handler is named as ``"module:function"`` and imported when its command runs:

    Command(
        path=("greet",),
        help="Greet a sandbox.",
        run="my_plugin.handlers:greet",
        params=(Arg("name", "The sandbox to greet.", kind="sandbox"), Flag(("--loud",), "Shout.")),
    )

    def greet(ctx: Context, *, name: str, loud: bool) -> Greeting: ...

The handler gets every parameter by keyword, under its `dest`, and returns data (a row, an iterable of rows, a string, a
`Result`, an `Exec`, or nothing); it never prints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from irons.record import NamedTuple

Kind = Literal[
    "text",
    "sandbox",
    "new-sandbox",
    "domain",
    "rule",
    "file",
    "choice",
    "command",
    "image",
    "snapshot",
    "topic",
    "label",
    "setting",
    "profile",
    "key",
    "public-key",
    "variable",
    "format",
    "remote",
]
"""What a parameter's value is: how it is completed, and for the sandbox kinds how it is checked before the handler runs.

A `rule` is a pattern that a rule of the command's scope has, a `key` an API key by its id, a `public-key` a file or one that opens the
sandbox by its id, a `variable` a name of the environment. The choices of a `format` are those of irons itself; plugins bring more
(`irons_formats`), and more kinds (`irons_completions`). A `remote` is a path in a sandbox, which `Arg.paths` finds.
"""

Pace = Literal["quick", "waiting", "terminal"]
"""`quick` answers at once; `waiting` may take long and is interrupted by Ctrl-C; `terminal` owns the terminal while it runs."""

ValueType = Literal["text", "int", "float", "seconds", "size", "time"]
"""How an option's word is read: `seconds` takes `90`, `5m`; `size` takes `512M`, `2G` (bytes); `time` RFC 3339 or `10m` ago."""

FAILED_ITSELF = 125
"""The exit code of a command that runs another program, where irons itself failed: every other one may be that program's."""


class Arg(NamedTuple):
    """A positional parameter.

    `takes` is how many words it takes: `"1"`, `"?"` none or one, `"*"` any, `"+"` at least one, or `"--"` for all the words
    after a `--` (the command line of another program). A sandbox that is not named is the one in use, if there is one; not so
    where `implied` is false, as for what can't be undone. `instead` are options, by their `dest`, that name sandboxes in another way:
    where one of them is given, no word is needed and none is implied. `paths` (`"module:function"`; settings, sandbox, path typed so far ->
    paths with what each is) finds what goes on where the kind is `remote`: `NAME:path`, or behind a `--` a path in the sandbox that is named.
    It is called at Tab alone. `synonyms` are as of `Opt`.
    """

    name: str
    help: str = ""
    kind: Kind | str = "text"
    takes: Literal["1", "?", "*", "+", "--"] = "1"
    choices: tuple[str, ...] = ()
    metavar: str = ""
    implied: bool = True
    instead: tuple[str, ...] = ()
    paths: str = ""
    synonyms: tuple[tuple[str, str], ...] = ()

    @property
    def dest(self) -> str:
        """The handler's keyword for it."""
        return self.name.replace("-", "_")

    @property
    def shown(self) -> str:
        """How usage lines and messages call it."""
        return self.metavar or self.name.upper()


class Opt(NamedTuple):
    """An option that takes a value. With `many` it may be given again and its value is a tuple.

    `old` are earlier spellings of its flags: they are taken, and neither shown nor completed. `synonyms` are other words for its choices, each with the choice that the handler gets; they are taken in any case, and neither
    completed nor shown.
    """

    flags: tuple[str, ...]
    help: str = ""
    metavar: str = ""
    kind: Kind | str = "text"
    type: ValueType = "text"
    default: object = None
    choices: tuple[str, ...] = ()
    many: bool = False
    name: str = ""
    synonyms: tuple[tuple[str, str], ...] = ()
    old: tuple[str, ...] = ()

    @property
    def dest(self) -> str:
        """The handler's keyword for it: its `name`, else its longest flag."""
        return self.name or _dest(self.flags)

    @property
    def shown(self) -> str:
        """How usage lines and messages call its value."""
        return self.metavar or ("{" + ",".join(self.choices) + "}" if self.choices else self.dest.upper())


class Flag(NamedTuple):
    """An option that is there or not.

    `pace` is the command's pace where the flag is given (`--follow` makes it wait). `old` are earlier spellings: they are taken, and
    neither shown nor completed.
    """

    flags: tuple[str, ...]
    help: str = ""
    name: str = ""
    pace: Pace | None = None
    old: tuple[str, ...] = ()

    @property
    def dest(self) -> str:
        """The handler's keyword for it: its `name`, else its longest flag."""
        return self.name or _dest(self.flags)


Param = Arg | Opt | Flag

ALL_SANDBOXES = Flag(("--all",), "All sandboxes, even where one is in use.", name="everything")
"""The flag of a command with a `scope` that widens it to all sandboxes."""

ONE_SANDBOX = Opt(
    ("--sandbox",), "This sandbox; else the one in use, else all.", metavar="NAME", kind="sandbox"
)
"""The option of a command with a `scope` that names the sandbox."""


def _dest(flags: tuple[str, ...]) -> str:
    return max(flags, key=len).lstrip("-").replace("-", "_")


class Column(NamedTuple):
    """One column of a table: the row's key, its title, and how its value is made text (`"module:function"`, value -> str).

    With an empty key the function gets the whole row, as a mapping. Where the value is a mapping itself and the view is a record,
    it is shown line by line, and the function gives the mapping to show.

    The rest is for tables on a terminal. `table` (as `text`) is the text there; a time without one is shown as an age. `style`
    (`"module:function"`, row as a mapping -> colour) is the colour of the cell. `cut` is the side on which texts are cut where the
    table is wider than the terminal. `hide` leaves the column out where all its cells are empty, or are the same.
    """

    key: str
    title: str = ""
    text: str = ""
    table: str = ""
    style: str = ""
    cut: Literal["", "start", "end"] = ""
    hide: Literal["", "empty", "same"] = ""


class View(NamedTuple):
    """How rows are shown to a person.

    `columns` make the table and the tab-separated lines; `line` (`"module:function"`, row -> str) replaces the latter; with
    `record` there is one row, shown as `title: value` lines; `empty` is printed on stderr where there are no rows. `live`
    (`"module:function"`) makes the line of a row that is followed on a terminal: row, columns of the terminal or None -> parts, each a
    colour and a text.
    """

    columns: tuple[Column, ...] = ()
    line: str = ""
    record: bool = False
    empty: str = ""
    live: str = ""


class Command(NamedTuple):
    """A command. `path` is its words; `run` names its handler; `exits` are the exit codes it can give beyond 0, 1, 2 and 130.

    `failure` is for a command that exits with another program's code: the one code of every failure of irons itself, words that
    it does not understand included. An error with an exit code of its own, and Ctrl-C, keep theirs. A `tolerant` one runs even where the configuration file or the profile is not valid: help, and what repairs them.

    `old` are earlier paths: they are taken, and neither shown nor completed.

    `scope` is for a command on one sandbox or on all of them: the `dest` of the parameter that names the sandbox. The flag
    `ALL_SANDBOXES` stands among its `params` as well. Its handler gets neither of the two, but `scope`, an `irons.settings.scope.Scope`:
    the sandbox that is named; else the one in use, unless `--all` is given; else all, or an error where the parameter is an
    argument that takes one word.

    Other commands may lie below the words of one that `leads`; what the next word does not name is its first argument.
    """

    path: tuple[str, ...]
    help: str
    run: str
    params: tuple[Param, ...] = ()
    pace: Pace = "quick"
    view: View = View()
    about: str = ""
    examples: tuple[str, ...] = ()
    exits: tuple[int, ...] = ()
    aliases: tuple[tuple[str, ...], ...] = ()
    hidden: bool = False
    tolerant: bool = False
    failure: int = 0
    scope: str = ""
    old: tuple[tuple[str, ...], ...] = ()
    leads: bool = False

    @property
    def name(self) -> str:
        """Its words, joined by spaces."""
        return " ".join(self.path)

    @property
    def options(self) -> tuple[Opt | Flag, ...]:
        """Its parameters that begin with a dash."""
        return tuple(p for p in self.params if not isinstance(p, Arg))

    @property
    def arguments(self) -> tuple[Arg, ...]:
        """Its positional parameters, in order."""
        return tuple(p for p in self.params if isinstance(p, Arg))

    @property
    def keywords(self) -> frozenset[str]:
        """The keywords by which its handler gets its parameters."""
        each = {param.dest for param in self.params}
        return frozenset(each - {self.scope, ALL_SANDBOXES.dest} | {"scope"} if self.scope else each)

    def pace_of(self, words: Iterable[str]) -> Pace:
        """Return the pace it has when called with these words (those after the path)."""
        given = set()
        for word in words:
            if word == "--":
                break
            given.add(word)
        for param in self.params:
            if isinstance(param, Flag) and param.pace and given.intersection((*param.flags, *param.old)):
                return param.pace
        return self.pace


class Exec(NamedTuple):
    """What a handler returns to have the face run another program in its place, with its exit code."""

    argv: tuple[str, ...]
    env: Mapping[str, str] | None = None


class Result(NamedTuple):
    """Data with an exit code of its own (a check that says no), or with a view other than the command's."""

    data: object
    exit: int = 0
    view: View | None = None


FORMATS = ("table", "plain", "json", "jsonl")
"""The output formats of irons itself."""

GLOBAL_OPTIONS: tuple[Opt | Flag, ...] = (
    Opt(
        ("-o", "--output"),
        "How to print the answer.",
        choices=FORMATS,
        kind="format",
    ),
    Opt(("--profile",), "The profile of the configuration file to use.", metavar="NAME", kind="profile"),
    Opt(("--api-url",), "Where the API is: local, unix:///path, http(s)://…", metavar="URL"),
    Opt(
        ("--api-key",),
        "The key for it; IRONS_API_KEY keeps it out of sight.",
        metavar="KEY",
    ),
    Flag(("--no-plugins",), "Load no plugins of third parties."),
    Flag(("--no-input",), "Never ask; fail with what would have been asked."),
    Flag(("--debug",), "Print requests, timings and tracebacks to stderr."),
)
"""Options that every command takes, before its words or after them."""
