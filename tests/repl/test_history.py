"""The history file."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons_repl.line.history import MOST, FileHistory, worth_keeping

KEY = "k-secret-0123456789"


def lines(history: FileHistory) -> list[str]:
    """Entries, the newest first."""
    return list(history.load_history_strings())


def test_lines_are_kept_for_their_owner_alone(tmp_path: Path) -> None:
    """What was typed comes back in the next prompt, from a file of mode 0600 in a directory of mode 0700."""
    path = tmp_path / "irons" / "history"
    history = FileHistory(path)
    history.append_string("list")
    history.append_string("one\ntwo")
    assert lines(FileHistory(path)) == ["one\ntwo", "list"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_was_open_to_others_is_closed(tmp_path: Path) -> None:
    """A mode that lets others read is repaired."""
    path = tmp_path / "history"
    path.write_text('"list"\n')
    path.chmod(0o644)
    FileHistory(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "line",
    [
        " list",
        "",
        "   ",
        "list --api-key abc",
        "list --api-key=abc",
        "config set api_key abc",
        "config set 'api_key' abc",
        "!export IRONS_API_KEY=abc",
        "!export DB_PASSWORD=abc",
        "exec box --env TOKEN=abc -- x",
        f"status {KEY}",
        "x" * 20_000,
    ],
)
def test_keys_and_private_lines_are_not_kept(tmp_path: Path, line: str) -> None:
    """Lines with a key, or with a space before them, never reach the file, nor the suggestions."""
    history = FileHistory(tmp_path / "history", KEY)
    history.append_string(line)
    assert lines(history) == []
    assert history.get_strings() == []
    assert not (tmp_path / "history").exists()


def test_a_corrupt_file_is_kept_aside_and_its_whole_lines_go_on(tmp_path: Path) -> None:
    """Garbage is moved away under a name that shows it, with one line, and good lines survive."""
    path = tmp_path / "history"
    path.write_bytes(b'"list"\n\x00\xff\xfe garbage\n"stat')
    history = FileHistory(path)
    assert "corrupt" in history.said
    assert lines(history) == ["list"]
    (aside,) = tmp_path.glob("history.corrupt-*")
    assert b"garbage" in aside.read_bytes()
    assert FileHistory(path).said == ""


def test_a_file_that_cannot_be_read_is_done_without(tmp_path: Path) -> None:
    """A directory in its place is reported, and the prompt goes on without."""
    (tmp_path / "history").mkdir()
    history = FileHistory(tmp_path / "history")
    assert "can't be read" in history.said
    history.append_string("list")
    assert history.get_strings() == ["list"]


def test_the_newest_entries_are_kept(tmp_path: Path) -> None:
    """A file that has grown beyond its bound is cut to the newest entries."""
    path = tmp_path / "history"
    path.write_text("".join(json.dumps(f"line {n}") + "\n" for n in range(MOST * 2)))
    history = FileHistory(path)
    assert lines(history)[0] == f"line {MOST * 2 - 1}"
    assert len(lines(history)) == len(path.read_text().splitlines()) == MOST


@pytest.mark.slow
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50))
def test_any_line_worth_keeping_comes_back(tmp_path_factory: pytest.TempPathFactory, line: str) -> None:
    """No matter what a line holds, it is one entry."""
    path = tmp_path_factory.mktemp("history") / "history"
    FileHistory(path).append_string(line)
    assert lines(FileHistory(path)) == ([line] if worth_keeping(line, None) else [])
