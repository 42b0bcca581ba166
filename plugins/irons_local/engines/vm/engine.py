"""The `vm` engine: a sandbox is a QEMU machine in a cell, with a kernel of its own, over an image's files on a disk.

On disk, in `sandboxes/ID`: `machine.json` (what it is, written last), `disk.qcow2` (what it adds to its image), `settings`
(its host key and the authorized keys), `console.log` (the end of what it printed), and `run-BOOT` (QEMU in this boot of the
machine). Layers between that disk and the image's are where those of all sandboxes are (`chain`). A directory `.new-ID-…` is being made, `.gone-ID` is being removed.
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

from irons_local.bundle import sshd
from irons_local.bundle.machine import VIRTUAL_DISK, Machine
from irons_local.engines import starting
from irons_local.engines.homes import Homes, is_unfinished, lay_settings, reserved
from irons_local.engines.merges import Chains, Merges
from irons_local.engines.namespace import activity
from irons_local.engines.protocol import SSH_PORT, Activity, Cells, KeptFiles, Kit, Look, Made, OnKept, Spec
from irons_local.engines.vm import chain, console, kvm, launch, limits, power, qemu, qmp, stalled, switching
from irons_local.engines.vm.merge import filling, swap
from irons_local.errors import CellError, EngineError
from irons_local.images import merging, origins
from irons_local.images.bootable import store
from irons_local.images.catalog import MACHINE, Image, Images
from irons_local.images.layers import TREE
from irons_local.images.saving import explained
from irons_local.images.snapshots import Snapshot
from irons_local.linux.cgroup import Groups
from irons_local.linux.processes import ended, ends, open_process
from irons_local.linux.remove_tree import remove_tree
from irons_local.progress import Progress, unheard

_EXIT_WITHIN = 10.0
_SETTLED_WITHIN = 10.0
_EMULATED_GRACE = 6.0
"""How many times slower a guest ends that is emulated."""

_log = logging.getLogger(__name__)


class VmEngine:
    """See the module; the methods are those of `Engine`."""

    name = "vm"

    def __init__(self, kit: Kit, groups: Groups | None = None) -> None:
        self._cells: Cells = kit.cells
        self._images = Images(kit.images, kit.sandboxes)
        self._shown = kit.shown
        self._homes = Homes(kit.sandboxes)
        self._groups = Groups.find() if groups is None else groups
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._probe: kvm.KvmProbe | None = None
        self._ends: dict[str, str] = {}
        self._stalled: dict[str, stalled.Stalled] = {}
        chains = Chains(
            "disk",
            chain.DEEPEST,
            lambda machine: len(machine.layers),
            Machine.is_virtual,
            filling.flattening,
            self._put_merged,
        )
        self._merges = Merges(self._images, self._homes, self._locks, chains)

    async def recover(self) -> Sequence[str]:
        """Finish what was interrupted, and take up the cells of what runs; gives the ids of the running."""
        running: list[str] = []
        for home in self._homes.entries():
            if not Machine.is_virtual(home):
                continue
            try:
                if is_unfinished(home):
                    await remove_tree(home)
                elif await self._take_up(home):
                    running.append(home.name)
            except (EngineError, OSError) as error:
                # One that cannot be repaired must not keep the others from being served.
                _log.warning("%s: %s", home.name, error)
        self._merges.soon()
        return running

    async def _take_up(self, home: Path) -> bool:
        # A start that outlived the control plane that ordered it is waited for.
        async with Machine.held(home, launch.READY_WITHIN):
            process = Machine.running(home)
            if process is None:
                await self._settle(home)
                await self._groups.remove(home.name)
                return False
            try:
                await self._cells.adopt(home.name, *process)
            except (CellError, OSError) as error:
                if await ends(process, _EXIT_WITHIN):
                    await self._groups.remove(home.name)
                    return False
                _log.warning("%s runs, but its cell cannot be found again: %s", home.name, error)
            try:
                # A QEMU that does not answer keeps neither its machine from being found nor the other machines waiting.
                async with asyncio.timeout(_SETTLED_WITHIN):
                    await self._settle(home)
            except (EngineError, OSError) as error:
                _log.warning("%s runs, but a snapshot of it is not finished: %s", home.name, error)
            return True

    async def create(self, spec: Spec, progress: Progress = unheard) -> Made:
        """Lay out a stopped sandbox; see `Engine.create`."""
        async with self._locks[spec.id]:
            self._homes.check_free(spec.id)
            authorized = sshd.authorized(spec.public_key)
            if spec.entrypoint:
                raise EngineError(
                    "input", "a virtual machine does not run its image's entrypoint", "use --engine namespace"
                )
            given = limits.filled(spec.limits)
            launch.check_memory(limits.memory_of(given), _meminfo())
            probe = await self._accelerator()
            if not probe.usable:
                progress(limits.slow(probe.why), None)
            wanted = "" if spec.snapshot else (await self._image(spec.image, progress)).id
            await store.prepare(self._images, self._images.by_id(wanted) if wanted else None, progress)
            async with self._images.keeping():
                origin = (
                    await origins.usable(self._images, spec.snapshot)
                    if spec.snapshot
                    else await origins.of_disk(self._images, self._images.by_id(wanted))
                )
                image = self._images.by_id(wanted if origin is None else origin.image)
                bootable = await store.ensure(self._images, image, progress)
                size = limits.disk_of(given, bootable.size, 0 if origin is None else origin.disk)
                machine = Machine.of(
                    replace(spec, limits=replace(given, disk=size)), image.id, image.name, "", user=image.user
                )
                if origin is not None:
                    machine = replace(machine, image_name=origin.image_name, layers=origin.layers)
                host_key = await self._lay_out(spec, machine, authorized)
            _log.info(
                "laid out from %s",
                f"the snapshot {spec.snapshot}" if spec.snapshot else f"the image {machine.image_name}",
                extra={"sandbox": spec.id},
            )
            return Made(image.username, (host_key,), machine.image_name)

    async def _image(self, name: str, progress: Progress) -> Image:
        """The image of that name; the default one is built where there is none."""
        found = self._images.find(name or MACHINE)
        if found is not None:
            return found
        if name and name != MACHINE:
            return await self._images.ensure(name)
        progress("there is no image for virtual machines yet: making one, once", None)
        return await self._images.build(MACHINE, machine=True, progress=progress, share=True)

    async def _lay_out(self, spec: Spec, machine: Machine, authorized: str) -> str:
        """Make a sandbox's directory, whole or not at all; gives its public host key."""
        async with self._homes.draft(spec.id) as draft:
            host_key = await lay_settings(draft, spec, authorized)
            chain.write_empty(draft / VIRTUAL_DISK, machine.limits.disk or 0)
            replace(machine, host_key=host_key).write(draft)
        return host_key

    async def start(self, sandbox: str, *, boot: bool = True) -> None:
        """Run it in a new cell; see `Engine.start`."""
        home = self._homes.of(sandbox)
        async with self._locks[sandbox], reserved(home) as held:
            if Machine.running(home) is not None:
                return
            await self._settle(home)
            machine = Machine.read(home)
            chain.check(home, machine, self._images.layers)
            launch.check_memory(limits.memory_of(machine.limits), _meminfo())
            self._ends.pop(sandbox, None)
            started = False
            try:
                await self._cells.drop(sandbox)
                await self._cells.make(sandbox)
                # Until QEMU has it open.
                async with store.held(self._images, self._images.by_id(machine.image)) as bootable:
                    await self._boot(home, machine, bootable, held, services=boot)
                started = True
                _log.info("started", extra={"sandbox": sandbox})
            except CellError as error:
                raise EngineError("failed", str(error)) from error
            except OSError as error:
                raise EngineError("failed", f"the start failed: {error}") from error
            finally:
                if not started:
                    await asyncio.shield(self._halt(sandbox, home, 0.0))

    async def _boot(
        self, home: Path, machine: Machine, bootable: store.Bootable, held: int, *, services: bool
    ) -> None:
        image = self._images.by_id(machine.image)
        probe = await self._accelerator()
        made_of = launch.hardware(machine.limits, kvm=probe.usable, services=services)
        with contextlib.ExitStack() as stack:
            given = stack.enter_context(contextlib.ExitStack())
            ours, theirs = starting.console(stack, given)
            spaces = starting.kept(stack, await self._cells.namespaces(machine.id))
            handed = launch.Handed(
                spaces,
                stack.enter_context(self._groups.joined(machine.id, launch.group_limits(machine.limits))),
                theirs,
                starting.note(stack, Machine.run_file(home)),
                held,
                [
                    stack.enter_context(qmp.listening(home / name))
                    for name in (launch.COMMANDS, launch.EVENTS)
                ],
            )
            told = launch.order(
                home,
                machine,
                image,
                bootable,
                chain.files(machine, self._images.layers),
                made_of,
                handed,
                await asyncio.to_thread(self._shown),
                str(kvm.DEVICE) if probe.usable else "",
            )
            process = await launch.run(told, handed)
            given.close()
            try:
                await launch.greeted(self._cells, machine.id, process, ours)
            except EngineError:
                await console.keep(home)
                raise

    async def stop(self, sandbox: str, *, grace: float = 5.0) -> None:
        """End it and drop its cell; see `Engine.stop`."""
        home = self._homes.of(sandbox)
        async with self._locks[sandbox]:
            await self._halt(sandbox, home, grace)
            _log.info("stopped", extra={"sandbox": sandbox})

    async def capture(
        self, sandbox: str, snapshot: str, name: str, progress: Progress = unheard
    ) -> KeptFiles:
        """Keep its disk as it is now; see `Copies.capture`. One that runs is not stopped: its writes wait for a moment."""
        del progress
        home = self._homes.of(sandbox)
        async with self._locks[sandbox]:
            # Before anything is locked that others wait for.
            await asyncio.to_thread(chain.flush, home)
            async with reserved(home):
                await self._settle(home)
                await self._merges.make_room(home)
                async with self._images.keeping():
                    kept = await self._keep(home, snapshot, name)
            self._merges.soon(sandbox)
            _log.info(
                "captured as %s, writes waited for %.3f s", snapshot, kept.pause, extra={"sandbox": sandbox}
            )
            return kept

    async def _keep(
        self, home: Path, snapshot: str, name: str, most: int | None = chain.DEEPEST
    ) -> KeptFiles:
        """Make a layer of its disk where something was written to it, and a snapshot of its layers."""
        await self._settle(home)
        machine = Machine.read(home)
        pause, added = 0.0, ""
        try:
            if Machine.running(home) is not None or not chain.is_empty(home, machine):
                machine = chain.begin(home, machine, self._images.layers, most)
                added = machine.layers[0]
                pause = await self._settle(home)
            record = Snapshot(
                snapshot,
                name,
                machine.id,
                machine.image,
                machine.image_name,
                layers=machine.layers,
                user=machine.user,
                disk=machine.limits.disk or 0,
            )
            self._images.snapshots.finish(self._images.snapshots.begin(record), snapshot)
        except OSError as error:
            raise explained(error, "the snapshot") from error
        return KeptFiles(pause, added)

    async def _settle(self, home: Path) -> float:
        """Finish a snapshot that was interrupted or is being made; gives for how long the machine did not write."""
        running = Machine.running(home) is not None

        async def switch(disk: Path, layer: str) -> float:
            return await switching.switch(home / launch.COMMANDS, disk, layer)

        try:
            return await chain.settle(home, self._images.layers, switch if running else None)
        except qmp.QmpError as error:
            raise EngineError("failed", f"QEMU made no snapshot of its disk: {error}") from error
        except OSError as error:
            raise explained(error, "the snapshot") from error

    async def restore(self, sandbox: str, snapshot: str, kept: str, name: str, made: OnKept) -> None:
        """Put the disk of a snapshot in place of its own; see `Copies.restore`."""
        home = self._homes.of(sandbox)
        async with self._locks[sandbox], reserved(home), self._images.keeping():
            if Machine.running(home) is not None:
                raise EngineError("state", f"sandbox {sandbox} runs", "stop it first")
            origin = await origins.usable(self._images, snapshot)
            await made(await self._keep(home, kept, name, most=None))
            # Its disk is empty now, over whatever the record names.
            replace(
                Machine.read(home),
                image=origin.image,
                image_name=origin.image_name,
                layers=origin.layers,
            ).write(home)
            _log.info("restored from %s", snapshot, extra={"sandbox": sandbox})

    async def discard(self, snapshot: str) -> None:
        """Remove a snapshot; see `Copies.discard`."""
        await origins.discard(self._images, snapshot)
        self._merges.soon()

    async def _put_merged(self, home: Path, made: merging.Merged) -> bool:
        """Put a merged layer in the place of those that it was made of, also where a QEMU reads them."""
        await self._settle(home)
        machine = Machine.read(home)
        at = merging.place_of(machine, made.run)
        if at is None:
            return False
        if Machine.running(home) is not None:
            disk = chain.file_of(made.home / TREE)
            try:
                swapped = await swap.swap(
                    home / launch.COMMANDS, disk, made.layer, len(machine.layers), at, len(made.run)
                )
            except qmp.QmpError as error:
                raise EngineError("failed", f"QEMU does not read the merged disk: {error}") from error
            if not swapped:
                return False
        return merging.adopt(self._images.layers, home, made)

    async def destroy(self, sandbox: str) -> None:
        """End it and remove all that it is; see `Engine.destroy`."""
        async with self._locks[sandbox]:
            await self._homes.remove(sandbox, lambda home: self._halt(sandbox, home, 0.0))
        self._ends.pop(sandbox, None)
        _log.debug("destroyed", extra={"sandbox": sandbox})
        try:
            await self._images.sweep()
        except (EngineError, OSError) as error:
            # The sandbox is gone all the same; the next sweep removes what it was based on.
            _log.warning("images of %s: %s", sandbox, error)
        self._merges.soon()

    async def look(self, sandbox: str) -> Look:
        """How it is, asked of QEMU's process; see `Engine.look`."""
        home = self._homes.at(sandbox)
        if not home.is_dir():
            return Look("absent")
        try:
            machine = Machine.read(home)
        except EngineError as error:
            return Look("broken", error.message)
        process = Machine.running(home)
        probe = await self._accelerator()
        if probe.usable and process is not None:
            probe = await self._used(home)
        facts = {
            "engine": self.name,
            "image": machine.image_name,
            "addresses": qemu.ADDRESS,
            **({"user": machine.user} if machine.user else {}),
            **limits.facts(machine.limits, kvm=probe.usable, why=probe.why),
            **limits.disk_facts([home / VIRTUAL_DISK, *chain.whole(machine, self._images.layers)]),
        }
        if process is None:
            return Look("stopped", self._reason(sandbox, home), facts=facts)
        facts |= {"pid": str(process.pid), **limits.used(self._groups.used(sandbox))}
        known = self._stalled.get(sandbox)
        if known is not None and known.stands_still:
            facts["disk_note"] = stalled.NOTE
        return Look("running", facts=facts)

    def _reason(self, sandbox: str, home: Path) -> str:
        """Why it stopped by itself; "" where it was stopped."""
        # What was written about a run goes when it is stopped.
        return self._ends.get(sandbox, "QEMU was killed, or ended") if Machine.run_file(home).exists() else ""

    async def boot_output(self, sandbox: str) -> bytes:
        """The end of what its console printed; see `Booter.boot_output`."""
        home = self._homes.of(sandbox)
        async with self._locks[sandbox]:
            if Machine.running(home) is not None:
                await console.keep(home)
        return await asyncio.to_thread(console.shown, home)

    async def activity(self, sandbox: str) -> Activity | None:
        """How busy it is; see `Observer.activity`."""
        process = Machine.running(self._homes.at(sandbox))
        if process is None:
            return None
        return await asyncio.to_thread(activity.activity, self._groups, sandbox, process.pid)

    async def connect(self, sandbox: str, *, port: int = SSH_PORT, within: float = 10.0) -> socket.socket:
        """A connection to the guest's SSH server, the only port that is forwarded; see `Engine.connect`."""
        if Machine.running(self._homes.of(sandbox)) is None:
            raise EngineError("state", f"sandbox {sandbox} does not run")
        if port != SSH_PORT:
            raise EngineError("failed", f"only port {SSH_PORT} of a virtual machine is reached from outside")
        try:
            return await self._cells.connect(sandbox, starting.LOOPBACK, port, within=within)
        except (CellError, OSError) as error:
            raise EngineError("failed", f"no connection to port {port}: {error}") from error

    async def wait(self, sandbox: str) -> None:
        """Come back when it has stopped, and remember why; see `Engine.wait`."""
        process = Machine.running(self._homes.at(sandbox))
        descriptor = None if process is None else open_process(process)
        if descriptor is None:
            return
        over = asyncio.Event()
        listening = asyncio.create_task(self._listen(sandbox, over), name=f"events {sandbox}")
        try:
            await ended(descriptor)
            over.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_EXIT_WITHIN):
                    await listening
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            os.close(descriptor)

    async def _listen(self, sandbox: str, over: asyncio.Event) -> None:
        """Remember why the guest ended, as QEMU tells it, and have it go on where the disk was full.

        QEMU may answer late, and whoever broke out of it speaks nonsense: it is asked again until it is `over`.
        """
        home = self._homes.at(sandbox)
        known = self._stalled[sandbox] = stalled.Stalled(home, home / launch.COMMANDS)
        try:
            while True:
                with contextlib.suppress(qmp.QmpError, OSError):
                    await self._hear(sandbox, known)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(stalled.LOOK_EVERY):
                        await over.wait()
                        return
        finally:
            if self._stalled.get(sandbox) is known:
                del self._stalled[sandbox]

    async def _hear(self, sandbox: str, known: stalled.Stalled) -> None:
        """Take what QEMU tells for as long as it speaks QMP. Raises `QmpError` or `OSError` where it does not answer."""
        async with qmp.connected(self._homes.at(sandbox) / launch.EVENTS) as monitor:
            serving = asyncio.create_task(known.serve(), name=f"room for {sandbox}")
            try:
                while (event := await monitor.event()) is not None:
                    known.take(event)
                    if event.name == "SHUTDOWN":
                        self._ends[sandbox] = limits.ended(event.data)
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)

    async def _accelerator(self) -> kvm.KvmProbe:
        """Whether KVM runs guests, found out once."""
        if self._probe is None:
            try:
                self._probe = await kvm.probe(qemu.find())
            except (EngineError, OSError) as error:
                return kvm.KvmProbe(False, str(error))
            if not self._probe.usable:
                _log.info("virtual machines are emulated: %s", self._probe.why)
        return self._probe

    async def _used(self, home: Path) -> kvm.KvmProbe:
        """What a running machine really uses: QEMU emulates where it may not open KVM's device."""
        try:
            async with qmp.connected(home / launch.COMMANDS) as monitor:
                return kvm.in_use(await monitor.execute("query-kvm"))
        except qmp.QmpError as error:
            return kvm.KvmProbe(False, f"not known: {error}")

    async def _halt(self, sandbox: str, home: Path, grace: float) -> None:
        process = Machine.running(home)
        if process is not None:
            slower = 1.0 if self._probe is not None and self._probe.usable else _EMULATED_GRACE
            await power.off(home, process, grace * slower)
        Machine.forget_runs(home)
        for name in (launch.COMMANDS, launch.EVENTS):
            (home / name).unlink(missing_ok=True)
        with contextlib.suppress(CellError):
            await starting.end_strays(self._cells, sandbox)
            await self._cells.drop(sandbox)
        await self._groups.remove(sandbox)
        with contextlib.suppress(EngineError):
            # What cannot be finished now is before the next start.
            await self._settle(home)


def _meminfo() -> str:
    return Path("/proc/meminfo").read_text(encoding="ascii")
