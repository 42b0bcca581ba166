"""Snapshots of sandboxes, and copies that are made of them: an engine that `Copies` keeps the files, the store what else there is.

A snapshot's row is written before its files are kept and says that it is made only after that; a removal says first that it is
not. What a crash leaves of either is removed at the next start, so a snapshot is whole or not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import sqlite3
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from irons.text import size_text
from irons_local import times
from irons_local.control.sandbox.access import adding
from irons_local.control.sandbox.engine_registry import VM
from irons_local.control.sandbox.lifecycle import Lifecycle
from irons_local.control.sandbox.new_sandbox import RequestedSandbox
from irons_local.control.sandbox.states import State
from irons_local.control.schema.errors import HttpError, bad, conflict
from irons_local.control.store import rules, sandboxes, snapshots
from irons_local.control.store.changelog import What, record
from irons_local.control.store.database import Store, StoreError
from irons_local.control.store.sandboxes import CREATING, StoredSandbox
from irons_local.control.store.snapshots import StoredSnapshot
from irons_local.engines.protocol import Copies, Engine, KeptFiles
from irons_local.engines.vm import limits as vm_limits
from irons_local.errors import EngineError
from irons_local.limits import Limits
from irons_policy.rules import Rule

T = TypeVar("T")
_log = logging.getLogger(__name__)
_MEMORY = 24 << 20
"""Bytes that a sandbox in which nothing is done takes, with what the host keeps for it."""
_MEMORY_RESERVE = 256 << 20
_AT_REST = (State.READY, State.RUNNING, State.STOPPED)
_STATUS = {"absent": 404, "exists": 409, "input": 400, "limit": 503, "state": 409}


class SandboxCopies:
    """Makes, lists and removes snapshots, restores sandboxes from them, and makes copies.

    Args:
        store: where snapshots are recorded.
        engines: what keeps their files.
        lifecycle: what says which state a sandbox has, and makes the copies.
    """

    def __init__(self, store: Store, engines: Mapping[str, Engine], lifecycle: Lifecycle) -> None:
        self._store = store
        self._engines = engines
        self._lifecycle = lifecycle
        self._tasks: set[asyncio.Task[Any]] = set()

    async def snapshot(self, sandbox: str, name: str | None, note: str) -> StoredSnapshot:
        """Keep a sandbox's files, rules and mode as they are now.

        Args:
            sandbox: its name or id.
            name: what to call the snapshot; None chooses one.
            note: a text of whoever makes it.

        Raises:
            HttpError: there is no such sandbox, its state or its engine does not allow it, the name is taken, or there is no room.
        """

        def named(connection: sqlite3.Connection, found: StoredSandbox) -> str:
            return name or snapshots.free_name(connection, found.name)

        return await self._to_the_end(self._snapshot(sandbox, named, note))

    async def listed(self, sandbox: str | None) -> list[StoredSnapshot]:
        """Return the snapshots there are, oldest first; with `sandbox`, a name or an id, those of that sandbox.

        Raises:
            HttpError: there is no such sandbox.
        """

        def work(connection: sqlite3.Connection) -> list[StoredSnapshot]:
            only = None if sandbox is None else sandboxes.get(connection, sandbox).id
            return snapshots.all_of(connection, only)

        return await self._store.read(work)

    async def remove(self, name: str) -> None:
        """Remove a snapshot; sandboxes that were made from it stay whole.

        Raises:
            HttpError: there is none of that name, or a sandbox is being made from it.
        """

        def begin(connection: sqlite3.Connection) -> StoredSnapshot:
            found = snapshots.get(connection, name)
            users = snapshots.users(connection, found.id)
            if users:
                raise conflict(
                    f"the snapshot {found.name} is in use: {', '.join(users)} is being made from it; wait until it is ready"
                )
            snapshots.begin_removal(connection, found.id)
            record(connection, What.SNAPSHOT_REMOVED, subject=str(found.name), before=_told(found))
            return found

        found = await self._store.write(begin)
        await self._to_the_end(self._discard(found))
        await self._to_the_end(self.sweep())

    async def restore(self, sandbox: str, name: str) -> StoredSnapshot:
        """Put the files of a snapshot of a stopped sandbox in place of its own; its rules and its mode stay.

        Returns:
            The snapshot in which its files as they were are kept.

        Raises:
            HttpError: there is no such sandbox or snapshot, the snapshot is of another sandbox, or it is not stopped.
        """
        return await self._to_the_end(self._restore(sandbox, name))

    async def origin(self, name: str) -> tuple[StoredSnapshot, list[Rule]]:
        """Return a snapshot, and the rules that its sandbox had.

        Raises:
            HttpError: there is none of that name.
        """

        def work(connection: sqlite3.Connection) -> tuple[StoredSnapshot, list[Rule]]:
            found = snapshots.get(connection, name)
            return found, rules.of(connection, found.id)

        return await self._store.read(work)

    async def fork(
        self,
        sandbox: str,
        names: Sequence[str],
        policy: Callable[[StoredSnapshot, Sequence[Rule]], CopyPolicy],
        *,
        held: bool = False,
    ) -> tuple[list[StoredSandbox], StoredSnapshot]:
        """Make copies of a sandbox as it is now, all of them or none, and begin to start them.

        Args:
            sandbox: its name or id.
            names: what to call the copies.
            policy: gives the mode and the rules of each copy, of those of the sandbox.
            held: each ends with its client (`holds`).

        Raises:
            HttpError: as `snapshot`; or a name is taken, or the policy contradicts that of the sandbox.
        """
        return await self._to_the_end(self._fork(sandbox, names, policy, held=held))

    async def sweep(self) -> None:
        """Remove what is left of snapshots that were interrupted, and of forks whose copies are made or destroyed."""
        for left in await self._store.read(snapshots.left_over):
            if any(task.get_name() == left.id for task in self._tasks):
                continue
            # It may have been made while those before it were removed: in this order its row says so.
            if all(each.id != left.id for each in await self._store.read(snapshots.left_over)):
                continue
            try:
                await self._discard(left)
            except (HttpError, StoreError) as error:
                _log.warning("the snapshot %s: %s", left.name or left.id, error)

    async def close(self) -> None:
        """Stop working; what is not done is removed at the next start."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _snapshot(
        self, sandbox: str, named: Callable[[sqlite3.Connection, StoredSandbox], str | None], note: str
    ) -> StoredSnapshot:
        async with self._lifecycle.turn(sandbox) as found:
            engine = self._engine(found)
            state = self._lifecycle.state(found)
            if state not in _AT_REST:
                raise conflict(
                    f"{found.name} is {state.doing}; a snapshot is made of a sandbox that is ready or stopped"
                )
            kept = await self._begin(found, named, note)
            captured = await self._kept(
                kept, found, lambda: engine.capture(found.id, kept.id, kept.name or "")
            )
            return await self._finish(found, kept, captured)

    async def _begin(
        self,
        found: StoredSandbox,
        named: Callable[[sqlite3.Connection, StoredSandbox], str | None],
        note: str,
    ) -> StoredSnapshot:
        new = StoredSnapshot.of(found, None, note)
        task = asyncio.current_task()
        if task is not None:
            # What `sweep` leaves alone, from before there is a row on.
            task.set_name(new.id)

        def insert(connection: sqlite3.Connection) -> StoredSnapshot:
            kept = replace(new, name=named(connection, found))
            snapshots.insert(connection, kept)
            return kept

        return await self._store.write(insert)

    async def _kept(
        self, kept: StoredSnapshot, found: StoredSandbox, work: Callable[[], Coroutine[Any, Any, KeptFiles]]
    ) -> KeptFiles:
        """Have the engine keep files; where that fails nothing is left of the snapshot."""
        try:
            return await work()
        except (EngineError, OSError) as error:
            await self._forgotten(kept)
            raise _refused(error, found.name) from error

    async def _forgotten(self, kept: StoredSnapshot) -> None:
        # What fails last fails after the engine made the snapshot. Where that cannot be removed, the next sweep does.
        with contextlib.suppress(HttpError, StoreError):
            await self._discard(kept)

    async def _finish(
        self, found: StoredSandbox, kept: StoredSnapshot, captured: KeptFiles
    ) -> StoredSnapshot:
        pause = round(captured.pause * 1e6) or None
        whole = replace(kept, made=True, pause=pause, layer=captured.layer)

        def finish(connection: sqlite3.Connection) -> None:
            snapshots.finish(connection, kept, pause=pause, layer=captured.layer)
            if kept.name is not None:
                record(connection, What.SNAPSHOT_MADE, sandbox=found, subject=kept.name, after=_told(whole))

        await self._store.write(finish)
        return whole

    async def _discard(self, found: StoredSnapshot) -> None:
        engine = self._engines.get(found.engine)
        try:
            if isinstance(engine, Copies):
                await engine.discard(found.id)
        except (EngineError, OSError) as error:
            raise _refused(error, f"the snapshot {found.name or found.id}") from error
        await self._store.write(lambda connection: snapshots.forget(connection, found.id), last=True)

    async def _restore(self, sandbox: str, name: str) -> StoredSnapshot:
        async with self._lifecycle.turn(sandbox) as found:
            engine = self._engine(found)
            origin = await self._store.read(lambda connection: snapshots.get(connection, name))
            if origin.sandbox != found.id:
                raise conflict(
                    f"{origin.name} is a snapshot of {origin.sandbox_name}, not of {found.name}; "
                    f"irons create NEW --from {origin.name} makes a copy of it"
                )
            state = self._lifecycle.state(found)
            if state is not State.STOPPED:
                raise conflict(f"{found.name} is {state.doing}; stop it first")

            def named(connection: sqlite3.Connection, of: StoredSandbox) -> str:
                return snapshots.free_name(connection, of.name)

            kept = await self._begin(found, named, f"before it was restored from {origin.name}")
            finished: list[StoredSnapshot] = []

            async def made(captured: KeptFiles) -> None:
                # Before the files are replaced: whatever happens from then on, the next sweep leaves them alone.
                finished.append(await self._finish(found, kept, captured))

            try:
                await engine.restore(found.id, origin.id, kept.id, kept.name or "", made)
            except (EngineError, OSError) as error:
                if finished:
                    raise _refused(error, f"{found.name}, whose files are kept as {kept.name}") from error
                await self._forgotten(kept)
                raise _refused(error, found.name) from error
            (whole,) = finished

            def note(connection: sqlite3.Connection) -> None:
                record(
                    connection,
                    What.RESTORED,
                    sandbox=found,
                    subject=str(origin.name),
                    after={"kept": str(whole.name)},
                )

            await self._store.write(note)
            return whole

    async def _fork(
        self,
        sandbox: str,
        names: Sequence[str],
        policy: Callable[[StoredSnapshot, Sequence[Rule]], CopyPolicy],
        *,
        held: bool,
    ) -> tuple[list[StoredSandbox], StoredSnapshot]:
        await self._check_names(names)
        found = await self._store.read(lambda connection: sandboxes.get(connection, sandbox))
        limits = Limits(memory=found.memory)
        _check_memory(len(names), vm_limits.on_host(limits) if found.engine == VM else _MEMORY)
        kept = await self._snapshot(sandbox, lambda *_: None, "")
        try:
            _, own = await self.origin(kept.id)
            mode, chosen = policy(kept, own)
            new = [
                RequestedSandbox(copy_of(kept, name, mode), chosen, held=held, origin=kept.sandbox_name)
                for name in names
            ]
            made = await self._lifecycle.create_all(new)
        except BaseException:
            await asyncio.shield(self._discard(kept))
            raise
        self._spawn(self._after(made))
        return made, kept

    async def _check_names(self, names: Sequence[str]) -> None:
        """Refuse names that are taken before anything is copied; the transaction that inserts them asks again."""

        def taken(connection: sqlite3.Connection) -> list[str]:
            found = {each.name: each for each in sandboxes.all_of(connection)}
            return [name for name in names if name in found and found[name].username is not None]

        if len(set(names)) < len(names):
            raise bad("a name is there twice")
        there = await self._store.read(taken)
        if there:
            raise conflict(f"there is a sandbox named {there[0]!r} already; none was made")

    async def _after(self, made: Sequence[StoredSandbox]) -> None:
        """Remove what only a fork needs, once its copies are made."""
        for each in made:
            await self._lifecycle.settled(each.id)
        # And what earlier forks left of which a copy failed then, and is destroyed now.
        await self.sweep()

    def _engine(self, sandbox: StoredSandbox) -> Copies:
        engine = self._engines.get(sandbox.engine)
        if not isinstance(engine, Copies):
            raise bad(f"the engine {sandbox.engine!r} makes no snapshots and no copies")
        return engine

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Do work that goes on where the client that asked for it does not wait."""
        return await asyncio.shield(self._spawn(work))


CopyPolicy = tuple[str | None, Sequence[Rule]]
"""The mode of a copy (None follows the account) and its rules."""


def copy_of(origin: StoredSnapshot, name: str, mode: str | None, public_key: str = "") -> StoredSandbox:
    """Return the row of a new sandbox that starts from a snapshot, with the keys of that and those of `public_key`.

    Raises:
        HttpError: the keys are too many.
    """
    now = times.now()
    return StoredSandbox(
        id=sandboxes.new_id(),
        name=sandboxes.checked_name(name),
        status=CREATING,
        reason=None,
        deleting=False,
        public_key=adding(public_key)(origin.public_key).public_keys,
        engine=origin.engine,
        image=origin.image,
        cpus=origin.cpus,
        memory=origin.memory,
        disk=origin.disk,
        mode=mode,
        ssh_port=None,
        username=None,
        host_keys=(),
        created_at=now,
        updated_at=now,
        entrypoint=origin.entrypoint,
        snapshot=origin.id,
    )


def policy_of(
    origin: StoredSnapshot, own: Sequence[Rule], mode: str | None, given: Sequence[Rule] | None
) -> CopyPolicy:
    """Return the mode and the rules of a copy.

    Args:
        origin: what it is a copy of.
        own: the rules that this has.
        mode: the mode asked for; None for that of the origin.
        given: the rules asked for; None for those of the origin. What the origin denies stays denied.

    Raises:
        HttpError: a rule allows what the origin denies.
    """
    if given is None:
        return mode or origin.mode, own
    denied = {rule.pattern.text: rule for rule in own if rule.list == "deny"}
    for rule in given:
        if rule.list == "allow" and rule.pattern.text in denied:
            raise bad(f"{origin.sandbox_name} denies {rule.pattern.text}, and so does each copy of it")
    return mode or origin.mode, [*denied.values(), *(r for r in given if r.pattern.text not in denied)]


def _check_memory(copies: int, each: int = _MEMORY, meminfo: Path = Path("/proc/meminfo")) -> None:
    """Refuse copies that would leave this machine without memory.

    Args:
        copies: how many.
        each: bytes that one takes.
        meminfo: where the kernel says what is free.

    Raises:
        HttpError: with what they need at least, and what there is.
    """
    found = re.search(r"^MemAvailable: +([0-9]+) kB$", meminfo.read_text(encoding="ascii"), re.MULTILINE)
    if found is None:
        return
    needed, free = copies * each, int(found[1]) * 1024 - _MEMORY_RESERVE
    if needed > free:
        raise HttpError(
            503,
            f"{copies} copies need {size_text(needed)} of memory at least, and {size_text(max(0, free))} is free beyond the "
            f"{size_text(_MEMORY_RESERVE)} that this machine keeps",
            "stop or destroy sandboxes first, or make fewer copies",
        )


def _told(snapshot: StoredSnapshot) -> dict[str, Any]:
    about = {
        "sandbox": snapshot.sandbox_name,
        "image": snapshot.image,
        "note": snapshot.note,
        "pause_ms": None if snapshot.pause is None else snapshot.pause // 1000,
    }
    return {name: value for name, value in about.items() if value not in (None, "")}


def _refused(error: EngineError | OSError, what: str) -> HttpError:
    if isinstance(error, EngineError):
        return HttpError(_STATUS.get(error.code, 500), f"{what}: {error.message}", error.hint)
    return HttpError(500, f"{what}: {error.strerror or error}")
