"""The public key that opens a sandbox: where it is, what it says, and which private key goes with it."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from pathlib import Path

from irons.errors import UsageError
from irons.record import NamedTuple

DEFAULTS = ("id_rsa", "id_ed25519", "id_ecdsa", "id_ed25519_sk", "id_ecdsa_sk")
"""Keys looked for in ~/.ssh, in this order."""

LARGEST = 64 * 1024
"""Bytes that a public key file may have."""

_PUBLIC = re.compile(
    r"^(?:[^\s\"#]*(?:\"[^\"]*\"[^\s\"]*)*\s+)?"
    r"(?:ssh-(?:rsa|dss|ed25519)|ecdsa-sha2-nistp(?:256|384|521)|sk-(?:ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com"
    r"|(?:ssh-(?:rsa|ed25519)|ecdsa-sha2-nistp(?:256|384|521)|sk-(?:ssh-ed25519|ecdsa-sha2-nistp256))-cert-v01@openssh\.com)"
    r"\s+AAAA[A-Za-z0-9+/]+={0,3}(?:\s|$)",
    re.MULTILINE,
)


class PublicKey(NamedTuple):
    """A public key file: where it is, its whole text, and what `ssh -i` takes (the private key, else the file itself)."""

    path: Path
    text: str
    identity: Path


def find_key(named: str, env: Mapping[str, str]) -> PublicKey:
    """Return the public key of a file that was named; `~/` is the HOME of `env`.

    Raises:
        UsageError: There is none, it can't be read, or it holds something else, a private key above all.
    """
    return read_key(_home(env) / named[2:] if named.startswith("~/") else Path(named))


def default_key(env: Mapping[str, str]) -> PublicKey | None:
    """Return the first of the usual public keys in `.ssh` of the HOME of `env`; None where there is none.

    Raises:
        UsageError: It can't be read, or holds something else.
    """
    for name in DEFAULTS:
        path = _home(env) / ".ssh" / f"{name}.pub"
        if path.is_file():
            return read_key(path)
    return None


def _home(env: Mapping[str, str]) -> Path:
    return Path(env["HOME"]) if env.get("HOME") else Path.home()


def read_key(path: Path) -> PublicKey:
    """Return the public key of a file. Raises `UsageError` as `find_key` does."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UsageError(f"{path} is a directory, not a public key file")
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise UsageError(
            f"there is no public key file {path}", hint="ssh-keygen -t ed25519 makes one"
        ) from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"the public key file {str(path)!r} can't be read: {why}") from None
    if len(raw) > LARGEST:
        raise UsageError(f"{path} is too large to be a public key")
    if b"PRIVATE KEY" in raw or raw.startswith(b"PuTTY-User-Key-File"):
        beside = path.with_name(f"{path.name}.pub")
        raise UsageError(
            f"{path} is a private key, and stays on this machine; nothing was sent",
            hint=f"give the public one: --key {beside}"
            if beside.is_file()
            else f"ssh-keygen -y -f {path} > {beside} makes the public one",
        )
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = ""
    if not _PUBLIC.search(text):
        raise UsageError(
            f"{path} holds no public key in OpenSSH's format",
            hint="such a line begins with ssh-ed25519 AAAA…; ssh-keygen -i -f FILE converts others",
        )
    return PublicKey(path, text, _identity(path))


def _identity(path: Path) -> Path:
    whole = path.expanduser().absolute()
    private = whole.with_suffix("") if whole.suffix == ".pub" else whole
    return private if private.is_file() else whole
