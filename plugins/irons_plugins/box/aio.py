"""The same with `async`: each call is the one of `irons_plugins.box.box`, run in a thread and awaited.

Nothing is written twice: a method here is made of the method there, with its parameters, its answer and its documentation. When a task
is cancelled, the call in its thread ends what it has started before the cancellation goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import IO, TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from irons_plugins.box.box import Box
from irons_plugins.box.cancelling import CANCELLED
from irons_plugins.box.process import BoxProcess
from irons_plugins.box.sandbox import sandbox as _make_sandbox

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from irons.client.api import Api
    from irons_plugins.box.result import ExecResult

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

_CALLBACKS = ("on_stdout", "on_stderr")


async def in_thread(call: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a call in a thread of its own and return its answer; a cancelled task has it ended, and waits for that."""
    cancelled = threading.Event()
    context = contextvars.copy_context()
    context.run(CANCELLED.set, cancelled)
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[R] = loop.create_future()

    def settle(value: Any, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is None:
            answer.set_result(value)
        else:
            answer.set_exception(error)

    def work() -> None:
        value: R | None = None
        error: BaseException | None = None
        try:
            value = context.run(call, *args, **kwargs)
        except StopIteration:
            # A future can't hold it.
            error = RuntimeError("the call ended like an iterator")
        except BaseException as failed:  # noqa: BLE001 - raised where it is awaited
            error = failed
        # The loop may have ended before the call.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=work, name="irons call", daemon=True).start()
    try:
        return await asyncio.shield(answer)
    except asyncio.CancelledError:
        cancelled.set()
        # Whatever comes of it, the task was cancelled.
        await asyncio.wait([answer])
        if not answer.cancelled():
            answer.exception()
        raise


class _Twin(Generic[S, P, R]):
    """A method of an asynchronous object, made of one of the object that it stands for."""

    def __init__(self, method: Callable[Concatenate[S, P], R]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: _Asynchronous[S], owner: type) -> Callable[P, Coroutine[Any, Any, R]]: ...

    def __get__(
        self, instance: _Asynchronous[S] | None, owner: type
    ) -> Self | Callable[P, Coroutine[Any, Any, R]]:
        if instance is None:
            return self
        behind = instance.behind

        @functools.wraps(self._method)
        async def method(*args: P.args, **kwargs: P.kwargs) -> R:
            loop = asyncio.get_running_loop()
            for name in _CALLBACKS:
                taker = kwargs.get(name)
                if callable(taker):
                    kwargs[name] = functools.partial(loop.call_soon_threadsafe, taker)
            return await in_thread(self._method, behind, *args, **kwargs)

        return method


class _Asynchronous(Generic[S]):
    """Stands for an object whose calls wait."""

    def __init__(self, behind: S) -> None:
        self.behind = behind


class _Bound(Generic[S, P, R]):
    """A method of an asynchronous object, made of a function of the object that it stands for; it is not awaited itself."""

    def __init__(self, function: Callable[Concatenate[S, P], R]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: _Asynchronous[S], owner: type) -> Callable[P, R]: ...

    def __get__(self, instance: _Asynchronous[S] | None, owner: type) -> Self | Callable[P, R]:
        return self if instance is None else functools.partial(self._function, instance.behind)


def _read(file: IO[bytes], size: int = -1) -> bytes:
    """Read so many bytes at most; by default to the end."""
    return file.read(size)


def _readline(file: IO[bytes]) -> bytes:
    """Read a line with its end; nothing at the end of the stream."""
    return file.readline()


def _write(file: IO[bytes], data: bytes) -> None:
    """Write all of it."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _close(file: IO[bytes]) -> None:
    """Close the stream."""
    file.close()


class AsyncFile(_Asynchronous[IO[bytes]]):
    """A stream of a program that runs."""

    read = _Twin(_read)
    readline = _Twin(_readline)
    write = _Twin(_write)
    close = _Twin(_close)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield each line."""
        while line := await self.readline():
            yield line


class AsyncProcess(_Asynchronous[BoxProcess]):
    """A program that runs in a sandbox; leaving it as a context ends it.

    Attributes:
        stdin: What is written to it the program reads.
        stdout: What the program writes there.
        stderr: What the program writes there.
    """

    def __init__(self, process: BoxProcess) -> None:
        """Take the process; `AsyncBox.popen` does that."""
        super().__init__(process)
        self.stdin = AsyncFile(process.stdin)
        self.stdout = AsyncFile(process.stdout)
        self.stderr = AsyncFile(process.stderr)

    wait = _Twin(BoxProcess.wait)
    communicate = _Twin(BoxProcess.communicate)

    def poll(self) -> ExecResult | None:
        """Return its result, or None while it runs."""
        return self.behind.poll()

    def kill(self) -> None:
        """End it and all that it started; `wait` returns how it ended."""
        self.behind.kill()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await in_thread(self.behind.__exit__, kind, error, trace)


def _started(
    method: Callable[Concatenate[Box, P], BoxProcess],
) -> Callable[Concatenate[Box, P], AsyncProcess]:
    """Make an asynchronous process of a method that starts one."""

    @functools.wraps(method)
    def start(box: Box, /, *args: P.args, **kwargs: P.kwargs) -> AsyncProcess:
        return AsyncProcess(method(box, *args, **kwargs))

    return start


def _forked(
    method: Callable[Concatenate[Box, P], tuple[Box, ...]],
) -> Callable[Concatenate[Box, P], tuple[AsyncBox, ...]]:
    """Make asynchronous sandboxes of a method that gives several."""

    @functools.wraps(method)
    def fork(box: Box, /, *args: P.args, **kwargs: P.kwargs) -> tuple[AsyncBox, ...]:
        return tuple(map(AsyncBox, method(box, *args, **kwargs)))

    return fork


def _entering(
    method: Callable[Concatenate[Box, P], AbstractContextManager[R]],
) -> Callable[Concatenate[Box, P], AbstractAsyncContextManager[R]]:
    """Make an asynchronous context of a method that gives one."""

    @functools.wraps(method)
    def enter(box: Box, /, *args: P.args, **kwargs: P.kwargs) -> AbstractAsyncContextManager[R]:
        return _entered(functools.partial(method, box, *args, **kwargs))

    return enter


def _iterating(
    method: Callable[Concatenate[Box, P], Iterator[R]],
) -> Callable[Concatenate[Box, P], AsyncIterator[R]]:
    """Make an asynchronous iterator of a method that gives one."""

    @functools.wraps(method)
    async def iterate(box: Box, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[R]:
        over: list[R] = []
        iterator = await in_thread(method, box, *args, **kwargs)
        while (found := await in_thread(_next, iterator, over)) is not over:
            yield found[0]

    return iterate


def _next(iterator: Iterator[R], over: list[R]) -> list[R]:
    """Return a list of the next item, or `over` at the end."""
    for item in iterator:
        return [item]
    return over


@asynccontextmanager
async def _entered(make: Callable[[], AbstractContextManager[R]]) -> AsyncIterator[R]:
    """Enter a context in a thread, and leave it in one, also where the task was cancelled in between."""
    context = make()
    values: list[R] = []
    try:
        await in_thread(lambda: values.append(context.__enter__()))
        yield values[0]
    except BaseException as error:
        if not values:
            raise
        if not await in_thread(context.__exit__, type(error), error, error.__traceback__):
            raise
    else:
        await in_thread(context.__exit__, None, None, None)


class AsyncBox(_Asynchronous[Box]):
    """A sandbox that is ready; `irons.aio.sandbox` makes it. Each call does what the same one of `irons.Box` does."""

    @property
    def name(self) -> str:
        """Its name."""
        return self.behind.name

    @property
    def id(self) -> str:
        """What no other sandbox has, ever."""
        return self.behind.id

    @property
    def api(self) -> Api:
        """The client, whose calls wait; `irons.aio.in_thread(box.api.mode, box.name)` awaits one."""
        return self.behind.api

    exec = _Twin(Box.exec)
    popen = _Twin(_started(Box.popen))
    read = _Twin(Box.read)
    read_text = _Twin(Box.read_text)
    write = _Twin(Box.write)
    list = _Twin(Box.list)
    upload = _Twin(Box.upload)
    download = _Twin(Box.download)
    forward = _Bound(_entering(Box.forward))
    events = _Bound(_iterating(Box.events))
    allow = _Twin(Box.allow)
    deny = _Twin(Box.deny)
    check = _Twin(Box.check)
    status = _Twin(Box.status)
    snapshot = _Twin(Box.snapshot)
    stop = _Twin(Box.stop)
    start = _Twin(Box.start)
    fork = _Twin(_forked(Box.fork))


def _asynchronous(
    make: Callable[P, AbstractContextManager[Box]],
) -> Callable[P, AbstractAsyncContextManager[AsyncBox]]:
    @functools.wraps(make)
    @asynccontextmanager
    async def sandbox(*args: P.args, **kwargs: P.kwargs) -> AsyncIterator[AsyncBox]:
        async with _entered(functools.partial(make, *args, **kwargs)) as box:
            yield AsyncBox(box)

    return sandbox


sandbox = _asynchronous(_make_sandbox)
