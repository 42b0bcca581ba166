"""`ssh`, `exec`, `run` and `forward`: any failure of irons itself gives 125; every other code is the program's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from irons.context import Context
from irons.testing import FakeApi, Runner
from irons.testing.faults import Fault, broken_off, cut_json, dropped, error, html

CALLS = {
    "ssh": ("ssh", "one", "--", "true"),
    "exec": ("exec", "one", "--", "true"),
    "exec-several": ("exec", "one", "two", "--", "true"),
    "exec-label": ("exec", "--label", "a=b", "--", "true"),
    "run": ("run", "--keep", "--", "true"),
    "forward": ("forward", "one", "8080"),
}
"""Each command as it is meant to be called."""

calls = pytest.mark.parametrize("words", CALLS.values(), ids=CALLS)

WORDS = {
    "unknown option": ("exec", "one", "--outptu", "json", "--", "true"),
    "unknown option before": ("--outptu", "json", "exec", "one", "--", "true"),
    "value of an option before": ("-o", "xml", "exec", "one", "--", "true"),
    "value of an option behind": ("exec", "one", "-o", "xml", "--", "true"),
    "option without a value": ("exec", "one", "--timeout"),
    "no duration": ("exec", "one", "--timeout", "soon", "--", "true"),
    "no time": ("exec", "one", "--timeout", "0", "--", "true"),
    "value where a name belongs": ("exec", "one", "--env", "A=b", "--", "true"),
    "variable not set": ("ssh", "one", "--env", "NOT_SET", "--", "true"),
    "no program": ("exec", "one"),
    "program without a name": ("exec", "one", "--", "", "x"),
    "no sandbox": ("exec", "--", "true"),
    "no sandbox for ssh": ("ssh",),
    "bad name": ("ssh", "../x", "--", "true"),
    "bad label": ("exec", "--label", "=", "--", "true"),
    "name and all": ("exec", "one", "--all", "--", "true"),
    "words before the dashes": ("ssh", "one", "uname"),
    "no port": ("forward", "one"),
    "bad port": ("forward", "one", "99999"),
    "bad mode": ("run", "--mode", "open", "--", "true"),
    "bad pattern": ("run", "--allow", "http://x/", "--", "true"),
    "nowhere": ("run", "--into", "/nowhere", "--", "true"),
    "run without a program": ("run",),
    "run of a program without a name": ("run", "--", ""),
}
"""Calls that are invalid."""

FAULTS: dict[str, Fault] = {
    **{str(status): error(status) for status in (400, 401, 403, 404, 409, 500, 503)},
    "html": html(),
    "cut": cut_json(),
    "broken-off": broken_off(),
    "dropped": dropped(),
}


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_invalid_words(run_irons: Runner, own: FakeApi, words: tuple[str, ...]) -> None:
    """Words that irons does not understand are a failure of its own."""
    done = run_irons(*words)
    assert (done.code, done.out) == (125, "")
    assert done.err.startswith("irons: ")


@pytest.mark.process
@calls
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_server_that_fails(run_irons: Runner, own: FakeApi, words: tuple[str, ...], fault: Fault) -> None:
    """Any other answer of a server is not a code of a program."""
    own.fail(fault, times=99)
    assert run_irons(*words).code == 125


@pytest.mark.parametrize(
    "words", [CALLS["ssh"], CALLS["exec"], CALLS["forward"]], ids=["ssh", "exec", "forward"]
)
@pytest.mark.parametrize("state", ["", "stopped"])
def test_a_sandbox_that_can_not_be_entered(
    run_irons: Runner, own_api: FakeApi, words: tuple[str, ...], state: str
) -> None:
    """A sandbox that does not exist or does not run is 125, and not 3 or 5."""
    if state:
        own_api.add("one", state)
    assert run_irons(*words).code == 125


@pytest.mark.process
@calls
@pytest.mark.parametrize(
    "env",
    [
        {"IRONS_OUTPUT": "xml"},
        {"IRONS_PROFILE": "nobody"},
        {"IRONS_API_URL": "nonsense://"},
        {"IRONS_API_URL": "http://127.0.0.1:1"},
    ],
    ids=lambda env: "=".join(*env.items()),
)
def test_a_bad_setting(run_irons: Runner, own: FakeApi, words: tuple[str, ...], env: dict[str, str]) -> None:
    """A setting that is invalid is 125."""
    assert run_irons(*words, env=env).code == 125


@calls
def test_a_bad_configuration_file(run_irons: Runner, own: FakeApi, words: tuple[str, ...]) -> None:
    """So is a configuration file that can't be read as one."""
    file = Path(run_irons.env["XDG_CONFIG_HOME"]) / "irons/config.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("output = [", encoding="utf-8")
    assert run_irons(*words).code == 125


@pytest.mark.process
@calls
@pytest.mark.parametrize(
    "broken", [ValueError("x"), OSError(os.strerror(28)), PermissionError(13, "x", "/y")]
)
def test_something_that_breaks_inside(
    run_irons: Runner,
    own: FakeApi,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    broken: Exception,
) -> None:
    """An exception that no one expected is 125 too."""

    def breaks(*_: object) -> None:
        raise broken

    monkeypatch.setattr(Context, "api", property(breaks))
    assert run_irons(*words).code == 125


@pytest.mark.parametrize(
    "words", [("--bogus", "list"), ("list", "--bogus"), ("egress", "exec"), ("frob", "run")]
)
def test_other_commands_keep_their_code(run_irons: Runner, own: FakeApi, words: tuple[str, ...]) -> None:
    """A usage error of another command is 2, no matter what its words are."""
    assert run_irons(*words).code == 2


def test_a_printed_line_keeps_the_codes(run_irons: Runner, fake_api: FakeApi) -> None:
    """`ssh --command` runs no program: its codes are those of other commands."""
    assert run_irons("ssh", "gone", "--command").code == 3


def test_the_object_has_the_code(run_irons: Runner, own: FakeApi) -> None:
    """The error object of `-o json` says 125, and still which kind of error it is."""
    told = run_irons("exec", "one", "--bogus", "-o", "json", "--", "true").error()
    assert (told["code"], told["exit"]) == ("usage", 125)
