"""The connection that is kept for a sandbox: who shares it, who must not, and how it ends. OpenSSH's own client and server."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from irons.context import Context
from irons.files import digest
from irons.host import PluginHost
from irons.settings.settings import load
from irons.terminal.streams import Streams
from irons.testing import EXTENSIONS, FakeApi
from irons_plugins.ssh.connect import kept
from irons_plugins.ssh.connect.connect_info import entrance
from irons_plugins.ssh.connect.kept import end_all, end_kept, existing, over_kept

from .conftest import Irons, Sshd, until, with_a_short_runtime_directory


@pytest.fixture
def into(into: Irons) -> Iterator[Irons]:
    """As ever, with a runtime directory whose path is short: `ssh` and `scp` share no socket with a long one.

    A login that takes long is waited for: without it nothing is kept.
    """
    into.patient = (f"{kept.__name__}.LOGIN_WITHIN",)
    with with_a_short_runtime_directory(into) as short:
        yield short


def sockets(into: Irons) -> list[Path]:
    """The sockets of connections that are kept."""
    directory = Path(into.env["XDG_RUNTIME_DIR"]) / "irons" / "ssh"
    found = sorted(directory.glob("*-*")) if directory.is_dir() else []
    return [path for path in found if stat.S_ISSOCK(path.lstat().st_mode)]


def master(path: Path) -> int:
    """The process that serves a socket."""
    words = ["ssh", "-F", "none", "-o", f"ControlPath=./{path.name}", "-O", "check", "x"]
    done = subprocess.run(words, cwd=path.parent, capture_output=True, text=True, check=True)
    return int(done.stderr.partition("pid=")[2].partition(")")[0])


def ended(pid: int) -> bool:
    """Tell whether a process is gone; this one's parent may be slow to notice."""
    try:
        return " Z " in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True


def parent(into: Irons, *words: str) -> bytes:
    """The server's process for the connection that a command came by, as the command sees it."""
    done = into("exec", *words, "one", "--", "sh", "-c", "ps -o ppid= -p $(ps -o ppid= -p $PPID)")
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.strip()


def test_the_second_exec_comes_by_the_first_ones_connection(into: Irons) -> None:
    """One login serves exec after exec; exec's own connection would have a process of its own at the server."""
    first = parent(into)
    assert len(sockets(into)) == 1
    assert parent(into) == first
    assert len(sockets(into)) == 1
    path = sockets(into)[0]
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.lstat().st_mode) == 0o700


def test_what_is_kept_has_no_agent_and_no_variables(into: Irons) -> None:
    """The connection's process is started without the agent, X11, tunnels or variables to send."""
    assert into("exec", "one", "--", "true", env={"LC_SECRET": "x"}).returncode == 0
    words = Path(f"/proc/{master(sockets(into)[0])}/cmdline").read_bytes().decode().split("\0")
    assert {"ForwardAgent=no", "ForwardX11=no", "Tunnel=no", "ClearAllForwardings=yes"} <= set(words)
    assert not [word for word in words if word.startswith(("SendEnv", "SetEnv"))]


def test_a_call_that_forwards_the_agent_shares_nothing(into: Irons) -> None:
    """`ssh --forward-agent` leaves no connection, and does not use one that is kept."""
    assert into("ssh", "one", "--forward-agent", "--", "true").returncode == 0
    assert sockets(into) == []
    kept = parent(into)
    done = into("ssh", "one", "--forward-agent", "--", "ps -o ppid= -p $PPID")
    assert done.returncode == 0
    assert done.stdout.strip() != kept


def test_ssh_and_scp_use_a_connection_that_is_kept(into: Irons, tmp_path: Path) -> None:
    """They come by it where there is one, and leave none behind."""
    assert into("ssh", "one", "--", "true").returncode == 0
    assert sockets(into) == []
    assert into("exec", "one", "--", "true").returncode == 0
    pid = master(sockets(into)[0])
    os.kill(pid, signal.SIGSTOP)
    try:
        waits = into.start("ssh", "one", "--", "echo there")
        with pytest.raises(subprocess.TimeoutExpired):
            waits.wait(1)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert waits.communicate(timeout=60)[0] == b"there\n"
    (tmp_path / "file").write_text("text")
    assert into("scp", str(tmp_path / "file"), f"one:{tmp_path}/copy").returncode == 0
    assert (tmp_path / "copy").read_text() == "text"


