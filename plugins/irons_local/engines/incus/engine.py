"""The `incus` engine at work: a sandbox is a container of an Incus, on this machine or on another member of its cluster, whose only network device ends in a cell.

On disk, in `sandboxes/ID`: `machine.json` (what it is, written last), `instance` (that it is one of Incus), `settings` (its host key
and the authorized keys) and `run.json` (its present run). Its files are Incus's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections import defaultdict
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from irons.files import write_whole
from irons_local.bundle import sshd
from irons_local.bundle.machine import INSTANCE, Machine
from irons_local.cell.layout import SANDBOX4, SANDBOX6, outer_name
from irons_local.cell.veth import remove_left, remove_lost
from irons_local.config.incus import note_addresses
from irons_local.engines import starting
from irons_local.engines.homes import Homes, is_unfinished, lay_settings, reserved, sandbox_of
from irons_local.engines.incus import guest, images, inside, instance, owner, project
from irons_local.engines.incus.client import Incus, IncusError
from irons_local.engines.incus.instances import Instances, location, runs
from irons_local.engines.incus.owner import ProjectOwner
from irons_local.engines.incus.places import MemberCells
from irons_local.engines.incus.present import PresentRun
from irons_local.engines.incus.reach.events import Events
from irons_local.engines.incus.reach.ways import Way
from irons_local.engines.protocol import SSH_PORT, Activity, Kit, Look, Made, Spec
from irons_local.errors import CellError, EngineError
from irons_local.images.catalog import Image, Images
from irons_local.linux.namespaces import started
from irons_local.linux.remove_tree import remove_tree
from irons_local.problems import Problem
from irons_local.progress import Progress, unheard

NAME = "incus"
_READY_WITHIN = 120.0
_GREETING_WITHIN = 10.0
_ASK_AGAIN = 0.1
_ASKED_WITHIN = 10.0
"""Seconds that Incus has to say what runs, before what was recorded counts."""
_RECOVERED_WITHIN = 15.0
"""Seconds that a control plane which starts waits for this engine in all."""
_ENDED_WITHIN = 60.0
_LOG = "boot.log"
_log = logging.getLogger(__name__)


class IncusContainers:
    """See the module; the methods are those of `Engine`.

    Args:
        kit: what engines work with.
        way: the way to Incus.
        beside: the way to the Incus of this machine, where the other may lead to another one.
    """

    name = NAME

    def __init__(self, kit: Kit, way: Way, beside: Way | None = None) -> None:
        self._images = Images(kit.images, kit.sandboxes)
        self._default_image = kit.default_image
        self._shown = kit.shown
        self._room = kit.sandboxes
        self._homes = Homes(kit.sandboxes)
        self._incus = Incus(way, project.NAME)
        self._beside = None if beside is None else Incus(beside, project.NAME)
        self._instances = Instances(self._incus)
        self._owner = ProjectOwner(self._incus, kit.sandboxes.parent / owner.FILE)
        self._places = MemberCells(self._incus, kit.cells, kit.members, self._beside)
        self._events = Events(way, project.NAME)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._sending = asyncio.Lock()
        self._ends: dict[str, str] = {}
        self._going_on: set[asyncio.Task[bool]] = set()

    async def close(self) -> None:
        """Close the connections to Incus; nothing else is asked of it."""
        for each in (self._incus, self._beside):
            if each is not None:
                await each.close()

    async def recover(self) -> Sequence[str]:
        """Take up the cells of what runs, and begin to remove what is half made; gives the ids of the running.

        Where Incus does not answer in time, what was recorded counts, and `wait` checks it when Incus is back.
        """
        homes = [home for home in self._homes.entries() if Machine.is_instance(home)]
        whole = {home: self._later(home, self._take_up(home)) for home in homes if not is_unfinished(home)}
        for home in homes:
            if is_unfinished(home):
                self._later(home, self._finish(home))
        if whole:
            await asyncio.wait(whole.values(), timeout=_RECOVERED_WITHIN)
        return [
            home.name
            for home, taking in whole.items()
            if (taking.result() if taking.done() else PresentRun.read(home) is not None)
        ]

    def _later(self, home: Path, work: Coroutine[Any, Any, bool]) -> asyncio.Task[bool]:
        """Begin a piece of work that nothing waits for without a bound; a failure costs a line in the log."""

        async def quietly() -> bool:
            try:
                return await work
            except (EngineError, CellError, OSError, Problem) as error:
                # One that cannot be repaired must not keep the others from being served.
                _log.warning("%s: %s", home.name, error)
                return False

        task = asyncio.create_task(quietly(), name=f"{home.name} at Incus")
        self._going_on.add(task)
        task.add_done_callback(self._going_on.discard)
        return task

    async def _finish(self, home: Path) -> bool:
        """Remove what a create or a removal that was interrupted left; what Incus still does may take its time."""
        sandbox = sandbox_of(home)
        async with self._locks[sandbox]:
            # A create or a removal that came first has done it.
            if home in self._homes.entries():
                await self._owner.check()
                if not self._homes.at(sandbox).is_dir():
                    await self._instances.delete(sandbox)
                await remove_tree(home)
        return False

    async def _take_up(self, home: Path) -> bool:
        sandbox = home.name
        async with self._locks[sandbox], reserved(home):
            run = PresentRun.read(home)
            try:
                async with asyncio.timeout(_ASKED_WITHIN):
                    refused = await self._owner.refusal()
                    found = None if refused else await self._instances.find(sandbox)
            except (IncusError, TimeoutError) as error:
                _log.warning(
                    "%s: %s", sandbox, str(error) or f"Incus did not answer within {_ASKED_WITHIN:.0f} s"
                )
                return run is not None and await self._adopt_unseen(sandbox, home, run)
            except EngineError as error:
                # Someone took the mark from it: it is not ours to stop, and the network that it has is.
                self._ends[sandbox] = error.message
                await self._drop(sandbox, home)
                return False
            if refused:
                # Another server may run it: nothing of it is touched.
                self._ends[sandbox] = refused
                return False
            if not runs(found):
                await self._drop(sandbox, home)
                return False
            try:
                if run is None:
                    raise CellError("its cell is not recorded")
                if await self._has_moved(run, found or {}):
                    raise CellError("it is on another member than its cell")
                await self._adopt(sandbox, run)
                instance.check(found or {}, sandbox, Machine.read(home).limits, run.veth.name)
            except (CellError, EngineError) as error:
                # Without a cell it has no network; one that has more than it may must not keep what it has.
                self._ends[sandbox] = f"it was stopped: {error}"
                _log.warning("%s is stopped: %s", sandbox, error)
                await self._drop(sandbox, home)
                await self._halt(sandbox, home, 0.0)
                return False
            return True

    async def _has_moved(self, run: PresentRun, found: Mapping[str, Any]) -> bool:
        """Whether an instance is on another member than its cell.

        Where it was when it was started says that without the Incus of this machine, which may be away while another member answers.
        """
        if run.location and run.location == location(found):
            return False
        return run.member != await self._places.of(found)

    async def _adopt_unseen(self, sandbox: str, home: Path, run: PresentRun) -> bool:
        """Take up the cell of what ran when it was last seen."""
        try:
            await self._adopt(sandbox, run)
        except CellError as error:
            # As after a restart of the machine: nothing runs, or what runs has no network.
            _log.warning("%s: %s", sandbox, error)
            await self._drop(sandbox, home)
            return False
        return True

    async def _adopt(self, sandbox: str, run: PresentRun) -> None:
        """Take up a cell; that of a member whose agent is away goes on without being asked."""
        try:
            await self._places.cells_of(run.member).adopt(sandbox, run.veth.pid, run.veth.started)
        except CellError:
            if not self._places.is_away(run.member):
                raise

    async def create(self, spec: Spec, progress: Progress = unheard) -> Made:
        """Lay out a stopped sandbox; see `Engine.create`."""
        async with self._locks[spec.id]:
            self._homes.check_free(spec.id)
            authorized = sshd.authorized(spec.public_key)
            spec.limits.check()
            _refuse_more(spec)
            pool = await project.ensure(self._incus)
            await self._owner.check()
            member = await self._places.choose(spec.member)
            self._room.mkdir(parents=True, exist_ok=True, mode=0o700)
            await asyncio.to_thread(note_addresses, self._room.parent, self._places.listening)
            async with self._images.keeping():
                image = await self._images.ensure(spec.image, self._default_image, progress)
                if not image.sshd:
                    raise EngineError(
                        "image", f"{image.name} has no SSH server of its own, which the engine incus needs"
                    )
                async with self._sending:
                    # Of several creates at once the first sends it.
                    fingerprint = await images.ensure(self._incus, self._images, image, self._room, progress)
                asked = instance.InstanceSource(fingerprint, pool, member)
                host_key = await self._lay_out(spec, image, asked, authorized)
            _log.info("laid out from the image %s", image.name, extra={"sandbox": spec.id})
            return Made(image.username, (host_key,), image.name)

    async def _lay_out(
        self, spec: Spec, image: Image, wanted: instance.InstanceSource, authorized: str
    ) -> str:
        """Make a sandbox's directory and its instance, both or neither; gives its public host key."""
        asked = False

        async def undo() -> None:
            if asked:
                await self._instances.delete(spec.id)

        async with self._homes.draft(spec.id, undo) as draft:
            write_whole(draft / INSTANCE, instance.name_of(spec.id), durable=True)
            host_key = await lay_settings(draft, spec, authorized)
            machine = replace(
                Machine.of(spec, image.id, image.name, host_key, user=image.user), host_key=host_key
            )
            found = await self._instances.find(spec.id)
            if found is not None:
                raise EngineError("exists", f"Incus has an instance of {spec.id} already")
            asked = True
            body = instance.creation(machine, wanted.fingerprint, wanted.pool)
            await self._incus.change("POST", "instances", body, target=wanted.member)
            machine.write(draft)
        return host_key

    async def start(self, sandbox: str, *, boot: bool = True) -> None:
        """Run it on the veth of a new cell; see `Engine.start`."""
        home = self._homes.of(sandbox)
        async with self._locks[sandbox], reserved(home):
            await self._owner.check()
            found = await self._instances.get(sandbox)
            if runs(found):
                if PresentRun.read(home) is not None:
                    return
                # Its cell was dropped when Incus could not stop it: it has no network, and gets none without a start.
                await self._instances.end(sandbox, 0.0)
                found = await self._instances.get(sandbox)
            self._ends.pop(sandbox, None)
            started = False
            try:
                await self._drop(sandbox, home)
                left = PresentRun.read(home)
                if left is not None:
                    raise CellError(f"its last cell is still on {left.member}")
                member = await self._places.of(found)
                veth = await self._places.cells_of(member).make_with_veth(sandbox)
                run = PresentRun(veth, boot, member, location(found))
                run.write(home)
                await self._boot(home, found, run)
                started = True
                _log.info("started", extra={"sandbox": sandbox})
            except CellError as error:
                raise EngineError("failed", str(error)) from error
            finally:
                if not started:
                    await asyncio.shield(self._halt_quietly(sandbox, home))

    async def _boot(self, home: Path, found: Mapping[str, Any], run: PresentRun) -> None:
        machine = Machine.read(home)
        instance.check(found, machine.id, machine.limits, run.veth.name)
        image = self._images.by_id(machine.image)
        shown = await asyncio.to_thread(self._shown)
        script = guest.init(machine, home, image, shown, services=run.services)
        where = f"instances/{instance.name_of(machine.id)}"
        # Not through a link that is there: an image's init most often is one.
        await self._incus.remove_file(instance.name_of(machine.id), guest.INIT)
        await self._incus.push(instance.name_of(machine.id), guest.INIT, script, 0o700)
        await self._incus.change("PUT", f"{where}/state", {"action": "start", "timeout": -1})
        deadline = asyncio.get_running_loop().time() + _READY_WITHIN
        cells = self._places.cells_of(run.member)
        while not await starting.greets(cells, machine.id, _GREETING_WITHIN):
            if asyncio.get_running_loop().time() > deadline:
                raise EngineError("timeout", f"its SSH server did not answer within {_READY_WITHIN:.0f} s")
            if not runs(await self._instances.get(machine.id)):
                raise EngineError("failed", "the machine ended as soon as it was started")
            await asyncio.sleep(_ASK_AGAIN)

    async def stop(self, sandbox: str, *, grace: float = 5.0) -> None:
        """End it and drop its cell; see `Engine.stop`."""
        home = self._homes.of(sandbox)
        async with self._locks[sandbox]:
            # Where Incus does not answer it is cut off all the same.
            with contextlib.suppress(IncusError):
                await self._owner.check()
            if PresentRun.read(home) is not None:
                printed = await inside.output(self._incus, sandbox)
                if printed is not None:
                    write_whole(home / _LOG, printed.decode("utf-8", "surrogateescape"))
            await self._halt(sandbox, home, grace)
            _log.info("stopped", extra={"sandbox": sandbox})

    async def destroy(self, sandbox: str) -> None:
        """End it and remove all that it is; see `Engine.destroy`. What is not of this engine stays."""
        if not self._is_here(sandbox):
            return
        async with self._locks[sandbox]:
            try:
                await self._owner.check()
                await self._instances.delete(sandbox)
            except IncusError as error:
                if error.gone:
                    raise _refused(sandbox, error) from error
                raise
            await self._forget(sandbox)
        self._ends.pop(sandbox, None)
        self._locks.pop(sandbox, None)
        _log.debug("destroyed", extra={"sandbox": sandbox})

    async def abandon(self, sandbox: str) -> str:
        """Remove what is here of a sandbox whose Incus is gone for good.

        Returns:
            The name of the instance that may be left there; "" where there is no sandbox of this engine.

        Raises:
            EngineError: something listens at Incus's socket, or the sandbox's network does not end.
        """
        if not self._is_here(sandbox):
            return ""
        try:
            await self._incus.get("")
        except IncusError as error:
            if not error.gone:
                raise
        else:
            raise EngineError("state", f"Incus is there: destroy {sandbox} by it")
        async with self._locks[sandbox]:
            run = PresentRun.read(self._homes.at(sandbox))
            await self._forget(sandbox, run)
        return instance.name_of(sandbox)

    def _is_here(self, sandbox: str) -> bool:
        return any(Machine.is_instance(home) for home in self._homes.entries() if sandbox_of(home) == sandbox)

    async def _forget(self, sandbox: str, run: PresentRun | None = None) -> None:
        """Remove a sandbox's network and its files, once what held the cell of `run` has ended."""
        await self._drop(sandbox, self._homes.at(sandbox))
        if run is not None and not run.member:
            deadline = asyncio.get_running_loop().time() + _ENDED_WITHIN
            while started(run.veth.pid) == run.veth.started:
                if asyncio.get_running_loop().time() > deadline:
                    raise EngineError(
                        "failed", f"process {run.veth.pid}, which holds its network, does not end"
                    )
                await asyncio.sleep(_ASK_AGAIN)
        await self._homes.remove(sandbox, _nothing_more)

    async def look(self, sandbox: str) -> Look:
        """How it is, asked of Incus; see `Engine.look`."""
        home = self._homes.at(sandbox)
        if not Machine.is_instance(home):
            return Look("absent")
        try:
            machine = Machine.read(home)
        except EngineError as error:
            return Look("broken", error.message)
        facts = {
            "engine": self.name,
            "image": machine.image_name,
            "addresses": f"{SANDBOX4}, {SANDBOX6}",
            "instance": instance.name_of(sandbox),
            **({"user": machine.user} if machine.user else {}),
            **_limits(machine),
        }
        try:
            found = await self._instances.find(sandbox)
        except IncusError:
            raise
        except EngineError as error:
            return Look("broken", error.message, facts)
        if found is None:
            return Look("broken", "its instance is gone from Incus", facts)
        facts |= {"member": location(found)} if location(found) else {}
        if runs(found):
            run = PresentRun.read(home)
            facts |= {} if run is None else await inside.facts(self._incus, sandbox, services=run.services)
            return Look("running", self._ends.get(sandbox, ""), facts)
        return Look("stopped", self._ends.get(sandbox, ""), facts)

    def member_of(self, sandbox: str) -> str:
        """See `Spread.member_of`."""
        run = PresentRun.read(self._homes.at(sandbox))
        return "" if run is None else run.member

    async def activity(self, sandbox: str) -> Activity | None:
        """How busy it is; see `Observer.activity`."""
        run = PresentRun.read(self._homes.at(sandbox))
        if run is None or run.member:
            return None
        return await inside.activity(self._incus, sandbox, run.veth)

    async def boot_output(self, sandbox: str) -> bytes:
        """What its boot steps printed last; see `Booter.boot_output`."""
        home = self._homes.of(sandbox)
        if PresentRun.read(home) is not None:
            return await inside.output(self._incus, sandbox) or b""
        try:
            return await asyncio.to_thread((home / _LOG).read_bytes)
        except FileNotFoundError:
            return b""

    async def connect(self, sandbox: str, *, port: int = SSH_PORT, within: float = 10.0) -> socket.socket:
        """A connection to a port that the sandbox listens on at its own address; see `Engine.connect`."""
        run = PresentRun.read(self._homes.of(sandbox))
        if run is None:
            raise EngineError("state", f"sandbox {sandbox} does not run")
        try:
            return await self._places.cells_of(run.member).connect(
                sandbox, starting.LOOPBACK, port, within=within
            )
        except (CellError, OSError) as error:
            raise EngineError("failed", f"no connection to port {port}: {error}") from error

    async def wait(self, sandbox: str) -> None:
        """Come back when it has stopped; see `Engine.wait`. One that is changed at Incus while it runs is stopped."""
        home = self._homes.at(sandbox)
        if not home.is_dir():
            return
        async with self._events.of(instance.name_of(sandbox)) as news:
            while True:
                news.clear()
                try:
                    found = await self._instances.find(sandbox)
                    if not runs(found):
                        return
                    await self._check_running(sandbox, home, found or {})
                except IncusError as error:
                    # An Incus that is away says nothing of its instances, which go on.
                    _log.debug("%s: %s", sandbox, error)
                except EngineError as error:
                    # Someone took the mark from it: it is not ours to stop, and the network that it has is.
                    self._ends[sandbox] = error.message
                    await self._drop(sandbox, home)
                    return
                await news.wait()

    async def _check_running(self, sandbox: str, home: Path, found: Mapping[str, Any]) -> None:
        """Stop a sandbox that has been given more than irons gave it."""
        run = PresentRun.read(home)
        if run is None:
            # Its cell was dropped when Incus could not stop it.
            self._ends.setdefault(sandbox, "it was stopped: it had no cell any more")
            await self._halt(sandbox, home, 0.0)
            return
        try:
            instance.check(found, sandbox, Machine.read(home).limits, run.veth.name)
        except EngineError as error:
            self._ends[sandbox] = error.message.replace("is not started", "was stopped")
            _log.warning("%s", self._ends[sandbox], extra={"sandbox": sandbox})
            # The network first: that takes no answer of Incus.
            await self._drop(sandbox, home)
            await self._halt(sandbox, home, 0.0)

    async def _halt(self, sandbox: str, home: Path, grace: float) -> None:
        try:
            await self._instances.end(sandbox, grace)
        finally:
            # Also where Incus does not answer: what cannot be stopped is cut off.
            await asyncio.shield(self._drop(sandbox, home))

    async def _halt_quietly(self, sandbox: str, home: Path) -> None:
        try:
            await self._halt(sandbox, home, 0.0)
        except (EngineError, CellError) as error:
            _log.warning("%s: %s", sandbox, error)

    async def _drop(self, sandbox: str, home: Path) -> None:
        """Let go of a sandbox's cell and its veth, and forget it; one on a member that is away stays recorded."""
        run = PresentRun.read(home)
        member = "" if run is None else run.member
        try:
            await self._places.cells_of(member).drop(sandbox)
        except CellError as error:
            if member:
                _log.warning("%s: its cell on %s stays: %s", sandbox, member, error)
                return
        if run is None:
            # A keeper that ended before it answered may have made one that was never noted.
            await asyncio.to_thread(remove_lost, outer_name(sandbox))
            return
        if not member:
            await asyncio.to_thread(remove_left, run.veth)
        PresentRun.forget(home)


