"""Where a sandbox's SSH answers, believed only as far as it makes sense: nothing in it can become an option or shell text."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

from irons.errors import ApiError
from irons.record import NamedTuple
from irons.text import clean
from irons.wire_values import SANDBOX_ID

if TYPE_CHECKING:
    from irons.client.api import SshAddress

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,31}")
_CELL = re.compile(SANDBOX_ID)
_KEY = re.compile(
    r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)|sk-(?:ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com)"
    r" (AAAA[A-Za-z0-9+/]{16,16384}={0,3})(?: [^\r\n]*)?"
)

MOST_KEYS = 64
"""Host keys of one sandbox."""

LONGEST_COMMAND = 4096
"""Characters of the remote command that a server may send."""


class Target(NamedTuple):
    """Where to connect, with every field fit for a command line.

    Attributes:
        host: A host name or an address.
        port: Its TCP port.
        user: The user to log in as.
        host_keys: The host keys, as `type base64`.
        cell: The sandbox's cell; empty except for the local backend.
        command: One printable line for the sandbox's shell, to run in place of a shell; usually empty.
        oom_kills: Processes that were killed for the sandbox's memory limit so far; None where that is not counted.
        memory: The memory limit in bytes; None where there is none.
    """

    host: str
    port: int
    user: str
    host_keys: tuple[str, ...] = ()
    cell: str = ""
    command: str = ""
    oom_kills: int | None = None
    memory: int | None = None


def target_of(address: SshAddress) -> Target:
    """Return what the server sent, or refuse it.

    Raises:
        ApiError: A host, port, user, host key, cell or command is invalid.
    """
    host = address.host
    if not _HOST.fullmatch(host):
        host = _ipv6(host)
    if not 1 <= address.port <= 65535:
        raise _refused("port", str(address.port))
    if not _USER.fullmatch(address.username):
        raise _refused("user", address.username)
    if address.cell and not _CELL.fullmatch(address.cell):
        raise _refused("cell", address.cell)
    if len(address.host_keys) > MOST_KEYS:
        raise _refused("number of host keys", str(len(address.host_keys)))
    if len(address.command) > LONGEST_COMMAND or not address.command.isprintable():
        raise _refused("command", address.command)
    return Target(
        host,
        address.port,
        address.username,
        tuple(map(_host_key, address.host_keys)),
        address.cell,
        address.command.strip(),
        address.oom_kills,
        address.memory,
    )


def _ipv6(text: str) -> str:
    if "%" in text:
        raise _refused("host", text)
    try:
        return str(IPv6Address(text))
    except ValueError:
        raise _refused("host", text) from None


def _host_key(line: str) -> str:
    found = _KEY.fullmatch(line.strip())
    if not found:
        raise _refused("host key", line)
    return f"{found[1]} {found[2]}"


def _refused(what: str, said: str) -> ApiError:
    return ApiError(
        f"the server gave an invalid SSH {what}: {clean(repr(said), limit=80)}",
        hint="nothing was run; is this the URL of a v0 API? irons config show names its source",
    )
