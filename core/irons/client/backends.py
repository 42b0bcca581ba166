"""From an API URL to an open HTTP client: which backend it names, whether a key may travel there, what to say when it is silent."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from irons.errors import ConfigError, IronsError, Unreachable
from irons.hookspecs import Backend
from irons.settings.loopback import is_loopback
from irons.settings.settings import HOSTED_URL
from irons.text import clean

if TYPE_CHECKING:
    import httpx

    from irons.host import PluginHost
    from irons.settings.settings import Settings


def choose(settings: Settings, host: PluginHost) -> Backend:
    """Return the backend that the settings' URL names.

    Raises:
        ConfigError: The URL is invalid, or would carry the key in clear to another machine.
        LocalError: The local backend can't run here.
    """
    _check_key(settings)
    url = settings.api_url
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if scheme in ("http", "https"):
        return _remote(url, settings)
    if scheme == "unix":
        return _unix(url)
    found = host.backend(url, settings)
    if found is None:
        raise ConfigError(
            f"unsupported API URL {clean(url, limit=100)!r}",
            hint="use local, unix:///path/to/socket, or http(s)://…; irons config show names its source",
        )
    return found


def _check_key(settings: Settings) -> None:
    """Refuse a key that no header can carry, without showing it."""
    key = settings.api_key
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError(
            "the API key has characters that no HTTP header can carry",
            hint=f"it comes from {_source(settings, 'api_key')}; is there a line end or a quote too much?",
        )


def _remote(url: str, settings: Settings) -> Backend:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ConfigError(f"the API URL {clean(url, limit=100)!r} is invalid") from None
    if not host or any(not c.isprintable() or c.isspace() for c in url):
        raise ConfigError(f"the API URL {clean(url, limit=100)!r} is invalid")
    if parts.scheme.lower() == "http" and settings.api_key and not is_loopback(host):
        raise ConfigError(
            f"the key would be sent in clear text to {clean(host)}",
            hint="use an https:// URL; plain http:// goes with a key to this machine alone",
        )
    return Backend(url.rstrip("/"))


def _unix(url: str) -> Backend:
    path = url[len("unix://") :]
    if not path.startswith("/"):
        raise ConfigError(
            f"{clean(url, limit=100)!r} is not an absolute path",
            hint="unix:///path/to/socket has three slashes",
        )
    return Backend("http://irons", socket=path)


def headers_for(settings: Settings) -> dict[str, str]:
    """Return the fields that go with every request."""
    from irons.version import __version__

    headers = {
        "Accept": "application/json",
        # What is packed may unpack to anything.
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "User-Agent": f"irons/{__version__}",
    }
    if settings.api_key:
        headers["Authorization"] = f"Bearer {settings.api_key}"
    return headers


def client(backend: Backend, settings: Settings) -> httpx.Client:
    """Return the one HTTP client of a process: keep-alive, the key in its header, no redirects, no proxy for a socket.

    Raises:
        ConfigError: A proxy or the certificates that the environment names cannot be used.
    """
    plain = backend.base_url.startswith("http://")
    if plain:
        import ssl

        # Nothing to verify on plain HTTP, and loading the CA bundle costs more than the whole call; an empty context fails closed.
        verify, proxy = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), None
    else:
        from irons.client.trust import proxy_for, trusted

        proxy, verify = proxy_for(backend.base_url, settings.env), trusted(settings.env, settings["api_ca"])
    opened: httpx.Client = load_httpx().Client(
        base_url=backend.base_url,
        headers=headers_for(settings),
        transport=backend.transport,
        verify=verify,
        follow_redirects=False,
        proxy=proxy,
        trust_env=False,
    )
    return opened


def load_httpx() -> Any:
    """Import httpx without its command line, which would pull in click, pygments and rich wherever click is installed."""
    if "httpx" not in sys.modules:
        sys.modules["httpx._main"] = None  # type: ignore[assignment]
        try:
            import_module("httpx")
        finally:
            sys.modules.pop("httpx._main", None)
    # Not the entry of sys.modules: another thread may be in the middle of the import, and this waits for it.
    return import_module("httpx")


def unreachable(backend: Backend, settings: Settings, error: Exception) -> IronsError:
    """Return what to say of a server that did not answer; no httpx exception leaves the client."""
    why = {
        "ConnectTimeout": "no connection in time",
        "ReadTimeout": "no answer in time",
        "RemoteProtocolError": "it closed the connection in the middle of its answer",
    }.get(type(error).__name__, clean(str(error), limit=120) or type(error).__name__)
    if settings.api_url == HOSTED_URL:
        return Unreachable(
            f"{HOSTED_URL} did not answer ({why}): the hosted service has been retired",
            hint="irons runs sandboxes on this machine: irons config set api_url local; or name another server by --api-url",
        )
    if backend.local:
        return Unreachable(
            f"the local backend did not answer ({why})",
            hint="irons local status and irons local logs show more",
        )
    if "CERTIFICATE_VERIFY_FAILED" in why:
        return Unreachable(
            f"{clean(settings.api_url, limit=100)} has a certificate that is not trusted here ({why})",
            hint="if your own CA signed it: irons config set api_ca /path/to/ca.pem",
        )
    return Unreachable(
        f"{clean(settings.api_url, limit=100)} did not answer ({why})",
        hint=f"the URL comes from {_source(settings, 'api_url')}; irons config show lists all settings",
    )


def _source(settings: Settings, key: str) -> str:
    """Return what set a setting, as a person typed it."""
    source = settings.values[key].source
    return f"--{key.replace('_', '-')}" if source == "flag" else source
