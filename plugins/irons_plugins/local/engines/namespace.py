"""The `namespace` engine: a sandbox is a crun container in two user namespaces, over an image's files.

On disk, in `sandboxes/ID`: `machine.json` (what it is, written last), `upper` and `work` (what it adds to its
image), `settings` (its host key and the authorized keys, given to it read-only at each start), and `run-BOOT`
(process 1 of this boot of the machine). A directory `.new-ID` is being made, `.gone-ID` is being removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import shutil
import socket
from asyncio.subprocess import PIPE
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from irons_plugins.local.cellnet import search_path
from irons_plugins.local.engines import (
    CELL_DNS,
    SSH_PORT,
    USERNAME,
    CellError,
    Cells,
    EngineError,
    Kit,
    Look,
    Made,
    Namespaces,
    Progress,
    Spec,
    boot,
    oci,
    sshd,
    unheard,
)
from irons_plugins.local.engines.call import end, program
from irons_plugins.local.engines.cgroup import Groups
from irons_plugins.local.engines.machine import Machine
from irons_plugins.local.engines.processes import Process, end_all_in_net, end_tree, ended, open_process
from irons_plugins.local.engines.removal import remove_tree
from irons_plugins.local.idmap import IdMapError, outer_map
from irons_plugins.local.image import Images

_LOOPBACK = "127.0.0.1"
_READY_WITHIN = 30.0
_BOOT_WITHIN = 60.0


class NamespaceEngine:
    """See the module; the methods are those of `Engine`."""

    name = "namespace"

    def __init__(self, kit: Kit, groups: Groups | None = None) -> None:
        self._cells: Cells = kit.cells
        self._images = Images(kit.images, kit.sandboxes)
        self._default_image = kit.default_image
        self._root = kit.sandboxes
        self._groups = Groups.find() if groups is None else groups
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def recover(self) -> Sequence[str]:
        """Finish what was interrupted, and take up the cells of what runs; gives the ids of the running."""
        running: list[str] = []
        for entry in self._entries():
            if entry.startswith((".new-", ".gone-")):
                await remove_tree(self._root / entry)
                continue
            process = Machine.running(self._root / entry)
            if process is not None:
                await self._cells.adopt(entry, *process)
                running.append(entry)
        return running

    async def create(self, spec: Spec, progress: Progress = unheard) -> Made:
        """Lay out a stopped sandbox; see `Engine.create`."""
        async with self._locks[spec.id]:
            home = self._root / spec.id
            if home.is_dir():
                raise EngineError("exists", f"there is a sandbox {spec.id} already")
            authorized = sshd.authorized(spec.public_key)
            image = await self._images.ensure(spec.image, self._default_image, progress)
            draft = self._root / f".new-{spec.id}"
            await remove_tree(draft)
            try:
                draft.mkdir(parents=True, mode=0o700)
                for name in ("upper", "work", "settings"):
                    (draft / name).mkdir(mode=0o700)
                # It is the sandbox's own root directory, whatever the daemon's umask is.
                (draft / "upper").chmod(0o755)
                host_key = await sshd.make_host_key(draft / "settings", spec.name)
                (draft / "settings" / sshd.AUTHORIZED).write_text(authorized, encoding="utf-8")
                Machine.of(spec, image.id, image.name, host_key).write(draft)
                draft.rename(home)
            except BaseException as error:
                await asyncio.shield(remove_tree(draft))
                if isinstance(error, OSError):
                    raise EngineError("failed", f"the sandbox's directory: {error.strerror}") from error
                raise
            return Made(USERNAME, (host_key,), image.name)

    async def start(self, sandbox: str) -> None:
        """Run it in a new cell; see `Engine.start`."""
        async with self._locks[sandbox]:
            home = self._home(sandbox)
            machine = Machine.read(home)
            if Machine.running(home) is not None:
                return
            started = False
            try:
                await self._cells.drop(sandbox)
                await self._cells.make(sandbox, processes=machine.limits.processes)
                await self._boot(home, machine)
                started = True
            except CellError as error:
                raise EngineError("failed", str(error)) from error
            finally:
                if not started:
                    await asyncio.shield(self._halt(sandbox, home, 0.0))

    async def stop(self, sandbox: str, *, grace: float = 5.0) -> None:
        """End it and drop its cell; see `Engine.stop`."""
        async with self._locks[sandbox]:
            home = self._home(sandbox)
            await self._halt(sandbox, home, grace)

    async def destroy(self, sandbox: str) -> None:
        """End it and remove all that it is; see `Engine.destroy`."""
        async with self._locks[sandbox]:
            home, gone = self._root / sandbox, self._root / f".gone-{sandbox}"
            if home.is_dir():
                await self._halt(sandbox, home, 0.5)
                home.rename(gone)
            await remove_tree(self._root / f".new-{sandbox}")
            await remove_tree(gone)

    async def look(self, sandbox: str) -> Look:
        """How it is, asked of its process 1; see `Engine.look`."""
        home = self._root / sandbox
        if not home.is_dir():
            return Look("absent")
        try:
            machine = Machine.read(home)
        except EngineError as error:
            return Look("broken", error.message)
        process = Machine.running(home)
        facts = {"engine": self.name, "image": machine.image_name, **self._groups.facts(machine.limits)}
        if process is None:
            return Look("stopped", facts=facts)
        return Look("running", facts={**facts, "pid": str(process.pid)})

    async def connect(self, sandbox: str, *, port: int = SSH_PORT, within: float = 10.0) -> socket.socket:
        """A connection to the sandbox's loopback; see `Engine.connect`."""
        if Machine.running(self._home(sandbox)) is None:
            raise EngineError("state", f"sandbox {sandbox} does not run")
        try:
            return await self._cells.connect(sandbox, _LOOPBACK, port, within=within)
        except (CellError, OSError) as error:
            raise EngineError("failed", f"no connection to port {port}: {error}") from error

    async def wait(self, sandbox: str) -> None:
        """Come back when it has stopped; see `Engine.wait`."""
        process = Machine.running(self._root / sandbox)
        descriptor = None if process is None else open_process(process)
        if descriptor is None:
            return
        try:
            await ended(descriptor)
        finally:
            os.close(descriptor)

    def _entries(self) -> list[str]:
        try:
            return sorted(path.name for path in self._root.iterdir())
        except FileNotFoundError:
            return []

    def _home(self, sandbox: str) -> Path:
        home = self._root / sandbox
        if not home.is_dir():
            raise EngineError("absent", f"there is no sandbox {sandbox}")
        return home

    async def _halt(self, sandbox: str, home: Path, grace: float) -> None:
        process = Machine.running(home)
        if process is not None:
            await end_tree(process, grace)
        Machine.forget_runs(home)
        with contextlib.suppress(CellError):
            await self._end_strays(sandbox)
            await self._cells.drop(sandbox)
        await self._groups.remove(sandbox)

    async def _end_strays(self, sandbox: str) -> None:
        """End what a start left behind that was killed between starting process 1 and writing it down."""
        spaces = await self._cells.namespaces(sandbox)
        try:
            await end_all_in_net(os.fstat(spaces.net).st_ino)
        finally:
            for descriptor in spaces:
                os.close(descriptor)

    async def _boot(self, home: Path, machine: Machine) -> None:
        console_read, console_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        # Process 1 blocks or not as any program expects of its standard output.
        os.set_blocking(console_write, True)
        note = os.open(
            Machine.run_file(home),
            os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600,
        )
        spaces = await self._cells.namespaces(machine.id)
        try:
            with self._groups.joined(machine.id, machine.limits) as groups:
                order = self._order(home, machine, spaces, groups, console_write, note)
                process = await _run_boot(order)
            os.close(console_write)
            console_write = -1
            await self._await_ssh(machine.id, process, console_read)
            Machine.mark_laid(home)
        finally:
            for descriptor in (console_read, console_write, note, *spaces):
                if descriptor >= 0:
                    os.close(descriptor)

    def _order(
        self,
        home: Path,
        machine: Machine,
        spaces: Namespaces,
        groups: list[int],
        console: int,
        note: int,
    ) -> boot.Order:
        image = self._images.by_id(machine.image)
        crun = shutil.which("crun", path=search_path())
        if crun is None:
            raise EngineError("machine", "crun is not installed", "see `irons doctor`: crun")
        try:
            ids = outer_map()
        except IdMapError as error:
            raise EngineError("machine", str(error), "see `irons doctor`: subordinate-ids") from error
        settings = {path.name: path.read_text(encoding="utf-8") for path in (home / "settings").iterdir()}
        return boot.Order(
            user=spaces.user,
            net=spaces.net,
            mount=spaces.mount,
            cgroups=groups,
            console=console,
            note=note,
            owner=[[ids.host_uid(inside), ids.host_gid(inside)] for inside in (0, 1)],
            lower=[str(image.rootfs)],
            upper=str(home / "upper"),
            work=str(home / "work"),
            files={} if Machine.is_laid(home) else _first_files(machine.name),
            settings={**settings, sshd.CONFIG: sshd.configuration()},
            config=oci.config(
                rootfs=str(boot.ROOTFS),
                hostname=machine.name,
                args=sshd.arguments(image.tini, image.sshd),
                settings=str(boot.SETTINGS),
                machine=platform.machine(),
                cgroup_namespace=Path("/proc/self/ns/cgroup").exists(),
            ),
            crun=os.path.realpath(crun),
            cell=machine.id,
        )

    async def _await_ssh(self, cell: str, process: Process, console: int) -> None:
        """Come back when the SSH server has said who it is."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _READY_WITHIN
        descriptor = open_process(process)
        try:
            while descriptor is not None and loop.time() < deadline:
                if await self._greets(cell):
                    return
                if await ended(descriptor, 0.01):
                    break
        finally:
            if descriptor is not None:
                os.close(descriptor)
        said = _said(console)
        if loop.time() >= deadline:
            raise EngineError("timeout", f"its SSH server did not answer within {_READY_WITHIN:.0f} s{said}")
        raise EngineError("failed", f"the machine ended as soon as it was started{said}")

    async def _greets(self, cell: str) -> bool:
        try:
            connection = await self._cells.connect(cell, _LOOPBACK, SSH_PORT, within=2.0)
        except OSError:
            return False
        with connection:
            loop = asyncio.get_running_loop()
            try:
                async with asyncio.timeout(2.0):
                    return (await loop.sock_recv(connection, 4)) == b"SSH-"
            except (OSError, TimeoutError):
                return False


def _first_files(name: str) -> dict[str, str]:
    """What a new machine's files say of itself and of the only name server it can reach."""
    return {
        "etc/hostname": f"{name}\n",
        "etc/hosts": (
            f"127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
        ),
        "etc/resolv.conf": f"nameserver {CELL_DNS}\noptions timeout:2 attempts:2\n",
    }


