"""What any engine must do, as checks that run against a real one; no test framework is needed.

A test suite makes a `Bench` for its engine and runs each of `CHECKS` on it; a check that returns holds, one that
raises `NotConformingError` says what does not. Each makes sandboxes of its own, and `Bench.close` removes them.

    for name, check in CHECKS.items():
        async with Bench(make_engine, directory) as bench:
            await check(bench)
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shlex
import shutil
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from irons_local.bundle.sshd import key_id
from irons_local.engines.protocol import SSH_PORT, Admits, Announces, Booter, Engine, Made, Spec
from irons_local.errors import EngineError
from irons_local.limits import Limits

_COMMAND_WITHIN = 60.0
_CHUNK = 65536
_KEPT = 64 << 10
_LOST = 255
"""How ssh(1) exits where the program ended by a signal."""


class NotConformingError(Exception):
    """The engine does not do what `Engine` promises."""


class Ran(NamedTuple):
    """A command that ran in a sandbox: its exit code, and its output and errors as one text."""

    code: int
    text: str


def expect(true: object, what: str) -> None:
    """Raise NotConformingError with `what` unless it is true."""
    if not true:
        raise NotConformingError(what)


class Bench:
    """An engine under test, with a key pair and a way to run commands in its sandboxes.

    Args:
        make: makes the engine; called again, it makes one that knows the same sandboxes, as after a restart.
        directory: an empty one of this process's own.
        image: the image to start from; "" for the engine's default.
    """

    def __init__(self, make: Callable[[], Engine], directory: Path, image: str = "") -> None:
        self._make = make
        self.directory = directory
        self._image = image
        self._ids: list[str] = []
        self.engine = make()

    async def __aenter__(self) -> Self:
        await _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.directory / "id"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sandbox in self._ids:
            await self.engine.destroy(sandbox)
        shutil.rmtree(self.directory)

    def restart(self) -> Engine:
        """Go on with an engine that was made again."""
        self.engine = self._make()
        return self.engine

    def spec(
        self,
        name: str = "conforming",
        limits: Limits | None = None,
        public_key: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Spec:
        """A sandbox that is not there yet, and is removed at the end."""
        identifier = f"sb_{secrets.token_hex(8)}"
        self._ids.append(identifier)
        key = (self.directory / "id.pub").read_text(encoding="utf-8") if public_key is None else public_key
        return Spec(identifier, name, key, self._image, limits or Limits(), environment or {})

    async def running(
        self,
        name: str = "conforming",
        limits: Limits | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> tuple[str, Made]:
        """A sandbox that runs: its id, and what is known of it."""
        spec = self.spec(name, limits, environment=environment)
        made = await self.engine.create(spec)
        await self.engine.start(spec.id)
        return spec.id, made

    async def second_key(self) -> str:
        """Make another key pair, `id2`; gives its public key."""
        await _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.directory / "id2"))
        return (self.directory / "id2.pub").read_text(encoding="utf-8")

    async def ssh(
        self,
        sandbox: str,
        made: Made,
        command: str,
        *,
        subsystem: bool = False,
        terminal: bool = False,
        key: str = "id",
    ) -> Ran:
        """Run a command over SSH, on a terminal or not, or ask for a subsystem, with one of the keys, checking the host key strictly."""
        known = self.directory / f"known-{sandbox}"
        known.write_text("".join(f"sandbox {key}\n" for key in made.host_keys), encoding="utf-8")
        server = await asyncio.start_server(
            lambda reader, writer: self._relay(sandbox, reader, writer), "127.0.0.1", 0
        )
        async with server:
            port = server.sockets[0].getsockname()[1]
            options = {
                "UserKnownHostsFile": str(known),
                "GlobalKnownHostsFile": "/dev/null",
                "HostKeyAlias": "sandbox",
                "StrictHostKeyChecking": "yes",
                "BatchMode": "yes",
                "IdentitiesOnly": "yes",
                "ControlPath": "none",
                "RequestTTY": "force" if terminal else "no",
            }
            words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
            identity = ["-F", "none", "-i", str(self.directory / key), "-p", str(port)]
            asked = ["-s"] if subsystem else []
            return await _run("ssh", *identity, *words, *asked, f"{made.username}@127.0.0.1", command)

    async def _relay(self, sandbox: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            connection = await self.engine.connect(sandbox, port=SSH_PORT)
            inside, outside = await asyncio.open_connection(sock=connection)
            await asyncio.gather(_copy(reader, outside), _copy(inside, writer))
        except (EngineError, OSError):
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _run(*words: str) -> Ran:
    process = await asyncio.create_subprocess_exec(*words, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT)
    try:
        async with asyncio.timeout(_COMMAND_WITHIN):
            out, _ = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    return Ran(process.returncode or 0, out.decode(errors="replace"))


async def _refused(work: Awaitable[object], *codes: str) -> None:
    try:
        await work
    except EngineError as error:
        expect(
            error.code in codes, f"refused with code {error.code!r} instead of {' or '.join(codes)}: {error}"
        )
        expect("\n" not in error.message, f"a message of more than one line: {error.message!r}")
    else:
        raise NotConformingError(f"not refused, which should have been with {' or '.join(codes)}")


async def create_makes_it_stopped(bench: Bench) -> None:
    """A created sandbox is there, stopped, and its host keys are known."""
    spec = bench.spec()
    made = await bench.engine.create(spec)
    look = await bench.engine.look(spec.id)
    expect(look.state == "stopped", f"it is {look.state} after create")
    expect(made.username and made.host_keys, "no user name or no host key is known after create")
    expect(
        all(key.split()[0].startswith(("ssh-", "ecdsa-")) for key in made.host_keys), "that is not a host key"
    )


async def create_refuses_what_is_there(bench: Bench) -> None:
    """An id is taken once."""
    spec = bench.spec()
    await bench.engine.create(spec)
    await _refused(bench.engine.create(spec), "exists")
    expect((await bench.engine.look(spec.id)).state == "stopped", "the refused create harmed what was there")


async def create_refuses_bad_input(bench: Bench) -> None:
    """A key that is not one, and an image that is not there, make no sandbox."""
    spec = bench.spec(public_key="not a key")
    await _refused(bench.engine.create(spec), "input")
    expect((await bench.engine.look(spec.id)).state == "absent", "something is left of a refused create")
    unknown = Spec(bench.spec().id, "conforming", spec.public_key, "no-such-image")
    await _refused(bench.engine.create(unknown), "image", "input")
    expect((await bench.engine.look(unknown.id)).state == "absent", "something is left of a refused create")


async def start_answers_ssh(bench: Bench) -> None:
    """After start its SSH server answers with the host key that create gave; user, name and sudo are right."""
    sandbox, made = await bench.running("box-1")
    look = await bench.engine.look(sandbox)
    expect(look.state == "running", f"it is {look.state} after start")
    expect((look.facts or {}).get("engine") == bench.engine.name, "the facts do not name the engine")
    ran = await bench.ssh(sandbox, made, "id -un; hostname; sudo -n id -u")
    expect(ran == Ran(0, f"{made.username}\nbox-1\n0\n"), f"inside: {ran}")


async def calls_may_be_repeated(bench: Bench) -> None:
    """Starting what runs, stopping what is stopped and destroying what is gone are no errors."""
    sandbox, made = await bench.running()
    await bench.engine.start(sandbox)
    expect((await bench.ssh(sandbox, made, "true")).code == 0, "a second start broke it")
    await bench.engine.stop(sandbox)
    await bench.engine.stop(sandbox)
    expect((await bench.engine.look(sandbox)).state == "stopped", "it is not stopped")
    await bench.engine.destroy(sandbox)
    await bench.engine.destroy(sandbox)
    expect((await bench.engine.look(sandbox)).state == "absent", "it is not gone")


async def open_terminals_hear_announcements(bench: Bench) -> None:
    """Where an engine writes to terminals: the line is on that of each session, and in no session without one."""
    if not isinstance(bench.engine, Announces):
        return
    sandbox, made = await bench.running()
    script = "touch /tmp/{0}; while [ ! -e /tmp/go ]; do sleep 0.05; done"
    terminals = {"first": True, "second": True, "none": False}
    sessions = {
        name: asyncio.create_task(bench.ssh(sandbox, made, script.format(name), terminal=terminal))
        for name, terminal in terminals.items()
    }
    ready = "until [ -e /tmp/first ] && [ -e /tmp/second ] && [ -e /tmp/none ]; do sleep 0.05; done"
    await bench.ssh(sandbox, made, ready)
    await bench.engine.announce(sandbox, "it ends soon")
    await bench.ssh(sandbox, made, "touch /tmp/go")
    heard = {name: (await session).text.count("it ends soon") for name, session in sessions.items()}
    expect(heard == {"first": 1, "second": 1, "none": 0}, f"the line was heard: {heard}")
    await bench.engine.stop(sandbox)
    await bench.engine.announce(sandbox, "it ends soon")


async def keys_change_who_enters(bench: Bench) -> None:
    """Where an engine can change the keys: at once, the sessions of a removed key end, and it holds after a restart."""
    if not isinstance(bench.engine, Admits):
        return
    sandbox, made = await bench.running()
    first, second = bench.spec().public_key, await bench.second_key()
    expect(
        (await bench.ssh(sandbox, made, "true", key="id2")).code == _LOST, "a key opens it that was not given"
    )
    await bench.engine.admit(sandbox, first + second)
    script = "touch /tmp/{0}; while [ ! -e /tmp/go ]; do sleep 0.05; done"
    sessions = {
        key: asyncio.create_task(bench.ssh(sandbox, made, script.format(key), key=key))
        for key in ("id", "id2")
    }
    ready = await bench.ssh(
        sandbox, made, "until [ -e /tmp/id ] && [ -e /tmp/id2 ]; do sleep 0.05; done", key="id2"
    )
    expect(ready.code == 0, f"the second key does not open it: {ready.text}")
    await bench.engine.admit(sandbox, first, [key_id(second)])
    ended = await sessions["id2"]
    expect(ended.code == _LOST, f"the session of a removed key ended with {ended}")
    expect((await bench.ssh(sandbox, made, "true", key="id2")).code == _LOST, "a removed key still opens it")
    expect(not sessions["id"].done(), "the session of another key has ended, too")
    await bench.ssh(sandbox, made, "touch /tmp/go")
    expect((await sessions["id"]).code == 0, "the session of another key was harmed")
    await bench.engine.stop(sandbox)
    await bench.engine.admit(sandbox, second, [key_id(first)])
    await bench.engine.start(sandbox)
    expect(
        (await bench.ssh(sandbox, made, "true", key="id2")).code == 0,
        "a key that was added while it was stopped",
    )
    expect(
        (await bench.ssh(sandbox, made, "true")).code == _LOST, "a key that was removed while it was stopped"
    )


async def absent_is_said(bench: Bench) -> None:
    """What is not there cannot be started, stopped or connected to."""
    absent = bench.spec().id
    await _refused(bench.engine.start(absent), "absent")
    await _refused(bench.engine.stop(absent), "absent")
    await _refused(bench.engine.connect(absent), "absent")
    await bench.engine.wait(absent)


async def files_survive(bench: Bench) -> None:
    """Files and host key are the same after stop and start."""
    sandbox, made = await bench.running()
    command = (
        "echo kept > kept; sudo sh -c 'echo kept > /srv/kept'; sudo rm /etc/debian_version /usr/bin/clear -f"
    )
    await bench.ssh(sandbox, made, command)
    await bench.engine.stop(sandbox)
    await bench.engine.start(sandbox)
    ran = await bench.ssh(sandbox, made, "cat kept /srv/kept; test -e /usr/bin/clear || echo removed")
    expect(ran == Ran(0, "kept\nkept\nremoved\n"), f"after a restart: {ran}")


async def sessions_have_the_machines_variables(bench: Bench) -> None:
    """A session has a UTF-8 locale and what `/etc/environment` says at that moment; files are copied as ever."""
    sandbox, made = await bench.running(environment={"KEY": 'it\'s\n$(a) "key"', "FOO": "early"})
    script = """
    locale charmap; printf 'set -x\\nexport FOO=late\\nexport BAR="a b"\\nPATH=/opt:$PATH\\nOPTIND=x\\nUID=x\\n' | sudo tee /etc/environment >/dev/null
    """
    ran = await bench.ssh(sandbox, made, script)
    expect(ran == Ran(0, "UTF-8\n"), f"a first session: {ran}")
    ran = await bench.ssh(sandbox, made, 'echo "$BAR$FOO"; echo "${PATH%%:*}"; exec sh -c \'exit 7\'')
    expect(ran == Ran(7, "a bearly\n/opt\n"), f"a second session: {ran}")
    await bench.engine.stop(sandbox)
    await bench.engine.start(sandbox)
    ran = await bench.ssh(sandbox, made, 'echo "$KEY$FOO"')
    expect(ran == Ran(0, 'it\'s\n$(a) "key"early\n'), f"variables of create: {ran}")
    ran = await bench.ssh(sandbox, made, "kill -9 $$")
    expect(ran.code == _LOST, f"a session that ended by a signal: {ran}")
    ran = await bench.ssh(sandbox, made, "sftp", subsystem=True)
    expect(ran.code == 0, f"the subsystem sftp: {ran}")


async def what_was_enabled_starts(bench: Bench) -> None:
    """Enabled services and `/etc/irons/boot` start at each start, as root, and end with it; without boot, none."""
    sandbox, made = await bench.running(environment={"KEY": "value"})
    install = """
    printf '#!/bin/sh\\necho "service $1 $KEY"; echo $1 >>/srv/service; exit 3\\n' >/etc/rc2.d/S02late; chmod 755 /etc/rc2.d/S02late
    printf '#!/bin/sh\\necho ssh >>/srv/service\\n' >/etc/rc2.d/S01ssh; chmod 755 /etc/rc2.d/S01ssh
    printf '#!/bin/sh\\ntrap "echo asked >/srv/asked; exit 4" TERM; id -u; cat /srv/service; yes | head -c 300000; echo last\\nsleep 1000 & wait\\n' >/etc/irons/boot
    chmod 755 /etc/irons/boot
    """
    ran = await bench.ssh(sandbox, made, f"sudo mkdir /etc/irons; sudo sh -c {shlex.quote(install)}")
    expect(ran.code == 0, ran.text)
    await _restarted(bench, sandbox)
    ended = "sudo sh -c 'while ! grep -q last /run/irons/log/output; do sleep 0.1; done; cat /srv/service'"
    ran = await bench.ssh(sandbox, made, ended)
    expect(ran == Ran(0, "start\n"), f"services: {ran}")
    facts = (await bench.engine.look(sandbox)).facts or {}
    expect(facts.get("boot") == "running", f"facts while it boots: {facts}")
    expect(isinstance(bench.engine, Booter), "the engine keeps no output")
    await bench.ssh(sandbox, made, "sudo kill -TERM $(pidof -x boot)")
    exited = "while ! grep . /run/irons/log/exit; do sleep 0.1; done"
    ran = await bench.ssh(sandbox, made, exited)
    expect(ran == Ran(0, "3\n"), f"exit code: {ran}")
    facts = (await bench.engine.look(sandbox)).facts or {}
    expect((facts.get("boot"), facts.get("boot_exit")) == ("done", "3"), f"facts after it: {facts}")
    await _restarted(bench, sandbox)
    await bench.ssh(sandbox, made, f"{ended}; sudo rm /srv/asked")
    await bench.engine.stop(sandbox, grace=_COMMAND_WITHIN)
    if isinstance(bench.engine, Booter):
        output = await bench.engine.boot_output(sandbox)
        expect(output.endswith(b"y\nlast\n"), f"its last words: {output[-200:]!r}")
        expect(_KEPT // 2 <= len(output) <= _KEPT, f"{len(output)} bytes of output are kept")
    await bench.engine.start(sandbox, boot=False)
    ran = await bench.ssh(sandbox, made, "cat /srv/asked; pidof -x boot; wc -l </srv/service")
    expect(ran == Ran(0, "asked\n2\n"), f"without boot: {ran}")
    facts = (await bench.engine.look(sandbox)).facts or {}
    expect(facts.get("boot") == "skipped", f"facts without it: {facts}")


async def _restarted(bench: Bench, sandbox: str) -> None:
    await bench.engine.stop(sandbox)
    await bench.engine.start(sandbox)


async def stop_asks_first(bench: Bench) -> None:
    """A process is asked to end and has time for it."""
    sandbox, made = await bench.running()
    script = (
        "trap 'sleep 0.3; echo asked > asked; sync; exit' TERM; touch ready; while :; do sleep 0.05; done"
    )
    await bench.ssh(
        sandbox, made, f'nohup setsid sh -c "{script}" >/dev/null 2>&1 & while ! test -e ready; do :; done'
    )
    await bench.engine.stop(sandbox, grace=_COMMAND_WITHIN)
    await bench.engine.start(sandbox)
    ran = await bench.ssh(sandbox, made, "cat asked")
    expect(ran == Ran(0, "asked\n"), f"the process was not asked to end: {ran}")


async def stop_ends_the_stubborn(bench: Bench) -> None:
    """A process that will not end is ended when its time is over."""
    sandbox, made = await bench.running()
    script = "trap : TERM HUP; touch ready; while :; do sleep 0.05; done"
    await bench.ssh(
        sandbox, made, f'nohup setsid sh -c "{script}" >/dev/null 2>&1 & while ! test -e ready; do :; done'
    )
    async with asyncio.timeout(_COMMAND_WITHIN):
        await bench.engine.stop(sandbox, grace=0.5)
    expect((await bench.engine.look(sandbox)).state == "stopped", "it runs on")


async def wait_tells_of_an_end(bench: Bench) -> None:
    """A machine that ends by itself is noticed, and can be started again."""
    sandbox, made = await bench.running()
    waiting = asyncio.ensure_future(bench.engine.wait(sandbox))
    try:
        await bench.ssh(sandbox, made, "sudo sh -c 'poweroff 2>/dev/null || kill 1'")
        async with asyncio.timeout(_COMMAND_WITHIN):
            await waiting
    finally:
        waiting.cancel()
    expect((await bench.engine.look(sandbox)).state == "stopped", "it ended and is not stopped")
    await bench.engine.start(sandbox)
    expect((await bench.ssh(sandbox, made, "true")).code == 0, "it cannot be started again")


async def restart_finds_what_runs(bench: Bench) -> None:
    """An engine that was made again takes up what runs, and can do all with it."""
    sandbox, made = await bench.running()
    stopped = bench.spec()
    await bench.engine.create(stopped)
    running = await bench.restart().recover()
    expect(sandbox in running and stopped.id not in running, f"recover found {running}")
    expect((await bench.engine.look(sandbox)).state == "running", "it does not see that it runs")
    expect((await bench.ssh(sandbox, made, "true")).code == 0, "it cannot be reached")
    await bench.engine.stop(sandbox)
    expect((await bench.engine.look(sandbox)).state == "stopped", "it cannot be stopped")


async def an_interrupted_call_leaves_nothing_running(bench: Bench) -> None:
    """A cancelled create or start leaves what destroy can remove, and start can start."""
    for delay in (0.0, 0.01, 0.05, 0.1, 0.2):
        spec = bench.spec()
        await _cancelled(bench.engine.create(spec), delay)
        state = (await bench.engine.look(spec.id)).state
        expect(state in ("absent", "broken", "stopped"), f"a cancelled create left it {state}")
        if state == "absent":
            await bench.engine.create(spec)
        await _cancelled(bench.engine.start(spec.id), delay)
        state = (await bench.engine.look(spec.id)).state
        expect(state in ("stopped", "running"), f"a cancelled start left it {state}")
        await bench.engine.start(spec.id)
        await _cancelled(bench.engine.destroy(spec.id), delay)
        await bench.engine.destroy(spec.id)
        expect((await bench.engine.look(spec.id)).state == "absent", "a cancelled destroy cannot be finished")


async def _cancelled(work: Awaitable[object], after: float) -> None:
    """Begin something and cancel it; what it did before that is its own affair."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(after):
            await work


