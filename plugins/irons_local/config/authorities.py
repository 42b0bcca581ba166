"""Certificate authorities of this machine's company, carried into sandboxes: certificates read, checked and written out again.

Nothing of a file travels but its certificates: a private key, a comment or anything else next to them stays here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from irons.files import digest
from irons_local.config.authority_files import (
    AuthoritiesError,
    LeftOut,
    files_of,
    setting_in,
    signature_of,
    state_of,
)

MOST_BYTES = 1 << 20
"""Bytes of one file."""
MOST = 200
"""Certificates in all."""

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----(.*?)-----END \1-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Authorities:
    """What is carried into sandboxes.

    Attributes:
        pem: the certificates, one after the other; empty where there is none.
        files: the files that they come from.
        count: how many there are.
        left_out: what was found next to them.
        public: text of the certificates that this machine trusts anyway; empty where nothing is carried.
    """

    pem: str = ""
    files: tuple[str, ...] = ()
    count: int = 0
    left_out: tuple[LeftOut, ...] = ()
    public: str = ""

    @property
    def digest(self) -> str:
        """A short text that is another one for other certificates."""
        return hashlib.sha256(self.pem.encode()).hexdigest()[:16]

    @property
    def bundle(self) -> str:
        """The one file for a program that takes only one: what this machine trusts, and what is carried."""
        return self.public + self.pem if self.pem else ""


def carried(settings: Path) -> Authorities:
    """What is carried by a settings file; an invalid one carries nothing, and is reported elsewhere."""
    try:
        return read_authorities(setting_in(settings))
    except (OSError, AuthoritiesError) as error:
        return Authorities(left_out=(LeftOut(str(settings), str(error)),))


class Carrying:
    """Reads the certificates that are carried, again only where a file has changed."""

    def __init__(self) -> None:
        self._known = ""
        self._found = Authorities()

    def read(self, paths: Sequence[str] | None) -> Authorities:
        """What `read_authorities` gives now."""
        import ssl

        places = ssl.get_default_verify_paths()
        named = (places.openssl_cafile_env, places.openssl_capath_env)
        public = [os.environ.get(variable, "") for variable in named]
        public += [places.openssl_cafile, places.openssl_capath]
        now = digest(signature_of(paths), *(state_of(Path(path)) for path in public if path))
        if now != self._known:
            self._known, self._found = now, read_authorities(paths)
        return self._found


def read_authorities(paths: Sequence[str] | None) -> Authorities:
    """Read the certificates that are carried.

    Args:
        paths: files and directories; None reads the usual places.
    """
    import ssl

    found: dict[bytes, str] = {}
    files: list[str] = []
    left_out: list[LeftOut] = []
    for path in files_of(paths, left_out):
        before = len(found)
        for der in _certificates(path, left_out):
            if len(found) >= MOST:
                left_out.append(LeftOut(str(path), f"more than {MOST} certificates"))
                break
            found.setdefault(der, str(path))
        if len(found) > before:
            files.append(str(path))
    pem = "".join(ssl.DER_cert_to_PEM_cert(der) for der in found)
    return Authorities(pem, tuple(files), len(found), tuple(left_out), _public() if pem else "")


def _certificates(path: Path, left_out: list[LeftOut]) -> Iterator[bytes]:
    """The certificates of a file in DER; anything else in it is noted."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        left_out.append(LeftOut(str(path), error.strerror or "it cannot be read"))
        return
    if len(data) > MOST_BYTES:
        left_out.append(LeftOut(str(path), "it is too large"))
        return
    blocks = [(match[1].decode(), match[2]) for match in _BLOCK.finditer(data)]
    if not blocks:
        if _is_certificate(data):
            yield data
        else:
            left_out.append(LeftOut(str(path), "it holds no certificate"))
        return
    for kind, text in blocks:
        if kind != "CERTIFICATE":
            left_out.append(LeftOut(str(path), f"a {kind.lower()} in it stays on this machine"))
            continue
        try:
            der = base64.b64decode(b"".join(text.split()), validate=True)
        except (binascii.Error, ValueError):
            der = b""
        if _is_certificate(der):
            yield der
        else:
            left_out.append(LeftOut(str(path), "a certificate in it cannot be read"))


def _is_certificate(der: bytes) -> bool:
    """Tell whether this is one X.509 certificate (RFC 5280), and nothing after it."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=der)
    except (ssl.SSLError, ValueError):
        return False
    return _length(der) == len(der) and sum(context.cert_store_stats().values()) >= 1


def _length(der: bytes) -> int:
    """Bytes of the DER value at the start, its head included."""
    if len(der) < 2 or der[0] != 0x30:
        return -1
    if der[1] < 0x80:
        return 2 + der[1]
    size = der[1] & 0x7F
    return 2 + size + int.from_bytes(der[2 : 2 + size], "big")


def _public() -> str:
    """What this machine trusts anyway, its own CAs among it, as OpenSSL finds it; written out again."""
    import ssl

    context = ssl.create_default_context()
    return "".join(ssl.DER_cert_to_PEM_cert(der) for der in context.get_ca_certs(binary_form=True))
