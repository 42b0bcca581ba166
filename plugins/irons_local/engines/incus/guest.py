"""What an instance runs as process 1: a script that is laid into it before each start, with the settings of the sandbox in it.

The script gives the instance its addresses and its settings directory, and runs there what process 1 of a `namespace` sandbox does.
It is laid again for each start, so that a sandbox cannot change what its next one begins with.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from irons_local.bundle import boot_steps, session, sshd
from irons_local.bundle.machine import Machine
from irons_local.bundle.oci import CONFIG_DIRECTORY, PATH
from irons_local.cell.layout import GATEWAY4, GATEWAY6, SANDBOX4, SANDBOX6
from irons_local.engines.homes import settings_of
from irons_local.images.catalog import Image

INIT = "/sbin/init"
"""What Incus starts in a container."""

_LAID = "/var/lib/irons"

_SETUP = f"""#!/bin/sh
PATH={PATH} HOME=/root container=irons
export PATH HOME container
umask 022
cd /
[ -d /run ] || mkdir /run
mount -t tmpfs -o nosuid,nodev,mode=755,size=64m tmpfs /run
mkdir -p {CONFIG_DIRECTORY}/{boot_steps.REPORT} /run/sshd
mount -t tmpfs -o nosuid,nodev,noexec,mode=755,size=512k,nr_inodes=16 tmpfs {CONFIG_DIRECTORY}/{boot_steps.REPORT}
ip link set lo up
ip address add {SANDBOX4}/30 dev eth0
ip -6 address add {SANDBOX6}/64 dev eth0 nodad 2>/dev/null
ip link set eth0 up
ip route add default via {GATEWAY4} dev eth0
ip -6 route add default via {GATEWAY6} dev eth0 2>/dev/null
"""

# Asked to end by Incus (PWR) or from inside (TERM): every process is asked, and then waited for. What is left after the time that
# whoever asked gives them is ended with process 1.
_RUN = f"""
irons_end() {{
  trap '' PWR TERM INT HUP
  kill -TERM -1 2>/dev/null
  kill -HUP -1 2>/dev/null
  while :; do
    set -- /proc/[0-9]*
    [ "$#" -gt 1 ] || exit 0
    sleep 0.05 || exit 0
  done
}}
trap irons_end PWR TERM
trap : HUP INT
/bin/sh {CONFIG_DIRECTORY}/{boot_steps.FIRST} </dev/null &
irons_server=$!
while kill -0 "$irons_server" 2>/dev/null; do
  wait "$irons_server"
done
irons_end
"""


def init(machine: Machine, home: Path, image: Image, shown: Mapping[str, str], *, services: bool) -> bytes:
    """The script for one start of a sandbox.

    Args:
        machine: the sandbox.
        home: its directory.
        image: what it is based on.
        shown: text of further files of the settings directory.
        services: run its own boot steps.
    """
    own = settings_of(home)
    settings = {
        **own,
        **session.of_image(image.config.env, image.config.workdir),
        **session.of_limits(machine.limits.memory),
        **shown,
        sshd.AUTHORIZED: sshd.marked(own[sshd.AUTHORIZED]),
        sshd.CONFIG: sshd.configuration(),
        session.FILE: session.SCRIPT,
        **boot_steps.files(sshd.server(image.sshd), boot_steps.STEPS if services else None),
    }
    return script(machine.id, machine.name, settings)


def script(identifier: str, name: str, settings: Mapping[str, str]) -> bytes:
    """The script with some settings.

    Args:
        identifier: the sandbox's id; an instance lays its identity where another one is recorded in it.
        name: its host name.
        settings: the files of its settings directory, by name.
    """
    return "".join(
        (_SETUP, _identity(identifier, name), *(_file(*each) for each in settings.items()), _RUN)
    ).encode()


def _identity(identifier: str, name: str) -> str:
    """Text of sh(1) that gives the instance its name, in its files only once: later they are the sandbox's own."""
    hosts = f"127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    first = {
        "/etc/hostname": f"{name}\n",
        "/etc/hosts": hosts,
        "/etc/resolv.conf": f"nameserver {GATEWAY4}\noptions timeout:2 attempts:2\n",
        "/etc/machine-id": "",
    }
    laid = "".join(f"rm -rf {path}\n{_written(path, text)}" for path, text in first.items())
    return f"""
hostname {name} 2>/dev/null || {{ {_written("/proc/sys/kernel/hostname", name)[:-1]}; }}
if [ "$(cat {_LAID}/instance 2>/dev/null)" != {identifier} ]; then
mkdir -p {_LAID}
{laid}{_written(f"{_LAID}/instance", identifier)}fi
"""


def _file(name: str, text: str) -> str:
    path = PurePosixPath(CONFIG_DIRECTORY, name)
    # The unprivileged half of sshd reads authorized keys as the person who logs in.
    mode = "600" if name.endswith("_key") else "644"
    return f"{_written(str(path), text)}chmod {mode} {path}\n"


def _written(path: str, text: str) -> str:
    return f"printf %s {shlex.quote(text)} >{path}\n"
