"""How the `namespace` engine starts a machine: the order for `boot`, its run, and the wait for the SSH server."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
from asyncio.subprocess import PIPE
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

from irons_local.bundle import boot_steps, oci, session, sshd, sysview
from irons_local.bundle.machine import Machine
from irons_local.cell.layout import Namespaces
from irons_local.engines.namespace import boot
from irons_local.engines.namespace.starter import Starter
from irons_local.engines.protocol import CELL_DNS, SSH_PORT, Cells
from irons_local.errors import CellError, EngineError
from irons_local.images.catalog import Image
from irons_local.images.kit.store import MadeKit
from irons_local.ipc.framing import LinkError
from irons_local.linux import disk_images
from irons_local.linux.idmap import IdMapError, outer_map
from irons_local.linux.processes import Process, ended, open_process
from irons_local.linux.programs import search_path
from irons_local.linux.userns_call import end, program

AMEND = "irons_local.engines.namespace.amend"
ANNOUNCE = "irons_local.engines.namespace.announce"
LOOPBACK = "127.0.0.1"
BOOT_WITHIN = 60.0
_READY_WITHIN = 30.0
_GREETING_WITHIN = 2.0
_ASK_AGAIN = 0.01
_SAID_AT_MOST = 200
_OF_ANOTHER = [
    "etc/ssh/ssh_host_*",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed",
    "var/lib/systemd/credential.secret",
    "var/lib/urandom/random-seed",
]
"""Files that say which machine it is that a snapshot is of."""


def console(ours: ExitStack, theirs: ExitStack) -> tuple[int, int]:
    """A pipe for what process 1 says: our end, which does not block, and process 1's, closed with their stacks.

    It is read only where a start fails. Afterwards no one reads it, and what the machine writes there is lost.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    ours.callback(os.close, read)
    theirs.callback(os.close, write)
    os.set_blocking(read, False)
    return read, write


def kept(stack: ExitStack, spaces: Namespaces) -> Namespaces:
    """Descriptors of namespaces, closed with the stack."""
    for descriptor in spaces:
        stack.callback(os.close, descriptor)
    return spaces


def note(stack: ExitStack, path: Path) -> int:
    """A file that the started process is written to, closed with the stack."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    stack.callback(os.close, descriptor)
    return descriptor


def order(
    home: Path,
    machine: Machine,
    image: Image,
    lower: Sequence[Path],
    kit: MadeKit | None,
    inherited: boot.Inherited,
    steps: Sequence[boot_steps.BootStep] | None,
    shown: Mapping[str, str],
    enforced: Collection[str],
) -> boot.BootOrder:
    """What `boot` is to start.

    Args:
        home: the sandbox's directory.
        machine: its record.
        image: what it is based on.
        lower: the directories below its changes, topmost first.
        kit: the SSH server it runs; None for the one of the image.
        inherited: the descriptors that come with the order.
        steps: what it does by itself when it has started; None skips that.
        shown: text of further files of the settings directory.
        enforced: the controllers that hold it to its limits.

    Raises:
        EngineError: crun, or subordinate ids, are missing.
    """
    crun = shutil.which("crun", path=search_path())
    if crun is None:
        raise EngineError("machine", "crun is not installed", "see `irons doctor`: crun")
    try:
        ids = outer_map()
    except IdMapError as error:
        raise EngineError("machine", str(error), "see `irons doctor`: subordinate-ids") from error
    settings = {path.name: path.read_text(encoding="utf-8") for path in (home / "settings").iterdir()}
    own = home / disk_images.PLACE if (home / disk_images.FILE).exists() else home
    tini, server = (image.tini, image.sshd) if kit is None else kit.server
    shell = session.SHELL if kit is None else kit.shell
    return boot.BootOrder(
        inherited=inherited,
        owner=[[ids.host_uid(inside), ids.host_gid(inside)] for inside in (0, 1)],
        lower=[str(path) for path in lower],
        disk=str(home / disk_images.FILE) if own != home else "",
        upper=str(own / disk_images.UPPER),
        work=str(own / disk_images.WORK),
        redirects=machine.redirects,
        kit="" if kit is None else str(kit.files),
        files={} if Machine.is_laid(home) else _first_files(machine),
        forget=_OF_ANOTHER if machine.copied and not Machine.is_laid(home) else [],
        settings={
            **settings,
            **session.of_image(image.config.env, image.config.workdir),
            **session.of_limits(machine.limits.memory if "memory" in enforced else None),
            **shown,
            sshd.AUTHORIZED: sshd.marked(settings[sshd.AUTHORIZED]),
            sshd.CONFIG: sshd.configuration(shell, {} if kit is None else kit.helpers),
            session.FILE: session.SCRIPT,
            **boot_steps.files(sshd.server(server), steps, shell),
        },
        config=oci.config(
            rootfs=str(boot.ROOTFS),
            hostname=machine.name,
            args=sshd.arguments(tini, shell),
            settings=str(boot.SETTINGS),
            sysview=str(boot.SYSVIEW),
            kit="" if kit is None else str(boot.KIT),
            machine=platform.machine(),
            cgroup_namespace=Path("/proc/self/ns/cgroup").exists(),
        ),
        processes=machine.limits.processes,
        processors=sysview.processors(machine.limits, enforced),
        sysview=sysview.limit_files(machine.limits, enforced),
        crun=os.path.realpath(crun),
        cell=machine.id,
    )


def _first_files(machine: Machine) -> dict[str, str]:
    """What a new machine's files say of itself and of the only name server it can reach."""
    name = machine.name
    hosts = f"127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    return {
        "etc/hostname": f"{name}\n",
        "etc/hosts": hosts,
        "etc/resolv.conf": f"nameserver {CELL_DNS}\noptions timeout:2 attempts:2\n",
        # A boot step makes another of an empty one (machine-id(5)).
        **({"etc/machine-id": ""} if machine.copied else {}),
    }