async def _run_boot(order: boot.Order) -> Process:
    inherited = [
        order["user"],
        order["net"],
        order["mount"],
        *order["cgroups"],
        order["console"],
        order["note"],
    ]
    process = await asyncio.create_subprocess_exec(
        *program("irons_plugins.local.engines.boot"),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        pass_fds=inherited,
        cwd="/",
        # A terminal's interrupt key, and a control plane that is stopped, must not end a sandbox.
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(_BOOT_WITHIN):
            out, complaint = await process.communicate(json.dumps(order).encode())
    except TimeoutError as error:
        raise EngineError("timeout", f"the machine did not start within {_BOOT_WITHIN:.0f} s") from error
    finally:
        await asyncio.shield(end(process))
    try:
        answer = json.loads(out)
    except ValueError as error:
        lines = complaint.decode(errors="replace").strip().splitlines()
        raise EngineError(
            "failed", f"the start failed: {lines[-1] if lines else 'no word of why'}"
        ) from error
    if "error" in answer:
        raise EngineError("failed", f"the start failed: {answer['error']}", "`irons doctor` may know why")
    if answer["started"] is None:
        raise EngineError("failed", "the machine ended as soon as it was started")
    return Process(answer["pid"], answer["started"])


def _said(console: int) -> str:
    with contextlib.suppress(OSError):
        text = os.read(console, 65536).decode(errors="replace").strip()
        if text:
            return ": " + text.splitlines()[-1]
    return ""
