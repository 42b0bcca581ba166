"""The named other of `create`: the same image and SSH server as a plain crun container, as a person would start one by hand.

No cell, no gateway, no audit log: an overlay over the image's files, one user namespace, an empty network of its own.
"""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from irons_local.bundle import boot_steps, oci, sshd
from irons_local.engines.protocol import CELL_ADDRESS
from irons_local.linux.idmap import INNER_COUNT, PRIVATE_BASE

_ROOT = PRIVATE_BASE + 1
"""On the machine, the id of what is root in the image's files."""
_START = """
ip link set lo up
echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start
[ -e /sys/fs/cgroup/cgroup.controllers ] || mount -t tmpfs none /sys/fs/cgroup
cd "$1"
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" rootfs
exec crun --root "$1/state" --cgroup-manager=disabled run --bundle "$1" plain
"""


class Bundle:
    """A container's directory, ready to be run once.

    Args:
        place: an empty directory.
        rootfs: the image's files, owned as the local backend's are.
        public_key: who may log in.
    """

    def __init__(self, place: Path, rootfs: Path, public_key: str) -> None:
        self._place, self._image = place, rootfs
        settings = place / "settings"
        for directory in (settings, place / "rootfs", place / "upper", place / "work"):
            directory.mkdir(parents=True)
        key = settings / sshd.HOST_KEY
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        (settings / sshd.AUTHORIZED).write_text(sshd.authorized(public_key))
        lines = sshd.configuration().splitlines()
        kept = [line for line in lines if line != f"ListenAddress {CELL_ADDRESS}"]
        (settings / sshd.CONFIG).write_text("\n".join([*kept, ""]))
        for path in (place / "upper", settings, *settings.iterdir()):
            subprocess.run(["chown", f"{_ROOT}:{_ROOT}", str(path)], check=True)
        # The container's root walks to its settings through this.
        place.chmod(0o755)
        (settings / boot_steps.REPORT).mkdir()
        tini, program = _programs(rootfs)
        config = oci.config(
            rootfs="rootfs",
            hostname="plain",
            args=[*([tini, "--"] if tini else []), *shlex.split(sshd.server(program))],
            settings=str(settings),
            machine=platform.machine(),
            cgroup_namespace=False,
        )
        ids = [{"containerID": 0, "hostID": _ROOT, "size": INNER_COUNT}]
        config["linux"] |= {"uidMappings": ids, "gidMappings": ids}
        (place / "config.json").write_text(json.dumps(config))

    @contextmanager
    def running(self) -> Iterator[int]:
        """Start it, give a process in its network as soon as there is one, and end it all.

        Raises:
            SystemExit: it ended at once; has its output.
        """
        argv = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        words = ["sh", "-ec", _START, "sh", str(self._place), str(self._image)]
        process = subprocess.Popen([*argv, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            own = Path("/proc/self/ns/net").readlink()
            while Path(f"/proc/{process.pid}/ns/net").readlink() == own:
                if process.poll() is not None:
                    assert process.stderr is not None
                    raise SystemExit(f"plain crun: {process.stderr.read().decode().strip()}")
            yield process.pid
        finally:
            process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()


def _programs(rootfs: Path) -> tuple[str, str]:
    """Where tini, if any, and the SSH server are in the image."""
    found = [path for path in ("/usr/bin/tini", "/sbin/tini") if (rootfs / path[1:]).is_file()]
    return (found[0] if found else "", "/usr/sbin/sshd")
