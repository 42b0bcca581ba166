"""What a person may have meant by a word that names nothing: near words, words from all over the tree, and other tools' words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from irons.tree import Tree

COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "add": ("egress allow",),
    "allowlist": ("egress allow", "egress list"),
    "approve": ("egress allow",),
    "attach": ("ssh",),
    "backup": ("snapshot create",),
    "blacklist": ("egress deny", "egress list"),
    "block": ("egress deny",),
    "blocklist": ("egress deny", "egress list"),
    "clone": ("fork",),
    "cp": ("scp",),
    "copy": ("scp",),
    "connections": ("audit egress", "watch"),
    "connect": ("ssh",),
    "delete": ("destroy", "egress remove"),
    "denylist": ("egress deny", "egress list"),
    "describe": ("status",),
    "disallow": ("egress deny",),
    "enroll": ("fleet join", "member join"),
    "enter": ("ssh",),
    "events": ("audit egress",),
    "explain": ("audit why",),
    "fleet list": ("fleet status",),
    "fleet ls": ("fleet status",),
    "forbid": ("egress deny",),
    "info": ("status",),
    "inspect": ("status",),
    "invite": ("fleet add",),
    "kill": ("stop", "destroy"),
    "launch": ("create",),
    "log": ("audit egress", "local logs"),
    "logs": ("audit egress", "local logs"),
    "members": ("fleet status",),
    "new": ("create",),
    "nodes": ("fleet status",),
    "open": ("egress allow", "ssh"),
    "permit": ("egress allow",),
    "policy": ("egress export", "egress mode"),
    "ps": ("list",),
    "reject": ("egress deny",),
    "revoke": ("egress remove",),
    "rm": ("destroy", "egress remove"),
    "rules": ("egress list",),
    "shell": ("ssh",),
    "show": ("status", "egress list"),
    "spawn": ("create",),
    "tail": ("audit egress",),
    "top": ("watch",),
    "unblock": ("egress allow",),
    "unset": ("config set",),
    "whitelist": ("egress allow", "egress list"),
}
"""Words of other tools, some of them behind a group's, each with the commands that do the same."""

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
_BEGUN = 3
"""From how many letters on the beginning of a word is taken for that word."""


def commands_like(tree: Tree, words: Sequence[str], *, is_typo: bool = True) -> tuple[str, ...]:
    """Return the commands that may be meant by words of which the last looked at names nothing, the likeliest first.

    Looked at are the words up to the first that names nothing behind the ones before it: other tools' words for a command come
    first, then commands that end in that word anywhere, then near words in its place, then, of a first word, near words anywhere.

    Args:
        tree: The commands.
        words: What was typed.
        is_typo: Whether the word may be a mistyped one of another group; not so of a program's name.
    """
    before: tuple[str, ...] = ()
    for word in words:
        options = tree.below(before)
        if word not in options:
            return _like(tree, before, word, options, is_typo=is_typo)
        before = (*before, word)
    return ()


def options_like(word: str, flags: Iterable[str]) -> tuple[str, ...]:
    """Return the options of a command that may be meant by one that it does not have."""
    known = list(flags)
    same = tuple(flag for flag in OPTIONS.get(word, ()) if flag in known)
    return same[:1] or _near(word, known)


def topics_like(word: str, topics: Iterable[str]) -> tuple[str, ...]:
    """Return the topics of help that a mistyped word may mean, as they are typed."""
    return tuple(f"help {topic}" for topic in _near(word, topics))


def either(names: Sequence[str]) -> str:
    """Return a question that offers these names; empty without any."""
    if not names:
        return ""
    last = f" or {names[-1]}" if len(names) > 1 else ""
    return f"did you mean {', '.join(names[:-1]) if last else names[0]}{last}?"


def _like(
    tree: Tree, before: tuple[str, ...], word: str, options: Iterable[str], *, is_typo: bool
) -> tuple[str, ...]:
    commands = _paths(tree)
    # A group is typed without the one above it, as a command is.
    paths = [*commands, *_groups(commands)]
    known = (*COMMANDS.get(" ".join((*before, word)).lower(), ()), *COMMANDS.get(word.lower(), ()))
    given = [tuple(each.split()) for each in known]
    # What does the same in another group may do so in this one: `fleet rm` is `fleet remove`.
    here = [(*before, path[-1]) for path in given] if before else []
    same = [path for path in (*here, *given) if path in paths]
    spelled = {word, word.removesuffix("s")} if is_typo else {word}
    meant = [*same, *(path for path in paths if path[-1] in spelled)]
    # Elsewhere only where nothing fits here: `egress rm` must not lead to `rm`, which destroys a sandbox.
    meant = [path for path in meant if path[: len(before)] == before] or meant
    # Of one group's commands the one nearest to its word: `allow` is `egress allow`, and not that of a group below.
    meant = [
        path for path in meant if not any(len(each) < len(path) and each[0] == path[0] for each in meant)
    ]
    found = dict.fromkeys(" ".join(path) for path in meant)
    if not found:
        found = dict.fromkeys(" ".join((*before, near)) for near in _near(word, options))
    # Behind a group's word stands a name of something rather than a mistyped command of elsewhere.
    if not found and is_typo and not before:
        lasts = {path[-1]: " ".join(path) for path in reversed(paths)}
        found = dict.fromkeys(lasts[near] for near in _near(word, lasts))
    return tuple(found)[:_MOST]


def _paths(tree: Tree) -> list[tuple[str, ...]]:
    """Every path of a command that is shown, with its aliases."""
    return [path for each in tree if not each.hidden for path in (each.path, *each.aliases)]


def _groups(commands: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Every group of commands."""
    return list(dict.fromkeys(path[:size] for path in commands for size in range(1, len(path))))


def _near(word: str, options: Iterable[str]) -> tuple[str, ...]:
    """Return the options that a word is the beginning of, else the one that is nearest to it."""
    known = list(options)
    begun = [option for option in known if len(word) >= _BEGUN and option.startswith(word)]
    if begun:
        return tuple(begun[:2])
    from difflib import get_close_matches

    return tuple(get_close_matches(word, known, n=1))