class Started(NamedTuple):
    """What a start came to.

    Attributes:
        process: process 1; None where it has ended already.
        greets: whether its SSH server has answered.
    """

    process: Process | None
    greets: bool


async def run(told: boot.BootOrder, held: int, starter: Starter | None) -> Started:
    """Have `boot` carry out an order.

    Args:
        told: the order that `boot` gets.
        held: the descriptor that keeps others from starting this sandbox; `boot` goes on holding it should this
            process end before it does.
        starter: the warm process; None starts one for this order alone.

    Raises:
        EngineError: it failed, or took too long.
    """
    given = boot.Inherited(*told["inherited"])
    descriptors = [held, given.user, given.net, given.mount, given.console, given.note, *given.cgroups]
    own = Starter() if starter is None else starter
    try:
        async with asyncio.timeout(BOOT_WITHIN):
            answer = await own.carry_out({**told, "inherited": ()}, descriptors)
    except TimeoutError as error:
        raise EngineError("timeout", f"the machine did not start within {BOOT_WITHIN:.0f} s") from error
    except (LinkError, OSError) as error:
        raise EngineError("failed", f"the start failed: {error}", "irons local logs may show why") from error
    finally:
        if own is not starter:
            await asyncio.shield(own.close())
    if "error" in answer:
        raise EngineError("failed", f"the start failed: {answer['error']}", "`irons doctor` may show why")
    if answer["started"] is None:
        return Started(None, greets=False)
    return Started(Process(answer["pid"], answer["started"]), bool(answer.get("greets")))


async def amend(spaces: Namespaces, process: Process, authorized: str, gone: Sequence[str]) -> None:
    """Have `amend` give a running sandbox other authorized keys and end sessions.

    Args:
        spaces: descriptors of the cell's namespaces.
        process: process 1.
        authorized: text of the authorized keys.
        gone: ids of keys whose sessions end.

    Raises:
        EngineError: it failed, or took too long.
    """
    order = {"authorized": authorized, "gone": list(gone)}
    await _run_inside(AMEND, "the authorized keys", spaces, process, order)


async def announce(spaces: Namespaces, process: Process, line: str) -> None:
    """Have `announce` write a line to the terminals of a running sandbox's SSH sessions.

    Args:
        spaces: descriptors of the cell's namespaces.
        process: process 1.
        line: the line.

    Raises:
        EngineError: it failed, or took too long.
    """
    await _run_inside(ANNOUNCE, "the announcement", spaces, process, {"line": line})


async def _run_inside(
    module: str, what: str, spaces: Namespaces, process: Process, order: Mapping[str, Any]
) -> None:
    """Run a program of ours in the cell's namespaces; `what` names what it does in an error."""
    told = {**spaces._asdict(), "init": list(process), **order}
    running = await asyncio.create_subprocess_exec(
        *program(module),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        pass_fds=spaces,
        cwd="/",
    )
    try:
        async with asyncio.timeout(BOOT_WITHIN):
            out, complaint = await running.communicate(json.dumps(told).encode())
    except TimeoutError as error:
        raise EngineError("timeout", f"{what}: not done within {BOOT_WITHIN:.0f} s") from error
    finally:
        await asyncio.shield(end(running))
    answer = _answered(out, complaint, what)
    if "error" in answer:
        raise EngineError("failed", f"{what}: {answer['error']}")


def _answered(out: bytes, complaint: bytes, what: str) -> dict[str, Any]:
    """The JSON object that a program of ours wrote.

    Raises:
        EngineError: it wrote none.
    """
    try:
        answer: dict[str, Any] = json.loads(out)
    except ValueError as error:
        lines = complaint.decode(errors="replace").strip().splitlines()
        why = lines[-1] if lines else "it reported no reason"
        raise EngineError("failed", f"{what} failed: {why}") from error
    return answer


async def greeted(cells: Cells, cell: str, process: Process | None, console_end: int) -> None:
    """Return when the SSH server has sent its version; `process` is process 1, None where it has ended.

    Raises:
        EngineError: the machine ended, or its SSH server does not answer; with its last output.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _READY_WITHIN
    descriptor = None if process is None else open_process(process)
    try:
        while descriptor is not None and loop.time() < deadline:
            if await _greets(cells, cell):
                return
            if await ended(descriptor, _ASK_AGAIN):
                break
    finally:
        if descriptor is not None:
            os.close(descriptor)
    said = _last_console_line(console_end)
    if loop.time() >= deadline:
        raise EngineError("timeout", f"its SSH server did not answer within {_READY_WITHIN:.0f} s{said}")
    raise EngineError("failed", f"the machine ended as soon as it was started{said}")


async def _greets(cells: Cells, cell: str) -> bool:
    try:
        connection = await cells.connect(cell, LOOPBACK, SSH_PORT, within=_GREETING_WITHIN)
    except (CellError, OSError):
        # Nothing answers yet; or the keeper is busy, or a new one is coming: `greeted` asks again.
        return False
    with connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_GREETING_WITHIN):
                return (await loop.sock_recv(connection, 4)) == b"SSH-"
        except (OSError, TimeoutError):
            return False


def _last_console_line(console_end: int) -> str:
    with suppress(OSError):
        text = os.read(console_end, 65536).decode(errors="replace").strip()
        if text:
            return ": " + text.splitlines()[-1][:_SAID_AT_MOST]
    return ""
