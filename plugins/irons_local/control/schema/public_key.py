"""Public keys as people send them: the text of an OpenSSH public key file (sshd(8), AUTHORIZED_KEYS FILE FORMAT)."""

from __future__ import annotations

import base64
import binascii

from irons_local.control.schema.errors import bad

_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)


def checked_key(text: str) -> str:
    """The keys in the text, one a line, as OpenSSH writes them; comment lines are left out.

    Options before a key, such as a forced command, are refused: in a public key file they have no place.

    Raises:
        HttpError: there is no key, or a line is none.
    """
    if "PRIVATE KEY" in text:
        raise bad("public_key: this is a private key; send the file that ends in .pub")
    lines = [line.strip() for line in text.splitlines()]
    keys = [_key(line) for line in lines if line and not line.startswith("#")]
    if not keys:
        raise bad("public_key: there is no key in it")
    return "".join(f"{key}\n" for key in keys)


def _key(line: str) -> str:
    kind, _, rest = line.partition(" ")
    encoded, _, comment = rest.strip().partition(" ")
    if kind not in _TYPES:
        raise bad(f"public_key: a line begins with {kind[:40]!r}, not with a type of key such as ssh-ed25519")
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise bad("public_key: a key is not whole; send the file as it is") from None
    length = int.from_bytes(blob[:4], "big")
    if blob[4 : 4 + length] != kind.encode() or len(blob) <= 4 + length:
        raise bad("public_key: a key is not whole; send the file as it is")
    said = "".join(each for each in comment.strip() if each.isprintable())
    return f"{kind} {encoded} {said}".strip()