def test_another_sandbox_of_the_same_name_has_another_connection(
    into: Irons, fake_api: FakeApi, sshd: Sshd
) -> None:
    """A sandbox that was destroyed and created again has another id, and so nothing of the old connection."""
    fake_api.ssh = sshd.address(host_keys=[sshd.host_key], cell="sb_00000000000000aa")
    first = parent(into)
    fake_api.ssh = sshd.address(host_keys=[sshd.host_key], cell="sb_00000000000000bb")
    assert parent(into) != first
    assert len(sockets(into)) == 2


def test_nothing_is_kept_where_nothing_tells_machines_apart(
    into: Irons, fake_api: FakeApi, sshd: Sshd
) -> None:
    """A server that tells neither an id nor a host key gets a connection for each call."""
    fake_api.ssh = sshd.address()
    assert into("exec", "one", "--", "true").returncode == 0
    assert sockets(into) == []


def test_another_key_has_another_connection(into: Irons, tmp_path: Path) -> None:
    """A connection that one key opened does not serve a call that is to use another one, which then has to be let in by itself."""
    assert into("exec", "one", "--", "true").returncode == 0
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    state = Path(into.env["XDG_STATE_HOME"]) / "irons/ssh/identities.json"
    state.write_text(f'{{"default": {{"one": "{other}"}}}}')
    done = into("exec", "one", "--", "true")
    assert done.returncode == 125
    assert b"Permission denied" in done.stderr


def test_many_first_ones_make_one_connection(into: Irons) -> None:
    """Calls that begin together wait for one login."""
    calls = [into.start("exec", "one", "--", "echo", "there") for _ in range(6)]
    assert [call.communicate(timeout=60)[0] for call in calls] == [b"there\n"] * 6
    assert len(sockets(into)) == 1


def test_beyond_the_servers_sessions_another_connection_is_made(into: Irons, tmp_path: Path) -> None:
    """A server lets ten sessions into a connection by default; the eleventh call has its own and works as well."""
    assert into("exec", "one", "--", "true").returncode == 0
    go = tmp_path / "go"
    os.mkfifo(go)
    line = f"echo $$ >>{tmp_path}/begun; read -r line <{go}"
    calls = [into.start("exec", "one", "--", "sh", "-c", line) for _ in range(12)]
    begun = tmp_path / "begun"
    until(lambda: begun.exists() and len(begun.read_text().splitlines()) == 12)
    with go.open("w") as gate:
        gate.write("go\n" * 12)
        gate.flush()
        assert [call.wait(60) for call in calls] == [0] * 12


def test_what_ran_ends_with_a_killed_client(into: Irons, tmp_path: Path) -> None:
    """KILL of irons ends what it ran; the connection goes on, and serves the next."""
    assert into("exec", "one", "--", "true").returncode == 0
    kept = master(sockets(into)[0])
    process = into.start("exec", "one", "--", "sh", "-c", f"echo $$ >{tmp_path}/pid; exec sleep 1000")
    noted = tmp_path / "pid"
    until(lambda: noted.exists() and noted.read_text().strip())
    process.kill()
    process.wait()
    until(lambda: ended(int(noted.read_text())))
    assert into("exec", "one", "--", "true").returncode == 0
    assert master(sockets(into)[0]) == kept


def test_a_dead_connection_is_replaced(into: Irons) -> None:
    """A socket that outlived its process keeps no one out."""
    assert into("exec", "one", "--", "true").returncode == 0
    pid = master(sockets(into)[0])
    os.kill(pid, signal.SIGKILL)
    until(lambda: ended(pid))
    assert into("exec", "one", "--", "true").returncode == 0
    assert master(sockets(into)[0]) != pid


@pytest.mark.parametrize("whole", [True, False], ids=["all", "one"])
def test_connections_end_when_they_are_told_to(into: Irons, whole: bool) -> None:
    """Of one sandbox, and all of them; nothing is left in the directory then."""
    assert into("exec", "one", "--", "true").returncode == 0
    path = sockets(into)[0]
    pid = master(path)
    settings = load({"api_url": into.env["IRONS_API_URL"]}, into.env)
    end_kept(settings, "other")
    assert sockets(into) == [path]
    if whole:
        end_all(settings)
        assert not path.parent.exists()
    else:
        end_kept(settings, "one")
    until(lambda: ended(pid))
    assert sockets(into) == []


def test_a_connection_that_ended_by_itself_leaves_no_file(into: Irons) -> None:
    """What is left of it goes when the sandbox goes, as after a stop, with which its SSH server ends."""
    parent(into)
    (path,) = sockets(into)
    os.kill(master(path), signal.SIGTERM)
    until(lambda: not path.exists())
    assert list(path.parent.iterdir())
    end_kept(load({}, into.env), "one")
    assert list(path.parent.iterdir()) == []


