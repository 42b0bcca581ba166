"""A sandbox's way through its states: who may go where, the work behind each step, and what a crash leaves."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import sqlite3
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

from irons_local.control.egress.rules_and_modes import Egress
from irons_local.control.sandbox.access import Change
from irons_local.control.sandbox.change_records import record_access
from irons_local.control.sandbox.engine_registry import BUILT_IN, NAMESPACE, VM
from irons_local.control.sandbox.new_sandbox import RequestedSandbox, insert_all
from irons_local.control.sandbox.ssh_ports import NoPortError, SshPorts
from irons_local.control.sandbox.states import State, Verb, following, refusal, state_of, statuses
from irons_local.control.sandbox.variables import Variables
from irons_local.control.schema.errors import HttpError, bad, conflict
from irons_local.control.store import rules, sandboxes
from irons_local.control.store.changelog import ITSELF, ORIGIN, What, record, record_end
from irons_local.control.store.database import NoRoomError, Store, StoreError
from irons_local.control.store.sandboxes import ERROR, READY, STARTING, STOPPED, STOPPING, StoredSandbox
from irons_local.engines.protocol import Admits, Engine, Spec
from irons_local.errors import CellError, EngineError
from irons_local.limits import Limits
from irons_local.log.context import REQUEST, SANDBOX
from irons_local.paths import Paths

_log = logging.getLogger(__name__)
_INTERRUPTED = "the control plane ended while it was being {}; start it again, or destroy it"
_CLEARED_WITHIN = 2.0
_ASKED_WITHIN = 10.0
"""Seconds that the API waits for engines to say how what runs no more has ended; they may answer later."""
_ENFORCED_WITHIN = 120.0
"""Seconds that the gateway has to confirm the policy of a sandbox that starts: no client waits for this in one request."""
_AT_REST = (STOPPING, STOPPED, ERROR)
"""What a sandbox is in once its run is over, or about to be."""
_STEPS = {READY: "ready", STOPPED: "stopped"}
"""States that hooks of plugins hear of."""
_FAILURES = (EngineError, CellError, HttpError, NoPortError, StoreError, OSError)


class Lifecycle:
    """Creates, starts, stops and removes sandboxes; at most one piece of work per sandbox at a time."""

    def __init__(
        self,
        store: Store,
        engines: Mapping[str, Engine],
        egress: Egress,
        doors: SshPorts,
        paths: Paths,
        noted: Callable[[str, StoredSandbox], None] = lambda *_: None,
    ) -> None:
        """Make a lifecycle; `reconcile` comes before anything else, and `noted` is called with each step that hooks hear of."""
        self._noted = noted
        self._paths = paths
        self._variables = Variables(paths.local / "variables")
        self._store = store
        self._engines = engines
        self._egress = egress
        self._doors = doors
        self._work: dict[str, asyncio.Task[None]] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._progress: dict[str, str] = {}
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def progress(self, identity: str) -> str | None:
        """What is being done for a sandbox right now, in words."""
        return self._progress.get(identity)

    async def create(self, new: RequestedSandbox) -> StoredSandbox:
        """Store a sandbox with its mode, rules and terms in one transaction, and begin to make it; raises like `create_all`."""
        return (await self.create_all((new,)))[0]

    async def create_all(self, new: Sequence[RequestedSandbox]) -> list[StoredSandbox]:
        """Store several sandboxes in one transaction, all of them or none, and begin to make each.

        Raises:
            HttpError: a name is taken, or there is no such engine.
        """
        for each in new:
            self._engine(each.sandbox)
            await self._free(each.sandbox.name)
        async with contextlib.AsyncExitStack() as turns:
            for each in new:
                await turns.enter_async_context(self._turns[each.sandbox.id])
                if each.variables:
                    await asyncio.to_thread(self._variables.keep, each.sandbox.id, each.variables)
            try:
                await self._store.write(lambda connection: insert_all(connection, new, self._egress.never()))
            except BaseException:
                for each in new:
                    self._variables.forget(each.sandbox.id)
                    self._turns.pop(each.sandbox.id, None)
                raise
            for each in new:
                self._begin(each.sandbox.id, self._bring_up(each.sandbox))
        return [each.sandbox for each in new]

    async def _free(self, name: str) -> None:
        """Remove a sandbox of this name that could never be made: it holds nothing, and its name is wanted."""
        found = await self._store.read(lambda connection: sandboxes.find(connection, name))
        if found is None or found.name != name or refusal(found, self.state(found), Verb.CREATE) is not None:
            return
        origin = ORIGIN.get()
        if origin.owner and found.creator != origin.owner:
            # Its name is taken, to one who did not create it.
            return
        _log.info("%s (%s) could not be made, and is removed to make room for another", found.name, found.id)
        with contextlib.suppress(HttpError):
            await self.delete(found.id, "it could not be made, and its name is wanted")

    async def start(self, name: str, *, boot: bool = True) -> StoredSandbox:
        """Begin to start a stopped sandbox, or one in `error`; one that runs or starts stays as it is.

        Without `boot` nothing in it starts by itself.

        Raises:
            HttpError: there is none of that name, or it is stopping or being removed.
        """
        async with self.turn(name) as sandbox:
            state = self.state(sandbox)
            goal = _allowed(sandbox, state, Verb.START)
            if goal is state:
                return sandbox
            # One in `error` may still be cleared away: its machine starts when that has ended.
            await self.settled(sandbox.id)
            changed = await self._move(
                sandbox, (sandbox.status,), what=What.STARTED, status=goal.status, reason=None
            )
            if changed is None:
                raise _moved(sandbox)
            self._begin(changed.id, self._bring_up(changed, boot=boot))
            return changed

    async def stop(self, name: str, reason: str | None = None) -> StoredSandbox:
        """Begin to stop a sandbox; a start is broken off, and a stopped one stays stopped.

        Args:
            name: its name or id.
            reason: why, where no one asked for it; its status shows it.

        Raises:
            HttpError: there is none of that name, or it is being removed.
        """
        async with self.turn(name) as sandbox:
            state = self.state(sandbox)
            goal = _allowed(sandbox, state, Verb.STOP)
            if goal is state:
                return sandbox
            changed = await self._move_down(
                sandbox, self._engine(sandbox).stop, what=What.STOPPED, why=reason or "", status=goal.status
            )
            if changed is None:
                raise _moved(sandbox)
            await self._interrupt(changed.id)
            self._begin(changed.id, self._bring_down(changed, STOPPED, reason))
            return changed

    async def settled(self, identity: str, within: float | None = None) -> None:
        """Wait until what is being done for a sandbox has ended, for at most `within` seconds."""
        work = self._work.get(identity)
        if work is not None:
            await asyncio.wait((work,), timeout=within)

    async def delete(self, name: str, reason: str = "") -> None:
        """Remove a sandbox that does not run, and come back when nothing is left of it; one that is being made ends where it is.

        Args:
            name: its name or id.
            reason: why, where no one asked for it; the change log has it.

        Raises:
            HttpError: there is none of that name, it runs or is stopping, or something of it would not go.
        """
        async with self.turn(name) as sandbox:
            state = self.state(sandbox)
            goal = _allowed(sandbox, state, Verb.DELETE)
            if goal is not state:
                changed = await self._move_down(
                    sandbox,
                    self._engine(sandbox).destroy,
                    what=What.DESTROYED,
                    why=reason,
                    deleting=1,
                    status=goal.status,
                )
                if changed is None:
                    raise _moved(sandbox)
                await self._interrupt(sandbox.id)
            work = self._work.get(sandbox.id) or self._begin(sandbox.id, self._take_away(sandbox))
        # The removal goes on when the client that asked for it does not wait for its end.
        await asyncio.shield(asyncio.wait((work,)))
        left = await self._store.read(lambda connection: sandboxes.find(connection, sandbox.id))
        if left is None:
            self._turns.pop(sandbox.id, None)
        else:
            raise HttpError(
                500, f"{sandbox.name} could not be removed: {left.reason or 'see `irons local logs`'}"
            )

    async def admit(self, name: str, change: Change) -> StoredSandbox:
        """Change which public keys open a sandbox, at once where it runs.

        Raises:
            HttpError: there is none of that name, its engine cannot, it is being made or removed, or `change` refuses.
        """
        async with self.turn(name) as sandbox:
            _allowed(sandbox, self.state(sandbox), Verb.KEYS)
            engine = self._engine(sandbox)
            if not isinstance(engine, Admits):
                raise bad(f"the engine {sandbox.engine!r} cannot change the keys of a sandbox")
            after = change(sandbox.public_key)

            def work(connection: sqlite3.Connection) -> StoredSandbox | None:
                changed = sandboxes.change(connection, sandbox.id, public_key=after.public_keys)
                if changed is not None:
                    record_access(connection, sandbox, changed)
                return changed

            changed = await self._store.write(work)
            try:
                await engine.admit(sandbox.id, after.public_keys, after.gone)
            except (EngineError, CellError, OSError) as error:
                raise HttpError(
                    500, f"the keys of {sandbox.name} are recorded and not yet active: {_reason(error)}"
                ) from error
            return changed or sandbox

    async def recover(self) -> set[str]:
        """Let the engines take up what runs, as after the death of this process or of the keeper.

        Returns:
            The ids of the sandboxes that run.
        """
        # These two share directories, and go one after the other; no other engine holds up or is held up.
        together = [name for name in (NAMESPACE, VM) if name in self._engines]
        alone = [(name,) for name in self._engines if name not in together]
        found = await asyncio.gather(*(self._recover(names) for names in (together, *alone)))
        return set[str]().union(*found)

    async def _recover(self, names: Sequence[str]) -> set[str]:
        running: set[str] = set()
        for name in names:
            try:
                running.update(await self._engines[name].recover())
            except Exception as error:  # noqa: BLE001 (an engine of a plugin may raise anything)
                known = isinstance(error, _FAILURES)
                _log.warning("engine %s did not recover: %s", name, error, exc_info=not known)
        return running

    async def reconcile(self) -> None:
        """Make the store agree with what really runs; once, before the API answers."""
        running = await self.recover()
        known = await self._store.read(sandboxes.all_of)
        self._variables.forget_all_but({sandbox.id for sandbox in known if sandbox.username is None})
        ended_unseen = [
            sandbox for sandbox in known if await self._settle(sandbox, runs=sandbox.id in running)
        ]
        if ended_unseen:
            # An engine that does not answer must not keep the others' sandboxes from being served.
            looks = [self._begin(sandbox.id, self._look_after(sandbox)) for sandbox in ended_unseen]
            await asyncio.wait(looks, timeout=_ASKED_WITHIN)
        for stray in running - {sandbox.id for sandbox in known}:
            _log.warning("%s runs, and no sandbox has this id", stray)
        # Of what ended with the machine there is little to clear away: whoever asks first finds it stopped.
        ended = {
            self._work[s.id] for s in known if s.id in self._work and s.id not in running and not s.deleting
        }
        if ended:
            await asyncio.wait(ended, timeout=_CLEARED_WITHIN)

    async def close(self) -> None:
        """Stop working; sandboxes go on, and work in progress is taken up or given up by the next `reconcile`."""
        tasks = (*self._work.values(), *self._watches.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _settle(self, sandbox: StoredSandbox, *, runs: bool) -> bool:
        """Bring a sandbox to what was found; True where its engine is still to be asked how it ended."""
        state = self.state(sandbox)
        goal = following(state, Verb.FOUND_RUNNING if runs else Verb.FOUND_ENDED)
        if goal is State.DELETING:
            self._begin(sandbox.id, self._take_away(sandbox))
        elif goal is State.READY:
            await self._adopt(sandbox)
        elif goal is State.STOPPING and state is State.STOPPING_LEFT:
            self._begin(sandbox.id, self._bring_down(sandbox))
        elif goal is State.STOPPING:
            return True
        elif goal is State.ERROR and (runs or state is not State.ERROR):
            reason = sandbox.reason
            if state is not State.ERROR:
                reason = _INTERRUPTED.format("created" if state is State.CREATING_LEFT else "started")
            if runs:
                self._begin(sandbox.id, self._bring_down(sandbox, ERROR, reason))
            else:
                await self._fail(sandbox, reason or "")
        return False

    async def _look_after(self, sandbox: StoredSandbox) -> None:
        """Ask how a sandbox ended while no control plane ran, and clear it away."""
        async with self._failing(sandbox):
            await self._stopped_by_itself(sandbox)

    async def _adopt(self, sandbox: StoredSandbox) -> None:
        try:
            await self._open_door(sandbox)
        except NoPortError as error:
            _log.warning("%s has no SSH port: %s", sandbox.name, error)
        if sandbox.status != READY:
            await self._move(sandbox, None, status=READY, reason=None)
        self._watch(sandbox)

    def _begin(self, identity: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        about = contextvars.copy_context()
        about.run(SANDBOX.set, identity)
        task = asyncio.create_task(work, name=identity, context=about)
        self._work[identity] = task

        def ended(done: asyncio.Task[None]) -> None:
            if self._work.get(identity) is done:
                del self._work[identity]
            self._progress.pop(identity, None)

        task.add_done_callback(ended)
        return task

    async def _interrupt(self, identity: str) -> None:
        task = self._work.get(identity)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _bring_up(self, sandbox: StoredSandbox, *, boot: bool = True) -> None:
        engine = self._engine(sandbox)
        async with self._failing(sandbox):
            if sandbox.username is None:
                sandbox = await self._make(engine, sandbox)
            await self._move(sandbox, statuses(Verb.MADE), status=STARTING)
            await self._open_door(sandbox)
            self._progress[sandbox.id] = "starting"
            try:
                # Active, and confirmed by the gateway, before the first process exists.
                await self._egress.enforce(sandbox.id, within=_ENFORCED_WITHIN)
                # An engine without boot steps need not know of them.
                await (engine.start(sandbox.id) if boot else engine.start(sandbox.id, boot=False))
            except Exception:
                await self._doors.close(sandbox.id)
                raise
            await self._move(sandbox, statuses(Verb.UP), status=READY, reason=None)
            self._watch(sandbox)

    async def _make(self, engine: Engine, sandbox: StoredSandbox) -> StoredSandbox:
        # What an earlier attempt may have left half made.
        await engine.destroy(sandbox.id)
        spec = Spec(
            id=sandbox.id,
            name=sandbox.name,
            public_key=sandbox.public_key,
            image=sandbox.image,
            limits=Limits(cpus=sandbox.cpus, memory=sandbox.memory, disk=sandbox.disk),
            environment=await asyncio.to_thread(self._variables.of, sandbox.id),
            entrypoint=sandbox.entrypoint,
            snapshot=sandbox.snapshot,
            member=sandbox.member,
        )

        def progress(line: str, done: float | None) -> None:
            self._progress[sandbox.id] = line if done is None else f"{line} ({done:.0%})"

        made = await engine.create(spec, progress)
        changed = await self._move(
            sandbox, None, username=made.username, host_keys=made.host_keys, image=made.image, snapshot=""
        )
        # The engine has them now, in the sandbox's own directory.
        self._variables.forget(sandbox.id)
        return changed or sandbox

    async def _bring_down(
        self, sandbox: StoredSandbox, status: str = STOPPED, reason: str | None = None
    ) -> None:
        """Stop a machine, or clear away what is left of one that stopped by itself."""
        async with self._failing(sandbox):
            await self._unwatch(sandbox.id)
            await self._doors.close(sandbox.id)
            if sandbox.username is not None:
                await self._engine(sandbox).stop(sandbox.id)
            await self._move(sandbox, None, last=True, status=status, reason=reason)

    async def _take_away(self, sandbox: StoredSandbox) -> None:
        async with self._failing(sandbox):
            await self._unwatch(sandbox.id)
            await self._doors.close(sandbox.id)
            await self._engine(sandbox).destroy(sandbox.id)
            self._variables.forget(sandbox.id)
            await self._egress.forget(sandbox.id)
            await self._store.write(lambda connection: sandboxes.remove(connection, sandbox.id), last=True)
            self._noted("destroyed", sandbox)

    @contextlib.asynccontextmanager
    async def _failing(self, sandbox: StoredSandbox) -> AsyncIterator[None]:
        """Set the state `error`, with the reason, where a piece of work fails in any way."""
        try:
            yield
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 (no failure may leave a sandbox half way)
            known = isinstance(error, _FAILURES)
            _log.log(
                logging.WARNING if known else logging.ERROR,
                "%s (%s): %s",
                sandbox.name,
                sandbox.id,
                error,
                exc_info=not known,
            )
            await self._fail(
                sandbox, _reason(error) + await asyncio.to_thread(self._machines, sandbox, error)
            )

    def _machines(self, sandbox: StoredSandbox, error: Exception) -> str:
        """Doctor's words and its fix, where this machine is what keeps the sandbox from running; else nothing."""
        if sandbox.engine not in BUILT_IN:
            return ""
        from irons_local.doctor import readiness

        check = readiness.cause(error, self._paths)
        return "" if check is None else f"; {check.what}; to fix it: {check.fix}"

    async def _fail(self, sandbox: StoredSandbox, reason: str) -> None:
        with contextlib.suppress(StoreError):
            await self._move(
                sandbox,
                None,
                last=True,
                what=What.FAILED,
                why=reason,
                status=ERROR,
                reason=reason,
                deleting=0,
            )

    async def _open_door(self, sandbox: StoredSandbox) -> None:
        engine = self._engine(sandbox)

        async def inside() -> Any:
            try:
                return await engine.connect(sandbox.id)
            except (EngineError, CellError) as error:
                raise ConnectionError(str(error)) from error

        known = await self._store.read(sandboxes.all_of)
        taken = {each.ssh_port for each in known if each.ssh_port is not None and each.id != sandbox.id}
        now = next((each for each in known if each.id == sandbox.id), sandbox)
        port = await self._doors.open(sandbox.id, inside, port=now.ssh_port, taken=taken)
        if port != now.ssh_port:
            await self._move(sandbox, None, ssh_port=port)

    def _watch(self, sandbox: StoredSandbox) -> None:
        task = asyncio.create_task(self._until_stopped(sandbox), name=f"watch {sandbox.id}")
        self._watches[sandbox.id] = task
        task.add_done_callback(
            lambda done: self._watches.pop(sandbox.id) if self._watches.get(sandbox.id) is done else None
        )

    async def _unwatch(self, identity: str) -> None:
        task = self._watches.pop(identity, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _until_stopped(self, sandbox: StoredSandbox) -> None:
        # What happens later belongs to no request, though one began it.
        REQUEST.set("")
        ORIGIN.set(ITSELF)
        async with self._failing(sandbox):
            await self._engine(sandbox).wait(sandbox.id)
            await self._stopped_by_itself(sandbox)

    async def _stopped_by_itself(self, sandbox: StoredSandbox) -> None:
        look = await self._engine(sandbox).look(sandbox.id)
        status = STOPPED if look.state in ("stopped", "running") else ERROR
        reason = look.reason or (None if status == STOPPED else f"its machine is {look.state}")
        changed = await self._move(
            sandbox,
            statuses(Verb.ENDED),
            last=True,
            what=What.STOPPED,
            why=f"it ended by itself: {reason}" if reason else "it ended by itself",
            status=STOPPING,
        )
        if changed is not None:
            self._begin(sandbox.id, self._bring_down(changed, status, reason))

    @contextlib.asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[StoredSandbox]:
        """A sandbox, and the right to decide alone what is done with it next."""
        found = await self._store.read(lambda connection: sandboxes.get(connection, name))
        async with self._turns[found.id]:
            yield await self._store.read(lambda connection: sandboxes.get(connection, found.id))

    async def _move_down(
        self,
        sandbox: StoredSandbox,
        clear: Callable[[str], Awaitable[None]],
        *,
        what: What,
        why: str,
        **values: Any,
    ) -> StoredSandbox | None:
        """Move a sandbox on its way down; on a disk that stays full `clear` makes room first.

        The sandbox itself may be what takes each byte that the reserve sets free.
        """
        try:
            return await self._move(sandbox, (sandbox.status,), last=True, what=what, why=why, **values)
        except NoRoomError:
            await self._interrupt(sandbox.id)
            with contextlib.suppress(EngineError, CellError, OSError):
                await clear(sandbox.id)
            return await self._move(sandbox, (sandbox.status,), last=True, what=what, why=why, **values)

    async def _move(
        self,
        sandbox: StoredSandbox,
        only: Sequence[str] | None,
        *,
        last: bool = False,
        what: What | None = None,
        why: str = "",
        **values: Any,
    ) -> StoredSandbox | None:
        """Change columns of a sandbox in one of the states `only`; with `what` the change log has it, too."""

        def work(connection: sqlite3.Connection) -> StoredSandbox | None:
            changed = sandboxes.change(connection, sandbox.id, only, **values)
            if changed is not None and changed.status in _AT_REST:
                for rule in rules.end_with_run(connection, sandbox.id):
                    record_end(connection, rule, sandbox, "its sandbox stopped")
            if changed is not None and what is not None:
                record(
                    connection,
                    what,
                    sandbox=sandbox,
                    before={"status": sandbox.status},
                    after=None if changed.deleting else {"status": changed.status},
                    reason=why,
                    # What fails was asked for by no one.
                    origin=ITSELF if what is What.FAILED else None,
                )
            return changed

        changed = await self._store.write(work, last=last)
        kind = _STEPS.get(values.get("status", ""))
        if changed is not None and kind is not None:
            self._noted(kind, changed)
        return changed

    def state(self, sandbox: StoredSandbox) -> State:
        """Return where a sandbox is in its life."""
        return state_of(sandbox, working=sandbox.id in self._work)

    def _engine(self, sandbox: StoredSandbox) -> Engine:
        engine = self._engines.get(sandbox.engine)
        if engine is None:
            raise bad(f"there is no engine {sandbox.engine!r}; there is {', '.join(sorted(self._engines))}")
        return engine


def _moved(sandbox: StoredSandbox) -> HttpError:
    return conflict(f"{sandbox.name} has just changed its state; check its status")


def _allowed(sandbox: StoredSandbox, state: State, verb: Verb) -> State:
    """Return the state that a verb leads to; raises `HttpError` where the state refuses it."""
    why = refusal(sandbox, state, verb)
    if why is not None:
        raise conflict(why)
    return following(state, verb)


def _reason(error: Exception) -> str:
    if isinstance(error, EngineError) and error.hint:
        return f"{error.message} ({error.hint})"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__
