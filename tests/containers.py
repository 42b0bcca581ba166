"""What irons needs inside a container, found by leaving one thing out at a time: `python -m tests.containers IMAGE.tar`.

A container is emulated by crun in namespaces of its own, with the capabilities, refused system calls, hidden and
read-only paths of docker's and podman's defaults, over this machine's own files. In each a sandbox is created, entered
and destroyed; the table says what failed first. No container engine is needed, and none is asked.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

CAPABILITIES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
]
DOCKER = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
]
PODMAN = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
]

"""Capabilities by number (capabilities(7)), and those of docker's and podman's containers."""

REFUSED = [
    "unshare",
    "setns",
    "mount",
    "umount2",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "fsopen",
    "fsmount",
    "fsconfig",
    "fspick",
    "pivot_root",
    "clone",
    "clone3",
    "sethostname",
    "setdomainname",
    "syslog",
    "quotactl",
    "bpf",
    "perf_event_open",
    "fanotify_init",
    "keyctl",
    "add_key",
    "request_key",
    "userfaultfd",
    "open_by_handle_at",
    "kcmp",
    "pidfd_getfd",
    "process_vm_readv",
    "process_vm_writev",
    "mbind",
    "set_mempolicy",
    "move_pages",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "acct",
    "reboot",
    "swapon",
    "swapoff",
    "init_module",
    "finit_module",
    "delete_module",
    "kexec_load",
    "settimeofday",
    "clock_settime",
    "iopl",
    "ioperm",
    "vhangup",
    "nfsservctl",
    "lookup_dcookie",
    "ustat",
    "sysfs",
    "_sysctl",
    "uselib",
]
"""System calls that the default profiles of docker and podman refuse to a container without further capabilities."""

_NAMESPACE_FLAGS = 0x7E020000
_ENOSYS, _EPERM = 38, 1
_MASKED = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/interrupts",
    "/sys/firmware",
]
_READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


@dataclass(frozen=True)
class Container:
    """How a container is confined.

    Attributes:
        capabilities: what its root has.
        refused: system calls that fail with EPERM (`clone` only where it makes namespaces; `clone3` with ENOSYS).
        hidden: parts of /proc are covered, others read-only.
        volume: state lies on a file system of the host, not on the container's overlay.
        no_new_privileges: no program gains rights.
        mark: the file by which a container of this engine is known.
    """

    capabilities: tuple[str, ...] = tuple(CAPABILITIES)
    refused: tuple[str, ...] = ()
    hidden: bool = False
    volume: bool = True
    no_new_privileges: bool = False
    mark: str = ".dockerenv"

    def config(self, place: Path, command: Sequence[str]) -> dict[str, Any]:
        """The container's configuration (OCI runtime specification 1.0.2)."""
        held = _held()
        names = [f"CAP_{name}" for name in self.capabilities if name in held]
        shared = {str(path) for path in (ROOT, Path(sys.prefix), Path(sys.base_prefix))}
        return {
            "ociVersion": "1.0.2",
            "hostname": "container",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": list(command),
                "cwd": str(ROOT),
                "env": [f"{key}={value}" for key, value in self._env(place).items()],
                "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), names),
                "noNewPrivileges": self.no_new_privileges,
            },
            "root": {"path": str(place / "rootfs")},
            "mounts": [
                _mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
                _mount("/dev", "tmpfs", "tmpfs", "nosuid", "mode=755"),
                _mount("/dev/pts", "devpts", "devpts", "newinstance", "ptmxmode=0666", "mode=0620"),
                _mount("/dev/shm", "tmpfs", "shm", "nosuid", "nodev", "mode=1777"),
                _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "ro"),
                *(_mount(path, "bind", path, "rbind", "ro") for path in sorted(shared)),
                *([_mount("/state/irons", "bind", str(place / "state"), "rbind")] if self.volume else []),
                _mount("/given", "bind", str(place / "given"), "rbind", "ro"),
            ],
            "linux": {
                "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
                "maskedPaths": _MASKED if self.hidden else [],
                "readonlyPaths": _READ_ONLY if self.hidden else [],
                "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": list(self._rules())},
            },
        }

    def _env(self, place: Path) -> dict[str, str]:
        # Nothing measures coverage in there: what it would write ends with the container's layer.
        return {
            "HOME": "/root",
            "XDG_STATE_HOME": "/state",
            "XDG_RUNTIME_DIR": "/runtime",
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "IRONS_CONFIG": "/none",
        }

    def _rules(self) -> Iterator[dict[str, Any]]:
        for name in self.refused:
            rule: dict[str, Any] = {"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": _EPERM}
            if name == "clone3":
                rule["errnoRet"] = _ENOSYS
            if name != "clone":
                yield rule
                continue
            for bit in range(32):
                if flag := _NAMESPACE_FLAGS & 1 << bit:
                    yield {
                        **rule,
                        "args": [{"index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"}],
                    }


