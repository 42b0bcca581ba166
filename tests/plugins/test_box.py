"""Sandboxes as objects: `irons.sandbox` and `irons.aio`. The sandbox is this machine, by a real SSH server."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

import irons
from irons import aio
from irons.errors import ApiError, Conflict, IronsError, NotFound, TimedOut, UsageError
from irons.testing import EXTENSIONS, FakeApi, faults

from .conftest import Irons, Sshd, until
from .remote_processes import running, seconds

Make = Callable[..., AbstractContextManager[irons.Box]]


@pytest.fixture
def make(into: Irons, fake_api: FakeApi, sshd: Sshd) -> Make:
    """`irons.sandbox` against a server of irons' own kind, with the key that opens this machine."""
    fake_api.extensions = EXTENSIONS
    env = {**into.env, "IRONS_PUBLIC_KEY": f"{sshd.identity}.pub"}
    return partial(irons.sandbox, env=env)


@pytest.fixture
def made(make: Make) -> Callable[..., Any]:
    """`irons.aio.sandbox`, likewise."""
    assert isinstance(make, partial)
    return partial(aio.sandbox, **make.keywords)


def names(api: FakeApi) -> set[str]:
    """The sandboxes that are there."""
    with api.lock:
        return set(api.sandboxes) - {"one"}


# Its life


def test_it_lives_as_long_as_the_block(make: Make, fake_api: FakeApi) -> None:
    """It is created as asked for, held, ready inside of the block, and gone after it."""
    with make("x", mode="warn", allow=["a.example"], memory="2G", labels={"k": "v"}, ttl=60) as box:
        assert (box.name, names(fake_api), box.status().status) == ("x", {"x"}, "ready")
        assert box.id == box.status().id
    assert names(fake_api) == set()
    body = next(call.body for call in fake_api.calls if call.line == "POST /sandboxes")
    assert (body["mode"], body["memory"], body["rm"], body["held"]) == ("warn", 2 << 30, True, True)
    assert [(rule["pattern"], rule["list"]) for rule in body["rules"]] == [("a.example", "allow")]


def test_who_allows_denies_the_rest(make: Make, fake_api: FakeApi) -> None:
    """With `allow` and no mode the mode is deny, and a name is found."""
    with make(allow=["a.example"], deny=["b.example"]) as box:
        assert names(fake_api) == {box.name}
    body = next(call.body for call in fake_api.calls if call.line == "POST /sandboxes")
    assert (body["mode"], {rule["list"] for rule in body["rules"]}) == ("deny", {"allow", "deny"})


def test_it_is_gone_after_an_error_too(make: Make, fake_api: FakeApi) -> None:
    """What the block raises comes out, and the sandbox is destroyed; where that fails, the error has a note of it."""
    with pytest.raises(ZeroDivisionError), make("x"):
        _ = 1 / 0
    assert names(fake_api) == set()

    def broken() -> None:
        with make("y"):
            fake_api.fail(faults.error(400, "no"), on="DELETE /sandboxes/y", times=50)
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError) as caught:
        broken()
    assert "y was not destroyed" in caught.value.__notes__[0]
    with fake_api.lock:
        del fake_api.sandboxes["y"]


def test_only_what_it_created_is_destroyed(make: Make, fake_api: FakeApi) -> None:
    """A name that is taken is refused, and left; so is another sandbox that took the name in the meantime; `keep` keeps."""
    with pytest.raises(Conflict) as taken, make("one"):
        pass
    assert taken.value.hint == "attach=True uses the one that is there"
    with make("x"), fake_api.lock:
        fake_api.sandboxes["x"].id = "sb_00000000000000ff"
    with make("y", keep=True):
        pass
    assert names(fake_api) == {"x", "y"}
    assert "one" in fake_api.sandboxes


def test_one_that_is_there_is_used_and_left(make: Make, fake_api: FakeApi) -> None:
    """`attach` creates, changes and destroys nothing, and refuses what would change it."""
    with make("one", attach=True) as box:
        assert box.exec(["true"]).ok
    assert "one" in fake_api.sandboxes
    assert not any(call.method in ("POST", "DELETE") for call in fake_api.calls)
    with pytest.raises(UsageError, match="memory would"), make("one", attach=True, memory="1G"):
        pass
    with pytest.raises(UsageError), make(attach=True):
        pass
    with pytest.raises(NotFound), make("nowhere", attach=True):
        pass


