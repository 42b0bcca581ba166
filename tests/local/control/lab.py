"""A whole control plane in one event loop, between a keeper, a gateway and an engine that only pretend."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import json
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from irons_local import times
from irons_local.config.server import LocalTable, ServerConfig
from irons_local.control.server import Server
from irons_local.control.store.database import Store
from irons_local.control.store.terms import Instant
from irons_local.engines.protocol import Cells, Engine, KeptFiles, Look, Made, Members, OnKept, Spec
from irons_local.errors import EngineError
from irons_local.ipc.aio import AsyncLink
from irons_local.ipc.framing import LinkError, Message
from irons_local.paths import Paths
from irons_local.progress import Progress, unheard

T = TypeVar("T")

if importlib.util.find_spec("sniffio") is None:
    # httpcore looks for it at each request, and Python searches its whole path each time for what is not there.
    sys.modules["sniffio"] = None  # type: ignore[assignment]

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGnJ8Rk9jvXKBv9J8U6Zzr0mFQ4d1vJcS3uJ0Gk4mV5h somebody@example\n"
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHostHostHostHostHostHostHostHostHostHostHost"


class ForwardLoop(asyncio.SelectorEventLoop):
    """A loop whose clock a test puts forward: a limit is reached by that, and never by a machine that stands still."""

    def __init__(self) -> None:
        self._skipped = 0.0
        super().__init__()

    def time(self) -> float:
        """Seconds on its clock."""
        return super().time() + self._skipped

    def skip(self, seconds: float) -> None:
        """Put the clock forward."""
        self._skipped += seconds


def run(work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop | None = None) -> T:
    """Run a test's coroutine; where it never ends, pytest's own limit ends it.

    Args:
        work: the coroutine.
        loop: what runs it, and is closed; None for an ordinary loop.
    """
    with asyncio.Runner(loop_factory=None if loop is None else lambda: loop) as runner:
        return runner.run(work)


async def until(holds: Callable[[], Awaitable[bool]], within: float = 200.0) -> None:
    """Wait until something holds, asking again and again."""
    async with asyncio.timeout(within):
        while not await holds():  # noqa: ASYNC110 (what holds is at the other end of a socket)
            await asyncio.sleep(0.002)


@dataclass
class PretendEngine:
    """An engine whose machines are entries in dicts.

    Attributes:
        cells: the keeper, unused.
        made: sandboxes laid out on the pretended disk.
        running: sandboxes that run.
        admitted: the keys that open a sandbox since they were changed, and those whose sessions were to end.
        calls: what was asked, in order.
        trouble: raised, once, by the next call of that name.
        hold: calls of that name wait for the event.
        booted: whether the last start of each was to boot.
        snapshots: names of the snapshots whose files it keeps, by their ids.
    """

    cells: Cells | None = None
    name: str = "pretend"
    made: dict[str, Spec] = field(default_factory=dict)
    running: dict[str, asyncio.Event] = field(default_factory=dict)
    admitted: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    trouble: dict[str, Exception] = field(default_factory=dict)
    hold: dict[str, asyncio.Event] = field(default_factory=dict)
    booted: dict[str, bool] = field(default_factory=dict)
    snapshots: dict[str, str] = field(default_factory=dict)
    before_start: Callable[[str], None] = lambda _: None
    _echoing: set[asyncio.Task[None]] = field(default_factory=set)

    async def _step(self, call: str, sandbox: str) -> None:
        self.calls.append((call, sandbox))
        if call in self.hold:
            await self.hold[call].wait()
        if call in self.trouble:
            raise self.trouble.pop(call)

    async def recover(self) -> Sequence[str]:
        await self._step("recover", "")
        self.running = {identity: asyncio.Event() for identity in self.running}
        return list(self.running)

    async def create(self, spec: Spec, progress: Progress = unheard) -> Made:
        progress("laying out files", 0.5)
        await self._step("create", spec.id)
        self.made[spec.id] = spec
        return Made("irons", (HOST_KEY,), spec.image or "default")

    async def start(self, sandbox: str, *, boot: bool = True) -> None:
        self.booted[sandbox] = boot
        self.before_start(sandbox)
        await self._step("start", sandbox)
        self.running.setdefault(sandbox, asyncio.Event())

    async def stop(self, sandbox: str, *, grace: float = 5.0) -> None:
        await self._step("stop", sandbox)
        self.die(sandbox)

    async def destroy(self, sandbox: str) -> None:
        await self._step("destroy", sandbox)
        self.die(sandbox)
        self.made.pop(sandbox, None)

    async def admit(self, sandbox: str, public_keys: str, gone: Sequence[str] = ()) -> None:
        await self._step("admit", sandbox)
        self.admitted[sandbox] = (public_keys, tuple(gone))

    async def capture(
        self, sandbox: str, snapshot: str, name: str, progress: Progress = unheard
    ) -> KeptFiles:
        await self._step("capture", sandbox)
        self.snapshots[snapshot] = name
        return KeptFiles(0.25 if sandbox in self.running else 0.0)

    async def restore(self, sandbox: str, snapshot: str, kept: str, name: str, made: OnKept) -> None:
        await self._step("restore", sandbox)
        self.snapshots[kept] = name
        await self._step("kept", sandbox)
        await made(KeptFiles(0.0))
        await self._step("replace", sandbox)

    async def discard(self, snapshot: str) -> None:
        await self._step("discard", snapshot)
        self.snapshots.pop(snapshot, None)

    async def look(self, sandbox: str) -> Look:
        await self._step("look", sandbox)
        facts = {"addresses": "100.64.0.2"}
        if sandbox in self.running:
            return Look("running", facts=facts)
        return Look("stopped", facts=facts) if sandbox in self.made else Look("absent")

    async def boot_output(self, sandbox: str) -> bytes:
        return f"boot of {sandbox}\nbad \xff\n".encode("latin-1") if sandbox in self.made else b""

    async def connect(self, sandbox: str, *, port: int = 22, within: float = 10.0) -> socket.socket:
        if sandbox not in self.running:
            raise EngineError("state", "it does not run")
        outer, inner = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=inner)
        echoing = asyncio.get_running_loop().create_task(_echo(reader, writer))
        # The loop alone would not keep it.
        self._echoing.add(echoing)
        echoing.add_done_callback(self._echoing.discard)
        return outer

    async def wait(self, sandbox: str) -> None:
        if sandbox in self.running:
            await self.running[sandbox].wait()

    def die(self, sandbox: str) -> None:
        """End a machine, whoever asked."""
        ended = self.running.pop(sandbox, None)
        if ended is not None:
            ended.set()


async def until_called(engine: PretendEngine, call: str) -> None:
    """Wait until the engine was asked something."""

    async def called() -> bool:
        return any(each == call for each, _ in engine.calls)

    await until(called)


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        writer.write(b"SSH-2.0-pretend\r\n")
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@dataclass
class PretendGateway:
    """A gateway that remembers what it was sent.

    Attributes:
        policies: the policy active, by cell.
        cut: connections that the next policy cuts.
        deaf: it does not answer.
        live: live connections that it says each cell has; None where it can't.
        gone: it has no question that is answered.
        refuses: what it says of each policy that it refuses; "" where it takes them.
    """

    link: AsyncLink
    policies: dict[str, dict[str, Any]]
    cut: int = 0
    deaf: bool = False
    live: int | None = None
    mute: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    upstream: dict[str, Any] | None = None
    listeners: list[list[Any]] = field(default_factory=list)
    gone: bool = False
    refuses: str = ""

    async def serve(self) -> None:
        """Answer until the link ends."""
        with contextlib.suppress(LinkError):
            while True:
                message = await self.link.recv()
                if not self.deaf:
                    await self._answer(message)

    async def _answer(self, message: Message) -> None:
        body = message.body
        self.asked.append(body["op"])
        if body["op"] == "listeners":
            self.upstream = body.get("upstream")
            self.listeners = body["listeners"]
        if body["op"] == "policy" and self.refuses:
            await self.link.refuse(message, "failed", self.refuses)
            return
        if body["op"] == "policy":
            self.policies[body["cell"]] = body["policy"]
        if body["op"] == "forget":
            self.policies.pop(body["cell"], None)
        if body.get("cell") in self.mute:
            return
        await self.link.answer(message, {"cut": self.cut, "live": self.live, "gone": self.gone})


def by_tcp(port: int, key: str | None = None, **more: Any) -> httpx.AsyncClient:
    """Make a client of a control plane that listens without TLS.

    It reads no trust store, which takes longer than most tests.

    Args:
        port: where it listens on the loopback address.
        key: the client's API key; None for none.
        more: arguments of httpx.
    """
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", headers=headers, verify=False, **{"timeout": 60, **more}
    )


@functools.cache
def _new_database() -> bytes:
    """The file of a database that every migration has been through, which takes longer than to copy it."""
    with tempfile.TemporaryDirectory() as room:
        path = Path(room) / "new.sqlite"
        Store(path).close()
        return path.read_bytes()


class Lab:
    """One control plane and what is around it.

    Attributes:
        looks: what the keeper was asked of programs, which it leaves to the test to answer.
    """

    def __init__(
        self,
        paths: Paths,
        engine: PretendEngine,
        config: ServerConfig,
        instant: Callable[[], Instant] = Instant.now,
    ) -> None:
        self.instant = instant
        self.paths = paths
        self.engine = engine
        self.policies: dict[str, dict[str, Any]] = {}
        self.records = 0
        self.kept: list[dict[str, Any]] = []
        self.looks: list[Message] = []
        self._config = config
        self._tasks: list[asyncio.Task[Any]] = []

    async def posted(self, path: str) -> int:
        """Post nothing there; the status of the answer."""
        return (await self.client.post(path)).status_code

    async def start(self) -> None:
        """Start the server, with a keeper and a gateway at its links."""
        near, far = socket.socketpair()
        if not self.paths.database.exists():
            self.paths.database.write_bytes(_new_database())
        self.store = Store(self.paths.database)
        self.keeper = AsyncLink(near)
        self.server = Server(
            self.paths,
            self._config,
            self.store,
            self._engines,
            LocalTable(self.paths.state / "config.toml"),
            self.instant,
        )
        self._serving = asyncio.ensure_future(self.server.serve(far, None))
        await self.start_gateway()
        self._ready = asyncio.Event()
        self.keeper_speaks = asyncio.Event()
        self.keeper_speaks.set()
        keeping = asyncio.ensure_future(self._keep())
        self._tasks.append(keeping)
        async with asyncio.timeout(60):
            ready = asyncio.ensure_future(self._ready.wait())
            await asyncio.wait((ready, self._serving), return_when=asyncio.FIRST_COMPLETED)
            if self._serving.done():
                for task in (ready, keeping):
                    task.cancel()
                self._tasks.remove(keeping)
                await self._serving
        # There is no TLS on this socket, and reading the trust store takes longer than most tests.
        transport = httpx.AsyncHTTPTransport(uds=str(self.paths.api_socket), verify=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://irons", timeout=60)

    async def _keep(self) -> None:
        """Be the keeper of one gateway worker, which serves every cell."""
        answer = {"worker": 0, "pid": 1, "served": [0], "gateways": [{"worker": 0, "pid": 1}]}
        with contextlib.suppress(LinkError):
            while True:
                message = await self.keeper.recv()
                self.kept.append(message.body)
                if message.body["op"] == "ready":
                    self._ready.set()
                if message.body["op"] == "status":
                    await self.keeper_speaks.wait()
                if message.body["op"] == "cell.program":
                    self.looks.append(message)
                    continue
                await self.keeper.answer(message, answer)

    async def start_gateway(self) -> None:
        """Put a fresh gateway at the other end, as the keeper does when one was restarted."""
        ends = socket.socketpair()
        self.gateway = PretendGateway(AsyncLink(ends[0]), self.policies)
        self._tasks.append(asyncio.ensure_future(self.gateway.serve()))
        await self.keeper.send({"op": "peer"}, [ends[1].fileno()])
        ends[1].close()

    async def stop(self) -> None:
        """Stop the server in good order."""
        await self.client.aclose()
        self.server.stop()
        await self._serving
        await self.end()

    async def kill(self) -> None:
        """End the server as a kill would: nothing is recorded any more."""
        await self.client.aclose()
        self.store.close()
        self.server.stop()
        await asyncio.gather(self._serving, return_exceptions=True)
        await self.end()

    async def end(self) -> None:
        """Take the surroundings down."""
        self.gateway.link.close()
        self.keeper.close()
        await asyncio.gather(*self._tasks)
        self._tasks.clear()
        self.store.close()

    async def create(self, name: str = "box", **more: Any) -> dict[str, Any]:
        """Create a sandbox and wait until it is ready."""
        answer = await self.client.post("/sandboxes", json={"name": name, "public_key": KEY, **more})
        assert answer.status_code == 202, answer.text
        # What is asked again and again takes twice as long to make.
        settled = await self.client.get(f"/sandboxes/{name}", params={"wait": "20"})
        if settled.json().get("status") != "ready":
            await self.reaches(name, "ready")
        found: dict[str, Any] = answer.json()
        return found

    async def status(self, name: str = "box") -> dict[str, Any]:
        """A sandbox's status."""
        answer = await self.client.get(f"/sandboxes/{name}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def reaches(self, name: str, status: str) -> None:
        """Wait until a sandbox is in a state."""

        async def there() -> bool:
            return bool((await self.status(name))["status"] == status)

        await until(there)

    async def is_asked(self, call: str, sandbox: str) -> None:
        """Wait until the engine is asked for something for a sandbox, by its id."""

        async def asked() -> bool:
            return (call, sandbox) in self.engine.calls

        await until(asked)

    def write_log(self, run_name: str, *records: Mapping[str, Any]) -> Path:
        """Append records to a run's log, numbered on."""
        directory = self.paths.gateway / "audit"
        directory.mkdir(exist_ok=True)
        path = directory / f"{run_name}.jsonl"
        with path.open("a") as file:
            for record in records:
                self.records += 1
                line = {"run": run_name, "seq": self.records, "at": times.now()}
                file.write(json.dumps({**line, **record}) + "\n")
        return path

    def _engines(self, cells: Cells, _members: Members | None) -> Mapping[str, Engine]:
        self.engine.cells = cells
        return {self.engine.name: self.engine}


@contextlib.asynccontextmanager
async def control_plane(
    directory: Path,
    engine: PretendEngine | None = None,
    instant: Callable[[], Instant] = Instant.now,
    **config: Any,
) -> AsyncIterator[Lab]:
    """A running control plane in `directory`, stopped at the end."""
    state, runtime = directory / "s", directory / "r"
    paths = Paths(state, runtime).create()
    engine = engine or PretendEngine()
    lab = Lab(paths, engine, ServerConfig(engine=engine.name, **config), instant)
    await lab.start()
    try:
        yield lab
    finally:
        await lab.stop()


def free_run() -> str:
    """The name of a run that this process writes."""
    return f"1700000000000000-{os.getpid()}-0"
