"""Report words that readers stumble over: in help, errors, progress lines, documents, and docstrings.

    python tools/check_words.py            exit 1 where there are any, with file, line, word and what to write

Read are all texts of the programs, the docstrings of modules and of public classes and functions, and the prose of the
documents without their code. Of benchmarks, tools and the gateway's tests the docstrings alone are read.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
CODE = ("core", "plugins", "repl")
DOCSTRINGS = (*CODE, "bench", "tools", "tests/local/gateway")
DOCUMENTS = ("*.md", "docs/*.md", "docs/decisions/*.md", ".github/*.md", ".github/*/*.md")

WORDS: dict[str, str] = {
    r"ma(?:ke|kes|de|king) no sense": "is invalid",
    r"(?<!there )(?<!here )is no (?!longer\b|more\b|further\b)(?=[a-z])": "is not a …, is invalid",
    r"(?:that|which) (?:is|are) (?-i:none)\b": "is not one, is invalid",
    r"\bmend(?:s|ed|ing)?\b": "fix, repair",
    r"\btold\b": "reported, printed",
    r"\bsaid\b": "reported, logged, printed",
    r"\bw(?:rite|rites|ritten|rote) (?:it |them )?down\b": "logged, recorded",
    r"\bin force\b": "active",
    r"\bst(?:and|ands|ood) (?:behind|beside|on)\b": "follows, next to, uses",
    r"\banew\b": "again",
    r"\bwhom\b": "the noun",
    r"\b(?:nobody|somebody)\b": "what is missing, someone",
    r"\btakes? (?:\w+ ){0,3}away\b": "removes",
    r"\bhold that\b|\bholds that\b": "test that",
    r"\bmeanwhile\b|\bwhatever\b": "leave it out",
    r"\bbeside\b": "next to, and, with",
    r"\bso[.;]|\bso$": "leave it out",
}
"""What is looked for, case ignored, and what to write in its place."""

_ALL = re.compile("|".join(f"(?P<w{number}>{word})" for number, word in enumerate(WORDS)), re.IGNORECASE)
_SCRIPT = re.compile(
    r"^\s*(?:CREATE|INSERT|UPDATE|if \[|while |trap |for \w+ in|\w+\(\) ?\{|#!/)", re.MULTILINE
)
"""SQL and shell scripts, which are not prose."""
_FENCED = re.compile(r"^```.*?^```|^<!-- packages.*?^<!-- end of packages -->$", re.MULTILINE | re.DOTALL)
"""Code, and what is made of docstrings."""
_INLINE = re.compile(r"`[^`\n]+`")
_ARGUMENT = re.compile(r"^\s*\w+(?=: )", re.MULTILINE)
"""The name of an argument or attribute in a docstring."""
KEPT = frozenset({"# irons: sandboxes by name, as NAME.irons (irons ssh-config --uninstall takes this away)"})
"""Texts that are in files of users, and are recognised by their words."""


class Found(NamedTuple):
    """One word, where it is, and what to write."""

    path: Path
    line: int
    word: str
    write: str


def in_text(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield the offset of each word to avoid, the word, and what to write."""
    for match in _ALL.finditer(text):
        yield match.start(), match[0], list(WORDS.values())[int(str(match.lastgroup)[1:])]


def in_document(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield the line of each word to avoid in a page's prose, the word, and what to write."""

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", "_", match[0])

    prose = _INLINE.sub(blank, _FENCED.sub(blank, text))
    for at, word, write in in_text(prose):
        yield prose.count("\n", 0, at) + 1, word, write


def in_program(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield the line of each word to avoid in texts that people read, the word, and what to write."""
    for line, said in sorted(set(_texts(ast.parse(text)))):
        for _, word, write in in_text(_INLINE.sub("_", said)):
            yield line, word, write


def in_docstrings(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield the line of each word to avoid in docstrings of public names, the word, and what to write."""

    def blank(match: re.Match[str]) -> str:
        return "_" * len(match[0])

    for line, docstring in _docstrings(ast.parse(text)):
        prose = _ARGUMENT.sub(blank, _INLINE.sub(blank, docstring))
        for at, word, write in in_text(prose):
            yield line + prose.count("\n", 0, at), word, write


def _docstrings(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> Iterator[tuple[int, str]]:
    """Yield the docstring of a module, class or function, those of its attributes, and those of its public members."""
    for each in node.body:
        if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant):
            if isinstance(each.value.value, str):
                yield each.lineno, each.value.value
        elif isinstance(each, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            not each.name.startswith("_") or each.name == "__init__"
        ):
            yield from _docstrings(each)


def _texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield each text of a program but docstrings, which are statements of their own."""
    passed = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in passed:
            # One word alone is a key; a script is for programs.
            prose = " " in node.value and not _SCRIPT.search(node.value)
            if prose and node.value not in KEPT:
                yield node.lineno, node.value


def everything(root: Path = ROOT) -> Iterator[Found]:
    """Yield each word to avoid below `root`."""
    for pattern in DOCUMENTS:
        # The changelog's past is not written again.
        for path in sorted(path for path in root.glob(pattern) if path.name != "CHANGELOG.md"):
            for line, word, write in in_document(path.read_text("utf-8")):
                yield Found(path.relative_to(root), line, word, write)
    for part in CODE:
        for path in sorted((root / part).rglob("*.py")):
            for line, word, write in in_program(path.read_text("utf-8")):
                yield Found(path.relative_to(root), line, word, write)
    for part in DOCSTRINGS:
        for path in sorted((root / part).rglob("*.py")):
            for line, word, write in in_docstrings(path.read_text("utf-8")):
                yield Found(path.relative_to(root), line, word, write)


def main() -> int:
    """Print what was found; 1 where there is anything."""
    found = list(everything())
    for each in found:
        print(f"{each.path}:{each.line}: {each.word!r}: {each.write}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
