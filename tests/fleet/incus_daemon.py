"""One Incus daemon of the tests' own, in namespaces and a root directory of its own: `python -m tests.fleet.incus_daemon ROOT WORK`.

It shares the network of whoever starts it, which is therefore never the machine's: its members of a sandbox's network, the veths, are
made there. Everything else is its own, so that it never meets an Incus of the machine: root directory, mounts, processes, host name,
control groups. It prints the path of its socket when it answers, and ends, with all that it made, when its standard input ends.
`tests.fleet.cluster` runs several of them as one cluster.

An Incus runs from a root directory that `make_root` lays out once: Debian bookworm with Incus 6.0 of its backports.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

ROOT_AT = "IRONS_TEST_INCUS"
"""The variable that names a root directory which `make_root` has made before."""

PACKAGES = (
    *("incus-base", "incus-client", "btrfs-progs", "mount", "iproute2", "procps", "nftables"),
    "ca-certificates",
)
_ANSWERS_WITHIN = 180.0
_GONE_WITHIN = 60.0
_MADE_WITHIN = 600.0
_RUN_WITHIN = 600.0

_JOIN = r"""
set -e
group=$1; shift
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
  mkdir -p "/sys/fs/cgroup/$group/own"
  echo $$ >"/sys/fs/cgroup/$group/own/cgroup.procs"
else
  for each in /sys/fs/cgroup/*/; do
    [ -f "${each}cgroup.procs" ] || continue
    mkdir -p "$each$group/own"
    if [ -f "${each}cpuset.cpus" ]; then
      for made in "$each$group" "$each$group/own"; do
        cat "${each}cpuset.cpus" >"$made/cpuset.cpus"
        cat "${each}cpuset.mems" >"$made/cpuset.mems"
        echo 1 >"$made/cgroup.clone_children"
      done
    fi
    echo $$ >"$each$group/own/cgroup.procs"
  done
fi
exec unshare --mount --pid --fork --uts --ipc --cgroup --kill-child=KILL sh -c "$@"
"""

_BEGIN = r"""
set -e
root=$1 work=$2 name=$3
mount --make-rprivate /
hostname "$name"
mount --bind "$root" /mnt
mount -t proc proc /mnt/proc
mount -t sysfs sysfs /mnt/sys
mount --rbind /dev /mnt/dev
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
  mount -t cgroup2 cgroup2 /mnt/sys/fs/cgroup
else
  mount -t tmpfs tmpfs /mnt/sys/fs/cgroup
  for each in /sys/fs/cgroup/*/; do
    name=${each#/sys/fs/cgroup/} name=${name%/}
    mkdir "/mnt/sys/fs/cgroup/$name"
    case $name in
      systemd) mount -t cgroup -o none,name=systemd cgroup "/mnt/sys/fs/cgroup/$name" ;;
      unified) mount -t cgroup2 cgroup2 "/mnt/sys/fs/cgroup/$name" ;;
      *) mount -t cgroup -o "$name" cgroup "/mnt/sys/fs/cgroup/$name" || rmdir "/mnt/sys/fs/cgroup/$name" ;;
    esac
  done
fi
for each in run tmp; do mount -t tmpfs tmpfs "/mnt/$each"; done
mkdir -p /mnt/var/lib/incus /mnt/var/log/incus /mnt/mnt
mount --bind "$work/lib" /mnt/var/lib/incus
mount --bind "$work/log" /mnt/var/log/incus
cd /mnt
pivot_root . mnt
umount -l /mnt
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 sh -c '
# One that was killed comes back, as by systemd.
while :; do
  /usr/libexec/incus/incusd --group root --logfile /var/log/incus/incusd.log -v &
  while kill -0 $! 2>/dev/null; do wait $!; done
done'
"""


# An image of the shell that is there already, and a container that waits to be ended.
_TRY = r"""
set -e
try=$(mktemp -d)
mkdir -p "$try/rootfs"
cd "$try/rootfs"
mkdir -p bin sbin dev proc sys run tmp etc
cp -L /bin/sh /bin/sleep bin/
for each in $(ldd /bin/sh /bin/sleep | grep -o '/[^ :]*' | grep '^/lib' | sort -u); do
  mkdir -p ".${each%/*}"
  cp -L "$each" ".$each"
