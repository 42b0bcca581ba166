"""What a person may have meant by a word that names nothing: near words, words from all over the tree, and other tools' words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from irons.tree import Tree

COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "add": ("egress allow",),
    "attach": ("ssh",),
    "block": ("egress deny",),
    "cp": ("scp",),
    "copy": ("scp",),
    "connections": ("audit egress", "watch"),
    "delete": ("destroy", "egress remove"),
    "describe": ("status",),
    "disallow": ("egress deny",),
    "enter": ("ssh",),
    "events": ("audit egress",),
    "explain": ("audit why",),
    "forbid": ("egress deny",),
    "info": ("status",),
    "inspect": ("status",),
    "kill": ("stop", "destroy"),
    "launch": ("create",),
    "log": ("audit egress", "local logs"),
    "logs": ("audit egress", "local logs"),
    "new": ("create",),
    "open": ("egress allow", "ssh"),
    "permit": ("egress allow",),
    "policy": ("egress export", "egress mode"),
    "ps": ("list",),
    "reject": ("egress deny",),
    "rm": ("destroy", "egress remove"),
    "rules": ("egress list",),
    "shell": ("ssh",),
    "show": ("status", "egress list"),
    "spawn": ("create",),
    "tail": ("audit egress",),
    "top": ("watch",),
    "unblock": ("egress allow",),
}
"""Words of other tools, each with the commands that do the same."""

OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "--account": ("--all",),
    "--background": ("--no-wait",),
    "--detach": ("--no-wait",),
    "--everything": ("--all",),
    "--force": ("--yes",),
    "--global": ("--all",),
    "--json": ("--output",),
    "--name": ("--sandbox",),
    "--nowait": ("--no-wait",),
    "--tail": ("--limit", "--lines"),
    "--yes": ("--force",),
}
"""Options of other tools, each with those that mean the same."""

_MOST = 3


def commands_like(tree: Tree, words: Sequence[str]) -> tuple[str, ...]:
    """Return the commands that may be meant by words of which the last looked at names nothing, the likeliest first.

    Looked at are the words up to the first that names nothing behind the ones before it: other tools' words for a command come
    first, then commands that end in that word anywhere, then near words in its place, then near words anywhere.
    """
    before: tuple[str, ...] = ()
    for word in words:
        options = tree.below(before)
        if word not in options:
            return _like(tree, before, word, options)
        before = (*before, word)
    return ()


def options_like(word: str, flags: Iterable[str]) -> tuple[str, ...]:
    """Return the options of a command that may be meant by one that it does not have."""
    known = list(flags)
    same = tuple(flag for flag in OPTIONS.get(word, ()) if flag in known)
    return same[:1] or _near(word, known)


def either(names: Sequence[str]) -> str:
    """Return a question that offers these names; empty without any."""
    if not names:
        return ""
    last = f" or {names[-1]}" if len(names) > 1 else ""
    return f"did you mean {', '.join(names[:-1]) if last else names[0]}{last}?"


def _like(tree: Tree, before: tuple[str, ...], word: str, options: Iterable[str]) -> tuple[str, ...]:
    paths = _paths(tree)
    same = [path for each in COMMANDS.get(word.lower(), ()) if (path := tuple(each.split())) in paths]
    meant = [*same, *(path for path in paths if path[-1] == word)]
    # Elsewhere only where nothing fits here: `egress rm` must not lead to `rm`, which destroys a sandbox.
    meant = [path for path in meant if path[: len(before)] == before] or meant
    found = dict.fromkeys(" ".join(path) for path in meant)
    if not found:
        found = dict.fromkeys(" ".join((*before, near)) for near in _near(word, options))
    if not found:
        lasts = {path[-1]: " ".join(path) for path in reversed(paths)}
        found = dict.fromkeys(lasts[near] for near in _near(word, lasts))
    return tuple(found)[:_MOST]


def _paths(tree: Tree) -> list[tuple[str, ...]]:
    """Every path of a command that is shown, with its aliases."""
    return [path for each in tree if not each.hidden for path in (each.path, *each.aliases)]


def _near(word: str, options: Iterable[str]) -> tuple[str, ...]:
    from difflib import get_close_matches

    return tuple(get_close_matches(word, list(options), n=1))
