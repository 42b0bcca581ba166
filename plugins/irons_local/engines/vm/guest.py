"""What a guest gets at each boot: an archive of settings on a disk of its own, read before the guest's init begins.

The archive is a tar with the same files as a namespace sandbox's settings directory, the guest's units, and a script that lays
what differs from machine to machine. It is made afresh for each boot, so that a guest cannot change what its next boot starts.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Mapping

from irons_local.bundle import session, small_init, sshd, trust
from irons_local.bundle.oci import CONFIG_DIRECTORY, KIT_DIRECTORY, MODULES, PATH
from irons_local.cell.layout import GATEWAY4
from irons_local.engines.vm.qemu import ADDRESS, PREFIX, ROUTER
from irons_local.images.bootable.initrd import FIRST, SETUP
from irons_local.images.kit.store import MadeKit

HOOK = "/etc/irons/boot"
"""A program in the guest that is run at each start, as in every sandbox."""

_UNITS = "units"
_KIT = "with-kit"
"""The settings file that says that the machine has a disk with the programs and modules of a kernel kit."""

_SECTOR = 512
_STATE = "var/lib/irons"
_MASKED = (
    *("ssh.service", "ssh.socket", "sshd.service", "serial-getty@ttyS0.service", "getty@tty1.service"),
    *("apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "e2scrub_reap.service"),
    *(
        "systemd-timesyncd.service",
        "systemd-networkd-wait-online.service",
        "NetworkManager-wait-online.service",
    ),
)
"""The image's own SSH server, logins on a console that no one types at, and what only costs time at boot."""

_SSH = """[Unit]
Description=The SSH server of irons
DefaultDependencies=no
Before=shutdown.target
Conflicts=shutdown.target
[Service]
ExecStart={server}
Restart=always
RestartSec=1
KillMode=process
OOMScoreAdjust=-900
"""
_GROW = f"""[Unit]
Description=The root file system as large as its disk
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'resize2fs /dev/vda || /lib/systemd/systemd-growfs / || {KIT_DIRECTORY}/resize2fs /dev/vda'
"""
_TRUST = f"""[Unit]
Description=The certificate authorities that irons carries
[Service]
Type=oneshot
ExecStart=/bin/sh {CONFIG_DIRECTORY}/{{script}}
"""
_BOOT = f"""[Unit]
Description={HOOK}
ConditionFileIsExecutable={HOOK}
[Service]
ExecStart=/bin/sh {CONFIG_DIRECTORY}/hook
StandardOutput=journal+console
StandardError=journal+console
"""
_HOOK = f"""{session.READING}
PATH={PATH} HOME=/root
export PATH HOME
irons_machine
exec {HOOK}
"""
_TRUST_SCRIPT = "trust"
_WANTED = {
    "irons-ssh": "sysinit.target",
    "irons-grow": "multi-user.target",
    "irons-boot": "multi-user.target",
    "irons-trust": "multi-user.target",
}
"""By unit, the target that starts it: the SSH server does not wait for the guest's own services."""


def _wants() -> str:
    """Text of sh(1) that has the targets start the units."""
    return "\n".join(
        f'mkdir -p "$root/run/systemd/system/{target}.wants"\n'
        f'ln -s ../{unit}.service "$root/run/systemd/system/{target}.wants/{unit}.service"'
        for unit, target in _WANTED.items()
    )


