"""A tiny engine, written from docs/engines.md: an overlay of an image, sshd as process 1, the cell's network.

It separates nothing: root of such a machine is root of this one. It shows the protocol, and is for tests alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Sequence
from pathlib import Path

from irons_local.engines.protocol import CELL_DNS, SSH_PORT, Kit, Look, Made, Spec
from irons_local.errors import CellError, EngineError
from irons_local.progress import Progress, unheard

START_WITHIN = 120.0
USER = "root"
SSHD = """\
ListenAddress 127.0.0.1
HostKey /etc/ssh/tiny_key
AuthorizedKeysFile /etc/ssh/tiny_authorized
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
"""
INIT = """\
set -e
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$3,upperdir=$1/upper,workdir=$1/work" "$1/files"
set -- "$1/files" "$2"
mount -t proc proc "$1/proc"
mount -t tmpfs tmpfs "$1/run"
for each in null zero full random urandom tty; do touch "$1/dev/$each"; mount --bind "/dev/$each" "$1/dev/$each"; done
hostname "$2"
mkdir -p "$1/run/sshd"
exec chroot "$1" /usr/sbin/sshd -D -f /etc/ssh/tiny_config
"""


class TinyEngine:
    """See the module; the methods are those of `Engine`."""

    name = "tiny"

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        # Its own form of an image: the files, unpacked.
        self._image = kit.sandboxes.parent / "tiny-image"
        self._turn = asyncio.Lock()

    async def recover(self) -> Sequence[str]:
        """Remove what is half made, and take up the cells of what runs."""
        running = []
        for home in sorted(self._kit.sandboxes.iterdir()):
            if home.name.startswith("."):
                await asyncio.to_thread(shutil.rmtree, home, ignore_errors=True)
            elif (process := _process(home)) is not None:
                await self._kit.cells.adopt(home.name, *process)
                running.append(home.name)
        return running

    async def create(self, spec: Spec, progress: Progress = unheard) -> Made:
        """Lay out what is above the image, with a host key."""
        home = self._kit.sandboxes / spec.id
        if home.exists():
            raise EngineError("exists", f"there is a sandbox {spec.id} already")
        if not re.match(r"(ssh|ecdsa|sk)-\S+ [A-Za-z0-9+/=]+", spec.public_key):
            raise EngineError("input", "the public key is not one", "give the file that ends in .pub")
        spec.limits.check()
        if spec.image:
            raise EngineError("image", f"there is no image {spec.image}; this engine has one")
        await self._unpack(progress)
        fresh = self._kit.sandboxes / f".new-{spec.id}"
        await asyncio.to_thread(shutil.rmtree, fresh, ignore_errors=True)
        for name in ("files", "work", "upper/etc/ssh"):
            (fresh / name).mkdir(parents=True)
        etc = fresh / "upper/etc"
        key = etc / "ssh/tiny_key"
        await _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key))
        (etc / "ssh/tiny_config").write_text(SSHD)
        (etc / "ssh/tiny_authorized").write_text(spec.public_key)
        (etc / "resolv.conf").write_text(f"nameserver {CELL_DNS}\n")
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {spec.name}\n")
        (fresh / "name").write_text(spec.name)
        host_key = key.with_suffix(".pub").read_text().strip()
        fresh.rename(home)
        return Made(USER, (host_key,), "tiny")

    async def _unpack(self, progress: Progress) -> None:
        async with self._turn:
            if self._image.exists():
                return
            progress("unpacking the image", None)
            fresh = self._image.with_name(".new-image")
            await asyncio.to_thread(shutil.rmtree, fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            await _run("tar", "-xpf", self._kit.default_image, "-C", str(fresh), "--exclude=dev/*")
            fresh.rename(self._image)

    async def start(self, sandbox: str, *, boot: bool = True) -> None:
        """Run sshd as process 1 of namespaces of its own, in the cell's network."""
        del boot  # nothing starts by itself
        home = self._home(sandbox)
        if _process(home) is not None:
            return
        await self._kit.cells.drop(sandbox)
        await self._kit.cells.make(sandbox)
        try:
            await self._boot(sandbox, home)
            async with asyncio.timeout(START_WITHIN):
                await self._greeted(sandbox)
        except TimeoutError:
            await self.stop(sandbox, grace=0)
            raise EngineError("timeout", f"the SSH server of {sandbox} does not answer") from None
        except BaseException:
            await asyncio.shield(self.stop(sandbox, grace=0))
            raise

    async def _boot(self, sandbox: str, home: Path) -> None:
        spaces = await self._kit.cells.namespaces(sandbox)
        words = [
            "nsenter",
            f"--net=/proc/self/fd/{spaces.net}",
            "unshare",
            "--pid",
            "--mount",
            "--uts",
            "--fork",
        ]
        words += ["sh", "-c", INIT, "sh", str(home), (home / "name").read_text(), str(self._image)]
        try:
            # Nothing is awaited before the pid is recorded: a cancelled call finds what it must end.
            process = subprocess.Popen(  # noqa: ASYNC220 - at once
                words,
                stdin=DEVNULL,
                stdout=DEVNULL,
                stderr=DEVNULL,
                start_new_session=True,
                pass_fds=[spaces.net],
            )
        finally:
            for descriptor in spaces:
                os.close(descriptor)
        pid = _child(process)
        (home / "process").write_text(json.dumps([pid, _started(pid)]))
        # The kernel tells this process of the end; whoever comes after it asks for the process itself.
        asyncio.get_running_loop().run_in_executor(None, process.wait)

    async def _greeted(self, sandbox: str) -> None:
        while True:
            try:
                with await self._kit.cells.connect(sandbox, "127.0.0.1", SSH_PORT, within=60.0) as connection:
                    if (await asyncio.get_running_loop().sock_recv(connection, 4)).startswith(b"SSH-"):
                        return
            except OSError:
                await asyncio.sleep(0.05)

    async def stop(self, sandbox: str, *, grace: float = 5.0) -> None:
        """Ask all processes to end, end process 1, and with it the rest."""
        home = self._home(sandbox)
        process = _process(home)
        if process is not None:
            init = process[0]
            inside = [pid for pid in _same_space(init) if pid != init]
            for pid in inside:
                _signal(pid, signal.SIGTERM)
            await _until(lambda: not _same_space(init) - {init}, grace)
            _signal(init, signal.SIGKILL)
            await _until(lambda: _process(home) is None)
        await self._kit.cells.drop(sandbox)

    async def destroy(self, sandbox: str) -> None:
        """Stop it, and remove its files."""
        home = self._kit.sandboxes / sandbox
        gone = self._kit.sandboxes / f".gone-{sandbox}"
        if home.exists():
            await self.stop(sandbox, grace=0)
            await asyncio.to_thread(shutil.rmtree, gone, ignore_errors=True)
            home.rename(gone)
        for left in (gone, self._kit.sandboxes / f".new-{sandbox}"):
            await asyncio.to_thread(shutil.rmtree, left, ignore_errors=True)

    async def look(self, sandbox: str) -> Look:
        """How it is."""
        home = self._kit.sandboxes / sandbox
        if not home.exists():
            return Look("absent")
        state = "stopped" if _process(home) is None else "running"
        return Look(state, facts={"engine": self.name})  # type: ignore[arg-type]

    async def connect(self, sandbox: str, *, port: int = SSH_PORT, within: float = 60.0) -> socket.socket:
        """Connect in the cell."""
        if _process(self._home(sandbox)) is None:
            raise EngineError("state", f"sandbox {sandbox} does not run")
        try:
            return await self._kit.cells.connect(sandbox, "127.0.0.1", port, within=within)
        except (CellError, OSError) as error:
            raise EngineError("failed", f"no connection to port {port} of {sandbox}: {error}") from error

    async def wait(self, sandbox: str) -> None:
        """Look again and again."""
        await _until(lambda: _process(self._kit.sandboxes / sandbox) is None)

    def _home(self, sandbox: str) -> Path:
        home = self._kit.sandboxes / sandbox
        if not home.exists():
            raise EngineError("absent", f"there is no sandbox {sandbox}")
        return home


