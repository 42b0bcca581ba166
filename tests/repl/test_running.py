"""Lines run in a session, in this process."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from irons.command import Arg, Column, Command, Exec, Flag, View
from irons.context import Context
from irons.host import PluginHost
from irons.terminal.streams import Streams
from irons.tree import at_prompt
from irons_repl.run.running import Leave, LineRunner
from irons_repl.run.session import ShellSession
from irons_repl.script import run_script


def say(ctx: Context, *, words: tuple[str, ...]) -> str:
    """Say words."""
    return " ".join(words)


def fail(ctx: Context, *, code: str) -> None:
    """Leave with a code, as a stranger's handler might."""
    raise SystemExit(int(code))


def interrupt(ctx: Context) -> None:
    """Be interrupted."""
    raise KeyboardInterrupt


def advise(ctx: Context) -> None:
    """Tell what to do next."""
    ctx.progress("nothing happened; irons say it again")


def none(ctx: Context) -> tuple[dict[str, int], ...]:
    """Return no rows."""
    return ()


def rows(ctx: Context) -> Iterator[dict[str, int]]:
    """Yield more rows than any reader wants."""
    return ({"n": n} for n in range(1_000_000))


def become(ctx: Context, *, words: tuple[str, ...]) -> Exec:
    """Have another program run."""
    return Exec(words)


def where(ctx: Context, *, name: str, x: bool) -> str:
    """Say which sandbox is meant."""
    return name


HERE = "tests.repl.test_running"
COMMANDS = [
    Command(("say",), "", f"{HERE}:say", (Arg("words", takes="*"),)),
    Command(("fail",), "", f"{HERE}:fail", (Arg("code"),)),
    Command(("interrupt",), "", f"{HERE}:interrupt"),
    Command(("advise",), "", f"{HERE}:advise"),
    Command(
        ("none",), "", f"{HERE}:none", view=View((Column("n"),), empty="There are none; irons say makes one.")
    ),
    Command(("rows",), "", f"{HERE}:rows"),
    Command(("become",), "", f"{HERE}:become", (Arg("words", takes="--"),)),
    Command(("where",), "", f"{HERE}:where", (Arg("name", kind="sandbox"), Flag(("--x",)))),
]


@dataclass
class Shell:
    """A session with its streams, and a runner in it."""

    session: ShellSession
    out: io.StringIO = field(default_factory=io.StringIO)
    err: io.StringIO = field(default_factory=io.StringIO)

    def run(self, line: str, *, strict: bool = False) -> int:
        """Run a line."""
        return LineRunner(self.session, strict=strict).run(line)

    def printed(self) -> str:
        """What was printed since the last time."""
        text = self.out.getvalue()
        self.out.seek(0)
        self.out.truncate()
        return text


@pytest.fixture
def shell(home_env: dict[str, str]) -> Iterator[Shell]:
    """A session whose commands are those above."""
    host = PluginHost(env={"IRONS_PLUGINS": ""}, built_in=(("shell", "irons_repl.shell_plugin"),))
    host.tree = host.tree.with_commands(COMMANDS)
    out, err = io.StringIO(), io.StringIO()
    session = ShellSession(host, Streams(io.StringIO(), out, err, home_env, False, False, False))
    yield Shell(session, out, err)
    session.close()


def test_a_semicolon_goes_on_and_an_and_stops(shell: Shell) -> None:
    """`;` runs the next command no matter what happened, `&&` only after success, `||` only after failure."""
    assert shell.run("say a; fail 3; say b && say c") == 0
    assert shell.printed() == "a\nb\nc\n"
    assert shell.run("fail 3 && say no") == 3
    assert shell.run("fail 3 || say yes && say too; say a || say no") == 0
    assert shell.printed() == "yes\ntoo\na\n"


def test_output_goes_into_files(shell: Shell, tmp_path: Path) -> None:
    """`>` writes a file again, `>>` adds to it."""
    file = tmp_path / "a file"
    assert shell.run(f"say one > '{file}'; say two >> '{file}'") == 0
    assert file.read_text() == "one\ntwo\n"
    assert shell.run(f"say x > {tmp_path}/none/there") == 1
    assert "can't be written" in shell.err.getvalue()


@pytest.mark.process
def test_output_goes_through_the_shells_pipeline(shell: Shell, tmp_path: Path) -> None:
    """What a command prints is what the pipeline reads; its exit code counts where the command was well."""
    assert shell.run(f"say 'b a' | tr ' ' '\\n' | sort > {tmp_path}/out") == 0
    assert (tmp_path / "out").read_text() == "a\nb\n"
    assert shell.run("say a | grep -q b") == 1
    assert shell.run("fail 4 | cat") == 4
    assert shell.run("rows | head -n 1 > /dev/null") == 0


