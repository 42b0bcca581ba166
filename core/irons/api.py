"""The client of the IronCD v0 API, and of what irons' own server answers beyond it; the only module that imports httpx."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from irons.errors import ApiError, AuthError, Conflict, IronsError, NotFound, Unsupported
from irons.text import clean

if TYPE_CHECKING:
    import httpx

    from irons.hookspecs import Backend
    from irons.settings import Settings

RETRIES = 4
BACK_OFF = 0.2
"""Seconds before the first retry; doubled each time."""


@dataclass(frozen=True)
class Sandbox:
    """A sandbox as the server tells it."""

    name: str
    status: str
    id: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SshAddress:
    """Where a sandbox's SSH answers. `host_keys` are lines of known_hosts without the host; `cell` is set by the local backend."""

    host: str
    port: int
    username: str
    host_keys: tuple[str, ...] = ()
    cell: str = ""


@dataclass(frozen=True)
class EgressRules:
    """Allow and deny lists; `rules` has the same with what irons' own server knows besides (private, note, covers)."""

    allowed: tuple[str, ...]
    denied: tuple[str, ...]
    mode: str = ""
    rules: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Event:
    """One outbound connection attempt."""

    time: datetime | None
    sandbox: str
    host: str
    allowed: bool
    verdict: str = ""
    mode: str = ""
    protocol: str = ""
    port: int | None = None
    rule: str = ""
    reason: str = ""
    count: int = 1
    id: int | None = None
    sandbox_id: str = ""
    bytes_in: int | None = None
    bytes_out: int | None = None
    duration_ms: float | None = None
    ended: str = ""
    address: str = ""


@dataclass(frozen=True)
class AuditPage:
    """A part of the audit log and the token that continues it (0: keep the one you have)."""

    events: tuple[Event, ...]
    token: int = 0


def connect(
    url: str | None = None,
    key: str | None = None,
    *,
    profile: str | None = None,
    env: Mapping[str, str] | None = None,
) -> Api:
    """Return a client for Python programs, with the settings that the commands would use.

    Args:
        url: The API's URL; by default as settings say.
        key: The key for it; by default as settings say.
        profile: The configuration profile to use.
        env: The environment to read settings from; by default this process's.

    Raises:
        ConfigError: The configuration makes no sense.
    """
    from irons.host import PluginHost
    from irons.settings import load

    settings = load({"api_url": url, "api_key": key, "profile": profile}, env)
    return open_api(settings, PluginHost(env=settings.env))


def open_api(settings: Settings, host: Any, log: Any = None) -> Api:
    """Return a client for the backend that settings choose, asking the host's plugins for URLs that are not HTTP.

    Raises:
        ConfigError: No plugin knows the URL, or the key would travel in clear to another machine.
        LocalError: The local backend can't run here.
    """
    from irons.backends import choose

    return Api(choose(settings, host), settings, log)