def test_one_that_never_gets_ready_is_gone(make: Make, fake_api: FakeApi) -> None:
    """Where it is not ready in time nothing is left of it, with `keep` neither."""
    fake_api.polls = 10_000
    fake_api.extensions = tuple(each for each in EXTENSIONS if each != "status-wait")
    for keep in (False, True):
        with pytest.raises(TimedOut), make("x", timeout=0.2, keep=keep):
            pass
    with fake_api.lock:
        assert {each.status for each in fake_api.sandboxes.values() if each.name != "one"} <= {"stopping"}


def test_a_plain_server_has_sandboxes_too(make: Make, fake_api: FakeApi) -> None:
    """Where the server knows name and key alone, they are all that is sent, and what goes beyond is refused."""
    fake_api.extensions = ()
    with make("x") as box:
        result = box.exec(["echo", "hello"])
        assert (result.stdout, result.refused) == ("hello\n", None)
    body = next(call.body for call in fake_api.calls if call.line == "POST /sandboxes")
    assert body.keys() == {"name", "public_key"}
    with pytest.raises(ApiError), make("x", cpus=2):
        pass


def test_wait_is_a_call_of_the_client(fake_api: FakeApi, irons_env: dict[str, str]) -> None:
    """`api.wait` returns once the state is there, and raises where it is not in time."""
    fake_api.add("new", "creating", becomes="ready", polls=3)
    with irons.connect(fake_api.url, env=irons_env) as api:
        assert api.wait("new").status == "ready"
        with pytest.raises(TimedOut):
            api.wait("new", "stopped", timeout=0.1)


# Programs


def test_a_program_with_all_that_it_takes(make: Make, tmp_path: Path) -> None:
    """Words, stdin, variables, directory, streams and exit code are the program's; output is passed on as it comes."""
    pieces: list[bytes] = []
    with make("one", attach=True) as box:
        script = 'cat; printf %s "$TOKEN"; pwd; echo "$1" >&2; exit 7'
        result = box.exec(
            ["sh", "-c", script, "sh", "a  b"],
            stdin="in ",
            env={"TOKEN": "it's\n$x "},
            cwd=str(tmp_path),
            on_stdout=pieces.append,
        )
        assert result.stdout == f"in it's\n$x {tmp_path}\n"
        assert b"".join(pieces).decode() == result.stdout
        assert (result.exit, result.stderr, result.ok, result.signal) == (7, "a  b\n", False, None)
        assert result.refused == result.unreachable == ()
        with pytest.raises(irons.ProgramError, match="exit code 7") as caught:
            result.check()
        assert caught.value.result is result
        assert box.exec(["cat"]).check().stdout == ""
        with (tmp_path / "in").open("w+b") as file:
            file.write(b"\xff\x00")
            file.seek(0)
            told = box.exec(["cat"], stdin=file)
            assert not file.closed
        assert (told.stdout_bytes, told.stdout_encoding) == (b"\xff\x00", "base64")


def test_values_are_in_no_argument_list(make: Make) -> None:
    """While a program runs that has a variable, no process of this machine, and so of the sandbox, has its value as a word."""
    secret = f"secret-{os.urandom(8).hex()}"
    words = ["sh", "-c", "echo begun; cat"]
    with make("one", attach=True) as box, box.popen(words, env={"TOKEN": secret}) as process:
        assert process.stdout.readline() == b"begun\n"
        held = [path for path in Path("/proc").glob("[0-9]*/cmdline") if secret.encode() in _read(path)]
        assert held == []
        process.stdin.close()
        assert process.wait().ok


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"argv": "ls"}, "as a list"),
        ({"argv": []}, "as a list"),
        ({"argv": ["a\0b"]}, "zero byte"),
        ({"argv": ["ls"], "env": {"A B": "x"}}, "name of a variable"),
        ({"argv": ["ls"], "env": {"A": "\0"}}, "zero byte"),
        ({"argv": ["ls"], "timeout": 0}, "above 0"),
        ({"argv": ["ls"], "timeout": float("nan")}, "above 0"),
        ({"argv": ["ls"], "cwd": "\0"}, "zero byte"),
    ],
)
def test_words_that_are_refused_run_nothing(
    make: Make, fake_api: FakeApi, wrong: dict[str, Any], match: str
) -> None:
    """What no program can be given is refused before the server is asked."""
    with make("one", attach=True) as box:
        before = len(fake_api.calls)
        with pytest.raises(UsageError, match=match):
            box.exec(**wrong)
        assert len(fake_api.calls) == before


