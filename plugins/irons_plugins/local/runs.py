"""Requests to run a program in a cell, as the keeper follows them."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from irons_plugins.local import jobs, maker, namespaces
from irons_plugins.local.clients import Ask, Client, Report
from irons_plugins.local.link import Message
from irons_plugins.local.loop import Loop

MAKE_WITHIN = 30.0
"""Seconds that a forked child may take to do its part."""

_OUTPUT_BYTES = 1 << 20


class Run:
    """One program in a cell, from its request to its answer.

    Args:
        loop: the keeper's.
        ask: the request.
        spaces: where it runs.

    Raises:
        ValueError: the request makes no sense.
        OSError: no process can be made.
    """

    def __init__(
        self,
        loop: Loop,
        ask: Ask,
        spaces: maker.Namespaces,
    ) -> None:
        self._ask, self._name = ask, ask.text("cell")
        body = ask.body
        groups = body.get("cgroup") or []
        numbers = [int(number) for number in body.get("fds") or ()]
        if len(numbers) != len(ask.fds):
            raise ValueError("fds must number the descriptors that come with the request")
        self._wait = bool(body.get("wait")) or not body.get("argv")
        self._output = -1
        given = list(zip(ask.fds, numbers, strict=True))
        opened: list[int] = []
        if isinstance(body.get("stdin"), str):
            text = os.memfd_create("stdin")
            os.write(text, body["stdin"].encode())
            os.lseek(text, 0, os.SEEK_SET)
            opened.append(text)
            given.append((text, 0))
        if self._wait:
            # A file, not a pipe: what the program leaves running cannot keep its answer back.
            self._output = os.memfd_create("output")
            given += [(self._output, number) for number in (1, 2) if number not in numbers]
        job = jobs.Job(
            argv=[str(word) for word in body.get("argv") or ()],
            env={str(key): str(value) for key, value in (body.get("env") or {}).items()},
            cwd=str(body.get("cwd") or ""),
            cgroups=[groups] if isinstance(groups, str) else [str(group) for group in groups],
            steps=body.get("steps") or [],
            fds=given,
        )
        child = maker.fork(lambda link: jobs.run(link, spaces, job))
        self._pid, self._begun = child.pid, False
        self._status: int | None = None
        self._born = namespaces.started(child.pid) or 0
        for fd in opened:
            os.close(fd)
        self._timer = loop.after(float(body["timeout"]), self._late) if body.get("timeout") else None
        loop.on_end(child.pid, self._ended)
        Report(loop, child, self._started, MAKE_WITHIN)

    def _started(self, message: Message | None) -> None:
        if message is not None:
            self._settle()
            error = message.body.get("error") or {}
            message.close()
            self._ask.refuse(str(error.get("code", "failed")), str(error.get("message", "it did not start")))
            return
        self._begun = True
        if not self._wait:
            self._ask.ok({"pid": self._pid, "started": self._born})
        if self._status is not None:
            self._finish(self._status)

    def _ended(self, status: int) -> None:
        self._status = status
        if self._timer is not None:
            self._timer.cancel()
        # The report may still be on its way: it says whether this is the program's end or a failure to start it.
        if self._begun:
            self._finish(status)

    def _finish(self, status: int) -> None:
        code = exit_code(status)
        if not self._wait:
            exited(self._ask.client, self._name, self._pid, code)
            return
        output = os.pread(self._output, _OUTPUT_BYTES, 0).decode("utf-8", "replace")
        self._settle()
        self._ask.ok({"pid": self._pid, "started": self._born, "code": code, "output": output})

    def _settle(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._output >= 0:
            os.close(self._output)
            self._output = -1

    def _late(self) -> None:
        # The program leads a session of its own, so this reaches what it started too.
        with suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)


def exited(client: Client, cell: str, pid: int, code: int | None) -> None:
    """Tell who asked that a process has ended; `code` is None where nobody knows how."""
    client.send({"op": "exited", "cell": cell, "pid": pid, "code": code})


def exit_code(status: int) -> int:
    """A wait status as shells give it: the exit code, or 128 and the signal."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code
