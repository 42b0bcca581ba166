"""What `exec` concludes of a program's end: code, signal and sentence from marks, OpenSSH and the server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from irons.context import Context
from irons.host import PluginHost
from irons.settings.settings import load
from irons.terminal.streams import Streams
from irons.testing import FakeApi, faults
from irons_plugins.ssh.connect.connect_info import Entrance
from irons_plugins.ssh.connect.target import Target
from irons_plugins.ssh.ending.log import SshLog
from irons_plugins.ssh.openssh.endings import Aftermath, SshEnding, aftermath, ending, signal_text
from irons_plugins.ssh.openssh.exit_codes import CONNECTION_LOST, SESSION_KILLED
from irons_plugins.ssh.openssh.marks import Marks

TOKEN = "0" * 32
WAY = Entrance("one", Target("127.0.0.1", 22, "irons", oom_kills=0), ())


def concluded(
    *marks: str,
    code: int = 255,
    log: str = "",
    after: Aftermath = Aftermath(),  # noqa: B008
    unwritten: str = "",
) -> SshEnding:
    """Return the ending of a call whose stderr had these marks."""
    read = Marks(TOKEN, "127.0.0.1")
    for mark in marks:
        read.feed(f"\0irons {TOKEN} {mark}\n".encode())
    logged = SshLog()
    with logged, open(logged.path, "wb", buffering=0) as pipe:  # noqa: PTH123 - a pipe
        pipe.write(log.encode())
    return ending(WAY, read, code, logged, after, 3.0, unwritten)


def failed(told: SshEnding) -> str:
    """Return the message of an ending that is irons' own failure."""
    assert (told.code, told.signal, told.sentence) == (125, None, "")
    assert told.error is not None
    assert told.error.exit_code == 125
    return told.error.message


def test_a_program_that_ended() -> None:
    """Its code is its own, no matter what OpenSSH exits with; time and signals have their sentence."""
    assert concluded("began", "ended 255 no", code=254) == SshEnding(255)
    assert concluded("began", "ended 124 no", code=124) == SshEnding(124)
    assert concluded("began", "ended 124 time", code=124).sentence.startswith("timed out after 3 s")
    told = concluded("began", "ended 143 yes", after=Aftermath(gone="one is stopping"))
    assert told == SshEnding(143, 15, "killed by signal 15 (TERM): one is stopping")


def test_what_openssh_could_not_do() -> None:
    """Before the program began OpenSSH's last error is the reason; a shell that can't run programs is named."""
    assert failed(concluded(log="x\nPermission denied (publickey).\r\n")) == (
        "SSH to one failed: Permission denied (publickey)"
    )
    assert failed(concluded()) == "the connection to one was lost"
    assert failed(concluded(code=127)) == "the shell of one can't run programs: it ended with code 127"
    assert failed(concluded("failed", code=125)) == "the program was not started"


def test_a_shell_that_memory_ran_out_for() -> None:
    """Where the shell around the program was killed for memory, that is reported."""
    told = concluded("began", after=Aftermath(out_of_memory=True))
    assert told == SshEnding(137, 9, "out of memory")
    killed = "the shell that ran the program in one was killed"
    assert failed(concluded("began", code=SESSION_KILLED)) == killed
    assert failed(concluded("began", "killed", code=254)) == killed
    unsure = "the connection to one was lost, or the shell that ran the program there was killed"
    assert failed(concluded("began")) == unsure


@pytest.mark.parametrize(("code", "log"), [(CONNECTION_LOST, ""), (255, ""), (255, "client_loop: x")])
def test_output_that_may_be_missing(code: int, log: str) -> None:
    """Where the connection ended before the session did, an exit code of 0 does not count: the last output may not have come."""
    end = "; the program ended with code 0, and the end of its output may be missing"
    told = concluded("began", "ended 0 no", code=code, log=log, after=Aftermath(gone="one is stopped"))
    assert failed(told) == f"the connection to one was lost: one is stopped{end}"
    assert failed(concluded("began", code=code, log="x")) == "the connection to one was lost"
    assert failed(concluded(code=code, log="client_loop: x")) == "the connection to one was lost"
    # What a signal killed has failed as it is.
    assert concluded("began", "ended 137 yes", code=code).code == 137


def test_an_end_that_only_openssh_tells() -> None:
    """Where the last mark did not come through, the exit code is the program's all the same."""
    assert concluded("began", code=0) == SshEnding(0)
    assert concluded("began", code=124).timed_out
    assert concluded("began", code=143).sentence.startswith("exit code 143: killed by signal 15 (TERM), or")
    # A closed pipe is why the mark did not come through.
    assert concluded("began", code=141) == SshEnding(141)
    # There is no signal 126, and a program that ended with 255 has this code here.
    assert concluded("began", code=254) == SshEnding(254)
    told = failed(concluded("began", code=3, unwritten="no room"))
    assert told == "what the program wrote can't be written to stdout (no room); it ended with code 3"
    assert failed(concluded("began", "ended 0 no", code=0, unwritten="no room")).endswith("with code 0")


def test_openssh_that_was_killed_here() -> None:
    """The end of OpenSSH itself is not taken for the end of the program, or of its shell."""
    assert failed(concluded("began", code=-9)) == "ssh was killed on this machine by signal 9 (KILL)"
    assert failed(concluded(code=-15)) == "ssh was killed on this machine by signal 15 (TERM)"
    told = failed(concluded("began", "ended 0 no", code=-9))
    assert told.startswith(
        "ssh was killed on this machine by signal 9 (KILL); the program ended with code 0, and"
    )


def test_signals_have_names() -> None:
    """Real-time signals too; a number that is not a signal stays a number."""
    assert [signal_text(n) for n in (9, 34, 36, 64, 127)] == [
        "signal 9 (KILL)",
        "signal 34 (RTMIN)",
        "signal 36 (RTMIN+2)",
        "signal 64 (RTMAX)",
        "signal 127",
    ]


@pytest.fixture
def ctx(irons_env: dict[str, str], fake_api: FakeApi) -> Iterator[Context]:
    """A call's context with a server that has one sandbox."""
    fake_api.add("one")
    settings = load({}, {**irons_env, "IRONS_API_URL": fake_api.url})
    context = Context(settings, PluginHost(), Streams())
    yield context
    context.close()


def test_what_became_of_the_sandbox(ctx: Context, fake_api: FakeApi) -> None:
    """Counted kills, another machine of the same name, a state, nothing where the server can't tell."""
    assert aftermath(ctx, WAY) == Aftermath()
    fake_api.ssh = {**fake_api.ssh, "oom_kills": 1}
    assert aftermath(ctx, WAY) == Aftermath(out_of_memory=True)
    fake_api.ssh = {**fake_api.ssh, "cell": "sb_0123456789abcdef"}
    assert aftermath(ctx, WAY).gone == "one was destroyed; another sandbox has that name now"
    fake_api.fail(faults.error(500, "down"), on="GET /sandboxes/one/ssh")
    assert aftermath(ctx, WAY) == Aftermath()
    fake_api.sandboxes["one"].status = "stopping"
    assert aftermath(ctx, WAY).gone == "one is stopping"
    del fake_api.sandboxes["one"]
    assert aftermath(ctx, WAY).gone == "one was destroyed"
