"""What an image gets so that buildah and podman work in its sandboxes without a line of configuration.

All of it lies where no package of Debian has a file of its own, so that an installation asks nothing: /etc/containers has no
containers.conf.d and no storage.conf there (they come with /usr/share/containers).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

OWN = ("etc/containers/containers.conf", "etc/containers/containers.conf.d")
"""Where an image has a configuration of its own, which is left alone."""

DPKG = "etc/dpkg/dpkg.cfg.d"
CAPABILITY = "security.capability"
_REVISION_2 = 0x02000000
_EFFECTIVE = 0x000001
_SETGID = 6
_SETUID = 7


class ImageFile(NamedTuple):
    """A file of an image.

    Attributes:
        text: what is in it.
        mode: its permissions.
    """

    text: str
    mode: int = 0o644


CONFIGURATION: Mapping[str, ImageFile] = {
    "etc/containers/containers.conf.d/irons.conf": ImageFile(
        """\
# What a container inside a sandbox can have: the sandbox's own network, and its /proc, since a new one cannot be mounted.
[containers]
netns = "host"
pidns = "private"
ipcns = "host"
utsns = "host"
cgroupns = "host"
cgroups = "disabled"
keyring = false
volumes = ["/proc:/proc"]
default_sysctls = []
log_driver = "k8s-file"

[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
"""
    )
}
"""Files of containers.conf(5) by path."""

STORAGE: Mapping[str, ImageFile] = {
    "etc/containers/storage.conf": ImageFile(
        """\
# In a sandbox an overlay cannot be mounted over the sandbox's own.
[storage]
driver = "vfs"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
"""
    )
}
"""Files of containers-storage.conf(5) by path."""

_LENDER = "usr/lib/irons/lend-ids"

HOOK: Mapping[str, ImageFile] = {
    f"{DPKG}/irons": ImageFile(f"post-invoke=/{_LENDER}\n"),
    _LENDER: ImageFile(
        """\
#!/bin/sh
# The package uidmap has its programs setuid, as root of which they may not map ids in a sandbox; as their caller they may.
for id in uid gid; do
  program=/usr/bin/new${id}map
  [ ! -u "$program" ] || ! command -v setcap >/dev/null || {
    setcap "cap_set${id}+ep" "$program" && chmod u-s "$program"
  }
done
exit 0
""",
        0o755,
    ),
}
"""Files by path, for images with dpkg(1): they do the same as `LENDERS` when the programs are installed later."""

LENDERS: Mapping[str, bytes] = {
    f"usr/bin/new{name}map": struct.pack("<5I", _REVISION_2 | _EFFECTIVE, 1 << number, 0, 0, 0)
    for name, number in (("uid", _SETUID), ("gid", _SETGID))
}
"""Programs that map ids, with the file capability of each (capabilities(7), `struct vfs_cap_data` of revision 2)."""
