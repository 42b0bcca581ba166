"""The program behind a connection: a child of the keeper finds it in a sandbox that hides, lies and has very many processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import pytest
from tests.local.people import PYTHON, Kept, eventually

from irons_local.ipc.framing import LinkError, RequestError
from irons_local.linux.idmap import PRIVATE_BASE

INSIDE = """
import ctypes, os, sys
asked, go = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    assert ctypes.CDLL(None).unshare(0x30000000) == 0, "no namespaces"
    os.write(asked[1], b"u")
    os.read(go[0], 1)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    first = os.fork()
    if first == 0:
        os.execv(sys.executable, sys.argv[1:])
    os._exit(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) & 255)
os.read(asked[0], 1)
for name in ("uid_map", "gid_map"):
    with open(f"/proc/{child}/{name}", "w") as file:
        file.write("0 1 65535")
os.write(go[1], b"g")
os.waitpid(child, 0)
"""
"""Runs a program as a sandbox's process 1: in a user and a pid namespace below those of the cell."""

CONNECTS = """
import ctypes, json, os, socket, sys
sock = socket.create_connection((sys.argv[1], 443))
own, peer = sock.getsockname(), sock.getpeername()
sock.set_inheritable(True)
print(json.dumps([*own[:2], *peer[:2]]), flush=True)
"""
CAT = "os.execv('/bin/cat', json.loads(sys.argv[2]))"
"""Goes on with the connection as a program with other words, which ends with its input."""
CROWD = """
kept = [os.dup(0) for _ in range(500)]
for _ in range(40):
    if os.fork() == 0:
        sock.close()
        break
sys.stdin.read()
"""
"""Has 20,000 descriptors, of processes that are younger than the one with the connection."""


