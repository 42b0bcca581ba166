"""Which package of a distribution has a program that sandboxes need, and the line that installs it."""

from __future__ import annotations

_PACKAGES = {
    "newuidmap": {
        "apt-get": "uidmap",
        "dnf": "shadow-utils",
        "pacman": "shadow",
        "zypper": "shadow",
        "apk": "shadow-uidmap",
    },
    "ssh": {
        "apt-get": "openssh-client",
        "dnf": "openssh-clients",
        "zypper": "openssh-clients",
        "": "openssh",
    },
    "qemu-system-x86_64": {
        "dnf": "qemu-system-x86-core",
        "zypper": "qemu-x86",
        "apk": "qemu-system-x86_64",
        "": "qemu-system-x86",
    },
    "nft": {"": "nftables"},
    "mkfs.ext4": {"": "e2fsprogs"},
}
_INSTALL = {
    "apt-get": "apt-get install -y",
    "dnf": "dnf install -y",
    "zypper": "zypper install -y",
    "pacman": "pacman -S --noconfirm",
    "apk": "apk add",
}


def installing(program: str, manager: str) -> str:
    """The line that installs a program, for root.

    Args:
        program: its name.
        manager: the package manager, such as `apt-get`; for one that is not known, what to install in words.
    """
    names = _PACKAGES.get(program, {})
    package = names.get(manager) or names.get("") or program
    install = _INSTALL.get(manager)
    return f"{install} {package}" if install else f"install the package {package}"