def test_a_gentle_end_lets_nothing_new_in(into: Irons, tmp_path: Path) -> None:
    """After a key is removed what runs goes on, and the next call has to log in."""
    go = tmp_path / "go"
    os.mkfifo(go)
    process = into.start("exec", "one", "--", "sh", "-c", f"echo up; read -r line <{go}; echo done")
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    pid = master(sockets(into)[0])
    end_kept(load({"api_url": into.env["IRONS_API_URL"]}, into.env), "one", gently=True)
    assert sockets(into) == []
    go.write_text("go\n")
    assert process.communicate(timeout=60)[0] == b"done\n"
    until(lambda: ended(pid))


def test_a_long_runtime_directory(into: Irons, tmp_path: Path) -> None:
    """However deep the runtime directory lies, the connection is kept and used; `ssh` and `scp` then log in by themselves."""
    deep = tmp_path / ("d" * 100)
    deep.mkdir(mode=0o700)
    env = {**into.env, "XDG_RUNTIME_DIR": str(deep)}
    long = Irons(env)
    try:
        first = parent(long)
        assert len(sockets(long)) == 1
        assert parent(long) == first
        assert long("ssh", "one", "--", "echo there").stdout == b"there\n"
        (tmp_path / "file").write_text("text")
        assert long("scp", str(tmp_path / "file"), f"one:{tmp_path}/copy").returncode == 0
        assert (tmp_path / "copy").read_text() == "text"
    finally:
        end_all(load({}, env))


def test_a_directory_that_others_can_enter_is_not_used(into: Irons) -> None:
    """Where another could reach the socket none is made, and the call works as before."""
    directory = Path(into.env["XDG_RUNTIME_DIR"]) / "irons" / "ssh"
    directory.mkdir(parents=True, mode=0o700)
    directory.chmod(0o755)
    assert into("exec", "one", "--", "true").returncode == 0
    assert sockets(into) == []


def test_a_connection_without_work_ends_by_itself(into: Irons) -> None:
    """Its process goes, and its socket with it, once the seconds that it is kept for have passed without a session."""
    settings = load({"api_url": into.env["IRONS_API_URL"]}, into.env)
    ctx = Context(settings, PluginHost(env=settings.env), Streams())
    pid = 0
    with contextlib.closing(ctx):
        for idle in (1, 5, 30):
            with over_kept(ctx, entrance(ctx, "one"), orphaned="true", idle=idle) as kept:
                # On a busy machine it may have gone before it is used, or asked for its process.
                if kept.options == entrance(ctx, "one").options:
                    continue
                with contextlib.suppress(IndexError, subprocess.CalledProcessError):
                    pid = master(sockets(into)[0])
                    break
    assert pid
    until(lambda: ended(pid))
    assert sockets(into) == []


def test_removing_a_key_ends_the_connections_that_are_kept(
    into: Irons, fake_api: FakeApi, sshd: Sshd
) -> None:
    """A connection that a removed key opened lets nothing in any more: the next call has to log in."""
    fake_api.extensions = EXTENSIONS
    fake_api.sandboxes["one"].public_key = sshd.identity.with_suffix(".pub").read_text()
    assert into("exec", "one", "--", "true").returncode == 0
    pid = master(sockets(into)[0])
    done = into("access", "one", "remove", str(sshd.identity.with_suffix(".pub")))
    assert (done.returncode, b"no longer opens one" in done.stderr) == (0, True)
    assert sockets(into) == []
    until(lambda: ended(pid))


def test_a_burst_of_calls_does_not_remove_a_connection(into: Irons, fake_api: FakeApi) -> None:
    """A master for which as many calls wait as it lets wait is one that listens."""
    settings = load({}, into.env)
    directory = Path(into.env["XDG_RUNTIME_DIR"]) / "irons" / "ssh"
    directory.mkdir(parents=True, mode=0o700)
    path = directory / f"{digest(settings.api_url, 'one')[:10]}-0"
    with contextlib.ExitStack() as opened:
        listening = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listening.bind(str(path))
        listening.listen(0)
        with pytest.raises(BlockingIOError):
            connect_on(str(path), opened)
        assert existing(settings, "one", 60) == path
    path.unlink()


def connect_on(path: str, opened: contextlib.ExitStack) -> None:
    """Connect until no more may wait."""
    while True:
        one = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        one.setblocking(False)
        one.connect(path)
