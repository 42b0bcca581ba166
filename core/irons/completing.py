"""Completion from the command tree and the names on hand: no parser, no network, no heavy import."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from irons.command import GLOBAL_OPTIONS, Arg, Command, Flag, Kind, Opt
from irons.tree import Match, Tree


class Candidate(NamedTuple):
    """One way to go on: the word, what it is, and whether it is a file to be completed by whoever asks."""

    word: str
    about: str = ""


class Sources(NamedTuple):
    """Where values come from, all from what is on hand: sandbox names with their states, domains, anything by kind.

    `aliases` are the configuration's: a word and the words it stands for.
    """

    sandboxes: Callable[[], Mapping[str, str]] = dict
    domains: Callable[[], Mapping[str, str]] = dict
    images: Callable[[], Mapping[str, str]] = dict
    topics: Callable[[], Mapping[str, str]] = dict
    aliases: Callable[[], Mapping[str, str]] = dict


FILES = Candidate("\0files")
"""Says that files may come here; the shell, the prompt and xonsh each complete them in their own way."""


class Offer(NamedTuple):
    """What may come where the cursor stands, not yet narrowed by what is typed.

    `fixed` is the part of the word that stays (`--output=`), `typed` the part that a candidate takes the place of.
    """

    candidates: Sequence[Candidate]
    typed: str
    fixed: str = ""


def complete(tree: Tree, words: Sequence[str], sources: Sources) -> list[Candidate]:
    """Return what the last of `words` (which may be empty) can become, as far as it begins with what is typed.

    Args:
        tree: The commands.
        words: The words behind `irons`, the last one being typed.
        sources: Values on hand.
    """
    candidates, typed, fixed = offer(tree, words, sources)
    return [
        c if c == FILES else Candidate(fixed + c.word, c.about)
        for c in candidates
        if c == FILES or c.word.startswith(typed)
    ]


def offer(tree: Tree, words: Sequence[str], sources: Sources) -> Offer:
    """Return all that could stand in the last word's place, for a face that narrows by its own rules; arguments as `complete`."""
    *before, current = words or [""]
    own = _without_globals(before)
    if own is None:
        return Offer(_global_choices(words), current)
    match = tree.find(own) or _by_alias(tree, own, sources)
    if match is None:
        aliases = [Candidate(*item) for item in sources.aliases().items()] if not own else []
        return Offer([*_words_of_tree(tree, own, current), *aliases], current)
    return _parameters(match.command, match.rest, current, sources, tree)


def _by_alias(tree: Tree, own: Sequence[str], sources: Sources) -> Match | None:
    """The command that an alias means, with the words behind it."""
    whole = sources.aliases().get(own[0]) if own and not tree.is_group((own[0],)) else None
    return tree.find([*whole.split(), *own[1:]]) if whole else None


def _without_globals(words: Sequence[str]) -> list[str] | None:
    """The words without global options before the command; None where the current word is such an option's value."""
    by_flag = {flag: option for option in GLOBAL_OPTIONS for flag in option.flags}
    rest = list(words)
    while rest and rest[0].startswith("-"):
        name, equals, _ = rest.pop(0).partition("=")
        if isinstance(by_flag.get(name), Opt) and not equals:
            if not rest:
                return None
            rest.pop(0)
    return rest


def _global_choices(words: Sequence[str]) -> list[Candidate]:
    by_flag = {flag: option for option in GLOBAL_OPTIONS for flag in option.flags}
    option = by_flag.get(words[-2]) if len(words) > 1 else None
    return [Candidate(choice) for choice in option.choices] if isinstance(option, Opt) else []


def _words_of_tree(tree: Tree, before: Sequence[str], current: str) -> list[Candidate]:
    if current.startswith("-"):
        return _flags(GLOBAL_OPTIONS)
    path = tuple(before)
    if path and not tree.is_group(path):
        return []
    return [Candidate(word, about) for word, about in tree.below(path).items()]


def _parameters(command: Command, rest: Sequence[str], current: str, sources: Sources, tree: Tree) -> Offer:
    options = {flag: option for option in (*GLOBAL_OPTIONS, *command.options) for flag in option.flags}
    given: list[str] = []
    waiting: Opt | None = None
    used: set[str] = set()
    for word in rest:
        if waiting is not None:
            waiting = None
            continue
        if word == "--":
            return Offer([FILES], current)
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
        return Offer(_values(waiting.kind, waiting.choices, sources, tree), current)
    name, equals, value = current.partition("=")
    if current.startswith("--") and equals and isinstance(found := options.get(name), Opt):
        return Offer(_values(found.kind, found.choices, sources, tree), value, f"{name}=")
    if current.startswith("-"):
        flags = _flags((*command.options, *GLOBAL_OPTIONS))
        return Offer([c for c in flags if c.word not in used], current)
    argument = _argument_at(command.arguments, len(given))
    if argument is None:
        return Offer([], current)
    candidates = _values(argument.kind, argument.choices, sources, tree)
    if argument.takes in ("*", "+"):
        candidates = [c for c in candidates if c.word not in given]
    return Offer(candidates, current)


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


def _values(kind: Kind, choices: Sequence[str], sources: Sources, tree: Tree) -> list[Candidate]:
    if choices:
        return [Candidate(choice) for choice in choices]
    match kind:
        case "sandbox":
            return [Candidate(*item) for item in sources.sandboxes().items()]
        case "domain":
            return [Candidate(*item) for item in sources.domains().items()]
        case "image":
            return [Candidate(*item) for item in sources.images().items()]
        case "topic":
            return [Candidate(*item) for item in {**sources.topics(), **tree.below()}.items()]
        case "file":
            return [FILES]
        case _:
            return []


def _flags(options: Iterable[Opt | Flag]) -> list[Candidate]:
    return [Candidate(max(option.flags, key=len), option.help) for option in options]
