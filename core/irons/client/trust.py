"""What the environment says of the way to an HTTPS server: through which proxy, and which certificates to trust.

httpx reads the same variables, but what is wrong in them surfaces there as an ImportError, a ValueError or an OSError
without a name. Here each is a `ConfigError` that names the variable.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from irons.errors import ConfigError
from irons.text import clean

if TYPE_CHECKING:
    import ssl

_PROXIES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_SOCKS = ("socks4", "socks4a", "socks5", "socks5h")


def proxy_for(url: str, env: Mapping[str, str]) -> str | None:
    """The proxy that the environment names for a URL; None for the direct way, which plain HTTP always takes.

    Args:
        url: The API's URL.
        env: `HTTPS_PROXY`, else `ALL_PROXY`; `NO_PROXY` has the hosts that are reached without. Lower case wins.

    Raises:
        ConfigError: The variable's value is not a proxy that can be used; it is not shown, for it may hold a password.
    """
    parts = urlsplit(url)
    name = next((name for name in _PROXIES if env.get(name, "").strip()), None)
    if parts.scheme.lower() != "https" or name is None or _is_excepted(parts, env):
        return None
    value = env[name].strip()
    proxy = value if "://" in value else f"http://{value}"
    hint = f"set {name} to http://HOST:PORT, or name {clean(parts.hostname or '')} in NO_PROXY"
    try:
        found = urlsplit(proxy)
        host, _ = found.hostname, found.port
    except ValueError:
        raise ConfigError(f"{name} is not the URL of a proxy", hint=hint) from None
    if not host or not proxy.isprintable() or " " in proxy:
        raise ConfigError(f"{name} is not the URL of a proxy", hint=hint)
    scheme = found.scheme.lower()
    if scheme in ("socks5", "socks5h") and find_spec("socksio") is not None:
        return proxy
    if scheme in _SOCKS:
        raise ConfigError(
            f"{name} names a SOCKS proxy, for which a package is missing"
            if scheme.startswith("socks5")
            else f"{name} names a SOCKS 4 proxy, which irons cannot use",
            hint=f"{hint}; pip install 'httpx[socks]' adds SOCKS 5",
        )
    if scheme not in ("http", "https"):
        raise ConfigError(
            f"{name} names a proxy of kind {clean(scheme, limit=20)}, which irons cannot use", hint=hint
        )
    return proxy


def _is_excepted(parts: SplitResult, env: Mapping[str, str]) -> bool:
    """Whether `NO_PROXY` names the host: by name, as a domain above it, as an address, or as a network."""
    host = (parts.hostname or "").rstrip(".").lower()
    for entry in (env.get("no_proxy") or env.get("NO_PROXY") or "").lower().split(","):
        name, port = _split(entry.strip().removeprefix("https://"))
        if name == "*":
            return True
        if not name or port not in ("", str(parts.port or 443)):
            continue
        if host == name or host.endswith(f".{name.lstrip('.')}") or _is_in(host, name):
            return True
    return False


def _split(entry: str) -> tuple[str, str]:
    """A host and a port, which may be empty; an IPv6 address may have brackets."""
    if entry.startswith("["):
        name, _, port = entry[1:].partition("]")
        return name, port.removeprefix(":")
    if entry.count(":") == 1:
        name, _, port = entry.partition(":")
        return name, port
    return entry, ""


def _is_in(host: str, network: str) -> bool:
    from ipaddress import ip_address, ip_network

    try:
        return ip_address(host) in ip_network(network, strict=False)
    except ValueError:
        return False


def trusted(env: Mapping[str, str], ca: str | None = None) -> ssl.SSLContext:
    """The certificates by which servers are checked: those of `SSL_CERT_FILE`, else `SSL_CERT_DIR`, else certifi's.

    Args:
        env: The environment.
        ca: The setting `api_ca`: a file whose certificates alone count; it wins over the environment.

    Raises:
        ConfigError: The variable names no readable certificates.
    """
    import ssl

    name = "api_ca" if ca else "SSL_CERT_FILE"
    file, directory = ca or env.get("SSL_CERT_FILE"), env.get("SSL_CERT_DIR")
    if file and file.startswith("~/"):
        file = f"{env.get('HOME') or Path.home()}{file[1:]}"
    if file:
        try:
            return ssl.create_default_context(cafile=file)
        except OSError as error:
            why = (
                error.strerror
                if not isinstance(error, ssl.SSLError) and error.strerror
                else "it holds no certificate in PEM form"
            )
            raise ConfigError(
                f"{name}: {clean(file, limit=200)}: {why}",
                hint="name a file with CA certificates in PEM form, or unset it",
            ) from None
    if directory:
        if not any(Path(part).is_dir() for part in directory.split(":")):
            raise ConfigError(
                f"SSL_CERT_DIR: {clean(directory, limit=200)} is not a directory",
                hint="name a directory that openssl rehash has prepared, or unset it",
            )
        return ssl.create_default_context(capath=directory)
    import certifi

    return ssl.create_default_context(cafile=certifi.where())
