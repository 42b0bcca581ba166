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
from typing import IO, TYPE_CHECKING, TextIO

from irons.errors import IronsError, TimedOut

if TYPE_CHECKING:
    from irons.streams import Streams

_CHUNK = 1 << 16
_ASK_AGAIN = 0.5
"""Seconds after which a deadline is asked for again."""


def run_piped(
    argv: Sequence[str],
    streams: Streams,
    *,
    header: bytes = b"",
    deadline: Callable[[], float] | None = None,
) -> int:
    """Run a program with the call's streams and return its exit code.

    Args:
        argv: The program and its arguments.
        streams: The call's streams; those that are no files are pumped.
        header: What it reads before the call's own stdin.
        deadline: Tells when it is killed, in monotonic seconds; asked again and again, as that may change.

    Raises:
        TimedOut: It was killed for its time.
        KeyboardInterrupt: Ctrl-C, or a signal that ends this process; the program is killed before.
    """
    stdin, stdout, stderr = (_descriptor(s) for s in (streams.stdin, streams.stdout, streams.stderr))
    streams.stdout.flush()
    with _ended_by_signals():
        process = _started(
            argv,
            streams.env,
            subprocess.PIPE if header or stdin is None else stdin,
            subprocess.PIPE if stdout is None else stdout,
            subprocess.PIPE if stderr is None else stderr,
        )
        threads = [
            threading.Thread(target=_drain, args=(pipe, stream), daemon=True)
            for pipe, stream in ((process.stdout, streams.stdout), (process.stderr, streams.stderr))
            if pipe is not None
        ]
        over, told = os.pipe()
        feeder = threading.Thread(
            target=_feed, args=(process.stdin, header, stdin, streams.stdin, over), daemon=True
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
            os.close(told)
            for thread in threads:
                thread.join()
            os.close(over)
    return _code(code)


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
    argv: Sequence[str], env: Mapping[str, str], stdin: int | None, stdout: int | None, stderr: int | None
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(argv, env=dict(env), stdin=stdin, stdout=stdout, stderr=stderr)
    except FileNotFoundError:
        raise IronsError(
            f"{argv[0]} is not installed", hint="install OpenSSH's client: apt-get install openssh-client"
        ) from None


def _code(code: int) -> int:
    return 128 - code if code < 0 else code


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _drain(pipe: IO[bytes], stream: TextIO) -> None:
    with pipe:
        while chunk := os.read(pipe.fileno(), _CHUNK):
            stream.write(chunk.decode(errors="backslashreplace"))
    stream.flush()


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
def _ended_by_signals() -> Iterator[None]:
    """Let TERM and HUP end this call as Ctrl-C does, so that what runs in the sandbox is ended too."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with _here(signal.SIGTERM, interrupt), _here(signal.SIGHUP, interrupt):
        yield


@contextlib.contextmanager
def _here(number: int, handler: object) -> Iterator[None]:
    """Handle a signal so for a while; only the main thread can, and elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)  # type: ignore[arg-type]
    try:
        yield
    finally:
        signal.signal(number, before)