class Api:
    """One client, one connection pool; each method is one call of the wire contract and returns data.

    Raises (every method):
        ApiError: The server said no (`NotFound`, `AuthError`, `Conflict`, `Unsupported` among them).
        Unreachable: The server did not answer.
    """

    def __init__(self, backend: Backend, settings: Settings, log: Any = None) -> None:
        """Take where requests go and how long to wait; `log` is called with a line per request when debugging."""
        self.backend = backend
        self._settings = settings
        self._log = log
        self._opened: httpx.Client | None = None
        self._extensions: frozenset[str] | None = None

    # Sandboxes

    def create(self, name: str, public_key: str, **more: Any) -> Sandbox:
        """Create a sandbox; `more` are fields that irons' own server takes (mode, rules, image, cpus, memory, disk, engine)."""
        body = {"name": name, "public_key": public_key, **{k: v for k, v in more.items() if v is not None}}
        answer = self.call("POST", "/sandboxes", body, retry=False)
        return _sandbox({"name": name, "status": "creating", **answer})

    def list(self) -> tuple[Sandbox, ...]:
        """All sandboxes. Raises `Unsupported` where the server has no such route."""
        answer = self.call("GET", "/sandboxes", route=True)
        return tuple(_sandbox(row) for row in _rows(answer, "sandboxes"))

    def status(self, name: str, *, within: float | None = None) -> Sandbox:
        """One sandbox. `within` makes it one poll: asked once, for at most so many seconds."""
        path = f"/sandboxes/{_segment(name)}"
        answer = self.call("GET", path, retry=None if within is None else False, within=within)
        return _sandbox({"name": name, **answer})

    def start(self, name: str) -> None:
        """Ask for a sandbox to be started."""
        self.call("POST", f"/sandboxes/{_segment(name)}/start")

    def stop(self, name: str) -> None:
        """Ask for a sandbox to be stopped."""
        self.call("POST", f"/sandboxes/{_segment(name)}/stop")

    def destroy(self, name: str) -> None:
        """Destroy a sandbox; a running one is refused with `Conflict`."""
        self.call("DELETE", f"/sandboxes/{_segment(name)}")

    def ssh(self, name: str) -> SshAddress:
        """Where its SSH answers."""
        answer = self.call("GET", f"/sandboxes/{_segment(name)}/ssh")
        port = answer.get("port")
        keys = answer.get("host_keys")
        return SshAddress(
            host=str(answer.get("host", "")),
            port=port if isinstance(port, int) and not isinstance(port, bool) else 0,
            username=str(answer.get("username", "")),
            host_keys=tuple(str(k) for k in keys) if isinstance(keys, list) else (),
            cell=str(answer.get("cell") or ""),
        )

    # Egress

    def allow(self, domain: str, sandbox: str | None = None, **more: Any) -> dict[str, Any]:
        """Allow a domain; `more` are fields irons' own server takes (private, note, broad)."""
        return self.call(
            "POST", f"{_egress(sandbox)}/allow", {"domain": domain, **more}, route=sandbox is not None
        )

    def deny(self, domain: str, sandbox: str | None = None, **more: Any) -> dict[str, Any]:
        """Deny a domain."""
        return self.call(
            "POST", f"{_egress(sandbox)}/deny", {"domain": domain, **more}, route=sandbox is not None
        )

    def remove_rule(self, pattern: str, sandbox: str | None = None) -> dict[str, Any]:
        """Take a rule out of its list; needs irons' own server."""
        return self.call("DELETE", f"{_egress(sandbox)}/rules", params={"domain": pattern}, route=True)

    def rules(self, sandbox: str | None = None) -> EgressRules:
        """The allow and deny lists, account-wide or of one sandbox."""
        answer = self.call("GET", _egress(sandbox), route=sandbox is not None)
        return EgressRules(
            allowed=_texts(answer.get("allowed_domains")),
            denied=_texts(answer.get("denied_domains")),
            mode=str(answer.get("mode") or ""),
            rules=tuple(row for row in answer.get("rules") or () if isinstance(row, dict)),
        )

    def replace_rules(
        self, policy: Mapping[str, Any], sandbox: str | None = None, *, dry_run: bool = False
    ) -> dict[str, Any]:
        """Put a whole policy in place at once; needs irons' own server."""
        params = {"dry_run": "true"} if dry_run else None
        return self.call("PUT", _egress(sandbox), dict(policy), params=params, route=True)

    def mode(self, sandbox: str | None = None) -> dict[str, Any]:
        """The egress mode: `{"mode": "warn" | "deny", …}`."""
        return self.call("GET", f"{_egress(sandbox)}/mode", route=sandbox is not None)

    def set_mode(self, mode: str | None, sandbox: str | None = None) -> dict[str, Any]:
        """Set the egress mode; None makes a sandbox follow the account again."""
        return self.call("PUT", f"{_egress(sandbox)}/mode", {"mode": mode}, route=sandbox is not None)

    def check(self, host: str, sandbox: str | None = None) -> dict[str, Any]:
        """What the gateway would say of a host; needs irons' own server."""
        params = {"host": host, **({"sandbox": sandbox} if sandbox else {})}
        return self.call("GET", "/egress/check", params=params, route=True)

    # Audit

    def audit(self, sandbox: str | None = None, token: int = 0, **filters: Any) -> AuditPage:
        """One page of the audit log behind `token`; filters (since, until, verdict, host, limit, wait) need irons' own server."""
        path = f"/sandboxes/{_segment(sandbox)}/audit/egress" if sandbox else "/audit/egress"
        params = {k: str(v) for k, v in filters.items() if v is not None}
        if token:
            params["pageToken"] = str(token)
        wait = float(filters.get("wait") or 0)
        answer = self.call("GET", path, params=params, route=sandbox is None, patience=wait)
        next_token = answer.get("page_token")
        events = tuple(_event(row, sandbox or "") for row in _rows(answer, "events"))
        return AuditPage(events, next_token if isinstance(next_token, int) and next_token > 0 else 0)

    def events(self, sandbox: str | None = None, token: int = 0, **filters: Any) -> Iterator[Event]:
        """The whole audit log, oldest first, page after page until one is empty."""
        while True:
            page = self.audit(sandbox, token, **filters)
            yield from page.events
            if not page.events or not page.token or page.token == token:
                return
            token = page.token

    def version(self) -> dict[str, Any]:
        """What the server is: `{"name", "version", "extensions"}`; raises `Unsupported` at other servers."""
        return self.call("GET", "/version", route=True)

    @property
    def extensions(self) -> frozenset[str]:
        """What the server can beyond the wire contract, asked once; nothing where it does not say."""
        if self._extensions is None:
            try:
                told = self.version().get("extensions")
            except (Unsupported, NotFound):
                told = None
            self._extensions = frozenset(_texts(told))
        return self._extensions

    def need(self, extension: str, what: str) -> None:
        """Raise `Unsupported` where the server lacks an extension; `what` is what would be needed ("a server that …")."""
        if extension not in self.extensions:
            raise Unsupported(
                f"this takes {what}, and this one does not say that it can",
                hint="irons' own server can: --api-url local",
            )

    # The wire

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, str] | None = None,
        retry: bool | None = None,
        route: bool = False,
        patience: float = 0.0,
        within: float | None = None,
    ) -> dict[str, Any]:
        """Make one call and return its JSON object (empty where the body is).

        Args:
            method: GET, POST, PUT, DELETE.
            path: Relative to the API URL, its segments percent-encoded.
            body: Sent as JSON.
            params: The query.
            retry: Whether it may be sent again; by default all but POST /sandboxes may.
            route: The route is not in every server: a 404 or 405 that names no thing is `Unsupported`.
            patience: Seconds that the server may take beyond the read timeout.
            within: Seconds that neither timeout exceeds.
        """
        from irons.backends import load_httpx

        httpx = load_httpx()
        attempts = 1 if retry is False else RETRIES
        for attempt in range(1, attempts + 1):
            began = time.monotonic()
            try:
                response = self._client().request(
                    method,
                    path,
                    json=body,
                    params=params,
                    timeout=self._timeout(patience, within),
                )
            except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
                self._say(method, path, type(error).__name__, began)
                if attempt == attempts or isinstance(
                    error, (httpx.ReadTimeout, httpx.InvalidURL, httpx.UnsupportedProtocol)
                ):
                    raise self._unreachable(error) from None
                time.sleep(BACK_OFF * 2 ** (attempt - 1))
                continue
            self._say(method, path, str(response.status_code), began)
            if response.status_code in (429, 502, 503, 504) and attempt < attempts:
                time.sleep(_pause(response, attempt))
                continue
            return self._answer(response, route=route)
        raise AssertionError(attempts)

    def close(self) -> None:
        """Close the connections."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _client(self) -> httpx.Client:
        if self._opened is None:
            from irons.backends import client

            self._opened = client(self.backend, self._settings)
        return self._opened

    def _timeout(self, patience: float, within: float | None) -> Any:
        from irons.backends import load_httpx

        limit = float("inf") if within is None else within
        read = min(float(self._settings["read_timeout"]) + patience, limit)
        return load_httpx().Timeout(read, connect=min(float(self._settings["connect_timeout"]), limit))

    def _answer(self, response: httpx.Response, *, route: bool) -> dict[str, Any]:
        if response.status_code >= 400:
            raise _refusal(response, route=route)
        if not response.content.strip():
            return {}
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ApiError(
                f"the server at {self.backend.base_url} answered with something that is no JSON object: "
                f"{clean(response.text[:200].strip(), limit=80)!r}",
                hint="is this the URL of a v0 API? irons config show tells where it came from",
                status=response.status_code,
            )
        return answer

    def _unreachable(self, error: Exception) -> IronsError:
        from irons.backends import unreachable

        return unreachable(self.backend, self._settings, error)

    def _say(self, method: str, path: str, outcome: str, began: float) -> None:
        if self._log is not None:
            self._log(
                f"{method} {self.backend.base_url}{path} {outcome} {(time.monotonic() - began) * 1000:.1f} ms"
            )


def _refusal(response: httpx.Response, *, route: bool) -> ApiError:
    status = response.status_code
    said, named = _said(response)
    if status in (401, 403):
        return AuthError(
            said, hint="set a key by --api-key, IRONS_API_KEY or irons config set api_key KEY", status=status
        )
    if route and (status in (405, 501) or (status == 404 and not named)):
        return Unsupported(
            "this server can't do that: it has no such route",
            hint="irons' own server can: --api-url local",
            status=status,
        )
    if status == 404:
        return NotFound(said, hint="irons list shows what there is", status=status)
    if status == 409:
        return Conflict(said, status=status)
    return ApiError(said, status=status)


def _said(response: httpx.Response) -> tuple[str, bool]:
    """The server's own words, cleaned and cut, and whether they came as the contract's error object."""
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if isinstance(answer, dict) and isinstance(answer.get("error"), str) and answer["error"].strip():
        return clean(answer["error"].strip(), limit=300), True
    text = " ".join(response.text[:2000].split())
    reason = response.reason_phrase or "an error"
    return (
        f"the server said {response.status_code} {clean(reason)}"
        + (f": {clean(text, limit=160)}" if text else "")
    ), False


def _pause(response: httpx.Response, attempt: int) -> float:
    said = response.headers.get("retry-after", "")
    if said.isascii() and said.isdigit():
        return min(float(said), 30.0)
    return BACK_OFF * float(2 ** (attempt - 1))


def _segment(name: str) -> str:
    return quote(name, safe="")


def _egress(sandbox: str | None) -> str:
    return f"/sandboxes/{_segment(sandbox)}/egress" if sandbox else "/egress"


def _rows(answer: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    rows = answer.get(key)
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list) else ()


def _time(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    if found.tzinfo is None:
        from datetime import UTC

        return found.replace(tzinfo=UTC)
    return found


def _sandbox(row: Mapping[str, Any]) -> Sandbox:
    metadata = row.get("metadata")
    return Sandbox(
        name=str(row.get("name", "")),
        status=str(row.get("status", "")),
        id=str(row.get("id") or ""),
        created_at=_time(row.get("created_at")),
        updated_at=_time(row.get("updated_at")),
        metadata={str(k): str(v) for k, v in metadata.items()} if isinstance(metadata, dict) else {},
    )


def _event(row: Mapping[str, Any], sandbox: str) -> Event:
    get = row.get
    number = {
        key: get(key) if isinstance(get(key), int | float) else None
        for key in ("port", "id", "bytes_in", "bytes_out", "duration_ms")
    }
    count = get("count")
    return Event(
        time=_time(get("timestamp")),
        sandbox=str(get("sandbox_name") or sandbox),
        host=str(get("host", "")),
        allowed=get("allowed") is True,
        verdict=str(get("verdict") or ""),
        mode=str(get("mode") or ""),
        protocol=str(get("protocol") or ""),
        rule=str(get("rule") or ""),
        reason=str(get("reason") or ""),
        count=count if isinstance(count, int) else 1,
        sandbox_id=str(get("sandbox_id") or ""),
        ended=str(get("ended") or ""),
        address=str(get("address") or ""),
        **number,
    )
