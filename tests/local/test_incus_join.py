"""Joining a cluster of Incus: the token, the certificate that it pins, and what is refused with one line."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.local.pretended_incus import PretendedIncus

from irons_local.engines.incus import enrol
from irons_local.engines.incus.client import Incus, IncusError
from irons_local.engines.incus.reach.events import Events
from irons_local.engines.incus.reach.joined import Joined, JoinedError
from irons_local.engines.incus.reach.token import TokenError, TrustToken, read_token
from irons_local.engines.incus.reach.ways import HttpsWay
from irons_local.errors import EngineError

NOW = dt.datetime(2026, 11, 28, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
FINGERPRINT = "ab" * 32


def printed(**changed: Any) -> str:
    """A token as Incus prints it."""
    body = {
        "client_name": "irons",
        "fingerprint": FINGERPRINT,
        "addresses": ["10.0.0.1:8443", "10.0.0.2:8443"],
        "secret": "s3cret",
        "expires_at": "0001-01-01T00:00:00Z",
        **changed,
    }
    return base64.b64encode(json.dumps(body).encode()).decode()


def test_a_token_is_read_and_not_shown() -> None:
    """The token of a line, or below what Incus prints with it, says whose certificate to expect; its text is in no repr."""
    for given in (printed(), f"Client irons certificate add token:\n{printed()}\n"):
        token = read_token(given, NOW)
        assert token == TrustToken(printed(), FINGERPRINT, ("10.0.0.1:8443", "10.0.0.2:8443"))
        assert printed() not in repr(token)
    assert read_token(printed(expires_at="2026-11-28T00:00:01.123456789Z"), NOW)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("  \n", "there is no token on standard input"),
        ("hello", "this is not a token of `incus config trust add`"),
        (base64.b64encode(b"[]").decode(), "this is not a token of `incus config trust add`"),
        (printed(fingerprint="abc"), "this is not a token of `incus config trust add`"),
        (printed(secret=""), "this is not a token of `incus config trust add`"),
        (printed(expires_at="2026-11-27T23:59:59.5Z"), "the token ended at 2026-11-27T23:59:59Z"),
    ],
)
def test_what_is_no_token_is_refused(given: str, says: str) -> None:
    """Nothing, another text, a token without what it takes, and one that has ended are refused before anything is sent."""
    with pytest.raises(TokenError) as caught:
        read_token(given, NOW)
    assert str(caught.value) == says


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("n1", "https://n1:8443"),
        ("https://n1.example.com/", "https://n1.example.com:8443"),
        ("https://[2001:db8::1]:443", "https://[2001:db8::1]:443"),
    ],
)
def test_a_member_is_named_by_its_url(given: str, url: str) -> None:
    """Scheme and port may be left out."""
    assert enrol.checked_url(given) == url


@pytest.mark.parametrize(
    "given", ["http://n1", "https://", "n1/path", "https://n1:x", "https://me@n1", "n1?x", ""]
)
def test_another_url_is_refused(given: str) -> None:
    """What is not the URL of a member is refused."""
    with pytest.raises(EngineError, match="is not the URL of a member"):
        enrol.checked_url(given)


def certificate(directory: Path, begin: dt.datetime, end: dt.datetime) -> bytes:
    """Write `server.crt` and `server.key` of a cluster; gives the certificate in DER."""
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root@n1")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("n1")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    directory.mkdir(exist_ok=True)
    (directory / "server.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (directory / "server.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return made.public_bytes(serialization.Encoding.DER)


def names(directory: Path) -> list[str]:
    """What is in a directory."""
    return [path.name for path in directory.iterdir()]


class SecuredIncus(PretendedIncus):
    """A stand-in for a member, at a port of this machine.

    Args:
        directory: has its certificate and its key.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / "unused")
        self.members = {"n1": "Online"}
        self.url = ""
        self._secured = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._secured.load_cert_chain(directory / "server.crt", directory / "server.key")

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._secured)
        self.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield
        finally:
            server.close()
            for writer in self._connections:
                writer.transport.abort()


def at_member(
    place: Path, work: Callable[[SecuredIncus, TrustToken], Awaitable[None]], begin: int = -1, end: int = 1
) -> None:
    """Do something while a member answers whose certificate is valid from so many days on, until so many days on."""
    now = dt.datetime.now(dt.UTC)
    found = certificate(place / "server", now + begin * DAY, now + end * DAY)
    member = SecuredIncus(place / "server")

    async def whole() -> None:
        async with asyncio.timeout(120), member.open():
            token = TrustToken("token", hashlib.sha256(found).hexdigest(), ("127.0.0.1:1",))
            await work(member, token)

    asyncio.run(whole())