# Run by busybox before the image's own init, with the machine's root directory as the argument.
_SETUP = f"""
root=$1 settings=$1{CONFIG_DIRECTORY}
ip link set lo up
ip link set eth0 up
ip address add {ADDRESS}/{PREFIX} dev eth0
ip route add default via {ROUTER}
mkdir -p "$root/run/sshd" "$root/run/systemd/system"
chmod 755 "$root/run/sshd"
cp -R "$settings/{_UNITS}/." "$root/run/systemd/system/"
{_wants()}
if [ -f "$settings/{_KIT}" ]; then
  tries=0
  until [ -b /dev/vdc ] || [ "$tries" -ge 600 ]; do
    tries=$((tries + 1))
    sleep 0.05
  done
  mkdir -p "$root{KIT_DIRECTORY}"
  mount -t ext4 -o ro,nosuid,nodev /dev/vdc "$root{KIT_DIRECTORY}" || exit
  release=$(uname -r)
  mkdir -p "$root/lib/modules/$release"
  mount -o bind "$root{KIT_DIRECTORY}/{MODULES}/$release" "$root/lib/modules/$release" ||
    echo "/lib/modules/$release of the guest cannot be used: it has no modules"
  case $(readlink "$root/sbin/init") in
    *systemd) ;;
    *) echo "{small_init.WORDS}" >"$settings/{FIRST}" ;;
  esac
fi
for unit in {" ".join(_MASKED)}; do ln -s /dev/null "$root/run/systemd/system/$unit"; done
[ "$(cat "$root/{_STATE}/instance" 2>/dev/null)" = "$(cat "$settings/instance")" ] && exit 0
mkdir -p "$root/{_STATE}"
for name in hostname hosts resolv.conf; do
  rm -rf "$root/etc/$name"
  cp "$settings/first-$name" "$root/etc/$name" || echo "/etc/$name cannot be written, and stays as it is"
done
rm -f "$root/etc/machine-id" "$root/var/lib/dbus/machine-id" "$root/var/lib/systemd/random-seed" "$root"/etc/ssh/ssh_host_*
true >"$root/etc/machine-id"
cp "$settings/instance" "$root/{_STATE}/instance"
"""


def settings(
    *,
    instance: str,
    name: str,
    server: str,
    own: Mapping[str, str],
    shown: Mapping[str, str],
    programs: MadeKit | None = None,
    services: bool = True,
) -> dict[str, str]:
    """The files of the settings, by path.

    Args:
        instance: the sandbox's id; the guest lays its identity when it sees another one than last time.
        name: its host name.
        server: path of the image's SSH server.
        own: the files of the sandbox: host key, authorized keys, variables, and what its image says.
        shown: files that are the same for all sandboxes, such as certificate authorities.
        programs: what is on the disk of its kernel kit, whose SSH server it runs instead; None where it has none.
        services: start the guest's own services where it has no systemd; systemd takes that from the kernel's command line.
    """
    shell, helpers = session.SHELL, {}
    more: dict[str, str] = {}
    if programs is not None:
        server, shell, helpers = programs.server[1], programs.shell, programs.helpers
        more = {_KIT: "", **small_init.files(sshd.server(server), shell, services=services)}
    hosts = f"127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    return {
        **own,
        **shown,
        SETUP: _SETUP,
        "instance": f"{instance}\n",
        "first-hostname": f"{name}\n",
        "first-hosts": hosts,
        "first-resolv.conf": f"nameserver {GATEWAY4}\noptions timeout:2 attempts:2\n",
        "hook": _HOOK,
        _TRUST_SCRIPT: trust.SCRIPT,
        sshd.AUTHORIZED: sshd.marked(own[sshd.AUTHORIZED]),
        sshd.CONFIG: _everywhere(sshd.configuration(shell, helpers)),
        session.FILE: session.SCRIPT,
        f"{_UNITS}/irons-ssh.service": _SSH.format(server=sshd.server(server)),
        f"{_UNITS}/irons-grow.service": _GROW,
        f"{_UNITS}/irons-boot.service": _BOOT,
        f"{_UNITS}/irons-trust.service": _TRUST.format(script=_TRUST_SCRIPT),
        **more,
    }


def _everywhere(configuration: str) -> str:
    """The server's configuration, listening on every address of the guest: only the cell reaches them."""
    return re.sub(r"(?m)^ListenAddress .*\n", "", configuration)


def archive(files: Mapping[str, str]) -> bytes:
    """The disk with some settings: a tar archive, in whole sectors."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, text in files.items():
            data = text.encode()
            member = tarfile.TarInfo(path)
            member.size = len(data)
            # The unprivileged half of sshd reads authorized keys as the person who logs in.
            member.mode = 0o600 if path.endswith("_key") else 0o755 if text.startswith("#!") else 0o644
            tar.addfile(member, io.BytesIO(data))
    content = out.getvalue()
    return content + bytes(-len(content) % _SECTOR)
