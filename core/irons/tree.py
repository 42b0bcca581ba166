"""The command tree: words in, command out, with suggestions for words that name nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from irons.command import Command


class Clash(Exception):
    """Two commands want the same words."""


class Match(NamedTuple):
    """A command and the words behind its path."""

    command: Command
    rest: list[str]


class Tree:
    """Commands by their words and aliases. Immutable: `with_commands` returns a new one."""

    def __init__(self, by_path: dict[tuple[str, ...], Command] | None = None) -> None:
        """Take commands by each path that names them."""
        self._by_path = by_path or {}

    def with_commands(self, commands: Iterable[Command]) -> Tree:
        """Return a tree that has these commands too; raises `Clash` where words are taken, and then nothing is added."""
        by_path = dict(self._by_path)
        for command in commands:
            for path in (command.path, *command.aliases):
                if not path or not all(_is_word(word) for word in path):
                    raise Clash(f"{path!r} cannot name a command")
                taken = by_path.get(path)
                if taken is not None:
                    raise Clash(f"command {' '.join(path)!r} is there already")
                if any(path[:n] in by_path for n in range(1, len(path))):
                    raise Clash(f"command {' '.join(path)!r} lies below one that is there already")
                if any(known[: len(path)] == path for known in by_path):
                    raise Clash(f"command {' '.join(path)!r} is the name of a group")
                by_path[path] = command
        return Tree(by_path)

    def find(self, words: Sequence[str]) -> Match | None:
        """Return the command these words begin with and the words left over; None where they name none."""
        for length in range(min(len(words), self.depth), 0, -1):
            command = self._by_path.get(tuple(words[:length]))
            if command is not None:
                return Match(command, list(words[length:]))
        return None

    def get(self, path: tuple[str, ...]) -> Command | None:
        """Return the command of exactly this path or alias."""
        return self._by_path.get(path)

    def is_group(self, path: tuple[str, ...]) -> bool:
        """Tell whether commands lie below these words."""
        return any(known[: len(path)] == path and len(known) > len(path) for known in self._by_path)

    def below(self, path: tuple[str, ...] = ()) -> dict[str, str]:
        """Return the words that may come next behind `path`, aliases included, each with its help line; hidden ones are left out."""
        words: dict[str, str] = {}
        for known, command in self._by_path.items():
            if len(known) <= len(path) or known[: len(path)] != path or command.hidden:
                continue
            word = known[len(path)]
            if len(known) == len(path) + 1:
                words[word] = command.help
            else:
                words.setdefault(word, f"{word} …")
        return words

    def suggest(self, words: Sequence[str]) -> str | None:
        """Return the path nearest to the first words that name nothing; None where nothing is near."""
        from difflib import get_close_matches

        prefix: tuple[str, ...] = ()
        for word in words:
            options = self.below(prefix)
            if word in options:
                prefix = (*prefix, word)
                continue
            near = get_close_matches(word, options, n=1)
            return " ".join((*prefix, near[0])) if near else None
        return None

    @property
    def depth(self) -> int:
        """The most words a path has."""
        return max((len(path) for path in self._by_path), default=0)

    def __iter__(self) -> Iterator[Command]:
        """Yield each command once, in the order they came."""
        seen: set[tuple[str, ...]] = set()
        for command in self._by_path.values():
            if command.path not in seen:
                seen.add(command.path)
                yield command

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _is_word(word: str) -> bool:
    return (
        bool(word) and not word.startswith("-") and not any(c.isspace() or not c.isprintable() for c in word)
    )