def _process(home: Path) -> tuple[int, int] | None:
    """The process that holds a sandbox, with its start time; None where it does not run."""
    try:
        pid, started = json.loads((home / "process").read_text())
    except (OSError, ValueError):
        return None
    return (pid, started) if _started(pid) == started else None


def _child(process: subprocess.Popen[bytes]) -> int:
    """Process 1 of the machine, as soon as it is there."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not (found := children.read_text().split()):
        if process.poll() is not None:
            raise EngineError("machine", f"it does not start: unshare ended with {process.returncode}")
    return int(found[0])


async def _until(true: Callable[[], object], within: float = 200.0) -> None:
    """Look again and again, for so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            while not true():  # noqa: ASYNC110 - the kernel's affair, not a task's
                await asyncio.sleep(0.02)


def _started(pid: int) -> int:
    """When a process began, in ticks of the clock since boot; 0 where it has ended (field 22 of proc(5), stat)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def _same_space(init: int) -> set[int]:
    def space(pid: str | int) -> str:
        try:
            return str(Path(f"/proc/{pid}/ns/pid").readlink())
        except OSError:
            return ""

    mine = space(init)
    names = (path.name for path in Path("/proc").iterdir())
    return {int(pid) for pid in names if pid.isdecimal() and mine and space(pid) == mine}


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


async def _run(*words: str) -> None:
    process = await asyncio.create_subprocess_exec(*words, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE)
    try:
        _, complaint = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await asyncio.shield(process.wait())
    if process.returncode:
        raise EngineError("failed", f"{words[0]}: {complaint.decode(errors='replace').strip()[-200:]}")