def _refuse_more(spec: Spec) -> None:
    """Refuse what this engine cannot do.

    Raises:
        EngineError: with what can.
    """
    if os.geteuid() != 0:
        raise EngineError("machine", "the engine incus needs a daemon of root", "use --engine namespace")
    if spec.limits.disk is not None:
        raise EngineError("input", "the engine incus does not limit disks yet", "use --engine vm")
    if spec.entrypoint:
        raise EngineError(
            "input", "the engine incus does not run an image's entrypoint yet", "use --engine namespace"
        )


def _limits(machine: Machine) -> dict[str, str]:
    limits = machine.limits
    return {
        name: "unlimited" if value is None else str(value)
        for name, value in (
            ("cpus", limits.cpus),
            ("memory", limits.memory),
            ("processes", limits.processes),
            ("disk", limits.disk),
        )
    }


def _refused(sandbox: str, error: IncusError) -> IncusError:
    """Why a sandbox cannot be removed where Incus is gone, and what can be done."""
    return IncusError(
        0,
        f"its instance {instance.name_of(sandbox)} cannot be removed: {error.message}",
        "start Incus and destroy it again; where Incus is gone for good, irons local uninstall --purge removes all that is here",
        gone=True,
    )


async def _nothing_more(_home: Path) -> None:
    """Its instance is gone already."""