def _held() -> set[str]:
    """What this process has: a container on it can have no more."""
    lines = Path("/proc/self/status").read_text().splitlines()
    mask = int(next(line.split()[1] for line in lines if line.startswith("CapEff:")), 16)
    return {name for number, name in enumerate(CAPABILITIES) if mask >> number & 1}


def _mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


DEFAULTS = {
    "docker run": Container(tuple(DOCKER), tuple(REFUSED), hidden=True, volume=False),
    "podman run": Container(
        tuple(PODMAN), tuple(REFUSED), hidden=True, volume=False, mark="run/.containerenv"
    ),
}
"""What a container is without any flag."""

_PREPARE = """
set -e
mount -t tmpfs -o mode=755 none /sys/fs/cgroup
mount -t tmpfs -o mode=755 none "$1/layers"
mkdir "$1/layers/upper" "$1/layers/work" "$1/layers/upper/state" "$1/layers/upper/runtime" "$1/layers/upper/given"
chmod 700 "$1/layers/upper/runtime"
mkdir -p "$(dirname "$1/layers/upper/$3")"
touch "$1/layers/upper/$3"
mount -t overlay -o "lowerdir=/,upperdir=$1/layers/upper,workdir=$1/layers/work" overlay "$1/rootfs"
exec crun --root "$1/crun" --cgroup-manager=disabled run --bundle "$1" "$2"
"""


