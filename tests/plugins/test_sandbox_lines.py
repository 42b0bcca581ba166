"""`one: CMD` at the prompt, with OpenSSH's own client and server: what runs there, and what here."""

from __future__ import annotations

from pathlib import Path

import pytest

from irons.testing import FakeApi

from .conftest import Irons, Sshd


def test_words_mean_there_what_was_typed_and_pipelines_run_here(into: Irons, sshd: Sshd) -> None:
    """The sandbox's shell expands `~`, `*` and `$X`; the pipeline and the file are here; the exit codes are as with exec."""
    there = sshd.home / "at-home"
    there.mkdir(exist_ok=True)
    for name in ("a.txt", "b.txt"):
        (there / name).touch()
    home = Path(into.env["HOME"])
    done = into(
        "shell", "-c", f"one: ls ~/at-home/*.txt $HOME/at-home/a.txt | sed 's/^/here: /' > {home}/out"
    )
    assert (done.returncode, done.stderr) == (0, b"")
    listed = [there / "a.txt", there / "a.txt", there / "b.txt"]
    assert (home / "out").read_text().splitlines() == [f"here: {path}" for path in listed]
    done = into("shell", "-c", "one: 'cat; echo $((1+1)) >&2; exit 3'")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"", b"2\n")
    assert into("shell", "-c", "one: yes | head -n 1").returncode == 0
    assert into("shell", "-c", "one: exit 9 | cat").returncode == 9
    assert into("shell", "-c", "one: no-such-program").returncode == 127
    assert into("shell", "-c", "nobody: ls").returncode == 125


def test_nothing_is_destroyed_here_by_what_was_meant_there(
    into: Irons, fake_api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`alpha: make && rm build` removes nothing, neither there nor here, and shows the two lines that may have been meant."""
    here = tmp_path / "here"
    (here / "build").mkdir(parents=True)
    monkeypatch.chdir(here)
    for joiner in ("&&", "||", ";"):
        done = into("shell", "-c", f"one: true {joiner} rm -r build")
        assert done.returncode == 2
        assert done.stderr.decode().splitlines() == [
            f"irons: what follows {joiner} would not run in one (column 11)",
            f"  one: 'true {joiner} rm -r build' runs all of it in one",
            f"  one: true {joiner} rm -r build",
            "            ^",
        ]
        assert (here / "build").is_dir()
    assert fake_api.lines() == []
