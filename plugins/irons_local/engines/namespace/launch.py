"""How the `namespace` engine starts a machine: the order for `boot`, its run, and the wait for the SSH server."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from irons_local.bundle import boot_steps, oci, session, sshd, sysview
from irons_local.bundle.machine import Machine
from irons_local.cell.layout import Namespaces
from irons_local.engines import starting
from irons_local.engines.homes import settings_of
from irons_local.engines.namespace import boot
from irons_local.engines.namespace.starter import Starter
from irons_local.engines.protocol import CELL_DNS, Cells
from irons_local.errors import EngineError
from irons_local.images.catalog import Image
from irons_local.images.kit.store import MadeKit
from irons_local.ipc.framing import LinkError, line_of
from irons_local.linux import disk_images
from irons_local.linux.processes import Process, ended, open_process

AMEND = "irons_local.engines.namespace.amend"
ANNOUNCE = "irons_local.engines.namespace.announce"
BOOT_WITHIN = 120.0
_READY_WITHIN = 120.0
"""Seconds until its SSH server answers: on a machine that starts many at once, or that has no memory left, it takes long."""
_GREETING_WITHIN = 10.0
_ASK_AGAIN = 0.01
_OF_ANOTHER = [
    "etc/ssh/ssh_host_*",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed",
    "var/lib/systemd/credential.secret",
    "var/lib/urandom/random-seed",
]
"""Files that say which machine it is that a snapshot is of."""


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
    crun, ids = starting.crun(), starting.subordinate_ids()
    settings = settings_of(home)
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
        crun=crun,
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
        raise EngineError(
            "failed", f"the start failed: {line_of(error)}", "irons local logs may show why"
        ) from error
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
    answer = await starting.carried_out(module, what, told, spaces, BOOT_WITHIN)
    if "error" in answer:
        raise EngineError("failed", f"{what}: {answer['error']}")


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
            if await starting.greets(cells, cell, _GREETING_WITHIN):
                return
            if await ended(descriptor, _ASK_AGAIN):
                break
    finally:
        if descriptor is not None:
            os.close(descriptor)
    said = starting.last_line(console_end)
    if loop.time() >= deadline:
        raise EngineError("timeout", f"its SSH server did not answer within {_READY_WITHIN:.0f} s{said}")
    raise EngineError("failed", f"the machine ended as soon as it was started{said}")
