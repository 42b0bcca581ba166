"""Completion from the command tree and the names on hand: no parser, no network, no heavy import."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from irons.cli.aliases import expand_alias
from irons.cli.help.sections import TOPICS
from irons.cli.parsing import scan_globals
from irons.command import ALL_SANDBOXES, GLOBAL_OPTIONS, Arg, Command, Flag, Opt
from irons.errors import UsageError
from irons.record import NamedTuple
from irons.tree import Tree


class Candidate(NamedTuple):
    """One way to go on: the word, and what it is."""

    word: str
    about: str = ""


class RemotePath(NamedTuple):
    """A path in a sandbox that is being typed: the sandbox, the path as the login there reads it, and what finds how it goes on."""

    sandbox: str
    path: str
    finder: str


class Sources(NamedTuple):
    """Where values come from, all from what is on hand: sandbox names with their states, domains, anything by kind.

    `aliases` are the configuration's: a word and the words it stands for. `rules` and `keys` take the sandbox that they belong to, and
    an empty text for all; `used` is the sandbox that is in use. `more` is asked for kinds that plugins bring; what it gets has in
    `before` and `typed` the words before the one being typed, and that one. `remote` asks a sandbox: only at Tab.
    """

    sandboxes: Callable[[], Mapping[str, str]] = dict
    domains: Callable[[], Mapping[str, str]] = dict
    images: Callable[[], Mapping[str, str]] = dict
    snapshots: Callable[[], Mapping[str, str]] = dict
    labels: Callable[[], Mapping[str, str]] = dict
    topics: Callable[[], Mapping[str, str]] = lambda: TOPICS
    aliases: Callable[[], Mapping[str, str]] = dict
    rules: Callable[[str], Mapping[str, str]] = lambda _: {}
    keys: Callable[[str], Mapping[str, str]] = lambda _: {}
    used: Callable[[], str | None] = lambda: None
    profiles: Callable[[], Mapping[str, str]] = dict
    settings: Callable[[], Mapping[str, str]] = dict
    variables: Callable[[], Mapping[str, str]] = dict
    more: Callable[[str, Sources], Mapping[str, str]] = lambda *_: {}
    before: Sequence[str] = ()
    typed: str = ""
    remote: Callable[[RemotePath], Mapping[str, str]] = lambda _: {}


FILES = Candidate("\0files")
"""Says that files may come here; the shell, the prompt and xonsh each complete them in their own way."""


class Offer(NamedTuple):
    """What may come where the cursor stands, not yet narrowed by what is typed.

    `values` are words with what they are, `files` says that files may come too, `fixed` is the part of the word that stays
    (`--output=`), `typed` the part that a value takes the place of. `remote` is a path in a sandbox that goes on there, which
    `with_remote` asks for.
    """

    typed: str
    values: Mapping[str, str] = {}
    files: bool = False
    fixed: str = ""
    remote: RemotePath | None = None

    def with_remote(self, sources: Sources) -> Offer:
        """Return the offer with the paths in the sandbox among its values; it may take as long as a person waits for a Tab."""
        if self.remote is None:
            return self
        base = len(self.remote.path) - len(self.typed)
        found = {path[base:]: about for path, about in sources.remote(self.remote).items()}
        return self._replace(values={**self.values, **found}, remote=None)


def complete(tree: Tree, words: Sequence[str], sources: Sources) -> list[Candidate]:
    """Return what the last of `words` (which may be empty) can become, as far as it begins with what is typed.

    Args:
        tree: The commands.
        words: The words after `irons`, the last one being typed.
        sources: Values on hand.
    """
    typed, values, files, fixed, _ = offer(tree, words, sources).with_remote(sources)
    found = [Candidate(fixed + word, about) for word, about in values.items() if word.startswith(typed)]
    return [*found, FILES] if files else found


def offer(tree: Tree, words: Sequence[str], sources: Sources) -> Offer:
    """Return all that could stand in the last word's place, for a face that narrows by its own rules; arguments as `complete`."""
    *before, current = words or [""]
    sources = sources._replace(before=before, typed=current)
    found = scan_globals(before)
    if found.waiting is not None:
        return Offer(current, _plain_values(found.waiting.kind, found.waiting.choices, sources))
    own = _meant(tree, found.words, sources)
    match = tree.find(own)
    if match is None:
        known = _words_of_tree(tree, own, current)
        aliases = {} if own else sources.aliases()
        return Offer(
            current, {**known, **{word: whole for word, whole in aliases.items() if word not in known}}
        )
    offered = _parameters(match.command, match.rest, current, sources, tree)
    if match.command.leads and not match.rest and not current.startswith("-"):
        # Commands lie below this one: the word may be an argument, or the name of one of them.
        offered = offered._replace(values={**offered.values, **tree.below(tuple(own))})
    return offered


def _meant(tree: Tree, own: list[str], sources: Sources) -> list[str]:
    """The words with an alias made what it stands for; one that is invalid is completed as what it is."""
    try:
        return expand_alias(tree, own, sources.aliases)
    except UsageError:
        return own


def _words_of_tree(tree: Tree, before: Sequence[str], current: str) -> dict[str, str]:
    if current.startswith("-"):
        return _flags(GLOBAL_OPTIONS)
    path = tuple(before)
    if path and not tree.is_group(path):
        return {}
    return tree.below(path)


