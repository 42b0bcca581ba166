"""Who may enter a sandbox: the public keys that open it, and their ids."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from irons_local.bundle.sshd import key_id
from irons_local.control.schema.errors import conflict, missing

MOST = 64 * 1024
"""Characters that the keys of a sandbox may have together."""


class AccessKey(NamedTuple):
    """One public key.

    Attributes:
        id: 16 hexadecimal digits.
        type: such as `ssh-ed25519`.
        fingerprint: as `ssh-keygen -l` shows it.
        comment: what its file says whose it is.
    """

    id: str
    type: str
    fingerprint: str
    comment: str


class ChangedKeys(NamedTuple):
    """The keys as they are to be, and the ids of those that open it no more."""

    public_keys: str
    gone: Sequence[str] = ()


Change = Callable[[str], ChangedKeys]
"""Given the text of the keys there are."""


def keys_of(public_keys: str) -> list[AccessKey]:
    """The keys in the text of a public key file."""
    return [_key(line) for line in public_keys.splitlines()]


def adding(fresh: str) -> Change:
    """Add the keys of a checked public key file; one that is there already stays as it is."""

    def change(known: str) -> ChangedKeys:
        ids = {key.id for key in keys_of(known)}
        lines = [line for line in fresh.splitlines() if key_id(line) not in ids]
        after = known + "".join(f"{line}\n" for line in dict.fromkeys(lines))
        if len(after) > MOST:
            raise conflict(f"the keys of a sandbox may have {MOST:,} characters together; remove one first")
        return ChangedKeys(after)

    return change


def removing(identity: str) -> Change:
    """Remove the key with an id; the last one stays, or no one could enter."""

    def change(known: str) -> ChangedKeys:
        lines = known.splitlines()
        kept = [line for line in lines if key_id(line) != identity]
        if len(kept) == len(lines):
            raise missing(f"no key {identity!r} opens it", "irons access NAME lists those that do")
        if not kept:
            raise conflict("it is the only key that opens it; add another one first")
        return ChangedKeys("".join(f"{line}\n" for line in kept), (identity,))

    return change


def _key(line: str) -> AccessKey:
    kind, encoded, comment = (*line.split(None, 2), "", "")[:3]
    digest = hashlib.sha256(base64.b64decode(encoded)).digest()
    fingerprint = base64.b64encode(digest).decode("ascii").rstrip("=")
    return AccessKey(key_id(line), kind, f"SHA256:{fingerprint}", comment)
