"""What egress refused is offered to run again once it is allowed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from irons.command import Arg, Command
from irons.context import Context
from irons.host import PluginHost
from irons.terminal.streams import Streams
from irons.testing import EXTENSIONS, FakeApi
from irons_repl.run.again import Again
from irons_repl.run.running import LineRunner
from irons_repl.run.session import ShellSession

LINE = "fetch alpha > out"


def fetch(ctx: Context, *, name: str) -> str:
    """Be refused, as a program that exec runs may be."""
    ctx.refused(name, [("a.example", 443), ("b.example", 8080), ("2001:db8::1", None)])
    return "fetched"


COMMANDS = [Command(("fetch",), "", "tests.repl.test_again:fetch", (Arg("name", kind="sandbox"),))]


class Shell:
    """A session of a person, with the fake API behind it."""

    def __init__(self, api: FakeApi, home: Path) -> None:
        env = {
            "HOME": str(home),
            "IRONS_API_URL": api.url,
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_STATE_HOME": str(home / "state"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "IRONS_PLUGINS": "",
        }
        host = PluginHost(env=env)
        host.tree = host.tree.with_commands(COMMANDS)
        self.out, self.err = io.StringIO(), io.StringIO()
        self.session = ShellSession(host, Streams(io.StringIO(), self.out, self.err, env, True, False, True))

    def run(self, line: str) -> str:
        """Run a line; return what it says to the person."""
        self.err.seek(0)
        self.err.truncate()
        LineRunner(self.session).run(line)
        return self.err.getvalue()


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """The session, in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    with FakeApi(extensions=EXTENSIONS) as api:
        api.add("alpha")
        api.add("beta")
        shell = Shell(api, tmp_path)
        yield shell
        shell.session.close()


def test_an_allow_offers_what_it_was_for(shell: Shell, tmp_path: Path) -> None:
    """The whole line is offered, its file too; `r` runs it once, and says what it runs."""
    assert shell.session.again.refused_in is None
    shell.run(LINE)
    assert shell.session.again.refused_in == "alpha"
    assert shell.run("egress allow a.example --sandbox alpha").endswith(
        f"press r and Enter to run it again: {LINE}\n"
    )
    (tmp_path / "out").unlink()
    assert shell.run("r") == f"{LINE}\n"
    assert (tmp_path / "out").read_text() == "fetched\n"
    said = shell.run("r")
    assert said.startswith("irons: there is nothing to run again\n")
    assert "rm" not in said


@pytest.mark.parametrize(
    ("allow", "offers"),
    [
        ("egress allow a.example", True),
        ("egress allow *.example --broad", True),
        ("egress allow b.example:8080 --sandbox alpha", True),
        ("egress allow 2001:db8::1", True),
        ("egress allow b.example", False),
        ("egress allow c.example", False),
        ("egress allow a.example --sandbox beta", False),
        ("egress deny a.example", False),
        ("egress allow 'no host'", False),
    ],
)
def test_only_what_would_be_reached_now(shell: Shell, allow: str, offers: bool) -> None:
    """The rule is for that sandbox, or for all, and covers one of the places with its port."""
    shell.run(LINE)
    assert ("press r and Enter" in shell.run(allow)) == offers


def test_an_offer_lasts_until_the_next_line(shell: Shell) -> None:
    """Nothing is run again by an `r` that comes later, or that is more than an `r`; the next allow offers it again."""
    shell.run(LINE)
    shell.run("egress allow a.example")
    assert "no command 'r'" in shell.run("r x")
    assert "nothing to run again" in shell.run("r")
    assert "press r and Enter" in shell.run("egress allow *.example --broad")
    shell.session.use("beta")
    assert "nothing to run again" in shell.run("r"), "another sandbox may be meant now"


def test_only_a_line_of_one_command_is_offered(shell: Shell) -> None:
    """Of several commands the others would run again too; and a script is offered nothing."""
    shell.run("fetch alpha; list")
    assert "press r" not in shell.run("egress allow a.example")
    shell.run(LINE)
    shell.session.streams = shell.session.streams.changed(stdin_tty=False)
    assert "press r" not in shell.run("egress allow a.example")


def test_an_alias_of_this_name_stays_one(shell: Shell, tmp_path: Path) -> None:
    """Where the configuration has an `r`, it is meant, unless something is offered."""
    (tmp_path / "config" / "irons").mkdir(parents=True)
    (tmp_path / "config" / "irons" / "config.toml").write_text('[aliases]\nr = "list -q"\n')
    shell.run("r")
    assert shell.out.getvalue() == "alpha\nbeta\n"


def test_what_is_no_host_is_no_reason() -> None:
    """Names come from a sandbox, and may be anything."""
    again = Again(lambda: None)
    again.begin(LINE)
    again.refused("alpha", [("\x1b[2J", 443), ("", None)])
    again.allowed(None, ["a.example"])
    assert again.news() == ""
