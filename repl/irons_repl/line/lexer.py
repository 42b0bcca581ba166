r"""A line into tokens that remember where they stand; completion, highlighting and running all read the same ones.

Quoting is that of a POSIX shell: single quotes take everything literally, inside double quotes a backslash frees `"`, `\\`, `$`, a
backtick and the end of the line, elsewhere it frees any character. There are no variables and no wildcards. Text after `|` and `!` is
the system shell's and kept as it was written. Nothing is refused here: the grammar does that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from irons.record import NamedTuple

Kind = Literal["word", "operator", "shell", "comment"]

_SPACE = re.compile(r"[ \t]+|\\\n")
_OPERATOR = re.compile(r"&&|\|\||>>|[;|>&<\n]")
_BARE = re.compile(r"[^ \t\n;|>&<'\"\\]+")
_SINGLE = re.compile(r"[^']*")
_DOUBLE = re.compile(r'[^"\\]+')
_COMMENT = re.compile(r"[^\n]*")
_FREED = '"\\$`'


class Token(NamedTuple):
    """One token.

    `text` is a word without its quotes, an operator, or the system shell's text; `start` and `end` are offsets into the line; `open` is
    the quote or backslash that the line ends within and `opened` where that stands; `bare` tells that the word has neither quote nor
    backslash, `tilde` that it begins with an unquoted `~`.
    """

    text: str
    kind: Kind
    start: int
    end: int
    open: str = ""
    opened: int = -1
    bare: bool = True
    tilde: bool = False


def lex(line: str) -> list[Token]:
    """Return the line's tokens, in order; time and memory grow with its length alone."""
    return list(_tokens(line))


def _tokens(line: str) -> Iterator[Token]:
    at, size = 0, len(line)
    begins = True
    """True where a command may begin, so that `!` hands over to the shell."""
    while at < size:
        space = _SPACE.match(line, at)
        if space:
            at = space.end()
            continue
        if line[at] == "#":
            end = _end(_COMMENT, line, at)
            yield Token(line[at:end], "comment", at, end)
            at = end
            continue
        if line[at] == "!" and begins:
            yield Token("!", "operator", at, at + 1)
            token = _shell_text(line, at + 1, until_newline=True)
            yield token
            at, begins = token.end, False
            continue
        operator = _OPERATOR.match(line, at)
        if operator is None:
            token = _word(line, at)
            yield token
            at, begins = token.end, False
            continue
        yield Token(operator[0], "operator", at, operator.end())
        at = operator.end()
        begins = operator[0] in (";", "&&", "||", "\n")
        if operator[0] == "|":
            token = _shell_text(line, at, until_newline=False)
            yield token
            at = token.end


def _end(pattern: re.Pattern[str], line: str, at: int) -> int:
    found = pattern.match(line, at)
    return found.end() if found else at


def _word(line: str, start: int) -> Token:
    parts: list[str] = []
    at, size = start, len(line)
    bare = True
    while at < size:
        character = line[at]
        if character == "'":
            end = _end(_SINGLE, line, at + 1)
            parts.append(line[at + 1 : end])
            if end == size:
                return _open_word(parts, start, size, "'", at)
            at, bare = end + 1, False
        elif character == '"':
            opened = at
            at, closed = _double(line, at + 1, parts)
            bare = False
            if not closed:
                return _open_word(parts, start, size, '"', opened)
        elif character == "\\":
            if at + 1 == size:
                return _open_word(parts, start, size, "\\", at)
            if line[at + 1] != "\n":
                parts.append(line[at + 1])
            at, bare = at + 2, False
        else:
            end = _end(_BARE, line, at)
            if end == at:
                break
            parts.append(line[at:end])
            at = end
    return Token("".join(parts), "word", start, at, bare=bare, tilde=line[start] == "~")


def _open_word(parts: list[str], start: int, end: int, quote: str, opened: int) -> Token:
    return Token("".join(parts), "word", start, end, quote, opened, bare=False)


def _double(line: str, at: int, parts: list[str]) -> tuple[int, bool]:
    """Read to the closing double quote; return the offset after it, and whether it is there."""
    size = len(line)
    while at < size:
        end = _end(_DOUBLE, line, at)
        parts.append(line[at:end])
        if end == size:
            break
        if line[end] == '"':
            return end + 1, True
        following = line[end + 1 : end + 2]
        if following == "\n":
            pass
        elif following in _FREED:
            parts.append(following)
        else:
            parts.append(f"\\{following}")
        at = end + 2
    return size, False


_SHELL_PLAIN = re.compile(r"[^'\"\\;&|()\n]+|&(?!&)|\|(?!\|)")


def _shell_text(line: str, start: int, *, until_newline: bool) -> Token:
    """Take the system shell's text: up to `;`, `&&`, `||` outside quotes and parentheses, or up to the end of the line."""
    at, size, depth, quote, opened = start, len(line), 0, "", -1
    while at < size:
        plain = _SHELL_PLAIN.match(line, at)
        if plain:
            at = plain.end()
            continue
        character = line[at]
        if character == "'":
            end = _end(_SINGLE, line, at + 1)
            quote, opened = ("'", at) if end == size else ("", -1)
            at = min(end + 1, size)
        elif character == '"':
            opened = at
            at, closed = _double(line, at + 1, [])
            quote, opened = ("", -1) if closed else ('"', opened)
        elif character == "\\":
            quote, opened = ("\\", at) if at + 1 == size else ("", -1)
            at = min(at + 2, size)
        elif character == "\n":
            if depth == 0:
                break
            at += 1
        elif character in "()":
            depth = max(0, depth + (1 if character == "(" else -1))
            at += 1
        elif depth or until_newline:
            at += 1
        else:
            break
    return Token(line[start:at].strip(), "shell", start, at, quote, opened)


def left_open(line: str) -> bool:
    """Tell whether the line goes on after its end: a quote is open, or its last character is a backslash."""
    tokens = lex(line)
    return (bool(tokens) and bool(tokens[-1].open)) or _ends_in_continuation(line)


def _ends_in_continuation(line: str) -> bool:
    """A backslash and the end of the line, swallowed between words, ask for more too."""
    return line.endswith("\\\n")


_PLAIN_WORD = re.compile(r"[A-Za-z0-9_@%+=:,./*?\[\]{}^-][A-Za-z0-9_@%+=:,./*?\[\]{}^~!#-]*")


def quoted(word: str) -> str:
    """Return a word written so that `lex` reads exactly it."""
    if _PLAIN_WORD.fullmatch(word):
        return word
    return "'" + word.replace("'", "'\\''") + "'"
