"""The fleet's certificate authority: it lives on the server, and issues one certificate for the server and one for each member."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from irons.files import write_whole
from irons_local.fleet.link import SERVER

_YEARS = 10
_DAY = timedelta(days=1)
"""Certificates are valid from a day before they are made: clocks differ."""


class CertificateError(Exception):
    """A certificate, a key or a request for one cannot be used; the message says which and why."""


class Issued(NamedTuple):
    """A certificate.

    Attributes:
        pem: the certificate.
        fingerprint: SHA-256 of its DER form, in hexadecimal.
    """

    pem: str
    fingerprint: str


class FleetAuthority:
    """A certificate authority in a directory of the server: `ca.pem`, `ca.key`, `server.pem` and `server.key`.

    Args:
        directory: made, with all four files, where it is missing.

    Raises:
        CertificateError: a file is there and cannot be used.
        OSError: a file cannot be read or written.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        if not self.server_certificate.exists():
            self._found()
        try:
            self._certificate = x509.load_pem_x509_certificate(self.ca.read_bytes())
            key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise CertificateError(f"the fleet's authority in {directory} cannot be read: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise CertificateError(f"the fleet's authority in {directory} has a key of another kind")
        self._key = key

    @property
    def ca(self) -> Path:
        """The authority's own certificate."""
        return self._directory / "ca.pem"

    @property
    def server_certificate(self) -> Path:
        """The server's certificate."""
        return self._directory / "server.pem"

    @property
    def server_key(self) -> Path:
        """Its private key."""
        return self._directory / "server.key"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the server's certificate, which a token carries."""
        return fingerprint_of(
            x509.load_pem_x509_certificate(self.server_certificate.read_bytes()).public_bytes(
                serialization.Encoding.DER
            )
        )

    def issue(self, request: str, member: str) -> Issued:
        """Issue the certificate of a member. Its name is `member`, and not what the request asks for.

        Raises:
            CertificateError: the request is invalid, or not signed by its own key.
        """
        try:
            asked = x509.load_pem_x509_csr(request.encode())
            key = asked.public_key()
            signed = asked.is_signature_valid
        except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
            raise CertificateError(f"the request for a certificate is invalid: {error}") from error
        if not signed or not isinstance(key, ec.EllipticCurvePublicKey):
            raise CertificateError("the request for a certificate is invalid")
        made = _signed(self._certificate.subject, self._key, key, member, ExtendedKeyUsageOID.CLIENT_AUTH)
        return Issued(_pem(made), fingerprint_of(made.public_bytes(serialization.Encoding.DER)))

    def _found(self) -> None:
        """Make the authority, and the server's certificate last: without it all is made again."""
        key = ec.generate_private_key(ec.SECP256R1())
        # Each authority has a name of its own, so that one is never taken for another.
        subject = _named(f"irons fleet {os.urandom(6).hex()}")
        ca = _signed(subject, key, key.public_key(), None, None)
        own = ec.generate_private_key(ec.SECP256R1())
        certificate = _signed(subject, key, own.public_key(), SERVER, ExtendedKeyUsageOID.SERVER_AUTH)
        for name, text in (
            ("ca.key", _private(key)),
            ("ca.pem", _pem(ca)),
            ("server.key", _private(own)),
            ("server.pem", _pem(certificate)),
        ):
            write_whole(self._directory / name, text, durable=True)


class CertificateRequest(NamedTuple):
    """A member's new private key, and the request for its certificate; both PEM."""

    key: str
    text: str


def ask(member: str) -> CertificateRequest:
    """Make a key, and a request for a certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(_named(member)).sign(key, hashes.SHA256())
    return CertificateRequest(_private(key), request.public_bytes(serialization.Encoding.PEM).decode())


def fingerprint_of(der: bytes) -> str:
    """SHA-256 of a certificate in its DER form, in hexadecimal."""
    return hashlib.sha256(der).hexdigest()


def common_name_of(der: bytes) -> str:
    """The name in a certificate; an empty text where it has none, or several."""
    try:
        names = x509.load_der_x509_certificate(der).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError:
        return ""
    return str(names[0].value) if len(names) == 1 else ""


def _signed(
    issuer: x509.Name,
    by: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePublicKey,
    name: str | None,
    usage: x509.ObjectIdentifier | None,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(issuer if name is None else _named(name))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + 365 * _YEARS * _DAY)
        .add_extension(
            x509.BasicConstraints(ca=name is None, path_length=0 if name is None else None), critical=True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
    )
    if name is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
    return builder.sign(by, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _private(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
