"""Find and end the processes of a backend, also where nothing answers and where its files are gone."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from irons.errors import LocalError
from irons_local.daemon import client
from irons_local.forkserver.confine import GATEWAY_ID
from irons_local.keeper.supervise.spawn import STATE
from irons_local.linux.namespaces import birth, is_same
from irons_local.paths import Paths

_MODULES = {
    "irons_local.keeper.keeper": "keeper",
    "irons_local.control.server": "server",
    "irons_local.forkserver.confine": "gateway",
    # Their names until the modules moved; a daemon from before may still run.
    "irons_plugins.local.keeper": "keeper",
    "irons_plugins.local.server": "server",
    "irons_plugins.local.confined": "gateway",
}
_PROC = Path("/proc")
_END_WITHIN = 20.0
_KILLED_WITHIN = 60.0
"""Seconds for a process that was killed: it goes at once, but waits for the processor and the disk as others do."""

_ROUNDS = 3
"""A process that forks while it is looked for may leave one more."""


class Survivor(NamedTuple):
    """A process of a backend: `keeper`, `server`, `gateway` or the name of one worker."""

    name: str
    pid: int


def survivors(paths: Paths) -> tuple[Survivor, ...]:
    """Return keeper, control plane and gateway processes as far as they run, the keeper first.

    The notes in the state directory name them. Where an interrupted purge, or a person, removed the notes, the
    command lines still say which state directory a process was started for.
    """
    found = {each.pid: each for each in _noted(paths)}
    for each in _started_for(paths):
        found.setdefault(each.pid, each)
    # The keeper would start the others again; of the gateway the warm process would fork again.
    order = ("keeper", "server", "gateway")
    return tuple(sorted(found.values(), key=lambda each: (order.index(each.name.partition("-")[0]), each)))


def end(paths: Paths) -> tuple[Survivor, ...]:
    """End keeper, gateway and control plane in any state: asked where that works, killed otherwise.

    Returns:
        The processes that did not end.
    """
    with suppress(LocalError):
        client.down(paths, within=_END_WITHIN)
    for _ in range(_ROUNDS):
        left = survivors(paths)
        if not left:
            break
        for name, pid in left:
            with suppress(ProcessLookupError):
                if name.startswith("gateway"):
                    # What it forked too; each leads a group of its own.
                    os.killpg(pid, signal.SIGKILL)
                else:
                    os.kill(pid, signal.SIGKILL)
                client.wait_for_end(pid, _KILLED_WITHIN)
    return survivors(paths)


def _noted(paths: Paths) -> Iterator[Survivor]:
    notes = {"keeper": paths.state_lock, "server": paths.local / "server.process"}
    notes |= {path.stem: path for path in sorted(paths.local.glob("gateway*.process"))}
    for name, path in notes.items():
        with suppress(OSError, ValueError, KeyError, TypeError):
            noted = json.loads(path.read_text("utf-8"))
            process = noted["process"] if name == "keeper" else noted
            if is_same(process):
                yield Survivor(name, int(process["pid"]))


def _started_for(paths: Paths) -> Iterator[Survivor]:
    """Processes of this user, or of root's gateway, that were started for this state directory."""
    users = {os.geteuid()} | ({GATEWAY_ID} if os.geteuid() == 0 else set())
    for entry in _PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        with suppress(OSError, LookupError, ValueError):
            words = [os.fsdecode(word) for word in (entry / "cmdline").read_bytes().split(b"\0")]
            name = _MODULES.get(words[words.index("-m") + 1])
            # A zombie has no command line any more.
            if name is None or not _for_state(entry, words, paths) or birth(int(entry.name)) is None:
                continue
            if _user(entry) in users:
                yield Survivor(name, int(entry.name))


def _for_state(entry: Path, words: list[str], paths: Paths) -> bool:
    if STATE in words:
        return words[words.index(STATE) + 1] == str(paths.state)
    # Earlier versions have it in the environment only, which no process can read of a confined one.
    variables = (entry / "environ").read_bytes().split(b"\0")
    return os.fsencode(f"XDG_STATE_HOME={paths.state.parent}") in variables


def _user(entry: Path) -> int:
    """The user of a process; the owner of its directory is root where it is confined."""
    for line in (entry / "status").read_text("utf-8", "replace").splitlines():
        if line.startswith("Uid:"):
            return int(line.split()[1])
    raise LookupError(entry)
