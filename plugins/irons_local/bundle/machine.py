"""What the engines record about one sandbox, in the sandbox's directory."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from irons.files import write_whole
from irons_local.errors import EngineError
from irons_local.limits import Limits
from irons_local.linux.processes import Process, is_alive
from irons_local.spec import Spec

VIRTUAL_DISK = "disk.qcow2"
"""In the directory of a virtual machine: what its disk has beyond its image's and its layers."""

NEXT_DISK = "disk.next"
"""An empty disk that is about to take the place of that one, which becomes a layer."""

INSTANCE = "instance"
"""A file in the directory of a sandbox that is an instance of Incus; with the name of that."""

_FILE = "machine.json"
_LAID = "laid"
_LOCK = "lock"
_POLL = 0.05
_RUN = "run-"
_VERSION = 2
"""Of a record that an irons without layers must refuse. One that it can read has no number, and no key that is not needed."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One sandbox as its `machine.json` has it.

    Attributes:
        id: the sandbox's, and its cell's.
        name: its host name.
        image: id of the image it is based on.
        image_name: what that image was called then.
        host_key: its public host key.
        limits: what it may use.
        layers: its own, topmost first: between what it adds now and its image.
        entrypoint: it runs its image's entrypoint at each start.
        redirects: the machine's root mounts its files, so that directories of its layers and its image can be renamed.
        kit: id of the kit whose SSH server it runs; "" for the image's own.
        user: who one is in it, for people; "" where an older version did not record it.
        copied: it was made from a snapshot, and what its files say of the machine that they were made by is replaced at its
            first start.
        keys_inside: how many public keys came with the files of that snapshot; they open it, too.
    """

    id: str
    name: str
    image: str
    image_name: str
    host_key: str
    limits: Limits
    layers: tuple[str, ...] = ()
    kit: str = ""
    user: str = ""
    redirects: bool = False
    entrypoint: bool = False
    copied: bool = False
    keys_inside: int = 0

    @classmethod
    def of(
        cls, spec: Spec, image: str, image_name: str, host_key: str, kit: str = "", user: str = ""
    ) -> Machine:
        """What a spec becomes."""
        return cls(
            spec.id,
            spec.name,
            image,
            image_name,
            host_key,
            spec.limits,
            kit=kit,
            user=user,
            entrypoint=spec.entrypoint,
        )

    @classmethod
    def read(cls, home: Path) -> Machine:
        """The machine of a sandbox's directory.

        Raises:
            EngineError: the file is missing, not what was written, or of a newer irons.
        """
        try:
            body = json.loads((home / _FILE).read_bytes())
            version = body.pop("version", 1)
            if version > _VERSION:
                raise EngineError(
                    "state",
                    f"a newer irons made or changed {home.name}: its record has version {version},"
                    f" and this irons reads {_VERSION} at most",
                    "install the newer irons again to use it",
                )
            layers = tuple(body.pop("layers", ()))
            # What a newer irons says without a version of its own may be left unread.
            body = {field.name: body[field.name] for field in fields(cls) if field.name in body}
            return cls(**{**body, "limits": Limits(**body["limits"]), "layers": layers})
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise EngineError("state", f"{home.name} is half made or damaged", "destroy it") from error

    def write(self, home: Path) -> None:
        """Write the file, so that it is there whole or not at all, also after a power loss."""
        needed = {field.name for field in fields(self) if getattr(self, field.name) != field.default}
        body = {key: value for key, value in asdict(self).items() if key in needed}
        body |= {"version": _VERSION} if self.layers or self.redirects else {}
        write_whole(home / _FILE, json.dumps(body), durable=True, parents=False)

    @staticmethod
    @contextlib.asynccontextmanager
    async def held(home: Path, within: float = 0.0) -> AsyncIterator[int]:
        """Keep others from starting, copying or removing the sandbox; waits `within` so many seconds for that.

        Gives the descriptor that holds it: a process that inherits it goes on holding it.

        Raises:
            EngineError: the sandbox is gone, or someone does just that.
        """
        try:
            descriptor = os.open(home / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileNotFoundError as error:
            raise EngineError("absent", f"there is no sandbox {home.name}") from error
        try:
            deadline = asyncio.get_running_loop().time() + within
            while not _locked(descriptor):
                if asyncio.get_running_loop().time() >= deadline:
                    raise EngineError("state", f"sandbox {home.name} is busy: it is being saved or started")
                await asyncio.sleep(_POLL)
            yield descriptor
        finally:
            os.close(descriptor)

    @staticmethod
    def run_file(home: Path) -> Path:
        """Where process 1 is recorded; the name changes with each boot of the host, so that none is believed twice."""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return home / (_RUN + boot)

    @classmethod
    def running(cls, home: Path) -> Process | None:
        """Process 1 of a sandbox that runs, or None."""
        try:
            body = json.loads(cls.run_file(home).read_bytes())
            process = Process(int(body["pid"]), int(body["started"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return process if is_alive(process) else None

    @staticmethod
    def forget_runs(home: Path) -> None:
        """Remove what was written about runs that are over."""
        with contextlib.suppress(FileNotFoundError):
            for path in home.iterdir():
                if path.name.startswith(_RUN):
                    path.unlink(missing_ok=True)

    @staticmethod
    def is_virtual(home: Path) -> bool:
        """True of a sandbox that is a virtual machine, which the `vm` engine runs."""
        return (home / VIRTUAL_DISK).exists() or (home / NEXT_DISK).exists()

    @staticmethod
    def is_instance(home: Path) -> bool:
        """True of a sandbox, whole or not, that is an instance of Incus, which the `incus` engine runs."""
        return (home / INSTANCE).exists()

    @staticmethod
    def is_laid(home: Path) -> bool:
        """True once the files of a new machine were put into it."""
        return (home / _LAID).exists()

    @staticmethod
    def mark_laid(home: Path, *, laid: bool = True) -> None:
        """Remember that they were, or that they are to be put there again."""
        if laid:
            (home / _LAID).touch(mode=0o600)
        else:
            (home / _LAID).unlink(missing_ok=True)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
