"""Running a program by OpenSSH: its streams are the call's own, its first input may be ours, and it ends when the call does."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, TextIO

from irons.errors import TimedOut
from irons.record import NamedTuple
from irons.terminal.room import write_all
from irons_plugins.ssh.openssh.child import PIPE, ChildProcess
from irons_plugins.ssh.openssh.exit_codes import OPENSSH_FAILED
from irons_plugins.ssh.openssh.mux import open_session
from irons_plugins.ssh.openssh.signals import ended_with_parent, handling

if TYPE_CHECKING:
    from irons.terminal.streams import Streams
    from irons_plugins.ssh.openssh.child import Attached

_CHUNK = 1 << 16
_ASK_AGAIN = 0.1
"""Seconds after which a deadline is asked for again."""

_GREETED_WITHIN = 10.0
"""Seconds that a master may take to greet; later the program gets a connection of its own."""

_OPENED_WITHIN = 60.0
"""Seconds that it may take to open a session: more than it needs to find out that its connection is lost."""


class Signalled(KeyboardInterrupt):
    """TERM or HUP came; `number` says which.

    A `KeyboardInterrupt`, so that code which undoes its work on Ctrl-C does it here too.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


Sink = Callable[[bytes], None]
"""Takes what a program writes, piece by piece; it is called in a thread of the stream's own."""


class Sinks(NamedTuple):
    """Where a program's output goes; None is the call's own stream."""

    stdout: Sink | None = None
    stderr: Sink | None = None


class Kept(NamedTuple):
    """A connection that OpenSSH keeps: its master's socket, and the line that a session on it runs."""

    path: str
    line: str


def run_piped(
    argv: Sequence[str],
    streams: Streams,
    *,
    header: bytes = b"",
    no_stdin: bool = False,
    bound: bool = True,
    kept: Kept | None = None,
    sinks: Sinks = Sinks(),  # noqa: B008 - a tuple
    deadline: Callable[[], float] | None = None,
    raw: bool = False,
) -> int:
    """Run a program with the call's streams and return its exit code.

    Args:
        argv: The program and its arguments: OpenSSH's client.
        streams: The call's streams; those that are no files are pumped.
        header: What it reads before the call's own stdin.
        no_stdin: It reads nothing of the call's own stdin.
        bound: It is killed when this process dies; this makes its start slower.
        kept: A session on this connection takes the program's place, where one is opened.
        sinks: What takes its output in place of the call's streams.
        deadline: Tells when it is killed, in monotonic seconds; asked again and again, as that may change.
        raw: Return -n, and not 128+n, where signal n killed it, and not 255 where a session on a kept connection has no exit code.

    Raises:
        TimedOut: It was killed for its time.
        Signalled: TERM or HUP came; the program is killed before.
        KeyboardInterrupt: Ctrl-C came; the program is killed before.
    """
    with contextlib.ExitStack() as open_files:
        source = streams.stdin
        if no_stdin:
            source = open_files.enter_context(open(os.devnull, encoding="ascii"))  # noqa: PTH123 - a device
        code = _run_piped(argv, streams, source, header, sinks, deadline, bound=bound, kept=kept)
    return code if raw else _code(code)


def _run_piped(
    argv: Sequence[str],
    streams: Streams,
    source: TextIO,
    header: bytes,
    sinks: Sinks,
    deadline: Callable[[], float] | None,
    *,
    bound: bool,
    kept: Kept | None,
) -> int:
    stdin = _descriptor(source)
    stdout = None if sinks.stdout else _descriptor(streams.stdout)
    stderr = None if sinks.stderr else _descriptor(streams.stderr)
    streams.stdout.flush()
    asked = (
        # A kept connection would go on reading a terminal's keys while this call is stopped, or in the background.
        PIPE if header or stdin is None or os.isatty(stdin) else stdin,
        PIPE if stdout is None else stdout,
        PIPE if stderr is None else stderr,
    )
    with ended_by_signals():
        process: Attached | None = None
        if kept is not None:
            process = open_session(
                kept.path, kept.line, *asked, within=_GREETED_WITHIN, answered_within=_OPENED_WITHIN
            )
            # OpenSSH's own client would wait for a master that hangs, without end.
            argv = (argv[0], "-S", "none", *argv[1:])
        if process is None:
            preexec = ended_with_parent(signal.SIGKILL) if bound else None
            process = ChildProcess(argv, streams.env, *asked, preexec=preexec)
        over, told = os.pipe()
        killed, told_killed = os.pipe()
        threads = [
            threading.Thread(target=_drain, args=(pipe, sink or writer(stream), killed), daemon=True)
            for pipe, sink, stream in (
                (process.stdout, sinks.stdout, streams.stdout),
                (process.stderr, sinks.stderr, streams.stderr),
            )
            if pipe is not None
        ]
        feeder = threading.Thread(
            target=_feed, args=(process.stdin, header, stdin, source, over), daemon=True
        )
        if process.stdin is not None:
            threads.append(feeder)
        for thread in threads:
            thread.start()
        code = -1
        try:
            code = _wait(process, deadline)
        except TimeoutError:
            raise TimedOut(f"{argv[0]} did not end in time") from None
        finally:
            if process.wait(0) is None:
                process.kill()
                process.wait()
            if code < 0:
                # Also where it has ended by itself: a terminal sends Ctrl-C to both.
                os.write(told_killed, b"!")
            os.close(told)
            for thread in threads:
                thread.join()
            for descriptor in (over, killed, told_killed):
                os.close(descriptor)
    return code