def _parameters(command: Command, rest: Sequence[str], current: str, sources: Sources, tree: Tree) -> Offer:
    options = {
        flag: option
        for option in (*GLOBAL_OPTIONS, *command.options)
        for flag in (*option.flags, *option.old)
    }
    given = _Given(command)
    waiting: Opt | None = None
    used: set[str] = set()
    for word in rest:
        if waiting is not None:
            given.values[waiting.dest] = word
            waiting = None
            continue
        if word == "--":
            tail = next((each for each in command.arguments if each.takes == "--"), None)
            return Offer(current) if tail is None else _values(tail, current, given, sources, tree)
        name, equals, value = word.partition("=")
        option = options.get(name)
        if option is not None:
            given.values[option.dest] = value
            if isinstance(option, Opt) and not equals:
                waiting = option
            if not (isinstance(option, Opt) and option.many):
                used.update(option.flags)
            continue
        given.words.append(word)
    if waiting is not None:
        return _values(waiting, current, given, sources, tree)
    name, equals, value = current.partition("=")
    if current.startswith("--") and equals and isinstance(found := options.get(name), Opt):
        return _values(found, value, given, sources._replace(typed=value), tree)._replace(fixed=f"{name}=")
    if current.startswith("-"):
        flags = _flags((*command.options, *GLOBAL_OPTIONS))
        return Offer(current, {flag: about for flag, about in flags.items() if flag not in used})
    argument = _argument_at(command.arguments, len(given.words))
    if argument is None:
        return Offer(current)
    offered = _values(argument, current, given, sources, tree)
    if given.words and argument.takes in ("*", "+"):
        left = {word: about for word, about in offered.values.items() if word not in given.words}
        offered = offered._replace(values=left)
    return offered


class _Given:
    """What stands before the word that is typed: arguments, and options by their `dest`."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self.words: list[str] = []
        self.values: dict[str, str] = {}

    def one_sandbox(self, sources: Sources) -> str:
        """Return the one sandbox that the words name, else the one in use; empty where several are meant."""
        position = next(
            (at for at, each in enumerate(self._command.arguments) if each.kind == "sandbox"), None
        )
        if position is None or any(each in self.values for each in self._command.arguments[position].instead):
            return ""
        named = self.words[position:]
        return (sources.used() or "") if not named else named[0] if len(named) == 1 else ""

    def scope(self, sources: Sources) -> str:
        """Return the sandbox that the command is for, empty for all of them or where it is for none."""
        wanted = self._command.scope
        if ALL_SANDBOXES.dest in self.values and wanted:
            return ""
        if wanted and wanted in self.values:
            return self.values[wanted]
        arguments = self._command.arguments
        for word, argument in zip(self.words, arguments, strict=False):
            if argument.kind == "sandbox" and wanted in ("", argument.dest):
                return word
        return (sources.used() or "") if wanted else ""


def _argument_at(arguments: Sequence[Arg], position: int) -> Arg | None:
    for argument in arguments:
        if argument.takes in ("*", "+"):
            return argument
        if argument.takes == "--":
            return None
        if position == 0:
            return argument
        position -= 1
    return None


def _values(param: Arg | Opt, current: str, given: _Given, sources: Sources, tree: Tree) -> Offer:
    match param.kind:
        case _ if param.choices:
            return Offer(current, _plain_values(param.kind, param.choices, sources))
        case "file":
            return Offer(current, files=True)
        case "remote" if isinstance(param, Arg):
            return _remote(param, current, given, sources)
        case "domain":
            domains, rules = sources.domains(), sources.rules(given.scope(sources))
            return Offer(current, {word: rules.get(word, about) for word, about in domains.items()})
        case "rule":
            return Offer(current, sources.rules(given.scope(sources)))
        case "key":
            return Offer(current, sources.keys(""))
        case "public-key":
            return Offer(current, sources.keys(given.scope(sources)), files=True)
        case "topic" if given.words:
            return Offer(current, tree.below(tuple(given.words)))
        case "topic":
            return Offer(current, {**sources.topics(), **tree.below(), **sources.aliases()})
        case _:
            return Offer(current, _plain_values(param.kind, (), sources))


def _remote(argument: Arg, current: str, given: _Given, sources: Sources) -> Offer:
    """A path in a sandbox: of the command line behind `--`, where one sandbox is meant, or after `NAME:`; else files, and the names."""
    if argument.takes == "--":
        if current.startswith("~"):
            # The shell that reads this line makes it a home of this machine.
            return Offer(current)
        sandbox = given.one_sandbox(sources)
        start = given.values.get("workdir", "")
        below = f"{start.rstrip('/')}/" if start and not current.startswith("/") else ""
        remote = RemotePath(sandbox, f"{below}{current}", argument.paths)
        return Offer(current, remote=remote if sandbox and argument.paths else None)
    name, colon, path = current.partition(":")
    if not colon or "/" in name:
        values = {f"{sandbox}:": state for sandbox, state in sources.sandboxes().items()}
        return Offer(current, values, files=True)
    remote = RemotePath(name, path, argument.paths)
    return Offer(path, fixed=f"{name}:", remote=remote if name and argument.paths else None)


def _plain_values(kind: str, choices: Sequence[str], sources: Sources) -> Mapping[str, str]:
    """Values that depend on nothing else in the line."""
    if choices:
        own = dict.fromkeys(choices, "")
        return {**sources.more(kind, sources), **own} if kind == "format" else own
    match kind:
        case "sandbox":
            return sources.sandboxes()
        case "image":
            return sources.images()
        case "snapshot":
            return sources.snapshots()
        case "label":
            return sources.labels()
        case "profile":
            return sources.profiles()
        case "setting":
            return sources.settings()
        case "variable":
            return sources.variables()
        case "text" | "new-sandbox" | "choice" | "command":
            return {}
        case _:
            return sources.more(kind, sources)


def _flags(options: Iterable[Opt | Flag]) -> dict[str, str]:
    return {max(option.flags, key=len): option.help for option in options}
