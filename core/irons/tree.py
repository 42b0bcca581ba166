"""The command tree: words in, command out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from irons.command import Command
from irons.record import NamedTuple


class Clash(Exception):
    """Two commands want the same words."""


class Match(NamedTuple):
    """A command and the words after its path."""

    command: Command
    rest: list[str]


class _Node:
    """One word of the tree: the command that ends here, or the words that may come next."""

    __slots__ = ("command", "old", "words")

    def __init__(self, command: Command | None = None, *, old: bool = False) -> None:
        self.command = command
        self.old = old
        self.words: dict[str, _Node] = {}

    def copy(self) -> _Node:
        """Return the same node, to change its words; those below are shared."""
        node = _Node(self.command, old=self.old)
        node.words = self.words.copy()
        return node

    @property
    def shown(self) -> bool:
        """Whether a command that is not hidden ends here or below."""
        if self.command is not None and not (self.command.hidden or self.old):
            return True
        return any(below.shown for below in self.words.values())

    @property
    def depth(self) -> int:
        return max((1 + below.depth for below in self.words.values()), default=0)


def _sum(group: _Node) -> str:
    """Return the words of a group, which has no help of its own; aliases by another last word only where there is nothing else."""
    shown = {word: below.command for word, below in group.words.items() if below.shown}
    own = [word for word, command in shown.items() if command is None or command.path[-1] == word]
    return ", ".join(own or shown)


class Tree:
    """Commands by their words and aliases, as a trie. Immutable: `with_commands` returns a new one."""

    def __init__(self) -> None:
        """Make an empty tree."""
        self._root = _Node()
        self._commands: tuple[Command, ...] = ()

    def with_commands(self, commands: Iterable[Command]) -> Tree:
        """Return a tree that has these commands too; raises `Clash` where words are taken, and then nothing is added."""
        more = tuple(commands)
        tree = Tree()
        tree._root = self._root.copy()
        tree._commands = (*self._commands, *more)
        for command in more:
            for path in (command.path, *command.aliases):
                _insert(tree._root, path, command)
            for path in command.old:
                _insert(tree._root, path, command, old=True)
        return tree

    def find(self, words: Sequence[str]) -> Match | None:
        """Return the longest command these words begin with and the words left over; None where they name none."""
        node, found = self._root, None
        for at, word in enumerate(words, 1):
            below = node.words.get(word)
            if below is None:
                break
            if below.command is not None:
                found = Match(below.command, list(words[at:]))
            node = below
        return found

    def get(self, path: tuple[str, ...]) -> Command | None:
        """Return the command of exactly this path or alias."""
        node = self._at(path)
        return None if node is None else node.command

    def is_group(self, path: tuple[str, ...]) -> bool:
        """Tell whether commands lie below these words; the words may name a command as well."""
        node = self._at(path)
        return node is not None and bool(node.words)

    def below(self, path: tuple[str, ...] = ()) -> dict[str, str]:
        """Return the words that may come next after `path`, aliases included, each with its help line; hidden ones are left out."""
        node = self._at(path)
        if node is None:
            return {}
        return {
            word: _sum(below) if below.command is None else below.command.help
            for word, below in node.words.items()
            if below.shown
        }

    def _at(self, path: Iterable[str]) -> _Node | None:
        node = self._root
        for word in path:
            below = node.words.get(word)
            if below is None:
                return None
            node = below
        return node

    @property
    def depth(self) -> int:
        """The most words a path has."""
        return self._root.depth

    def __iter__(self) -> Iterator[Command]:
        """Yield each command once, in the order they came."""
        return iter(self._commands)

    def __len__(self) -> int:
        return len(self._commands)


def _insert(root: _Node, path: tuple[str, ...], command: Command, *, old: bool = False) -> None:
    if not path or not all(_is_word(word) for word in path):
        raise Clash(f"{path!r} cannot name a command")
    name = " ".join(path)
    node = root
    for word in path[:-1]:
        below = node.words.get(word)
        # A copy: other trees share what was there.
        node.words[word] = node = _Node() if below is None else below.copy()
        if node.command is not None and not node.command.leads:
            raise Clash(f"command {name!r} lies below one that is there already")
    taken = node.words.get(path[-1])
    if taken is None:
        node.words[path[-1]] = _Node(command, old=old)
    elif taken.command is None and command.leads:
        node.words[path[-1]] = leading = taken.copy()
        leading.command = command
    else:
        what = "is the name of a group" if taken.command is None else "is there already"
        raise Clash(f"command {name!r} {what}")


def _is_word(word: str) -> bool:
    # Of all white space the space alone is printable.
    return bool(word) and not word.startswith("-") and word.isprintable() and " " not in word


def at_prompt(text: str, tree: Tree) -> str:
    """Return a sentence as the prompt says it: commands without the word `irons` before them."""
    import re

    words = tree.below()
    return re.sub(r"\birons ([a-z][\w-]*)", lambda found: found[1] if found[1] in words else found[0], text)
