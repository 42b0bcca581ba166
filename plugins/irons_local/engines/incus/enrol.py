"""Joining a cluster as a client: a key and a certificate of our own, trusted there by a token; and leaving it.

What is sent goes to whoever has the certificate that the token names, and to no one else.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from irons.files import write_whole
from irons_local.config.incus import CLUSTER
from irons_local.engines.incus import project
from irons_local.engines.incus.client import Incus, IncusError
from irons_local.engines.incus.reach.joined import CLIENT, KEY, SERVER, Joined
from irons_local.engines.incus.reach.token import TrustToken
from irons_local.engines.incus.reach.ways import HttpsWay
from irons_local.errors import EngineError
from irons_local.linux.tcp import tcp_connection

PORT = 8443
_CONNECTED_WITHIN = 20.0
_YEARS = 10
_DAY = timedelta(days=1)
"""Certificates are valid from a day before they are made: clocks differ."""
_REFUSED = (400, 403, 404)
"""What Incus answers to a token that it does not know."""


def checked_url(given: str) -> str:
    """The URL of a member, from what was typed: `https://` and the port may be left out.

    Raises:
        EngineError: it is not one.
    """
    parts = urlsplit(given if "://" in given else f"https://{given}")
    try:
        port = parts.port or PORT
    except ValueError:
        port = 0
    extra = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    if parts.scheme != "https" or not parts.hostname or not port or extra or not given.isprintable():
        raise EngineError(
            "input", f"{given[:80]!r} is not the URL of a member, such as https://n1.example.com:8443"
        )
    return _url(parts.hostname, port)


def _url(host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"https://{shown}:{port}"


async def join(directory: Path, url: str, token: TrustToken) -> Joined:
    """Become a client of a cluster.

    Args:
        directory: made, with what the cluster is reached by, when all is well.
        url: of a member.
        token: of the cluster.

    Raises:
        EngineError: with why not; nothing is left, here or there.
        OSError: the directory cannot be written.
    """
    certificate = await asyncio.to_thread(_certificate_at, url)
    found = hashlib.sha256(certificate).hexdigest()
    if found != token.fingerprint:
        raise EngineError(
            "input",
            f"{url} has the certificate {found[:12]}, and the token names {token.fingerprint[:12]}; nothing was sent",
            "is the token of this cluster?",
        )
    draft = directory.with_name(f"{directory.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    try:
        client, until = _make_key(draft)
        _write(draft / SERVER, ssl.DER_cert_to_PEM_cert(certificate))
        urls = dict.fromkeys((url, *(f"https://{each}" for each in token.addresses)))
        joined = Joined(draft, tuple(urls), found, client, until)
        await _enrol(joined, token)
        _write(draft / CLUSTER, joined.text())
        draft.rename(directory)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return joined._replace(directory=directory)


async def leave(directory: Path, joined: Joined) -> str:
    """Stop being a client of a cluster; gives why it may still trust our certificate, "" where it does not."""
    left = ""
    try:
        incus = Incus(HttpsWay(joined), project.NAME)
        try:
            await incus.change("DELETE", f"certificates/{joined.client}")
        finally:
            await incus.close()
    except EngineError as error:
        left = error.message
    shutil.rmtree(directory)
    return left


async def _enrol(joined: Joined, token: TrustToken) -> None:
    """Have the cluster trust our certificate, and see that sandboxes can be made there."""
    incus = Incus(HttpsWay(joined), project.NAME)
    try:
        body = {"type": "client", "trust_token": token.text}
        try:
            await incus.change("POST", "certificates", body)
        except IncusError as error:
            if error.status in _REFUSED:
                raise EngineError(
                    "input",
                    f"the cluster refused the token: {error.message.removeprefix('Incus: ')}",
                    "it is for one use: make another with incus config trust add irons",
                ) from error
            raise
        try:
            await _check(incus)
        except BaseException:
            with contextlib.suppress(EngineError):
                await incus.change("DELETE", f"certificates/{joined.client}")
            raise
    finally:
        await incus.close()


async def _check(incus: Incus) -> None:
    server = await incus.get("")
    if not (server.get("environment") or {}).get("server_clustered"):
        raise EngineError(
            "machine",
            "this Incus is not a cluster",
            "incus cluster enable NAME makes it one; an Incus of this machine needs no join",
        )
    await project.ensure(incus)


def _certificate_at(url: str) -> bytes:
    """The certificate of whoever answers at a URL, believed of no one."""
    parts = urlsplit(url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            tcp_connection(parts.hostname or "", parts.port or PORT, _CONNECTED_WITHIN) as plain,
            context.wrap_socket(plain) as secured,
        ):
            found = secured.getpeercert(binary_form=True)
    except (OSError, UnicodeError) as error:
        raise EngineError("machine", f"no Incus answers at {url}: {error}") from error
    if not found:
        raise EngineError("machine", f"{url} shows no certificate")
    return found


def _make_key(directory: Path) -> tuple[str, str]:
    """Write a key and a certificate of its own; gives the certificate's fingerprint, and when it ends."""
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"irons@{socket.gethostname()}"[:64])])
    now = datetime.now(UTC)
    until = (now + timedelta(days=365 * _YEARS)).replace(microsecond=0)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(until)
        .add_extension(x509.ExtendedKeyUsage([x509.OID_CLIENT_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(directory / CLIENT, made.public_bytes(serialization.Encoding.PEM).decode())
    _write(
        directory / KEY,
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
    )
    return made.fingerprint(hashes.SHA256()).hex(), until.strftime("%Y-%m-%dT%H:%M:%SZ")


def _write(path: Path, text: str) -> None:
    write_whole(path, text, durable=True)