def test_a_cluster_is_joined_once_its_certificate_is_the_tokens(tmp_path: Path) -> None:
    """What reaches the cluster is kept for its owner alone, requests and events go there, and leaving removes all."""
    kept = tmp_path / "incus"

    async def work(member: SecuredIncus, token: TrustToken) -> None:
        joined = await enrol.join(kept, member.url, token)
        assert Joined.read(kept) == joined
        assert joined.urls == (member.url, "https://127.0.0.1:1")
        assert {path.stat().st_mode & 0o777 for path in kept.iterdir()} == {0o600}
        assert kept.stat().st_mode & 0o777 == 0o700
        assert "POST certificates" in member.asked
        turned = joined._replace(urls=joined.urls[::-1])
        incus = Incus(HttpsWay(turned), "irons")
        # The first does not answer, and nothing was sent there.
        assert (await incus.get(""))["environment"]["server_name"] == "n1"
        async with Events(HttpsWay(turned), "irons").of("one") as news:
            await news.wait()
        await incus.close()
        assert await enrol.leave(kept, joined) == ""
        assert f"DELETE certificates/{joined.client}" in member.asked
        assert await asyncio.to_thread(names, tmp_path) == ["server"]

    at_member(tmp_path, work)


@pytest.mark.parametrize(
    ("change", "says", "sent"),
    [
        ("certificate", "nothing was sent", False),
        ("token", "the cluster refused the token: not authorized", True),
        ("alone", "this Incus is not a cluster", True),
        ("storage", "the database is locked", True),
    ],
)
def test_a_cluster_that_cannot_be_joined_leaves_nothing(
    tmp_path: Path, change: str, says: str, sent: bool
) -> None:
    """Another certificate, a refused token, an Incus that is no cluster or fails: one line, and nothing is kept, here or there."""

    async def work(member: SecuredIncus, token: TrustToken) -> None:
        if change == "certificate":
            token = token._replace(fingerprint=FINGERPRINT)
        elif change == "token":
            member.refusing = "not authorized"
        elif change == "alone":
            member.members = {}
        else:
            member.failing = {"GET storage-pools"}
        with pytest.raises(EngineError) as caught:
            await enrol.join(tmp_path / "incus", member.url, token)
        assert says in caught.value.message
        assert ("POST certificates" in member.asked) is sent
        assert any(each.startswith("DELETE certificates/") for each in member.asked) is (
            change in ("alone", "storage")
        )
        assert await asyncio.to_thread(names, tmp_path) == ["server"]

    at_member(tmp_path, work)


@pytest.mark.parametrize(
    ("begin", "end", "says"),
    [
        (-2, -1, "the certificate of the cluster has expired, or the clock of this machine is wrong"),
        (1, 2, "the certificate of the cluster is not valid yet: the clock of this machine is wrong"),
    ],
)
def test_a_certificate_out_of_its_time_is_named(tmp_path: Path, begin: int, end: int, says: str) -> None:
    """A certificate that has expired, or is not valid yet by this machine's clock, is what the line says."""

    async def work(member: SecuredIncus, token: TrustToken) -> None:
        with pytest.raises(IncusError) as caught:
            await enrol.join(tmp_path / "incus", member.url, token)
        assert says in caught.value.message
        assert not member.asked

    at_member(tmp_path, work, begin, end)


def test_another_certificate_later_is_refused(tmp_path: Path) -> None:
    """Whoever answers in the cluster's place later is asked nothing."""

    async def work(member: SecuredIncus, token: TrustToken) -> None:
        joined = await enrol.join(tmp_path / "incus", member.url, token)
        now = dt.datetime.now(dt.UTC)
        certificate(tmp_path / "other", now - 365 * DAY, now + 365 * DAY)
        other = SecuredIncus(tmp_path / "other")
        async with other.open():
            incus = Incus(HttpsWay(joined._replace(urls=(other.url,))), "irons")
            with pytest.raises(IncusError, match="another certificate answers"):
                await incus.get("")
            await incus.close()
            assert not other.asked

    at_member(tmp_path, work)


def test_what_was_kept_and_is_damaged_is_named(tmp_path: Path) -> None:
    """A file that cannot be read is named, and the way out of it."""
    assert Joined.read(tmp_path) is None
    (tmp_path / "cluster.json").write_text("{}")
    with pytest.raises(JoinedError, match=r"cluster\.json cannot be read") as caught:
        Joined.read(tmp_path)
    assert "irons fleet leave" in caught.value.hint


def test_an_address_without_an_incus_is_named(tmp_path: Path) -> None:
    """Where nothing answers, the line names the URL."""
    with pytest.raises(EngineError, match=r"no Incus answers at https://127\.0\.0\.1:1"):
        asyncio.run(enrol.join(tmp_path / "incus", "https://127.0.0.1:1", TrustToken("t", FINGERPRINT, ())))
