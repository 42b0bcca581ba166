"""`irons.testing` as authors of plugins use it."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.local.people import eventually
from tests.shown import Shown

from irons import Arg, Command, Context, Exec, hookimpl
from irons.testing import FakeApi, Runner, faults

PLUGIN = """
from irons import Arg, Command, hookimpl

@hookimpl
def irons_commands():
    return [Command(("greet",), "Greet a sandbox.", "greet_plugin:greet", (Arg("name", kind="sandbox"),))]

def greet(ctx, *, name):
    return f"hello {ctx.api.status(name).name}"
"""

TESTS = """
import greet_plugin
pytest_plugins = ["irons.testing"]

def test_greets(run_irons, fake_api):
    fake_api.add("one")
    run_irons.plugins().register(greet_plugin, "greet")
    assert run_irons("greet", "one").ok().out == "hello one\\n"
    assert fake_api.lines() == ["GET /sandboxes/one"]
"""


@pytest.mark.process
def test_a_plugin_is_tested_in_a_few_lines(tmp_path: Path) -> None:
    """The example of the documentation runs, in a pytest of its own."""
    (tmp_path / "greet_plugin.py").write_text(PLUGIN)
    (tmp_path / "test_greet.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xonsh", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def _become(ctx: Context, *, name: str) -> Exec:
    del ctx
    return Exec(("true", name))


class _Plugin:
    @hookimpl
    def irons_commands(self) -> list[Command]:
        return [Command(("become",), "Become.", f"{__name__}:_become", (Arg("name"),))]


def test_a_program_is_noted_and_run_on_request(run_irons: Runner) -> None:
    """What a command becomes is noted; with `execute` it is run, and its code is the outcome's."""
    run_irons.plugins().register(_Plugin(), "become")
    done = run_irons("become", "x").ok()
    assert done.program == Exec(("true", "x"))
    run_irons.execute = lambda program: len(program.argv)
    assert run_irons("become", "x").code == 2


def test_outcomes_say_what_went_wrong(run_irons: Runner) -> None:
    """`ok` fails a test with what the command printed."""
    with pytest.raises(AssertionError, match="there is no command"):
        run_irons("nonsense").ok()


def test_each_stream_has_its_own_terminal(run_irons: Runner, fake_api: FakeApi) -> None:
    """A table is for a terminal's stdout; a spinner for a terminal's stderr."""
    fake_api.add("one", "creating", becomes="ready", polls=10**6)
    assert run_irons("list", stdout_tty=True).ok().out.startswith("NAME")
    shown = Shown("waiting for ready", lambda: setattr(fake_api.sandboxes["one"], "polls", 1))
    run_irons("wait", "one", stderr_tty=True, stderr=shown).ok()
    assert shown.happened


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (faults.error(500, "broken"), 1, "broken"),
        (faults.error(401, "no"), 4, "no"),
        (faults.error(404, "gone"), 3, "gone"),
        (faults.error(409, "busy"), 5, "busy"),
        (faults.html(500), 1, "Bad Gateway"),
        (faults.cut_json(), 1, "not a JSON object"),
        (faults.broken_off(), 0, ""),
        (faults.dropped(), 0, ""),
        (faults.slow(0.05), 0, ""),
        (faults.too_many("0"), 0, ""),
    ],
    ids=["500", "401", "404", "409", "html", "cut", "broken off", "dropped", "slow", "429"],
)
def test_faults(run_irons: Runner, fake_api: FakeApi, fault: faults.Fault, code: int, said: str) -> None:
    """Each fault does what it says to one request, and no more."""
    fake_api.add("one")
    fake_api.fail(fault, on="GET /sandboxes/one")
    done = run_irons("status", "one")
    assert done.code == code
    assert said in done.err
    assert "\x1b" not in done.err
    assert run_irons("status", "one").code == 0


def test_an_answer_is_held_until_the_test_says(run_irons: Runner, fake_api: FakeApi) -> None:
    """One that is held is the usual one, and comes once its event is set."""
    fake_api.add("one")
    go = threading.Event()
    fake_api.fail(faults.held(go), on="GET /sandboxes/one")
    codes: list[int] = []
    asking = threading.Thread(target=lambda: codes.append(run_irons("status", "one").code))
    asking.start()
    try:
        eventually(lambda: fake_api.lines() == ["GET /sandboxes/one"])
        assert codes == []
    finally:
        go.set()
        asking.join()
    assert codes == [0]


def test_a_key_can_be_asked_for(run_irons: Runner, fake_api: FakeApi) -> None:
    """With a key set, requests without it are refused."""
    fake_api.key = "secret"
    assert run_irons("list").code == 4
    assert run_irons("list", "--api-key", "secret").code == 0


def test_calls_are_kept(run_irons: Runner, own_api: FakeApi) -> None:
    """Requests are kept with path, query, body and headers."""
    own_api.rules = [{"pattern": "ab.example", "list": "allow"}]
    run_irons("egress", "remove", "a b.example".replace(" ", ""))
    call = own_api.calls[-1]
    assert (call.line, call.query) == ("DELETE /egress/rules", {"domain": "ab.example"})