def test_time_runs_out(make: Make) -> None:
    """After `timeout` the program and what it started are ended, and the result says so."""
    nap = seconds()
    with make("one", attach=True) as box:
        result = box.exec(["sh", "-c", f"sleep {nap}"], timeout=0.3)
    assert (result.exit, result.timed_out) == (124, True)
    until(lambda: not running(nap))


def test_what_was_refused_is_in_the_result(make: Make, fake_api: FakeApi) -> None:
    """Refusals of while the program ran come as rows."""
    with make("one", attach=True) as box, box.popen(["sh", "-c", "echo begun; cat"]) as process:
        assert process.stdout.readline() == b"begun\n"
        fake_api.record("evil.example", allowed=False, verdict="blocked", reason="no rule allows it")
        process.stdin.close()
        result = process.wait()
    assert result.refused is not None
    assert [tuple(each) for each in result.refused] == [("evil.example", 443, "no rule allows it", 1)]


def test_only_the_end_of_much_is_kept(make: Make) -> None:
    """A result has the last bytes of a stream, and says that others are missing."""
    with make("one", attach=True) as box:
        result = box.exec(["sh", "-c", "head -c 100000 /dev/zero; echo end"], keep=10)
    assert (result.stdout, result.stdout_cut) == ("\0" * 6 + "end\n", True)


def test_a_callers_error_ends_the_program(make: Make) -> None:
    """What a callback raises comes out of `exec`, and the program has been ended."""
    nap = seconds()

    def refuse(data: bytes) -> None:
        raise ZeroDivisionError(data)

    with make("one", attach=True) as box, pytest.raises(ZeroDivisionError):
        box.exec(["sh", "-c", f"echo begun; exec sleep {nap}"], on_stdout=refuse)
    until(lambda: not running(nap))


def test_a_process_is_killed_and_left(make: Make) -> None:
    """`kill` ends what runs, also while no one reads what it writes; so does leaving it; `wait` has a limit."""
    nap = seconds()
    with make("one", attach=True) as box:
        process = box.popen(["sh", "-c", f"sleep {nap} & exec cat /dev/zero"])
        with process:
            assert process.stdout.read(1) == b"\0"
            assert process.poll() is None
            with pytest.raises(TimedOut):
                process.wait(0.1)
            process.kill()
            assert process.wait().exit == 143
            until(lambda: not running(nap))
        with box.popen(["sleep", nap]):
            until(lambda: running(nap))
        until(lambda: not running(nap))
        out, err = box.popen(["sh", "-c", "cat; echo err >&2"]).communicate(b"x" * 300_000)
        assert (len(out), err) == (300_000, b"err\n")


def test_a_lost_sandbox_is_an_error(make: Make, fake_api: FakeApi) -> None:
    """Where OpenSSH can't get there the call raises, and so do `wait` and `poll` of a process."""
    with make("one", attach=True) as box:
        with fake_api.lock:
            fake_api.ssh = {**fake_api.ssh, "port": 1}
        with pytest.raises(IronsError, match="SSH to one failed"):
            box.exec(["true"])
        process = box.popen(["true"])
        with pytest.raises(IronsError), process:
            process.wait()


def test_ctrl_c_ends_the_program_and_destroys_the_sandbox(make: Make, fake_api: FakeApi, into: Irons) -> None:
    """A program that uses the library and is interrupted leaves neither a process nor a sandbox; SIGTERM stays its own."""
    nap = seconds()
    assert isinstance(make, partial)
    code = (
        "import irons, signal\n"
        # Coverage, where it is on, handles SIGTERM.
        "before = signal.getsignal(signal.SIGTERM)\n"
        "with irons.sandbox('x') as box:\n"
        "    assert signal.getsignal(signal.SIGTERM) == before\n"
        f"    box.exec(['sleep', '{nap}'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**make.keywords["env"]}, stderr=subprocess.PIPE
    )
    into.started.append(process)
    until(lambda: running(nap))
    process.send_signal(2)
    _, said = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in said
    until(lambda: not running(nap))
    assert names(fake_api) == set()


