"""The commands by which a machine joins something: what they need, and how they are given a token."""

from __future__ import annotations

import sys

import pytest

from irons.testing import Runner
from irons_local.engines import incus

JOINS = (("member", "join"), ("fleet", "join", "n1"))


@pytest.fixture(autouse=True)
def _root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)


@pytest.mark.parametrize("words", JOINS)
def test_joining_without_the_extra_says_what_to_install(
    run_irons: Runner, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """One line names the package, and one the extra; no token is read."""
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for name in ("member.join", "fleet.certificates", "engines.incus.enrol"):
        monkeypatch.delitem(sys.modules, f"irons_local.{name}", raising=False)
    monkeypatch.delattr(incus, "enrol", raising=False)
    done = run_irons(*words, stdin="secret")
    assert done.code != 0
    first, second = done.err.splitlines()
    assert first == "irons: the package cryptography is missing"
    assert "install irons[fleet]" in second


@pytest.mark.parametrize("words", JOINS)
def test_a_person_types_the_token(
    run_irons: Runner, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """At a terminal it is asked for, without showing it; where no one may be asked, that is said."""
    monkeypatch.setattr("getpass.getpass", lambda *_given, **_more: "typed")
    done = run_irons(*words, stdin_tty=True)
    assert done.code == 2
    assert "this is not a token" in done.err
    done = run_irons("--no-input", *words, stdin_tty=True)
    assert done.code == 2
    assert "there is no token on standard input" in done.err
