"""A digest for names of files; `hashlib` would load OpenSSL's library for it, which takes longer than all the rest of a command."""

from __future__ import annotations

from _blake2 import blake2b


def digest(*parts: str) -> str:
    """Return 32 hexadecimal digits that stand for some texts."""
    whole = "\0".join(parts).encode(errors="surrogateescape")
    return str(blake2b(whole, digest_size=16).hexdigest())