@pytest.mark.parametrize("late", ["POST /sandboxes", "GET /sandboxes/x/egress/mode"])
@pytest.mark.parametrize("keep", [False, True], ids=["removed", "kept"])
def test_ctrl_c_while_it_is_created_leaves_no_sandbox(
    make: Make, fake_api: FakeApi, into: Irons, late: str, *, keep: bool
) -> None:
    """An interrupt between the request for a sandbox and its being ready leaves none, though the server answers only later."""
    assert isinstance(make, partial)
    # It is never ready, so that the interrupt comes before that.
    fake_api.polls = 1_000_000
    fake_api.extensions = tuple(each for each in EXTENSIONS if each != "status-wait")
    fake_api.fail(faults.slow(1), on=late)
    process = subprocess.Popen(
        [sys.executable, "-c", f"import irons\nwith irons.sandbox('x', keep={keep}): pass"],
        env={**make.keywords["env"]},
        stderr=subprocess.PIPE,
    )
    into.started.append(process)
    until(lambda: late in fake_api.lines())
    process.send_signal(2)
    _, said = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in said
    assert names(fake_api) == set()


# Files


def test_files_go_there_and_back(make: Make, sshd: Sshd, tmp_path: Path) -> None:
    """What is written is read as it was, whole, by paths of any form; a mode is kept or given; a link is replaced."""
    data = os.urandom(100_000)
    with make("one", attach=True) as box:
        box.write("a b/it's/$x", data, mode=0o755)
        assert box.read("~/a b/it's/$x") == data
        there = sshd.home / "a b" / "it's" / "$x"
        box.write(str(there), "ü\n")
        assert (there.read_text(), there.stat().st_mode & 0o777) == ("ü\n", 0o755)
        assert box.read_text(str(there)) == "ü\n"
        (tmp_path / "real").write_text("mine")
        (tmp_path / "link").symlink_to("real")
        box.write(str(tmp_path / "link"), "new")
        assert (tmp_path / "real").read_text() == "mine"
        assert (tmp_path / "link").read_text() == "new"
        box.write("-n", b"dash")
        assert box.read("-n") == b"dash"


def test_files_that_are_refused(make: Make, tmp_path: Path) -> None:
    """What is absent, a directory or too large is an error of its own; nothing is written over a directory."""
    with make("one", attach=True) as box:
        with pytest.raises(NotFound, match=r"there is no nowhere in one"):
            box.read("nowhere")
        with pytest.raises(IronsError, match="is a directory"):
            box.read(str(tmp_path))
        with pytest.raises(IronsError, match="larger than 1,000 bytes"):
            box.read("/dev/zero", most=1000)
        with pytest.raises(IronsError, match="is a directory"):
            box.write(str(tmp_path), b"x")
        with pytest.raises(UsageError):
            box.write("x", b"", mode=0o17777)
        with pytest.raises(UsageError):
            box.read("")
        assert list(tmp_path.glob("*.irons-*")) == []


def test_a_directory_is_listed(make: Make, tmp_path: Path) -> None:
    """Entries have kind, size and mode; names with any character come as they are; bounds hold."""
    place = tmp_path / "d"
    place.mkdir()
    (place / "new\nline").write_text("abc")
    (place / ".hidden").mkdir(mode=0o700)
    (place / "-l").symlink_to("nowhere")
    os.mkfifo(place / "pipe")
    with make("one", attach=True) as box:
        found = {entry.name: entry for entry in box.list(str(place))}
        kinds = {name: entry.kind for name, entry in found.items()}
        assert kinds == {"new\nline": "file", ".hidden": "directory", "-l": "link", "pipe": "other"}
        assert (found["new\nline"].size, found[".hidden"].mode) == (3, 0o700)
        assert found["pipe"].modified is not None
        assert [entry.name for entry in box.list(str(place))] == sorted(found)
        (tmp_path / "empty").mkdir()
        assert box.list(str(tmp_path / "empty")) == ()
        with pytest.raises(IronsError, match="more than 3 entries"):
            box.list(str(place), most=3)
        with pytest.raises(NotFound):
            box.list("nowhere")
        with pytest.raises(IronsError, match="is not a directory"):
            box.list(str(place / "pipe"))