class Yard:
    """Where containers are run one after the other, with an image and a key that they share.

    Args:
        place: a directory of the yard's own.
        image: an archive of the image that sandboxes start from; None where none is made.
    """

    def __init__(self, place: Path, image: Path | None = None) -> None:
        self._place = place
        self._made = 0
        for name in ("state", "given", "rootfs", "layers"):
            (place / name).mkdir(exist_ok=True)
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / "given/id")]
        subprocess.run(keygen, check=True)
        if image is not None:
            _reduced(image, place / "given/debian.tar")

    def run(
        self, container: Container, *command: str, timeout: float = 500
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a container."""
        self._made += 1
        (self._place / "config.json").write_text(json.dumps(container.config(self._place, command)))
        words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _PREPARE, "sh"]
        name = f"irons-yard-{os.getpid()}-{self._made}"
        return subprocess.run(
            [*words, str(self._place), name, container.mark],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    def irons(self, container: Container, script: str) -> subprocess.CompletedProcess[str]:
        """Run a shell script in which `irons` is this checkout's."""
        prelude = f'IRONS_PYTHON={sys.executable}\nirons() {{ "$IRONS_PYTHON" -m irons "$@"; }}\n'
        return self.run(container, "sh", "-c", prelude + script)

    def life(self, container: Container) -> Outcome:
        """Walk a sandbox's whole life in a container, with state of its own; says where that ended."""
        self.clean()
        done = self.irons(container, _LIFE)
        said = [line for line in done.stderr.splitlines() if line.startswith("irons: ")]
        checks = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
        failed = tuple(name for name, ok, *_ in checks if ok == "no")
        stage = next(
            (line[2:] for line in reversed(done.stdout.splitlines()) if line.startswith("@ ")), "start"
        )
        return Outcome(
            "" if done.returncode == 0 else stage, (said or [done.stderr.strip()[:200]])[-1], failed
        )

    def clean(self) -> None:
        """Remove the state that earlier containers left."""
        shutil.rmtree(self._place / "state")
        (self._place / "state").mkdir()


def _reduced(image: Path, path: Path) -> None:
    """Leave out of an image what no sandbox of a test needs: each container unpacks and packs it again."""
    with tarfile.open(image) as source, tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as target:
        for member in source:
            if not _NEEDLESS.match(member.name) and not _NEEDLESS.match(member.linkname):
                target.addfile(member, source.extractfile(member) if member.isreg() else None)


_NEEDLESS = re.compile(
    r"(\./)?(usr/share/(?!zoneinfo$)|usr/lib/git-core|usr/lib/[^/]+/(perl|gconv)|usr/bin/(git|perl|scalar)|var/lib/dpkg|var/cache)"
)


@dataclass(frozen=True)
class Outcome:
    """How a sandbox's life in a container went.

    Attributes:
        stage: where it ended too early; "" where all of it worked.
        said: the last error.
        checks: the names of doctor's checks that failed.
    """

    stage: str
    said: str
    checks: tuple[str, ...]


_LIFE = """
irons doctor -o plain || true
exec "$IRONS_PYTHON" -c 'import sys
from irons_local.doctor import surroundings
surroundings.NEEDED.clear()  # what is tried here must not be refused because of what was believed before
sys.argv = ["irons", "shell"]
from irons.__main__ import main
sys.exit(main())' <<'LINES'
!echo '@ import'
local image import /given/debian.tar --as debian -o plain
!echo '@ create'
create box --key /given/id.pub --wait-timeout 300
!echo '@ exec'
exec box -- sh -c 'sudo id -u && { curl -sm 9 http://outside.test/ || true; }'
!echo '@ save'
stop box
local image save box --as saved -o plain
!echo '@ start'
start box
!echo '@ destroy'
destroy box --force
!echo '@ purge'
local uninstall --purge --yes
LINES
"""
"""A shell script, most of it one script of the prompt, which ends with its first failure."""


def main() -> int:
    """Print the table, of which docs/local.md has the outcome."""
    parser = argparse.ArgumentParser(prog="containers", description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument(
        "--only", default="", help="a regular expression that the names of the containers match"
    )
    asked = parser.parse_args()
    with yard(asked.image.resolve()) as made:
        for name, container in experiments():
            if not re.search(asked.only, name):
                continue
            found = made.life(container)
            print(
                f"| {name} | {found.stage or 'works'} | {found.said if found.stage else ''} | {' '.join(found.checks)} |",
                flush=True,
            )
    return 0


def experiments() -> Iterator[tuple[str, Container]]:
    """Every container to try, with its name: nothing refused, then one thing at a time, then whole defaults and flags."""
    full = Container()
    yield "nothing refused", full
    yield "/proc hidden in part", replace(full, hidden=True)
    yield "state on the container's overlay", replace(full, volume=False)
    yield "no new privileges", replace(full, no_new_privileges=True)
    yield from DEFAULTS.items()
    for name, container in DEFAULTS.items():
        yield f"{name} with the flags", flagged(container)
    for name in REFUSED:
        yield f"{name} refused", replace(full, refused=(name,))
    for name in CAPABILITIES:
        yield (
            f"without {name}",
            replace(full, capabilities=tuple(each for each in CAPABILITIES if each != name)),
        )


def flagged(container: Container) -> Container:
    """A container with the flags that docs/local.md names: one capability more, no filter, nothing hidden, a volume."""
    return Container((*container.capabilities, "SYS_ADMIN"), mark=container.mark)


@contextmanager
def yard(image: Path) -> Iterator[Yard]:
    """A yard that is removed again."""
    with tempfile.TemporaryDirectory(prefix="irons-yard-") as place:
        yield Yard(Path(place), image)


if __name__ == "__main__":
    sys.exit(main())
