"""Building the default image: a lean Debian (or Ubuntu, as the host is) by mmdebstrap(1)."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from irons_local.errors import EngineError
from irons_local.linux.programs import search_path

PACKAGES = (
    "openssh-server",
    "sudo",
    "tini",
    "ca-certificates",
    "curl",
    "procps",
    "iproute2",
    "iputils-ping",
)
MACHINE_PACKAGES = ("systemd-sysv", "udev", "dbus", "kmod", "busybox-static", "e2fsprogs")
"""What a virtual machine needs besides; `busybox-static` finds its disk."""

FALLBACK_SUITE = "bookworm"
_FALLBACK_MIRROR = "http://deb.debian.org/debian"
_FAMILIES = ("debian", "ubuntu")
# Package names as Debian policy 5.6.7 has them, with mmdebstrap's own selectors left out on purpose.
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(?::[a-z0-9]+)?")
_MIRROR = re.compile(r"(?:https?|copy|file)://?[^\s\[\]]+|/[^\s]+")

_EXCLUDES = (
    # Not the directories: scripts of packages (update-alternatives) put links there.
    "path-exclude=/usr/share/man/*/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/info/*",
)

# The kernel's package is unpacked and not installed: what it depends on would make an initial RAM disk of its own, which
# takes longer to make and to boot. `*-cloud-*` of Debian and `*-virtual` of Ubuntu have the drivers of virtual machines alone.
_KERNEL_HOOK = r"""
set -e
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
cd "$1/var/tmp"
kernel=
for name in linux-image-cloud-amd64 linux-image-virtual; do
  for needed in $(apt-cache depends "$name" 2>/dev/null | sed -n 's/^ *Depends: *//p'); do
    case $needed in linux-image-[0-9]*) kernel=$needed ;; esac
  done
  [ -z "$kernel" ] || break
done
[ -n "$kernel" ] || { echo 'E: the package sources have no kernel for virtual machines' >&2; exit 1; }
release=${kernel#linux-image-}
packages=$kernel
apt-cache show "linux-modules-$release" >/dev/null 2>&1 && packages="$packages linux-modules-$release"
apt-get download -qq $packages
for package in ./*.deb; do
  dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink --wildcards -C "$1" './boot/*' './lib/modules/*'
  rm "$package"
done
chroot "$1" depmod "$release"
# An init is there: packages that are installed later start their services.
rm -f "$1/usr/sbin/policy-rc.d"
"""

# What mmdebstrap says when it begins a stage, and how much of the time has passed by then (measured).
_STAGES = (
    ("running apt-get update", "fetching package lists", 0.02),
    ("downloading packages", "downloading packages", 0.15),
    ("extracting archives", "unpacking packages", 0.30),
    ("installing essential", "installing the base system", 0.40),
    ("installing remaining", "installing the SSH server and tools", 0.60),
    ("cleaning package lists", "cleaning up", 0.85),
    ("creating tarball", "writing the image", 0.90),
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to build.

    Attributes:
        suite: the distribution's code name.
        sources: lines of sources.list(5), a path of a sources file, or a mirror's URL; mmdebstrap takes each.
        include: further packages.
        machine: add what a virtual machine needs.
    """

    suite: str
    sources: tuple[str, ...]
    include: tuple[str, ...] = ()
    machine: bool = False

    @property
    def _more(self) -> tuple[str, ...]:
        return MACHINE_PACKAGES if self.machine else ()

    def command(self, *, root: bool) -> list[str]:
        """The mmdebstrap command that writes the tar archive to standard output.

        Raises:
            EngineError: mmdebstrap is not installed.
        """
        program = shutil.which("mmdebstrap", path=search_path())
        if program is None:
            raise EngineError("machine", "mmdebstrap is not installed", "see `irons doctor`: mmdebstrap")
        return [
            # It ends with this process, however that ends, and removes its half-made tree and mounts.
            *("setpriv", "--pdeathsig", "TERM", "--"),
            program,
            "--mode=root" if root else "--mode=unshare",
            "--variant=minbase",
            "--format=tar",
            "--include=" + ",".join((*PACKAGES, *self._more, *self.include)),
            *(f"--dpkgopt={line}" for line in _EXCLUDES),
            # Services must not be started while they are installed, and no one starts them later but us.
            "--essential-hook=printf '#!/bin/sh\\nexit 101\\n' > \"$1/usr/sbin/policy-rc.d\"",
            '--essential-hook=chmod 755 "$1/usr/sbin/policy-rc.d"',
            # A package that none of the first ones needs may put links where they have no pages.
            '--essential-hook=for n in 1 2 3 4 5 6 7 8; do mkdir -p "$1/usr/share/man/man$n"; done',
            *((f"--customize-hook={_KERNEL_HOOK}",) if self.machine else ()),
            self.suite,
            "-",
            *self.sources,
        ]


def recipe(
    mirror: str | None = None,
    include: Sequence[str] = (),
    *,
    machine: bool = False,
    os_release: Mapping[str, str] | None = None,
    apt: Path = Path("/etc/apt"),
) -> Recipe:
    """What to build on this machine: from its own package sources where it is a known Debian or Ubuntu.

    Args:
        mirror: URL of a Debian mirror to use instead.
        include: names of further packages.
        os_release: os-release(5) of the machine; read from it when None.
        machine: add what a virtual machine needs.
        apt: apt's directory.

    Raises:
        EngineError: a name or the URL is not one.
    """
    for name in include:
        if not _PACKAGE.fullmatch(name):
            raise EngineError("input", f"{name!r} is not the name of a package")
    if mirror is not None and not _MIRROR.fullmatch(mirror):
        raise EngineError(
            "input", f"{mirror!r} is not the URL of a mirror", "such as http://deb.debian.org/debian"
        )
    host = host_release() if os_release is None else os_release
    suite, family = host.get("VERSION_CODENAME", ""), host.get("ID", "")
    known = bool(suite) and family in _FAMILIES
    if mirror is not None:
        return Recipe(suite if known else FALLBACK_SUITE, (mirror,), tuple(include), machine)
    sources = tuple(_host_sources(apt, family, suite)) if known else ()
    if sources:
        return Recipe(suite, sources, tuple(include), machine)
    return Recipe(FALLBACK_SUITE, (_FALLBACK_MIRROR,), tuple(include), machine)


def stage(line: str) -> tuple[str, float] | None:
    """What a line of mmdebstrap's narration means: words for people, and the part done; None for most lines."""
    for said, meaning, done in _STAGES:
        if said in line:
            return meaning, done
    return None


def host_release(path: Path = Path("/etc/os-release")) -> dict[str, str]:
    """os-release(5) as a mapping; empty where there is none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}


def _host_sources(apt: Path, family: str, suite: str) -> Iterator[str]:
    """The host's own source files that are about its own suite; its other sources are not copied."""
    found = [apt / "sources.list"]
    with_parts = apt / "sources.list.d"
    if with_parts.is_dir():
        found += sorted(with_parts.iterdir())
    for path in found:
        if path.suffix not in (".list", ".sources"):
            continue
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if _is_of(text, family, suite):
            yield str(path)


def _is_of(text: str, family: str, suite: str) -> bool:
    lines = [line.split("#", 1)[0].strip() for line in text.splitlines()]
    urls = [line for line in lines if "://" in line or "mirror+" in line]
    about = [line for line in lines if re.search(rf"\b{re.escape(suite)}\b", line)]
    # A third party's archive carries the suite's name too; a distribution's own has its name in the URL.
    return bool(about) and bool(urls) and all(family in line or "ports" in line for line in urls)
