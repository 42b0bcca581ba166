"""A warm process that has imported all that a start takes, and forks a child for each start.

`python -m irons_local.engines.namespace.forkserver FD`: the descriptor is one end of a link. A message on it brings one
descriptor: the child's own link. There the child first sends a descriptor of itself (pidfd) and then takes the request
`start` with the order, which the warm process never sees, and its descriptors: the one that holds the sandbox, and those
of `boot.Inherited`, with the control groups last. The answer is `boot.BootAnswer`. The warm process ends with its link, or
after `IDLE` seconds without work; its children live on.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from typing import NoReturn

from irons_local.engines.namespace import boot
from irons_local.ipc.framing import LinkError, Message
from irons_local.ipc.link import Link
from irons_local.log.context import request_id
from irons_local.log.line import Line

IDLE = 900
"""Seconds without a start after which it ends."""


def main() -> int:
    """Fork children until the link is closed."""
    link = Link(socket.socket(fileno=int(sys.argv[1])))
    link.sock.set_inheritable(False)
    link.sock.settimeout(IDLE)
    # The kernel collects the children.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # What is here stays as it is: the less a child writes to it, the less is copied.
    gc.collect()
    gc.freeze()
    while True:
        try:
            message = link.recv()
        except LinkError:
            return 0
        try:
            if os.fork() == 0:
                _begin(link, message)
        except OSError as error:
            # Whoever asked sees the child's link closed.
            sys.stderr.write(f"a start could not be forked: {error}\n")
        finally:
            message.close()


def _begin(parent: Link, message: Message) -> NoReturn:
    """Be the child from here on."""
    code = 1
    try:
        # A terminal's interrupt key, and a control plane that is stopped, must not end a sandbox.
        os.setsid()
        parent.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with Link(socket.socket(fileno=message.fds.pop())) as link:
            _start(link)
        code = 0
    except LinkError:
        # No one waits any more; what was started is noted in its file.
        pass
    except BaseException:  # noqa: BLE001 (the log is all that is left to tell)
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)


def _start(link: Link) -> None:
    itself = os.pidfd_open(os.getpid())
    link.send({"op": "born"}, [itself])
    os.close(itself)
    request = link.recv()
    # The first one holds the sandbox until this process ends, or has answered.
    held, user, net, mount, console, note, *groups = request.fds
    order: boot.BootOrder = request.body["order"]
    order["inherited"] = boot.Inherited(user, net, mount, groups, console, note)
    answer = boot.carry_out(order)
    # Why a start failed is logged by the engine, with its answer.
    happened = "the start failed" if "error" in answer else f"boot has started process {answer.get('pid')}"
    line = Line(happened, request=request_id(request.body.get("request")), sandbox=str(order.get("cell", "")))
    with suppress(OSError):  # a log on a full disk fails no start
        sys.stderr.write(line.render(time.time()))
    os.close(held)
    link.send({"id": request.body["id"], "ok": answer})


if __name__ == "__main__":
    sys.exit(main())