@contextmanager
def sandbox(
    kept: Kept, cell: str, *words: str, then: str = CAT, host: str = "203.0.113.7", inside: bool = True
) -> Iterator[dict[str, Any]]:
    """Run a program that connects, in a sandbox of the cell or in the cell itself; gives what to ask for.

    Args:
        kept: the keeper.
        cell: the cell.
        words: of the program.
        then: what it does once it is connected.
        host: where it connects to.
        inside: in a sandbox.
    """
    argv = [PYTHON, "-c", CONNECTS + then, host, json.dumps(words or ["cat"])]
    more = [PYTHON, "-c", INSIDE] if inside else []
    with kept.entering(cell, *more, *argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, "the program ended"
            address, port, peer, peer_port = json.loads(line)
            yield {"cell": cell, "address": address, "port": port, "peer": peer, "peer_port": peer_port}
        finally:
            process.stdin.close()


def answered(kept: Kept, asked: dict[str, Any]) -> dict[str, Any]:
    """What the keeper answers once a child has done its work: on a machine that stands still it is ended before, and asked for again."""

    def ask() -> list[dict[str, Any]]:
        try:
            return [kept.ask("cell.program", **asked)]
        except RequestError as error:
            if error.code not in ("ETIMEDOUT", "failed", "busy"):
                raise
            return []

    (known,) = eventually(ask, what="an answer")
    result: dict[str, Any] = known
    return result


def found(kept: Kept, asked: dict[str, Any], program: str) -> dict[str, Any]:
    """What the keeper knows of a connection, once the program with the connection is the one with these words."""

    def knows() -> Any:
        known = answered(kept, asked)
        return known.get("program") == program and known

    known: dict[str, Any] = eventually(knows, what=program)
    return known


RIGHTS = f"{1 << 2 | 1 << 19:016x}"
"""CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE, as /proc has them."""


class Looking:
    """Children of the keeper that look for a program, one after the other for as long as this is open.

    Args:
        kept: the keeper.
        asked: the connection.
    """

    def __init__(self, kept: Kept, asked: dict[str, Any]) -> None:
        self._kept, self._asked = kept, asked
        keeper = kept.status()["pid"]
        self._children = Path(f"/proc/{keeper}/task/{keeper}/children")
        self._others = set(self._children.read_text().split())
        self._open = True
        self._asking = threading.Thread(target=self._ask)

    def __enter__(self) -> Self:
        self._asking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._asking.join()

    def one(self, done: Callable[[int], Any]) -> Any:
        """Do something with a child that has all it needs; what it gives, once that is true for one that lives."""

        def look() -> Any:
            with suppress(OSError):
                for name in set(self._children.read_text().split()) - self._others:
                    pid = int(name)
                    if _status(pid)["CapEff"] == RIGHTS and (given := done(pid)):
                        return given
            return None

        return eventually(look, what="a child that looks")

    def _ask(self) -> None:
        while self._open:
            with suppress(RequestError, LinkError, OSError):
                self._kept.ask("cell.program", **self._asked)


def killed(pid: int) -> int:
    """Kill a process; gives its id."""
    os.kill(pid, signal.SIGKILL)
    return pid


def stopped(pid: int) -> int:
    """Stop a process; gives its id, and 0 where it ended before."""
    os.kill(pid, signal.SIGSTOP)
    while (state := _status(pid)["State"][0]) not in "TZX":
        pass
    return pid if state == "T" else 0


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


@pytest.mark.parametrize("host", ["203.0.113.7", "2001:db8::7"])
def test_the_program_of_a_connection_is_found(lasting: Kept, host: str) -> None:
    """Its words, and the number that the sandbox knows it by; of the machine's own numbers nothing."""
    cell = lasting.make()
    with sandbox(lasting, cell, "pip install x", "-", host=host) as asked:
        assert found(lasting, asked, "pip install x -") == {"program": "pip install x -", "pid": 1}


def test_a_child_that_has_the_connection_is_found(lasting: Kept) -> None:
    """A shell's child, in a user namespace of its own too: of several processes the youngest is named."""
    cell = lasting.make()
    nested = "pid = os.fork()\nif pid: os.waitpid(pid, 0); os._exit(0)\n"
    nested += "assert ctypes.CDLL(None).unshare(0x10000000) == 0\n" + CAT
    with sandbox(lasting, cell, "curl", then=nested) as asked:
        assert found(lasting, asked, "curl") == {"program": "curl", "pid": 2}


def test_long_and_hostile_words_are_bounded(lasting: Kept) -> None:
    """100,000 bytes with escape sequences and broken text are cut; a program without words has its name."""
    cell = lasting.make()
    with sandbox(lasting, cell, "\x1b[2J\udcff\n" + "x" * 100_000) as asked:
        known = found(lasting, asked, "\x1b[2J\ufffd\n" + "x" * 506)
        assert known["pid"] == 1
    nameless = "ctypes.CDLL(None).execv(b'/bin/cat', (ctypes.c_char_p * 2)(b'', None))"
    with sandbox(lasting, cell, then=nameless) as asked:
        found(lasting, asked, "cat")


def test_what_is_not_known_is_absent(lasting: Kept) -> None:
    """An unknown connection, odd addresses, and a process of the host, such as a virtual machine's, have no program."""
    cell = lasting.make()
    with sandbox(lasting, cell, inside=False) as asked:
        assert answered(lasting, asked) == {}
    with sandbox(lasting, cell) as asked:
        found(lasting, asked, "cat")
        assert answered(lasting, {**asked, "port": asked["port"] % 60_000 + 1}) == {}
        assert answered(lasting, {**asked, "address": "203.0.113.7"}) == {}
        for odd in ("nonsense", "::%lo", "1" * 5000):
            with pytest.raises(RequestError):
                lasting.ask("cell.program", **{**asked, "address": odd})
        with pytest.raises(RequestError) as caught:
            lasting.ask("cell.program", **{**asked, "cell": "sb_ffffffffffffffff"})
        assert caught.value.code == "absent"
        found(lasting, asked, "cat")


def test_a_child_that_looks_has_almost_no_rights(lasting: Kept) -> None:
    """It is of the sandbox's ids with two rights over them, sees nothing but /proc, and has no descriptor of anything else."""
    cell = lasting.make()
    lasting.make()

    def facts(pid: int) -> tuple[dict[str, str], str, list[str]]:
        held = [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()]
        return _status(pid), str(Path(f"/proc/{pid}/root").readlink()), held

    with sandbox(lasting, cell, then=CROWD) as asked, Looking(lasting, asked) as look:
        status, root, held = look.one(facts)
    uids = {int(each) for each in status["Uid"].split()}
    assert len(uids) == 1
    assert uids.isdisjoint({0, lasting.person.uid, PRIVATE_BASE})
    assert (status["CapPrm"], status["NoNewPrivs"], root) == (RIGHTS, "1", "/proc")
    # The link, and the namespaces of the one cell; its output, and directories of processes, are paths.
    kinds = Counter(each.partition(":")[0] for each in held if not each.startswith(("/", "pipe:")))
    assert set(kinds) <= {"socket", "net", "user"}
    assert max(kinds.values()) == 1


def test_a_child_that_is_held_up_holds_up_no_one(kept: Kept) -> None:
    """One that is stopped is ended while the keeper serves others; after three that were killed programs are found as before."""
    cell = kept.make()
    with sandbox(kept, cell, then=CROWD) as asked, Looking(kept, asked) as look:
        child = look.one(stopped)
        assert kept.judged(kept.make()) == "203.0.113.7 443"
        eventually(lambda: not Path(f"/proc/{child}").exists(), what="its end")
        for _ in range(3):
            look.one(killed)
    with sandbox(kept, cell) as asked:
        found(kept, asked, "cat")


def test_no_child_outlives_the_keeper(kept: Kept) -> None:
    """One that looks ends with the keeper, though it is stopped; the next keeper finds programs too."""
    cell = kept.make()
    with sandbox(kept, cell, then=CROWD) as asked:
        with Looking(kept, asked) as look:
            child = look.one(stopped)
            kept.kill()
            eventually(lambda: not Path(f"/proc/{child}").exists(), what="its end")
        kept.start()
    with sandbox(kept, cell) as asked:
        found(kept, asked, "cat")