@pytest.mark.parametrize(
    "data",
    [
        b"./../x\0\x0081a4 1 1\0",
        b"./a/b\0\x0081a4 1 1\0",
        b"./..\0\x0081a4 1 1\0",
        b"./a\0./b\0\x0081a4 1 1\0",
        b"./a\0\x00what\0",
        b"./a\0\x0081a4 1 1\n81a4 1 1\0",
        b"nonsense",
        b"./" + b"a" * 300 + b"\0\x0081a4 1 1\0",
    ],
)
def test_a_hostile_list_is_refused(data: bytes) -> None:
    """Names that lead elsewhere, and lists that are not as they should be, are an error and no entry."""
    from irons_plugins.box.files import _entries

    with pytest.raises(ApiError, match="invalid list"):
        _entries(data, "one", "~")


def test_directories_go_there_and_back(make: Make, sshd: Sshd, tmp_path: Path) -> None:
    """A directory and a file are copied under their own names, links as links; what leads out of it is left out."""
    source = tmp_path / "pro ject"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_text("x")
    (source / "link").symlink_to("deep/file")
    with make("one", attach=True) as box:
        box.upload(source, "there/in")
        box.upload(source / "deep" / "file", "there")
        there = sshd.home / "there"
        assert (there / "in" / "pro ject" / "link").readlink() == Path("deep/file")
        assert (there / "file").read_text() == "x"
        (there / "in" / "out").symlink_to("/etc/passwd")
        back = tmp_path / "back"
        back.mkdir()
        placed = box.download("there/in", back)
        assert (back / "in" / "pro ject" / "deep" / "file").read_text() == "x"
        assert placed.left_out == {"links that lead out": 1}
        box.download(f"{there}/file", back)
        assert (back / "file").read_text() == "x"
        with pytest.raises(NotFound, match="there is no there/nothing in one"):
            box.download("there/nothing", back)
        with pytest.raises(IronsError, match="bytes came"):
            box.download("there", back, most=0)
        for path, into in (("~", back), ("a/../b", back), ("there", tmp_path / "none")):
            with pytest.raises(UsageError):
                box.download(path, into)
        with pytest.raises(IronsError, match="No such file"):
            box.upload(tmp_path / "none")


# Ports and events


HELLO = f"hello {os.urandom(8).hex()}".encode()
"""What the server of this process says, and no other one."""


class _Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(HELLO)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Keep quiet."""


@pytest.fixture
def served() -> Any:
    """The port of a server in the sandbox."""
    server = HTTPServer(("127.0.0.1", 0), _Hello)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def leads_there(port: int) -> bool:
    """Tell whether a port leads to the server, and not to nobody or to who was given it since."""
    try:
        with urlopen(f"http://127.0.0.1:{port}", timeout=30) as answer:
            return bool(answer.read() == HELLO)
    except (OSError, HTTPException):
        return False


def test_a_port_leads_there_while_the_context_lasts(make: Make, served: int) -> None:
    """A free port here leads to the port there, and is closed afterwards; one that is taken is refused."""
    with make("one", attach=True) as box:
        with box.forward(served) as port, urlopen(f"http://127.0.0.1:{port}", timeout=30) as answer:
            assert answer.read() == HELLO
        assert not leads_there(port)
        with pytest.raises(IronsError, match="can't be listened on"), box.forward(80, local_port=served):
            pass
        with pytest.raises(UsageError), box.forward(0):
            pass


def test_events_are_followed(make: Make, fake_api: FakeApi) -> None:
    """What is there comes first, then each event as it happens; filters hold; `allow` and `check` are the sandbox's."""
    fake_api.record("a.example")
    fake_api.record("b.example", allowed=False, verdict="blocked")
    with make("one", attach=True) as box:
        assert [event.host for event in box.events()] == ["a.example", "b.example"]
        assert [event.host for event in box.events(verdict="denied")] == ["b.example"]
        coming = box.events(follow=True, host="*.example")
        assert [next(coming).host, next(coming).host] == ["a.example", "b.example"]
        fake_api.record("c.example")
        assert next(coming).host == "c.example"
        with pytest.raises(UsageError):
            box.events(host="https://a.example")
        assert box.allow("a.example", "c.example", note="mine").rules[0].changed
        assert {rule.pattern for rule in box.api.rules("one").rules} == {"a.example", "c.example"}
        assert box.check("a.example").host == "a.example"