done
printf '#!/bin/sh\nexec /bin/sleep infinity\n' >sbin/init
chmod 755 sbin/init
printf 'architecture: %s\ncreation_date: 1\n' "$(uname -m)" >"$try/metadata.yaml"
tar -C "$try" -cf "$try/image.tar" metadata.yaml rootfs
incus --quiet image import "$try/image.tar" --alias try
incus --quiet launch try try --no-profiles --storage default </dev/null || {
  why=$?
  incus info try --show-log 2>/dev/null | grep -m 2 ERROR >&2 || :
  exit $why
}
incus --quiet delete --force try
incus --quiet image delete try
rm -rf "$try"
"""


class NoIncusError(Exception):
    """An Incus cannot be had here; the message says why."""


def make_root(root: Path, mirror: str = "http://deb.debian.org/debian") -> None:
    """Lay out the root directory that an Incus of the tests runs from; takes a minute.

    Raises:
        NoIncusError: it cannot be made here.
    """
    program = shutil.which("mmdebstrap")
    if program is None:
        raise NoIncusError("not installed: mmdebstrap")
    key = "/usr/share/keyrings/debian-archive-keyring.gpg"
    if not Path(key).exists():
        raise NoIncusError(f"{key} is missing")
    sources = "".join(
        f"deb [signed-by={key}] {mirror} {suite} main\n" for suite in ("bookworm", "bookworm-backports")
    )
    words = ["--quiet", "--variant=minbase", "--mode=root", f"--include={','.join(PACKAGES)}"]
    try:
        done = subprocess.run(
            [program, *words, "bookworm", str(root), "-"],
            input=sources,
            capture_output=True,
            text=True,
            check=False,
            timeout=_MADE_WITHIN,
        )
    except subprocess.TimeoutExpired as error:
        shutil.rmtree(root, ignore_errors=True)
        raise NoIncusError(f"mmdebstrap takes longer than {_MADE_WITHIN:.0f} s") from error
    if done.returncode:
        shutil.rmtree(root, ignore_errors=True)
        lines = [line for line in done.stderr.splitlines() if line.startswith("E:")] or ["no reason"]
        raise NoIncusError(f"mmdebstrap: {lines[0]}")


class Daemon:
    """The daemon: a tree of processes that ends with its first.

    Args:
        root: where `make_root` laid out its files.
        work: a directory of its own, which is removed with it.
        name: the host name that it has.
        network: a process whose network it has; None for that of whoever makes it.
    """

    def __init__(
        self, root: Path, work: Path, *, name: str = "incus-test", network: int | None = None
    ) -> None:
        self._work = work
        self._group = f"irons-incus-{os.getpid()}-{name}"
        self._said = work / "said"
        for each in ("lib", "log"):
            (work / each).mkdir(parents=True, mode=0o700)
        words = ["setpriv", "--pdeathsig", "KILL", "--", *within(network)]
        words += ["sh", "-c", _JOIN, "sh", self._group]
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                [*words, _BEGIN, "sh", str(root), str(work), name],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    @property
    def socket(self) -> Path:
        """Where it answers."""
        return self._work / "lib/unix.socket"

    def inside(self, *words: str, text: str = "") -> str:
        """Run a program next to the daemon, and return what it printed."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        enter = ["nsenter", "-t", children[0], *("-m", "-p", "-u", "-i", "-C", "-n"), "--"]
        clean = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", *words]
        try:
            done = subprocess.run(
                [*enter, *clean], input=text, capture_output=True, text=True, check=False, timeout=_RUN_WITHIN
            )
        except subprocess.TimeoutExpired as error:
            raise NoIncusError(f"{words[0]} takes longer than {_RUN_WITHIN:.0f} s") from error
        if done.returncode:
            named = " ".join(word for word in words if "\n" not in word)
            raise NoIncusError(f"{named}: {done.stderr.strip()[-400:]}")
        return done.stdout

    def wait_ready(self) -> None:
        """Wait until it answers.

        Raises:
            NoIncusError: it does not.
        """
        deadline = time.monotonic() + _ANSWERS_WITHIN
        while not self.socket.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise NoIncusError(f"incusd did not start: {self._said.read_text()[-400:]}")
            _rest(0.1)
        self.inside("/usr/libexec/incus/incusd", "waitready", f"--timeout={_ANSWERS_WITHIN:.0f}")

    def answer(self) -> None:
        """Wait until it answers, give it a storage pool, and start one container; it is left with the pool alone.

        Raises:
            NoIncusError: it does not answer, has no storage, or cannot start containers here, such as without control groups.
        """
        self.wait_ready()
        try:
            self.inside("incus", "storage", "create", "default", "btrfs", "size=5GiB")
        except NoIncusError:
            self.inside("incus", "storage", "create", "default", "dir")
        self.inside("sh", "-c", _TRY)

    def end(self) -> None:
        """End every process of it, and remove its files and control groups."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()
        deadline = time.monotonic() + _GONE_WITHIN
        while not self._without_groups() and time.monotonic() < deadline:
            _rest(0.05)
        shutil.rmtree(self._work, ignore_errors=True)

    def _without_groups(self) -> bool:
        tops = (Path("/sys/fs/cgroup") / self._group, *Path("/sys/fs/cgroup").glob(f"*/{self._group}"))
        there = [top for top in tops if top.is_dir()]
        for top in there:
            for directory, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    Path(directory).rmdir()
        return not any(top.exists() for top in there)


def within(network: int | None) -> list[str]:
    """The words to put before a command so that it runs in the network of a process."""
    return [] if network is None else ["nsenter", "-t", str(network), "-n", "--"]


def _rest(seconds: float) -> None:
    threading.Event().wait(seconds)


@contextlib.contextmanager
def incus_daemon(root: Path, work: Path, enter: list[str]) -> Iterator[Path]:
    """Run one for as long as this is open, also when the tests are killed; gives the path of its socket.

    Args:
        root: where `make_root` laid out its files.
        work: a directory that does not exist yet.
        enter: the words to put before a command so that it runs in the network that it is to share.

    Raises:
        NoIncusError: it does not start here.
    """
    with serving(enter, "tests.fleet.incus_daemon", root, work) as answer:
        yield Path(answer)


@contextlib.contextmanager
def serving(enter: list[str], module: str, root: Path, work: Path) -> Iterator[str]:
    """Run a module that ends with its standard input; gives what it printed when it was ready.

    Raises:
        NoIncusError: it printed something else.
    """
    # Who enters other mounts begins at their root.
    here = ["env", "-C", str(Path(__file__).parents[2])]
    words = [*enter, *here, sys.executable, "-m", module, str(root), str(work)]
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        word, _, rest = process.stdout.readline().strip().partition(" ")
        if word != "ready":
            raise NoIncusError(rest or "it ended at once")
        yield rest
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def serve(opened: contextlib.AbstractContextManager[str]) -> int:
    """Print what is ready once it is, and hold it until standard input ends or someone ends this process.

    Whoever ends it while it is being made waits until it is: nothing is left half made.
    """
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, _end_of_input)
    try:
        with opened as answer:
            print(f"ready {answer}", flush=True)
            sys.stdin.buffer.read()
    except NoIncusError as error:
        print(f"failed {' '.join(str(error).split())}", flush=True)
        return 1
    return 0


def _end_of_input(_number: int, _frame: object) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


@contextlib.contextmanager
def _one(root: Path, work: Path) -> Iterator[str]:
    daemon = Daemon(root, work)
    try:
        daemon.answer()
        yield str(daemon.socket)
    finally:
        daemon.end()


if __name__ == "__main__":
    sys.exit(serve(_one(*map(Path, sys.argv[1:]))))
