"""The room for the last steps on a full disk: given up piece by piece, and made again only when there is plenty."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from irons_local.control.reserve import PIECES, SIZE, Reserve
from irons_local.control.store.database import NoRoomError, Store


def _free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(f_bavail=size, f_frsize=1))


def test_a_reserve_is_given_up_piece_by_piece(tmp_path: Path) -> None:
    """Each call gives one piece's room back, and the last one says that there is no more."""
    kept = Reserve(tmp_path / "reserve")
    assert not kept.give()
    assert kept.fill()
    assert sum(path.stat().st_blocks * 512 for path in (tmp_path / "reserve").iterdir()) >= SIZE
    assert [kept.give() for _ in range(PIECES + 1)] == [*[True] * PIECES, False]
    assert not kept.is_whole


@pytest.mark.parametrize(("free", "whole"), [(2 * SIZE - 1, False), (2 * SIZE, True)])
def test_a_reserve_is_made_again_only_where_twice_its_size_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, whole: bool
) -> None:
    """One byte less than twice its size, and no piece of it is made."""
    _free(monkeypatch, free)
    kept = Reserve(tmp_path / "reserve")
    assert kept.fill() is whole
    assert kept.is_whole is whole
    assert bool(list((tmp_path / "reserve").iterdir())) is whole


def test_a_disk_that_fills_meanwhile_leaves_no_half_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece that could not be allocated whole is removed."""

    def full(*_arguments: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    assert not Reserve(tmp_path / "reserve").fill()
    assert not list((tmp_path / "reserve").iterdir())


class _Bounded:
    """A store whose file may not grow, and which is given more room each time that it asks for some."""

    def __init__(self, path: Path, pieces: int) -> None:
        self.pieces = pieces
        self.store = Store(path, self.give)
        self._limit()

    def _limit(self, more: int = 0) -> None:
        def limit(connection: sqlite3.Connection) -> None:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages + more}")

        self.store.write_now(limit)

    def give(self) -> bool:
        if not self.pieces:
            return False
        self.pieces -= 1
        self._limit(40)
        return True


def _fill(connection: sqlite3.Connection) -> None:
    connection.execute(
        "INSERT INTO keys VALUES ('k', zeroblob(0) || hex(zeroblob(50000)), x'00', 0, NULL, 'admin')"
    )


@pytest.mark.parametrize(("last", "left"), [(False, 3), (True, 2)])
def test_only_a_last_step_uses_the_reserve(tmp_path: Path, last: bool, left: int) -> None:
    """On a full disk an ordinary write fails and leaves the reserve alone; a last one takes a piece and is done."""
    bounded = _Bounded(tmp_path / "irons.db", 3)
    with closing(bounded.store) as store:
        if last:
            asyncio.run(store.write(_fill, last=True))
        else:
            with pytest.raises(NoRoomError, match="free some space"):
                asyncio.run(store.write(_fill))
    assert bounded.pieces == left


def test_a_last_step_without_a_reserve_says_that_the_disk_is_full(tmp_path: Path) -> None:
    """Where nothing is left to give up, the reason is the disk."""
    with closing(_Bounded(tmp_path / "irons.db", 0).store) as store, pytest.raises(NoRoomError):
        asyncio.run(store.write(_fill, last=True))
