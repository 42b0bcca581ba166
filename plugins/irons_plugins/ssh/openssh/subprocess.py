"""Running OpenSSH as a child: its streams are the call's own, its first input may be ours, and it ends when the call does."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, NamedTuple, TextIO

from irons.errors import IronsError, TimedOut
from irons_plugins.ssh.openssh.signals import ended_with_parent, handling

if TYPE_CHECKING:
    from irons.terminal.streams import Streams

_CHUNK = 1 << 16
_ASK_AGAIN = 0.5
"""Seconds after which a deadline is asked for again."""


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


def run_piped(
    argv: Sequence[str],
    streams: Streams,
    *,
    header: bytes = b"",
    no_stdin: bool = False,
    bound: bool = True,
    sinks: Sinks = Sinks(),  # noqa: B008 - a tuple
    deadline: Callable[[], float] | None = None,
    raw: bool = False,
) -> int:
    """Run a program with the call's streams and return its exit code.

    Args:
        argv: The program and its arguments.
        streams: The call's streams; those that are no files are pumped.
        header: What it reads before the call's own stdin.
        no_stdin: It reads nothing of the call's own stdin.
        bound: It is killed when this process dies; this makes its start slower.
        sinks: What takes its output in place of the call's streams.
        deadline: Tells when it is killed, in monotonic seconds; asked again and again, as that may change.
        raw: Return -n, and not 128+n, where signal n killed it.

    Raises:
        TimedOut: It was killed for its time.
        Signalled: TERM or HUP came; the program is killed before.
        KeyboardInterrupt: Ctrl-C came; the program is killed before.
    """
    with contextlib.ExitStack() as open_files:
        source = streams.stdin
        if no_stdin:
            source = open_files.enter_context(open(os.devnull, encoding="ascii"))  # noqa: PTH123 - a device
        code = _run_piped(argv, streams, source, header, sinks, deadline, bound=bound)
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
) -> int:
    stdin = _descriptor(source)
    stdout = None if sinks.stdout else _descriptor(streams.stdout)
    stderr = None if sinks.stderr else _descriptor(streams.stderr)
    streams.stdout.flush()
    with ended_by_signals():
        process = _started(
            argv,
            streams.env,
            subprocess.PIPE if header or stdin is None else stdin,
            subprocess.PIPE if stdout is None else stdout,
            subprocess.PIPE if stderr is None else stderr,
            preexec=ended_with_parent(signal.SIGKILL) if bound else None,
        )
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
        try:
            code = _wait(process, deadline)
        except subprocess.TimeoutExpired:
            raise TimedOut(f"{argv[0]} did not end in time") from None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
                os.write(told_killed, b"!")
            os.close(told)
            for thread in threads:
                thread.join()
            for descriptor in (over, killed, told_killed):
                os.close(descriptor)
    return code


def _wait(process: subprocess.Popen[bytes], deadline: Callable[[], float] | None) -> int:
    while deadline is not None:
        left = deadline() - time.monotonic()
        try:
            return process.wait(max(0.0, min(left, _ASK_AGAIN)))
        except subprocess.TimeoutExpired:
            if left <= _ASK_AGAIN:
                raise
    return process.wait()


def _started(
    argv: Sequence[str],
    env: Mapping[str, str],
    stdin: int | None,
    stdout: int | None,
    stderr: int | None,
    *,
    preexec: Callable[[], object] | None = None,
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv,
            env=dict(env),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            preexec_fn=preexec,  # noqa: PLW1509 - one system call, looked up before the fork
        )
    except FileNotFoundError:
        raise IronsError(
            f"{argv[0]} is not installed", hint="install OpenSSH's client: apt-get install openssh-client"
        ) from None
    except OSError as error:
        raise IronsError(f"{argv[0]} can't be run: {error.strerror}") from error


def _code(code: int) -> int:
    return 128 - code if code < 0 else code


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _drain(pipe: IO[bytes], sink: Sink, killed: int) -> None:
    """Pass on what a program writes, until its end; once it was killed, only what is there: a connection that is kept holds the pipe."""
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
        while data:
            data = data[os.write(descriptor, data) :]

    return write


def _feed(pipe: IO[bytes], header: bytes, descriptor: int | None, stream: TextIO, over: int) -> None:
    """Write the header, then what the call's stdin brings, until either end closes; what comes later stays unread."""
    with contextlib.suppress(BrokenPipeError), pipe:
        pipe.write(header)
        pipe.flush()
        if descriptor is None:
            pipe.write(stream.read().encode(errors="surrogateescape"))
            return
        while True:
            ready, _, _ = select.select([descriptor, over], [], [])
            if over in ready:
                return
            chunk = os.read(descriptor, _CHUNK)
            if not chunk:
                return
            pipe.write(chunk)
            pipe.flush()


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