def _wait(process: Attached, deadline: Callable[[], float] | None) -> int:
    """Wait for the exit code. Raises `TimeoutError` at the deadline."""
    if deadline is None:
        while (code := process.wait()) is None:
            pass
        return code
    while True:
        left = deadline() - time.monotonic()
        pause = max(0.0, min(left, _ASK_AGAIN))
        descriptor = process.fileno()
        if descriptor is not None:
            ended = select.poll()
            ended.register(descriptor, select.POLLIN)
            ended.poll(math.ceil(pause * 1000))
            pause = 0.0
        if (code := process.wait(pause)) is not None:
            return code
        if left <= _ASK_AGAIN:
            raise TimeoutError


def _code(code: int) -> int:
    return 128 - code if code < 0 else min(code, OPENSSH_FAILED)


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _drain(pipe: IO[bytes], sink: Sink, killed: int) -> None:
    """Pass on what a program writes, until its end; once a signal ended it, only what is there: a connection that is kept holds the pipe."""
    # Where the sink takes no more the pipe is closed, and the program learns of it as it would without us.
    with contextlib.suppress(OSError), pipe:
        while True:
            ready, _, _ = select.select([pipe.fileno(), killed], [], [])
            if pipe.fileno() not in ready:
                return
            chunk = os.read(pipe.fileno(), _CHUNK)
            if not chunk:
                return
            sink(chunk)


def writer(stream: TextIO) -> Sink:
    """Return a sink that writes bytes to a stream, as they are where it is a file."""

    def write(data: bytes) -> None:
        descriptor = _descriptor(stream)
        if descriptor is None:
            stream.write(data.decode(errors="backslashreplace"))
            stream.flush()
            return
        write_all(descriptor, data)

    return write


def _feed(pipe: IO[bytes], header: bytes, descriptor: int | None, stream: TextIO, over: int) -> None:
    """Write the header, then what the call's stdin brings, until either end closes; what comes later stays unread.

    The keys of a terminal are read while this call is in its foreground alone, so that a job in the background is not stopped by them.
    """
    with contextlib.suppress(BrokenPipeError), pipe:
        pipe.write(header)
        pipe.flush()
        if descriptor is None:
            pipe.write(stream.read().encode(errors="surrogateescape"))
            return
        with _never_waiting(descriptor) as source:
            while True:
                ready, _, _ = select.select([source, over], [], [])
                if over in ready:
                    return
                if not _may_read(descriptor):
                    select.select([over], [], [], _ASK_AGAIN)
                    continue
                try:
                    chunk = os.read(source, _CHUNK)
                except BlockingIOError:
                    # The shell took these keys before this call came to its foreground.
                    continue
                if not chunk:
                    return
                pipe.write(chunk)
                pipe.flush()


@contextlib.contextmanager
def _never_waiting(descriptor: int) -> Iterator[int]:
    """Give a descriptor that reads the same and waits for nothing, where it is a terminal: its keys have several readers.

    What does not wait is a property of an open file, which this process shares with the shell: so it is opened again.
    """
    own = None
    if os.isatty(descriptor):
        with contextlib.suppress(OSError):
            own = os.open(
                f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            )
    try:
        yield descriptor if own is None else own
    finally:
        if own is not None:
            os.close(own)


def _may_read(descriptor: int) -> bool:
    """Tell whether reading would not stop this process: it has the terminal, or that is not a terminal of its session."""
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:
        return True


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let TERM and HUP end this call as Ctrl-C does, so that what runs in the sandbox is ended too."""

    def interrupt(number: int, _frame: object) -> None:
        raise Signalled(number)

    with contextlib.ExitStack() as handled:
        for number in (signal.SIGTERM, signal.SIGHUP):
            # nohup has it ignored, and means it.
            if signal.getsignal(number) is not signal.SIG_IGN:
                handled.enter_context(handling(number, interrupt))
        yield
