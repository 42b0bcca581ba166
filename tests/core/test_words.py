"""The check of the words that users read finds what it should, and nothing else."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def words() -> ModuleType:
    """The program."""
    spec = importlib.util.spec_from_file_location("check_words", ROOT / "tools/check_words.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("the file makes no sense; mend it", ["makes no sense", "mend"]),
        ("'x' is no rule", ["is no "]),
        ("a number that is none", ["that is none"]),
        ("the rules in force", ["in force"]),
        ("It is Written down, anew", ["Written down", "anew"]),
        ("the mode writes it down", ["writes it down"]),
        ("it takes everything away", ["takes everything away"]),
        ("stderr says so.", ["so."]),
        ("there is no rule; it is no longer there, so run it again", []),
        ("a message that is not one; recommended amendments", []),
    ],
)
def test_words_to_avoid_are_found(words: ModuleType, text: str, found: list[str]) -> None:
    """Each is found as a word of its own, in any case; what only looks like one is left alone."""
    assert [word for _, word, _ in words.in_text(text)] == found


def test_only_prose_of_a_page_is_read(words: ModuleType) -> None:
    """Code of a page, in blocks and in lines, is left out, and lines are counted with it."""
    page = "one `told`\n\n```console\n$ irons told\n```\n\nIt is told.\n"
    assert list(words.in_document(page)) == [(7, "told", "reported, printed")]


def test_only_texts_of_a_program_are_read(words: ModuleType) -> None:
    """Docstrings, keys and scripts are left out here; texts in calls, in f-strings and by themselves are read."""
    program = '''
"""Nobody is told."""
KEY = "told"
SCRIPT = "if [ -e told ]; then echo nobody; fi"
TEXT = "nobody listens"
raise ValueError(f"{KEY!r} is no key")
'''
    assert [(line, word) for line, word, _ in words.in_program(program)] == [(5, "nobody"), (6, "is no ")]


def test_docstrings_of_public_names_are_read(words: ModuleType) -> None:
    """Docstrings of modules, classes, methods and attributes are read; private names, code and names of arguments are not."""
    program = '''
"""Nobody is there."""

class Rule:
    """A rule in force."""

    size: int
    """Bytes, written
    down."""

    def _check(self) -> None:
        """Mend it."""

    def check(self, told: str) -> None:
        """Check `beside`.

        Args:
            told: none of it, None, that are None.
        """
'''
    assert [(line, word) for line, word, _ in words.in_docstrings(program)] == [
        (2, "Nobody"),
        (5, "in force"),
    ]


@pytest.mark.slow
def test_nothing_that_users_read_has_them(words: ModuleType) -> None:
    """Every text of the programs, every page and every docstring is free of these words."""
    assert [f"{each.path}:{each.line}: {each.word}" for each in words.everything()] == []
