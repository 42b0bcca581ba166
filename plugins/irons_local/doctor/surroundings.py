"""What surrounds this process, as far as it can keep sandboxes from running: a container, a filter of system calls."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

NEEDED = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "KILL": 5,
    "SETGID": 6,
    "SETUID": 7,
    "SYS_CHROOT": 18,
    "SYS_ADMIN": 21,
}
"""The capabilities, with their numbers (capabilities(7)), that root needs for sandboxes: `tests/containers.py` finds them."""

_FLAGS = {
    "docker": "--cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
    " --security-opt systempaths=unconfined",
    "podman": "--cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
    " --security-opt label=disable --security-opt unmask=ALL",
}
_CONTROL_GROUP = re.compile(r"docker|kubepods|libpod|containerd|lxc|garden")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What surrounds a process.

    Attributes:
        container: what made the container, such as `docker` or `podman`, or `container`; "" where nothing says that it is one.
        filtered: a filter of system calls (seccomp) is set.
        gaining: programs may gain rights (sudo, newuidmap); false under no-new-privileges.
        missing: the capabilities of `NEEDED` that root does not have; none for other users, who gain them in a namespace.
    """

    container: str = ""
    filtered: bool = False
    gaining: bool = True
    missing: tuple[str, ...] = ()

    @property
    def confine(self) -> bool:
        """Something of it may be what refuses."""
        return bool(self.container or self.filtered or self.missing)

    def way_out(self, volume: str = "") -> str:
        """The line that gives a container what sandboxes need; for other places, where to go.

        Args:
            volume: a directory that must not lie on the container's own file system, as text; "" where none must.
        """
        if self.container not in _FLAGS and not (self.filtered or self.missing):
            return "run irons on the machine itself, outside of the chroot or container"
        engine = self.container if self.container in _FLAGS else "docker"
        more = f" --volume irons:{volume}" if volume else ""
        line = f"{engine} run {_FLAGS[engine]}{more} … starts a container that can; docs/local.md says why"
        return (
            line
            if self.container in _FLAGS
            else f"run irons on the machine itself; or, in a container: {line}"
        )

    @classmethod
    def find(cls, uid: int, root: Path = Path("/")) -> Self:
        """Look at this process; gives what can be read, and nothing for what cannot.

        Args:
            uid: its effective user.
            root: where /proc and the marks of containers are.
        """
        status = dict(
            line.split(":\t", 1) for line in _text(root / "proc/self/status").splitlines() if ":\t" in line
        )
        held = int(status.get("CapEff") or "0", 16)
        missing = tuple(name for name, number in NEEDED.items() if not held >> number & 1)
        return cls(
            container=_container(root),
            filtered=status.get("Seccomp") == "2",
            gaining=status.get("NoNewPrivs") != "1",
            missing=missing if uid == 0 and "CapEff" in status else (),
        )


def _container(root: Path) -> str:
    """The engine's name, by the marks that engines leave (podman-run(1), systemd's "Container Interface")."""
    if (root / "run/.containerenv").exists():
        return "podman"
    if (root / ".dockerenv").exists():
        return "docker"
    variables = _text(root / "proc/1/environ").split("\0")
    named = next((each.partition("=")[2] for each in variables if each.startswith("container=")), "")
    if named := (named or _text(root / "run/systemd/container").strip()):
        return named if re.fullmatch(r"[a-z][a-z0-9-]{0,30}", named) else "container"
    return "container" if _CONTROL_GROUP.search(_text(root / "proc/1/cgroup")) else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
