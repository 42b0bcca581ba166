"""Control groups: what limits a sandbox's processors, memory and processes, where this machine lets us (cgroups(7)).

The unified hierarchy (v2) is used as root, or in a subtree that was delegated to this user's irons unit; the older
one (v1) as root only. Elsewhere there is none, and `facts` says so of each limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from irons.text import size_text
from irons_local.errors import EngineError
from irons_local.limits import Limits

_ROOT = Path("/sys/fs/cgroup")
_PERIOD = 100_000
_CONTROLLERS = ("cpu", "memory", "pids")
_REMOVE_TRIES = 50
_MAKE_TRIES = 10
_OURS = "irons"

UNDELEGATED = "no control group is delegated to irons"
"""Why an ordinary user with the unified hierarchy has no limits: what `irons local service install` changes."""

Kind = Literal["v2", "v1", "none"]


@dataclass(frozen=True, slots=True)
class Groups:
    """The directories in which a control group per sandbox is made.

    Attributes:
        kind: the hierarchy.
        bases: by controller, the directory that holds ours; with v2 they are the same.
        why_not: where there is none, the reason for people.
        top: as root with v2, the topmost group, whose controllers are handed to ours.
    """

    kind: Kind
    bases: dict[str, Path]
    why_not: str = ""
    top: Path | None = None

    @classmethod
    def find(
        cls, root: Path = _ROOT, own: Path = Path("/proc/self/cgroup"), uid: int | None = None
    ) -> Groups:
        """What this machine offers this user; makes nothing.

        Args:
            root: where control groups are mounted.
            own: the file that says which of them this process is in.
            uid: whose right is asked about; this process's user when None.
        """
        uid = os.geteuid() if uid is None else uid
        if (root / "cgroup.controllers").exists():
            return cls._unified(root, own, uid)
        if uid != 0:
            return cls("none", {}, "without the unified hierarchy only root can limit")
        bases: dict[str, Path] = {}
        for controller in _CONTROLLERS:
            for name in (controller, "cpu,cpuacct"):
                if controller in name.split(",") and (root / name / "cgroup.procs").exists():
                    bases.setdefault(controller, root / name / _OURS)
        if not bases:
            return cls("none", {}, f"no control groups are mounted at {root}")
        return cls("v1", bases)

    @classmethod
    def _unified(cls, root: Path, own: Path, uid: int) -> Groups:
        base = root / _OURS
        if uid != 0:
            path = next(
                (line[3:] for line in own.read_text(encoding="utf-8").splitlines() if line.startswith("0::")),
                "/",
            )
            base = root / path.strip("/")
            # Only in a unit of our own may processes be moved about to make room for limits.
            if not base.name.startswith("irons") or not os.access(base / "cgroup.subtree_control", os.W_OK):
                return cls("none", {}, f"{UNDELEGATED}; irons local service install makes one")
        available = (root / "cgroup.controllers" if uid == 0 else base / "cgroup.controllers").read_text(
            encoding="ascii"
        )
        bases = {name: base for name in _CONTROLLERS if name in available.split()}
        top = root if uid == 0 else None
        return (
            cls("v2", bases, top=top) if bases else cls("none", {}, "no controllers are delegated to irons")
        )

    @contextlib.contextmanager
    def joined(self, sandbox: str, limits: Limits) -> Iterator[list[int]]:
        """Make a sandbox's groups with their limits; gives descriptors to which a process writes `0` to join.

        Raises:
            EngineError: the kernel refused a limit.
        """
        descriptors: list[int] = []
        try:
            try:
                descriptors.extend(
                    os.open(group / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
                    for group in self._make(sandbox, limits)
                )
            except OSError as error:
                raise EngineError("limit", f"a control group could not be made: {error}") from error
            yield descriptors
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    async def remove(self, sandbox: str) -> None:
        """Remove a sandbox's groups once their processes are gone; what is not there is no error.

        Raises:
            EngineError: a process is still in one of them.
        """
        for group in {base / sandbox for base in self.bases.values()}:
            for _ in range(_REMOVE_TRIES):
                try:
                    group.rmdir()
                except FileNotFoundError:
                    break
                except OSError as error:
                    # The last process may have ended and yet be on its way out of its group.
                    if error.errno != errno.EBUSY:
                        raise EngineError(
                            "failed", f"a control group could not be removed: {error}"
                        ) from error
                    await asyncio.sleep(0.02)
                else:
                    break
            else:
                raise EngineError("failed", f"a process is still in the control group {group}")
            if group.parent.name == _OURS:
                # Ours alone; it stays while another sandbox has its group there.
                with contextlib.suppress(OSError):
                    group.parent.rmdir()

    def freeze(self, sandbox: str, *, frozen: bool) -> bool:
        """Freeze the processes of a sandbox's group, or let them go on; False where there is no group that can be.

        It takes a moment; `is_frozen` says when it is done.
        """
        if self.kind != "v2":
            return False
        try:
            (self._group(sandbox) / "cgroup.freeze").write_text(f"{int(frozen)}", encoding="ascii")
        except OSError:
            return False
        return True

    def is_frozen(self, sandbox: str) -> bool:
        """Whether no process of a sandbox's group runs; one that is gone has none."""
        try:
            text = (self._group(sandbox) / "cgroup.events").read_text(encoding="ascii")
        except OSError:
            return True
        return "frozen 1" in text.splitlines()

    def _group(self, sandbox: str) -> Path:
        return next(iter(self.bases.values())) / sandbox

    def used(self, sandbox: str) -> dict[str, str]:
        """What a running sandbox uses, as texts for `status`, of that which is counted here."""
        files = {
            "memory_used": ("memory", "memory.current" if self.kind == "v2" else "memory.usage_in_bytes"),
            "processes_used": ("pids", "pids.current"),
        }
        found: dict[str, str] = {}
        for name, (controller, file) in files.items():
            with contextlib.suppress(OSError, KeyError):
                text = (self.bases[controller] / sandbox / file).read_text(encoding="ascii")
                found[name] = text.strip()
        kills = self._oom_kills(sandbox)
        return found if kills is None else {**found, "oom_kills": str(kills)}

    def why_ended(self, sandbox: str, limits: Limits) -> str:
        """What is known of why a sandbox ended by itself; "" where nothing is, and once its group is gone."""
        kills = self._oom_kills(sandbox)
        if not kills or limits.memory is None:
            return ""
        killed = "a process" if kills == 1 else f"{kills} processes"
        return f"process 1 ended after the kernel had killed {killed} for the memory limit of {size_text(limits.memory)}"

    def _oom_kills(self, sandbox: str) -> int | None:
        """Processes that the kernel killed for the memory limit since the group was made; None where that is not counted."""
        name = "memory.events" if self.kind == "v2" else "memory.oom_control"
        with contextlib.suppress(OSError, KeyError):
            for line in (self.bases["memory"] / sandbox / name).read_text(encoding="ascii").splitlines():
                key, _, count = line.partition(" ")
                if key == "oom_kill" and count.isdigit():
                    return int(count)
        return None

    def processor(self, sandbox: str) -> int | None:
        """Microseconds of processor time that a running sandbox has used; None where that is not counted here."""
        with contextlib.suppress(OSError, KeyError, ValueError):
            group = (
                next(iter(self.bases.values())) / sandbox
                if self.kind == "v2"
                else self.bases["cpu"] / sandbox
            )
            if self.kind == "v2":
                text = (group / "cpu.stat").read_text(encoding="ascii")
                return int(dict(line.split() for line in text.splitlines())["usage_usec"])
            return int((group / "cpuacct.usage").read_text(encoding="ascii")) // 1000
        return None

    def facts(self, limits: Limits) -> dict[str, str]:
        """The limits as texts for `status`, sizes in bytes; `NAME_note` says of one what does not hold it up."""
        wanted = {
            "cpus": (limits.cpus, "cpu"),
            "memory": (limits.memory, "memory"),
            "processes": (limits.processes, "pids"),
        }
        facts: dict[str, str] = {}
        for name, (value, controller) in wanted.items():
            facts[name] = _limit_text(value)
            # RLIMIT_NPROC, set at each start, holds where no control group does.
            if value is not None and controller not in self.bases and name != "processes":
                facts[f"{name}_note"] = f"not enforced: {self.why_not or 'no such controller'}"
        facts["disk"] = _limit_text(limits.disk)
        return facts

    def _make(self, sandbox: str, limits: Limits) -> list[Path]:
        groups: dict[Path, None] = {}
        for controller, base in self.bases.items():
            group = self._made(base, sandbox)
            groups[group] = None
            for name, text in self._settings(controller, limits):
                (group / name).write_text(text, encoding="ascii")
        return list(groups)

    def _made(self, base: Path, sandbox: str) -> Path:
        for _ in range(_MAKE_TRIES):
            # The base may go, with the last other sandbox, between these two steps.
            with contextlib.suppress(FileNotFoundError):
                base.mkdir(mode=0o755, exist_ok=True)
                if self.kind == "v2":
                    self._delegate(base)
                (base / sandbox).mkdir(mode=0o755, exist_ok=True)
                break
        return base / sandbox

    def _delegate(self, base: Path) -> None:
        """Hand the controllers on to the groups beneath; a group with processes of its own may not."""
        if self.top is not None:
            self._enable(self.top)
        elif self._missing(base):
            leaf = base / "daemon"
            leaf.mkdir(exist_ok=True)
            for pid in (base / "cgroup.procs").read_text(encoding="ascii").split():
                with contextlib.suppress(ProcessLookupError):
                    (leaf / "cgroup.procs").write_text(pid, encoding="ascii")
        self._enable(base)

    def _missing(self, group: Path) -> list[str]:
        enabled = (group / "cgroup.subtree_control").read_text(encoding="ascii").split()
        return [name for name in self.bases if name not in enabled]

    def _enable(self, group: Path) -> None:
        missing = self._missing(group)
        if missing:
            text = " ".join(f"+{name}" for name in missing)
            (group / "cgroup.subtree_control").write_text(text, encoding="ascii")

    def _settings(self, controller: str, limits: Limits) -> list[tuple[str, str]]:
        v2 = self.kind == "v2"
        match controller:
            case "pids":
                return [("pids.max", "max" if limits.processes is None else str(limits.processes))]
            case "memory" if v2:
                return [("memory.max", "max" if limits.memory is None else str(limits.memory))]
            case "memory":
                return [("memory.limit_in_bytes", "-1" if limits.memory is None else str(limits.memory))]
            case "cpu" if v2:
                quota = "max" if limits.cpus is None else str(round(limits.cpus * _PERIOD))
                return [("cpu.max", f"{quota} {_PERIOD}")]
            case _:
                quota = "-1" if limits.cpus is None else str(round(limits.cpus * _PERIOD))
                return [("cpu.cfs_period_us", str(_PERIOD)), ("cpu.cfs_quota_us", quota)]


def _limit_text(value: float | None) -> str:
    if value is None:
        return "unlimited"
    return f"{value:g}" if isinstance(value, float) else str(value)
