"""The `namespace` engine: a sandbox is a crun container in two user namespaces, over an image's files.

On disk, in `sandboxes/ID`: `machine.json` (what it is, written last), `upper` and `work` (what it adds to its
image), `settings` (its host key and the authorized keys, given to it read-only at each start), and `run-BOOT`
(process 1 of this boot of the machine). A directory `.new-ID-…` is being made, `.gone-ID` is being removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from irons.files import write_whole
from irons_local.bundle import boot_steps, entrypoint, sshd
from irons_local.bundle.machine import Machine
from irons_local.cell.layout import SANDBOX4, SANDBOX6
from irons_local.engines import starting
from irons_local.engines.homes import SETTINGS, Homes, is_unfinished, lay_settings, reserved
from irons_local.engines.merges import Chains, Merges
from irons_local.engines.namespace import activity, boot, booted, freezing, launch
from irons_local.engines.protocol import SSH_PORT, Activity, Cells, KeptFiles, Kit, Look, Made, OnKept, Spec
from irons_local.errors import CellError, EngineError
from irons_local.images import merging, origins
from irons_local.images.capture import Capture
from irons_local.images.catalog import Image, Images
from irons_local.images.kit.store import Kits, MadeKit
from irons_local.images.layers import DEEPEST
from irons_local.images.saving import settle
from irons_local.images.snapshots import Snapshot
from irons_local.linux import disk_images
from irons_local.linux.cgroup import Groups
from irons_local.linux.processes import end_tree, ended, ends, open_process
from irons_local.linux.remove_tree import remove_tree
from irons_local.progress import Progress, unheard

_EXIT_WITHIN = 10.0
_log = logging.getLogger(__name__)


class NamespaceEngine:
    """See the module; the methods are those of `Engine`."""

    name = "namespace"

    def __init__(self, kit: Kit, groups: Groups | None = None) -> None:
        self._cells: Cells = kit.cells
        self._images = Images(kit.images, kit.sandboxes)
        self._kits = Kits(kit.images)
        self._default_image = kit.default_image
        self._shown = kit.shown
        self._starter = kit.starter
        self._homes = Homes(kit.sandboxes)
        self._groups = Groups.find() if groups is None else groups
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        chains = Chains("changes", DEEPEST, self._depth, _is_free, _stacking, self._put_merged)
        self._merges = Merges(self._images, self._homes, self._locks, chains)

    async def recover(self) -> Sequence[str]:
        """Finish what was interrupted, and take up the cells of what runs; gives the ids of the running."""
        running: list[str] = []
        try:
            await self._images.recover()
            await self._kits.remove_unused(self._kits_used())
        except (EngineError, OSError) as error:
            _log.warning("images: %s", error)
        for home in self._homes.entries():
            if Machine.is_instance(home):
                continue
            try:
                if is_unfinished(home):
                    await remove_tree(home)
                elif not Machine.is_virtual(home) and await self._take_up(home):
                    running.append(home.name)
            except (EngineError, OSError) as error:
                # One that cannot be repaired must not keep the others from being served.
                _log.warning("%s: %s", home.name, error)
        self._merges.soon()
        return running

    async def _take_up(self, home: Path) -> bool:
        sandbox = home.name
        # A start that outlived the control plane that ordered it is waited for.
        async with Machine.held(home, launch.BOOT_WITHIN):
            process = Machine.running(home)
            if process is None:
                await settle(home, self._images.layers)
                await self._groups.remove(sandbox)
                return False
            # What a control plane was copying when it died goes on.
            await freezing.thaw(self._groups, sandbox, process, home)
            try:
                await self._cells.adopt(sandbox, *process)
            except (CellError, OSError) as error:
                if await ends(process, _EXIT_WITHIN):
                    # A process that is on its way out has no namespaces any more.
                    await self._groups.remove(sandbox)
                    return False
                _log.warning("%s runs, but its cell cannot be found again: %s", sandbox, error)
            return True

    async def create(self, spec: Spec, progress: Progress = unheard) -> Made:
        """Lay out a stopped sandbox; see `Engine.create`."""
        async with self._locks[spec.id]:
            self._homes.check_free(spec.id)
            authorized = sshd.authorized(spec.public_key)
            spec.limits.check()
            disk_images.check(spec.limits, os.geteuid())
            await self._warm()
            if not spec.snapshot:
                await self._images.ensure(spec.image, self._default_image, progress)
            async with self._images.keeping():
                origin = await origins.usable(self._images, spec.snapshot) if spec.snapshot else None
                image = (
                    await self._images.ensure(spec.image, self._default_image)
                    if origin is None
                    else self._images.by_id(origin.image)
                )
                if image.disk:
                    self._images.lower(image)
                if spec.entrypoint:
                    entrypoint.check(image.config, f"the image {image.name}")
                kit = await self._kit_for(image, progress)
                host_key = await self._lay_out(spec, image, kit, authorized, origin)
            _log.info(
                "laid out from %s",
                f"the image {image.name}" if origin is None else f"the snapshot {origin.name or origin.id}",
                extra={"sandbox": spec.id},
            )
            return Made(image.username, (host_key,), image.name)

    async def _warm(self) -> None:
        """Prepare the process that carries out a start; where that fails, the start reports it."""
        if self._starter is not None:
            with contextlib.suppress(OSError):
                await self._starter.warm()

    async def _kit_for(self, image: Image, progress: Progress) -> MadeKit | None:
        """The kit that serves an image; None where its own SSH server must do.

        Raises:
            EngineError: neither is there.
        """
        base = self._images.base()
        if base is None:
            if image.sshd:
                return None
            progress(f"{image.name} has no SSH server: one of the default image serves it", None)
            base = await self._images.ensure("", self._default_image, progress)
        try:
            return await self._kits.ensure(base, progress)
        except EngineError as error:
            if error.code == "image" and image.sshd:
                _log.warning("%s runs its own SSH server: %s", image.name, error)
                return None
            raise

    async def _lay_out(
        self, spec: Spec, image: Image, kit: MadeKit | None, authorized: str, origin: Snapshot | None
    ) -> str:
        """Make a sandbox's directory, whole or not at all; gives its public host key."""
        async with self._homes.draft(spec.id) as draft:
            for name in ("upper", "work"):
                (draft / name).mkdir(mode=0o700)
            # It is the sandbox's own root directory, independent of the daemon's umask.
            (draft / "upper").chmod(0o755)
            if spec.limits.disk is not None:
                await asyncio.to_thread(disk_images.make, draft, spec.limits.disk)
            host_key = await lay_settings(draft, spec, authorized)
            kit_id = "" if kit is None else kit.id
            machine = Machine.of(spec, image.id, image.name, host_key, kit_id, image.user)
            if origin is None:
                machine = replace(machine, redirects=self._images.redirects(image))
            else:
                machine = replace(
                    machine,
                    image_name=origin.image_name,
                    redirects=origin.redirects,
                    layers=origin.layers,
                    copied=True,
                    keys_inside=origin.keys,
                )
            machine.write(draft)
        return host_key

    async def start(self, sandbox: str, *, boot: bool = True) -> None:
        """Run it in a new cell; see `Engine.start`."""
        home = self._homes.of(sandbox)
        async with self._locks[sandbox], reserved(home) as held:
            if Machine.running(home) is not None:
                return
            await self._warm()
            await settle(home, self._images.layers)
            machine = Machine.read(home)
            machine = await self._with_newest_kit(home, machine)
            started = False
            try:
                await self._cells.drop(sandbox)
                await self._cells.make(sandbox)
                await self._boot(home, machine, held, steps=boot)
                started = True
                _log.info("started", extra={"sandbox": sandbox})
            except CellError as error:
                raise EngineError("failed", str(error)) from error
            finally:
                if not started:
                    await asyncio.shield(self._halt(sandbox, home, 0.0))

    async def _with_newest_kit(self, home: Path, machine: Machine) -> Machine:
        """A machine that names the newest kit; one that was made to run the SSH server of its image keeps it."""
        newest = await self._newest_kit() if machine.kit else None
        if newest is None or newest.id == machine.kit:
            return machine
        machine = replace(machine, kit=newest.id)
        machine.write(home)
        return machine

    async def _newest_kit(self) -> MadeKit | None:
        """The newest kit; where an irons of another version made it, it is made again, as programs may be missing."""
        newest = self._kits.newest()
        if newest is None or newest.is_current:
            return newest
        try:
            async with self._images.keeping():
                base = self._images.base()
                if base is not None:
                    newest = await self._kits.ensure(base)
                    _log.info(
                        "the SSH server for sandboxes was made again for this version of irons: %s", newest.id
                    )
        except EngineError as error:
            _log.warning("the SSH server for sandboxes could not be made again: %s", error)
        return newest

    async def stop(self, sandbox: str, *, grace: float = 5.0) -> None:
        """End it and drop its cell; see `Engine.stop`."""
        home = self._homes.of(sandbox)
        async with self._locks[sandbox]:
            process = Machine.running(home)
            if process is not None:
                await asyncio.to_thread(booted.keep, process, home)
            await self._halt(sandbox, home, grace)
            _log.info("stopped", extra={"sandbox": sandbox})
        self._merges.soon(sandbox)

    async def destroy(self, sandbox: str) -> None:
        """End it and remove all that it is; see `Engine.destroy`."""
        async with self._locks[sandbox]:
            await self._homes.remove(sandbox, lambda home: self._halt(sandbox, home, 0.5))
        _log.debug("destroyed", extra={"sandbox": sandbox})
        try:
            await self._images.sweep()
        except (EngineError, OSError) as error:
            # The sandbox is gone all the same; the next sweep removes what it was based on.
            _log.warning("layers of %s: %s", sandbox, error)
        self._merges.soon()

    async def capture(
        self, sandbox: str, snapshot: str, name: str, progress: Progress = unheard
    ) -> KeptFiles:
        """Keep its files as they are now; see `Copies.capture`."""
        home = self._homes.of(sandbox)
        async with self._locks[sandbox], reserved(home):
            if Machine.running(home) is None:
                await settle(home, self._images.layers)
                await self._merges.make_room(home)
            pause = freezing.Pause()
            async with self._images.keeping():
                process = Machine.running(home)
                if process is None:
                    await settle(home, self._images.layers)
                work, record = self._capturing(home, snapshot, name)
                if process is None:
                    whole = await work.stopped(record, progress)
                else:
                    whole = await work.running(
                        record,
                        progress,
                        lambda: freezing.frozen(self._groups, sandbox, process, home, pause),
                    )
            _log.info(
                "captured as %s, paused for %.3f s", snapshot, pause.seconds, extra={"sandbox": sandbox}
            )
            return KeptFiles(pause.seconds, whole.layers[0] if whole.layers != work.machine.layers else "")

    async def restore(self, sandbox: str, snapshot: str, kept: str, name: str, made: OnKept) -> None:
        """Put the files of a snapshot in place of its own; see `Copies.restore`."""
        home = self._homes.of(sandbox)
        async with self._locks[sandbox], reserved(home):
            if Machine.running(home) is not None:
                raise EngineError("state", f"sandbox {sandbox} runs", "stop it first")
            await settle(home, self._images.layers)
            await self._merges.make_room(home)
            async with self._images.keeping():
                origin = await origins.usable(self._images, snapshot)
                work, record = self._capturing(home, kept, name)
                whole = await work.stopped(record, unheard, empties=True)
                await made(KeptFiles(0.0, whole.layers[0] if whole.layers != work.machine.layers else ""))
                if not origin.laid:
                    Machine.mark_laid(home, laid=False)
                replace(
                    Machine.read(home),
                    image=origin.image,
                    image_name=origin.image_name,
                    layers=origin.layers,
                    redirects=origin.redirects,
                    keys_inside=origin.keys,
                ).write(home)
            _log.info("restored from %s", snapshot, extra={"sandbox": sandbox})

    async def discard(self, snapshot: str) -> None:
        """Remove a snapshot; see `Copies.discard`."""
        await origins.discard(self._images, snapshot)
        self._merges.soon()

    def _depth(self, machine: Machine) -> int:
        return len(machine.layers) + len(self._images.by_id(machine.image).layers)

    async def _put_merged(self, home: Path, made: merging.Merged) -> bool:
        await settle(home, self._images.layers)
        return merging.adopt(self._images.layers, home, made)

    def _capturing(self, home: Path, snapshot: str, name: str) -> tuple[Capture, Snapshot]:
        """Return what captures a sandbox, and the record to complete."""
        machine = Machine.read(home)
        work = Capture(
            home,
            machine,
            self._images.by_id(machine.image),
            self._images.layers,
            self._images.snapshots,
        )
        record = Snapshot(
            snapshot,
            name,
            machine.id,
            machine.image,
            machine.image_name,
            redirects=machine.redirects,
            laid=Machine.is_laid(home),
            user=machine.user,
        )
        return work, record

    async def admit(self, sandbox: str, public_keys: str, gone: Sequence[str] = ()) -> None:
        """Let other keys open it; see `Admits.admit`."""
        home = self._homes.of(sandbox)
        async with self._locks[sandbox]:
            authorized = sshd.authorized(public_keys)
            try:
                write_whole(home / SETTINGS / sshd.AUTHORIZED, authorized)
            except OSError as error:
                raise EngineError("failed", f"the authorized keys: {error.strerror}") from error
            process = Machine.running(home)
            if process is None:
                return
            try:
                spaces = await self._cells.namespaces(sandbox)
            except CellError as error:
                raise EngineError("failed", str(error)) from error
            with contextlib.ExitStack() as stack:
                await launch.amend(starting.kept(stack, spaces), process, sshd.marked(authorized), gone)

    async def announce(self, sandbox: str, line: str) -> None:
        """Write to the terminals of its sessions; see `Announces.announce`."""
        process = Machine.running(self._homes.at(sandbox))
        if process is None:
            return
        try:
            spaces = await self._cells.namespaces(sandbox)
        except CellError as error:
            raise EngineError("failed", str(error)) from error
        with contextlib.ExitStack() as stack:
            await launch.announce(starting.kept(stack, spaces), process, line)

    async def look(self, sandbox: str) -> Look:
        """How it is, asked of its process 1; see `Engine.look`."""
        home = self._homes.at(sandbox)
        if not home.is_dir():
            return Look("absent")
        try:
            machine = Machine.read(home)
        except EngineError as error:
            return Look("broken", error.message)
        process = Machine.running(home)
        facts = {
            "engine": self.name,
            "image": machine.image_name,
            "addresses": f"{SANDBOX4}, {SANDBOX6}",
            **({"user": machine.user} if machine.user else {}),
            **({"keys_inside": str(machine.keys_inside)} if machine.keys_inside else {}),
            **self._groups.facts(machine.limits),
            **disk_images.facts(home, machine.limits),
        }
        if process is None:
            return Look("stopped", self._groups.why_ended(sandbox, machine.limits), facts)
        facts |= {"pid": str(process.pid), **self._groups.used(sandbox), **booted.facts(process)}
        return Look("running", facts=facts)

    async def boot_output(self, sandbox: str) -> bytes:
        """What its boot steps printed last; see `Booter.boot_output`."""
        home = self._homes.of(sandbox)
        process = Machine.running(home)
        if process is not None:
            return await asyncio.to_thread(booted.output, process)
        try:
            return await asyncio.to_thread((home / booted.LOG).read_bytes)
        except FileNotFoundError:
            return b""

    async def activity(self, sandbox: str) -> Activity | None:
        """How busy it is; see `Observer.activity`."""
        process = Machine.running(self._homes.at(sandbox))
        if process is None:
            return None
        return await asyncio.to_thread(activity.activity, self._groups, sandbox, process.pid)

    async def connect(self, sandbox: str, *, port: int = SSH_PORT, within: float = 10.0) -> socket.socket:
        """A connection to the sandbox's loopback; see `Engine.connect`."""
        if Machine.running(self._homes.of(sandbox)) is None:
            raise EngineError("state", f"sandbox {sandbox} does not run")
        try:
            return await self._cells.connect(sandbox, starting.LOOPBACK, port, within=within)
        except (CellError, OSError) as error:
            raise EngineError("failed", f"no connection to port {port}: {error}") from error

    async def wait(self, sandbox: str) -> None:
        """Come back when it has stopped; see `Engine.wait`."""
        process = Machine.running(self._homes.at(sandbox))
        descriptor = None if process is None else open_process(process)
        if descriptor is None:
            return
        try:
            await ended(descriptor)
        finally:
            os.close(descriptor)

    def _kits_used(self) -> frozenset[str]:
        """Ids of the kits that sandboxes run, or ran last."""
        used: set[str] = set()
        for home in self._homes.entries():
            with contextlib.suppress(EngineError):
                used.add(Machine.read(home).kit)
        return frozenset(used)

    async def _halt(self, sandbox: str, home: Path, grace: float) -> None:
        process = Machine.running(home)
        if process is not None:
            await end_tree(process, grace)
        Machine.forget_runs(home)
        with contextlib.suppress(CellError):
            await starting.end_strays(self._cells, sandbox)
            await self._cells.drop(sandbox)
        await self._groups.remove(sandbox)

    def _kit_of(self, machine: Machine) -> MadeKit | None:
        kit = self._kits.by_id(machine.kit) if machine.kit else None
        if machine.kit and kit is None:
            raise EngineError("image", f"the kit {machine.kit} is gone", "irons create makes another")
        return kit

    async def _boot(self, home: Path, machine: Machine, held: int, *, steps: bool) -> None:
        image = self._images.by_id(machine.image)
        kit = self._kit_of(machine)
        own = (entrypoint.step(image.config, kit=kit is not None),) if machine.entrypoint else ()
        lower = [*self._images.layers.trees(machine.layers), *self._images.lower(image)]
        with contextlib.ExitStack() as stack:
            given = stack.enter_context(contextlib.ExitStack())
            console, theirs = starting.console(stack, given)
            spaces = starting.kept(stack, await self._cells.namespaces(machine.id))
            note = starting.note(stack, Machine.run_file(home))
            groups = stack.enter_context(self._groups.joined(machine.id, machine.limits))
            order = launch.order(
                home,
                machine,
                image,
                lower,
                kit,
                boot.Inherited(*spaces, groups, theirs, note),
                (*boot_steps.STEPS, *own) if steps else None,
                await asyncio.to_thread(self._shown),
                self._groups.bases,
            )
            process, greets = await launch.run(order, held, self._starter)
            # The machine alone has that end now: what is read is what it says, and then its end.
            given.close()
            if not greets:
                await launch.greeted(self._cells, machine.id, process, console)
        Machine.mark_laid(home)


def _is_free(home: Path) -> bool:
    """Whether a sandbox's layers can be replaced: nothing has them mounted, and another engine's are not of this kind."""
    return not Machine.is_virtual(home) and Machine.running(home) is None


def _stacking(machine: Machine) -> merging.Fill:
    async def fill(trees: Sequence[Path], target: Path) -> None:
        await merging.stack_files(trees, target, redirects=machine.redirects)

    return fill
