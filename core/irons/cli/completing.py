"""Completion from the command tree and the names on hand: no parser, no network, no heavy import."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from irons.cli.aliases import expand_alias
from irons.cli.parsing import scan_globals
from irons.command import GLOBAL_OPTIONS, Arg, Command, Flag, Kind, Opt
from irons.errors import UsageError
from irons.tree import Tree


class Candidate(NamedTuple):
    """One way to go on: the word, and what it is."""

    word: str
    about: str = ""


class Sources(NamedTuple):
    """Where values come from, all from what is on hand: sandbox names with their states, domains, anything by kind.

    `aliases` are the configuration's: a word and the words it stands for.
    """

    sandboxes: Callable[[], Mapping[str, str]] = dict
    domains: Callable[[], Mapping[str, str]] = dict
    images: Callable[[], Mapping[str, str]] = dict
    labels: Callable[[], Mapping[str, str]] = dict
    topics: Callable[[], Mapping[str, str]] = dict
    aliases: Callable[[], Mapping[str, str]] = dict


FILES = Candidate("\0files")
"""Says that files may come here; the shell, the prompt and xonsh each complete them in their own way."""


class Offer(NamedTuple):
    """What may come where the cursor stands, not yet narrowed by what is typed.

    `values` are words with what they are, `files` says that files may come too, `fixed` is the part of the word that stays
    (`--output=`), `typed` the part that a value takes the place of.
    """

    typed: str
    values: Mapping[str, str] = {}
    files: bool = False
    fixed: str = ""


def complete(tree: Tree, words: Sequence[str], sources: Sources) -> list[Candidate]:
    """Return what the last of `words` (which may be empty) can become, as far as it begins with what is typed.

    Args:
        tree: The commands.
        words: The words after `irons`, the last one being typed.
        sources: Values on hand.
    """
    typed, values, files, fixed = offer(tree, words, sources)
    found = [Candidate(fixed + word, about) for word, about in values.items() if word.startswith(typed)]
    return [*found, FILES] if files else found


def offer(tree: Tree, words: Sequence[str], sources: Sources) -> Offer:
    """Return all that could stand in the last word's place, for a face that narrows by its own rules; arguments as `complete`."""
    *before, current = words or [""]
    found = scan_globals(before)
    if found.waiting is not None:
        return Offer(current, dict.fromkeys(found.waiting.choices, ""))
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
    given: list[str] = []
    waiting: Opt | None = None
    used: set[str] = set()
    for word in rest:
        if waiting is not None:
            waiting = None
            continue
        if word == "--":
            return Offer(current, files=True)
        name, equals, _ = word.partition("=")
        option = options.get(name)
        if option is not None:
            if isinstance(option, Opt) and not equals:
                waiting = option
            if not (isinstance(option, Opt) and option.many):
                used.update(option.flags)
            continue
        given.append(word)
    if waiting is not None:
        return Offer(current, _values(waiting.kind, waiting.choices, sources, tree), waiting.kind == "file")
    name, equals, value = current.partition("=")
    if current.startswith("--") and equals and isinstance(found := options.get(name), Opt):
        values = _values(found.kind, found.choices, sources, tree)
        return Offer(value, values, found.kind == "file", f"{name}=")
    if current.startswith("-"):
        flags = _flags((*command.options, *GLOBAL_OPTIONS))
        return Offer(current, {flag: about for flag, about in flags.items() if flag not in used})
    argument = _argument_at(command.arguments, len(given))
    if argument is None:
        return Offer(current)
    values = _values(argument.kind, argument.choices, sources, tree)
    if given and argument.takes in ("*", "+"):
        values = {word: about for word, about in values.items() if word not in given}
    return Offer(current, values, argument.kind == "file")


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


def _values(kind: Kind, choices: Sequence[str], sources: Sources, tree: Tree) -> Mapping[str, str]:
    if choices:
        return dict.fromkeys(choices, "")
    match kind:
        case "sandbox":
            return sources.sandboxes()
        case "domain":
            return sources.domains()
        case "image":
            return sources.images()
        case "label":
            return sources.labels()
        case "topic":
            return {**sources.topics(), **tree.below(), **sources.aliases()}
        case _:
            return {}


def _flags(options: Iterable[Opt | Flag]) -> dict[str, str]:
    return {max(option.flags, key=len): option.help for option in options}
