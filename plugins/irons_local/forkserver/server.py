"""A warm process: it has imported all that a worker needs, holds no socket but the keeper's link, and forks workers.

The keeper asks `{"op": "fork", "worker", "workers"}` with three descriptors: the worker's link, the socket at which
the worker waits for the next keeper, and its log. The answer has the worker's `pid`, and a descriptor of it (pidfd).
A worker begins when one byte has come on its link, and ends where the link is closed before. This process ends with
its link; its workers live on.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from irons_local.ipc.framing import LinkError, Message
from irons_local.ipc.link import Link

BEGIN = b"\n"
"""The byte at which a worker begins."""

_DEFAULT = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def serve(descriptor: int, run: Callable[[], int | None]) -> int:
    """Fork workers until the link is closed.

    Args:
        descriptor: of the link to the keeper.
        run: what a worker does; it finds its link and rendezvous in `IRONS_LINK` and `IRONS_KEEPER`, its number in
            `IRONS_WORKER`, and how many workers there are in `IRONS_WORKERS`.

    Returns:
        The exit code.
    """
    link = Link(socket.socket(fileno=descriptor))
    link.sock.set_inheritable(False)
    signal.signal(signal.SIGCHLD, _collect)
    # What is here stays as it is: the less a worker writes to it, the less memory is its own.
    gc.collect()
    gc.freeze()
    while True:
        try:
            message = link.recv()
        except LinkError:
            return 0
        try:
            if message.body.get("op") == "fork":
                _fork(link, message, run)
        finally:
            message.close()


def _collect(_number: int, _frame: FrameType | None) -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _fork(link: Link, message: Message, run: Callable[[], int | None]) -> None:
    # One that ends at once is not collected before there is a descriptor of it.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    try:
        try:
            pid = os.fork()
        except OSError as error:
            link.send({"id": message.body["id"], "error": {"code": "failed", "message": str(error)}})
            return
        if pid == 0:
            _begin(link, message, run)
        pidfd = os.pidfd_open(pid)
        try:
            link.send({"id": message.body["id"], "ok": {"pid": pid}}, [pidfd])
        finally:
            os.close(pidfd)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


def _begin(parent: Link, message: Message, run: Callable[[], int | None]) -> NoReturn:
    """Be a worker from here on."""
    code = 1
    try:
        own, rendezvous, log = message.fds
        os.setsid()
        parent.close()
        for number in _DEFAULT:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        for target in (1, 2):
            os.dup2(log, target)
        os.close(log)
        if os.read(own, 1) != BEGIN:
            os._exit(0)
        _reseed()
        os.environ["IRONS_LINK"], os.environ["IRONS_KEEPER"] = str(own), str(rendezvous)
        for name in ("worker", "workers"):
            os.environ[f"IRONS_{name.upper()}"] = str(int(message.body[name]))
        code = int(run() or 0)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 (the log is all that is left to tell)
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)


def _reseed() -> None:
    """Draw other numbers than the process that this one was forked from, and than its siblings."""
    random.seed()
    ssl = sys.modules.get("ssl")
    if ssl is not None:
        ssl.RAND_add(os.urandom(32), 32.0)