async def processes_are_limited(bench: Bench) -> None:
    """A sandbox that starts processes without end meets its limit, and answers again after a restart."""
    sandbox, made = await bench.running(limits=Limits(processes=100))
    count = "i=0; while [ $i -lt 300 ]; do sleep 300 >/dev/null 2>&1 & i=$((i+1)); done; echo all"
    ran = await bench.ssh(sandbox, made, f"sh -c '{count}'")
    expect("all" not in ran.text.splitlines(), "300 processes were started where 100 are allowed")
    await bench.engine.stop(sandbox, grace=1.0)
    await bench.engine.start(sandbox)
    expect((await bench.ssh(sandbox, made, "true")).code == 0, "it does not recover from its limit")


async def sandboxes_are_apart(bench: Bench) -> None:
    """Two sandboxes see nothing of one another, nor of this machine's files."""
    (first, made_first), (second, made_second) = await asyncio.gather(
        bench.running("one"), bench.running("two")
    )
    await bench.ssh(first, made_first, "echo secret > /tmp/secret; nohup sleep 4242 >/dev/null 2>&1 &")
    ran = await bench.ssh(second, made_second, "cat /tmp/secret 2>/dev/null; ps ax | grep -c '[s]leep 4242'")
    lines = ran.text.splitlines()
    expect("secret" not in lines, "one sandbox reads the other's files")
    expect("0" in lines, f"one sandbox sees the other's processes: {ran.text}")
    here = await bench.ssh(second, made_second, f"sudo ls {bench.directory}")
    expect(here.code != 0, "a sandbox sees this machine's files")
    await bench.engine.destroy(first)
    expect((await bench.ssh(second, made_second, "true")).code == 0, "destroying one harmed the other")


CHECKS: dict[str, Callable[[Bench], Awaitable[None]]] = {
    check.__name__: check
    for check in (
        create_makes_it_stopped,
        create_refuses_what_is_there,
        create_refuses_bad_input,
        start_answers_ssh,
        calls_may_be_repeated,
        keys_change_who_enters,
        open_terminals_hear_announcements,
        absent_is_said,
        files_survive,
        sessions_have_the_machines_variables,
        what_was_enabled_starts,
        stop_asks_first,
        stop_ends_the_stubborn,
        wait_tells_of_an_end,
        restart_finds_what_runs,
        an_interrupted_call_leaves_nothing_running,
        processes_are_limited,
        sandboxes_are_apart,
    )
}
"""Every check, by name."""
