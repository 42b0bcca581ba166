"""Where the control plane listens besides its own socket: asked for by `local up`, kept for the next start."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from irons.errors import UsageError
from irons.files import write_whole
from irons.settings.loopback import is_loopback

if TYPE_CHECKING:
    from irons_local.paths import Paths

OFF = "off"


@dataclass(frozen=True)
class Listening:
    """An address for the API with its certificate, and the address of the sandboxes' SSH ports; None: as it is by default."""

    host: str | None = None
    port: int | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    ssh_host: str | None = None

    @classmethod
    def checked(
        cls, listen: str | None, tls_cert: str | None, tls_key: str | None, ssh_listen: str | None
    ) -> Listening | None:
        """Return what the options ask for; None where they ask for nothing. What `--listen off` asks for is empty.

        Raises:
            UsageError: An address is invalid, or TLS is missing where it must be.
        """
        if not (listen or tls_cert or tls_key or ssh_listen):
            return None
        if bool(tls_cert) != bool(tls_key):
            raise UsageError("--tls-cert and --tls-key go together")
        if listen == OFF and tls_cert:
            raise UsageError("--tls-cert and --tls-key are for an address, and --listen off has none")
        host, port = _address(listen) if listen and listen != OFF else (None, None)
        if host and not is_loopback(host) and not tls_cert:
            raise UsageError(
                f"{host} is reachable from other machines: that needs TLS",
                hint="add --tls-cert FILE and --tls-key FILE",
            )
        for option, path in (("--tls-cert", tls_cert), ("--tls-key", tls_key)):
            if path and not Path(path).is_file():
                raise UsageError(f"{option}: there is no file {path}")
        if ssh_listen:
            _literal(ssh_listen, "--ssh-listen")
        absolute = [str(Path(path).resolve()) if path else None for path in (tls_cert, tls_key)]
        return cls(host, port, absolute[0], absolute[1], ssh_listen)


@contextmanager
def kept(paths: Paths, asked: Listening) -> Iterator[bool]:
    """Keep what was asked for, unless the block raises; gives whether it is something new."""
    path = paths.listening
    before = path.read_text() if path.exists() else None
    text = json.dumps(asdict(asked))
    if before == text:
        yield False
        return
    write_whole(path, text, durable=True)
    try:
        yield True
    except BaseException:
        if before is None:
            path.unlink(missing_ok=True)
        else:
            write_whole(path, before, durable=True)
        raise


def read(paths: Paths) -> Listening:
    """Return the saved options; those by default where the file is missing or invalid."""
    try:
        return Listening(**json.loads(paths.listening.read_text()))
    except (OSError, ValueError, TypeError):
        return Listening()


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"--listen takes HOST:PORT, such as 127.0.0.1:7411, not {text!r}")
    _literal(host, "--listen")
    return host, int(port)


def _literal(host: str, option: str) -> None:
    try:
        ip_address(host)
    except ValueError:
        raise UsageError(
            f"{option} takes an address of this machine, such as 127.0.0.1, not {host!r}"
        ) from None
