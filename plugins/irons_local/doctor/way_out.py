"""What `irons doctor` knows of this machine's way to the internet: its routes, and the upstream proxy."""

from __future__ import annotations

import errno
import os
import socket
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from irons_local.config.upstream import Upstream, UpstreamError, read_upstream
from irons_local.linux.tcp import tcp_socket

VARIABLES = ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
_WITHIN = 2.0
# Addresses of documentation: a datagram socket that is connected sends nothing, and tells whether there is a route.
_PROBES = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


@dataclass(frozen=True, slots=True)
class WayOut:
    """How this machine reaches the internet, as far as is known without contacting anything but the proxy.

    Attributes:
        routed: there is a route.
        variable: the variable that names a proxy for other programs, or "".
        proxied: the gateway has an upstream proxy.
        trouble: why that cannot be used, or "".
        readable: the settings file, where others can read the proxy's password in it, or "".
    """

    routed: bool = True
    variable: str = ""
    proxied: bool = False
    trouble: str = ""
    readable: str = ""


def look(settings: Path, environ: Mapping[str, str]) -> WayOut:
    """Look at this machine's way out; connects to the upstream proxy, where one is set, and to nothing else."""
    variable = next((name for name in VARIABLES if environ.get(name)), "")
    try:
        local = tomllib.loads(settings.read_text(encoding="utf-8")).get("local", {})
        upstream = read_upstream(local if isinstance(local, dict) else {})
    except UpstreamError as error:
        return WayOut(_routed(), variable, True, str(error))
    except (OSError, ValueError):
        # The check of the settings reports it.
        upstream = None
    if upstream is None:
        return WayOut(_routed(), variable)
    return WayOut(_routed(), variable, True, _trouble(upstream), _readable(settings, upstream))


def _routed() -> bool:
    for family, address in _PROBES:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((address, 443))
        except OSError:
            continue
        return True
    return False


def _trouble(upstream: Upstream) -> str:
    try:
        found = socket.getaddrinfo(upstream.host.text, upstream.port, type=socket.SOCK_STREAM)
    except OSError as error:
        return f"its name is not resolved: {error.strerror}"
    why = "it has no address"
    for family, _, _, _, where in found:
        try:
            with tcp_socket(family, socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(_WITHIN)
                sock.connect(where)
        except OSError as error:
            code = errno.ETIMEDOUT if isinstance(error, TimeoutError) else error.errno
            why = os.strerror(code) if code else str(error)
        else:
            return ""
    return why


def _readable(settings: Path, upstream: Upstream) -> str:
    try:
        mode = stat.S_IMODE(settings.stat().st_mode)
    except OSError:
        return ""
    return str(settings) if upstream.credentials and mode & 0o077 else ""