@pytest.mark.process
def test_programs_write_where_the_command_does(shell: Shell, tmp_path: Path) -> None:
    """A command that becomes a program has its output redirected and piped as well."""
    assert shell.run(f"become -- echo hello > {tmp_path}/out") == 0
    assert (tmp_path / "out").read_text() == "hello\n"
    assert shell.run(f"become -- echo hello | tr a-z A-Z > {tmp_path}/out") == 0
    assert (tmp_path / "out").read_text() == "HELLO\n"
    assert shell.run("become -- sh -c 'exit 5'") == 5
    assert shell.run("become -- sh -c 'kill -9 $$'") == 137
    assert shell.run("become -- no-such-program-here") == 1
    assert "not installed" in shell.err.getvalue()


@pytest.mark.process
def test_the_systems_shell_is_one_character_away(shell: Shell, tmp_path: Path) -> None:
    """`!` hands the line to it, with the sandbox in use in its environment, and gives its exit code."""
    shell.session.use("agent-1")
    assert shell.run(f"!echo $IRONS_SANDBOX > {tmp_path}/out; exit 6") == 6
    assert (tmp_path / "out").read_text() == "agent-1\n"


def test_the_sandbox_in_use_is_meant_where_none_is_named(shell: Shell) -> None:
    """`use` sets it, a name overrides it, `use --none` takes it back."""
    shell.session.use("agent-1")
    assert shell.run("where; where other; where --x; use") == 0
    assert shell.printed() == "agent-1\nother\nagent-1\nagent-1\n"
    assert shell.run("use --none; where") == 2
    assert "needs NAME" in shell.err.getvalue()


def test_an_interrupted_command_ends_the_line_with_130(shell: Shell) -> None:
    """Ctrl-C ends the command and what would have come after it."""
    assert shell.run("interrupt; say no") == 130
    assert shell.printed() == ""


def test_the_word_irons_is_no_obstacle(shell: Shell) -> None:
    """A line as it is typed at the shell does the same here, and the word alone shows help."""
    assert shell.run("irons say a") == 0
    assert shell.printed() == "a\n"
    assert shell.run("irons") == 0
    assert "Daily use:" in shell.printed()


def test_errors_name_commands_as_they_are_typed_here(shell: Shell) -> None:
    """What to do next is reported without the word `irons`; other sentences with it stay."""
    assert shell.run("where") == 2
    assert shell.err.getvalue() == "irons: where needs NAME\n  see where --help\n"
    assert shell.run("advise") == 0
    assert shell.err.getvalue().endswith("\nnothing happened; say it again\n")
    assert shell.run("none -o table") == 0
    assert shell.err.getvalue().endswith("\nThere are none; say makes one.\n")
    assert at_prompt("irons runs; irons say it", shell.session.host.tree) == "irons runs; say it"


def test_errors_point_at_their_column(shell: Shell) -> None:
    """The line is shown with a mark below the place, cut to its surroundings where it is long."""
    assert shell.run("say a | | b") == 2
    assert shell.err.getvalue().splitlines() == [
        "irons: nothing follows | (column 7)",
        "  say a | | b",
        "        ^",
    ]
    assert shell.run(f"say {'x' * 500} & y") == 2
    *_, line, mark = shell.err.getvalue().splitlines()
    assert len(line) < 100
    assert line[mark.index("^")] == "&"


def test_nothing_runs_of_a_line_that_makes_no_sense(shell: Shell) -> None:
    """A line is read whole before its first command runs."""
    assert shell.run("say a; say 'b") == 2
    assert shell.printed() == ""


def test_leaving_takes_a_code(shell: Shell) -> None:
    """`exit` and `quit` leave, with 0 or the code given."""
    for line, code in (("exit", 0), ("quit", 0), ("exit 7", 7), ("say x; exit 3; say y", 3)):
        with pytest.raises(Leave) as left:
            shell.run(line)
        assert left.value.code == code


@pytest.mark.process
def test_an_argument_list_too_long_is_one_error(shell: Shell) -> None:
    """What the kernel refuses is a line on stderr."""
    assert shell.run(f"!true {'x' * 200_000}") == 1
    assert "can't be run" in shell.err.getvalue()


def test_a_script_stops_at_the_first_failure(shell: Shell) -> None:
    """Lines run up to the first that fails, whose code is the script's; `||` is not a failure."""
    runner = LineRunner(shell.session, strict=True)
    assert run_script(runner, ["say a\n", "fail 3 || say b\n", "fail 4\r\n", "say c\n"]) == 4
    assert shell.printed() == "a\nb\n"
    assert run_script(runner, ["fail 5; say no"]) == 5
    assert run_script(runner, ["say 'a\n", "b'", " \\\n", "  \n", "exit 9\n", "fail 1\n"]) == 9
    assert shell.printed() == "a\nb\n"
    assert run_script(runner, ["say 'open"]) == 2
    assert run_script(runner, []) == 0