def test_it_is_stopped_and_started(make: Make) -> None:
    """`stop` and `start` wait, and are a success where that is so already."""
    with make("x") as box:
        assert box.stop().status == "stopped"
        assert box.stop().status == "stopped"
        assert box.start().status == "ready"
        assert box.exec(["true"]).ok


# The same with async


def test_the_same_with_async(
    made: Callable[..., Any], fake_api: FakeApi, served: int, tmp_path: Path
) -> None:
    """Calls are awaited, run side by side, and call back in the loop's thread; contexts and iterators are asynchronous."""

    async def main() -> None:
        here: set[int] = set()
        async with made("x") as box:
            assert box.name == "x"
            both = await asyncio.gather(
                box.exec(["cat"], stdin=b"in"),
                box.exec(["echo", "out"], on_stdout=lambda _: here.add(threading.get_ident())),
            )
            assert [result.stdout for result in both] == ["in", "out\n"]
            assert here == {threading.get_ident()}
            await box.write(str(tmp_path / "f"), "text")
            assert await box.read_text(str(tmp_path / "f")) == "text"
            assert [entry.name for entry in await box.list(str(tmp_path))] >= ["f"]
            async with await box.popen(["cat"]) as process:
                await process.stdin.write(b"one\ntwo\n")
                await process.stdin.close()
                assert [line async for line in process.stdout] == [b"one\n", b"two\n"]
                assert (await process.wait()).exit == 0
            async with box.forward(served) as port:
                assert await aio.in_thread(_fetched, port) == HELLO
            fake_api.record("a.example", "x")
            async for event in box.events(follow=True):
                assert event.host == "a.example"
                break
            with pytest.raises(NotFound):
                await box.read("nowhere")

    asyncio.run(main())
    assert names(fake_api) == set()


def _fetched(port: int) -> bytes:
    with urlopen(f"http://127.0.0.1:{port}", timeout=30) as answer:
        found: bytes = answer.read()
        return found


def test_a_cancelled_task_ends_what_it_started(made: Callable[..., Any], fake_api: FakeApi) -> None:
    """Cancelling ends the program, what follows the log, and the sandbox, before the cancellation goes on."""
    nap = seconds()

    async def work() -> None:
        async with made("x") as box:
            await box.exec(["sleep", nap])

    async def follow() -> None:
        async with made("one", attach=True) as box:
            async for _ in box.events(follow=True):
                pass

    async def main() -> None:
        tasks = [asyncio.create_task(work()), asyncio.create_task(follow())]
        await aio.in_thread(until, lambda: running(nap))
        await aio.in_thread(until, lambda: any("wait" in call.query for call in fake_api.calls))
        for task in tasks:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in done] == [asyncio.CancelledError] * 2

    asyncio.run(main())
    until(lambda: not running(nap))
    assert names(fake_api) == set()


def test_cancelling_a_creation_leaves_nothing(made: Callable[..., Any], fake_api: FakeApi) -> None:
    """A task that is cancelled while its sandbox is made has it destroyed."""
    fake_api.polls = 10_000
    fake_api.extensions = tuple(each for each in EXTENSIONS if each != "status-wait")

    async def work() -> None:
        async with made("x"):
            pass

    async def main() -> None:
        task = asyncio.create_task(work())
        await aio.in_thread(until, lambda: "GET /sandboxes/x" in fake_api.lines())
        with fake_api.lock:
            fake_api.polls = fake_api.sandboxes["x"].polls = 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert names(fake_api) == set()


def test_a_box_is_forked(make: Make, fake_api: FakeApi) -> None:
    """Its copies are boxes that are ready, and outlive the block; a snapshot is what the server tells."""
    with make("box") as box:
        assert box.snapshot("clean").name == "clean"
        copies = box.fork("copy", "two")
        assert [(copy.name, copy.status().status) for copy in copies] == [("copy", "ready"), ("two", "ready")]
    assert names(fake_api) == {"copy", "two"}
