"""The client of the IronCD v0 API, and of what irons' own server answers beyond it: a method a call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import quote

from irons.client.models import (
    AuditPage,
    EgressRules,
    HostTried,
    Pages,
    RulesChanged,
    Sandbox,
    ServerInfo,
    SshAddress,
    Totals,
    event_of,
    host_of,
    rotated_of,
    rows_of,
    rules_changed_of,
    sandbox_of,
    text_of,
    texts_of,
    unrecorded_of,
    whole_of,
)
from irons.client.transport import Transport
from irons.errors import ApiError, NotFound, Unsupported
from irons_policy.event import Event

if TYPE_CHECKING:
    from typing import Unpack

    from irons.client.made import MadeSandboxes
    from irons.client.models import AuditFilters, CreateOptions, HostFilters, NewTerms
    from irons.hookspecs import Backend
    from irons.settings.settings import Settings

PAGE_SIZE = 1_000
"""Events of a page, where a log is longer than what its server sends at once."""

__all__ = [
    "Api",
    "AuditPage",
    "EgressRules",
    "Event",
    "HostTried",
    "RulesChanged",
    "Sandbox",
    "SshAddress",
    "Totals",
    "connect",
    "open_api",
]


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
        ConfigError: The configuration is invalid.
    """
    from irons.host import PluginHost
    from irons.settings.settings import load

    settings = load({"api_url": url, "api_key": key, "profile": profile}, env)
    return open_api(settings, PluginHost(env=settings.env))


def open_api(settings: Settings, host: Any, log: Any = None) -> Api:
    """Return a client for the backend that settings choose, asking the host's plugins for URLs that are not HTTP.

    Raises:
        ConfigError: No plugin knows the URL, or the key would be sent in clear text to another machine.
        LocalError: The local backend can't run here.
    """
    from irons.client.backends import choose

    return Api(choose(settings, host), settings, log)


class Api:
    """One client, one connection pool; each method is one call of the wire contract and returns data.

    Raises (every method):
        ApiError: The server refused (`NotFound`, `AuthError`, `Conflict`, `Unsupported` among them).
        Unreachable: The server did not answer.
    """

    def __init__(self, backend: Backend, settings: Settings, log: Any = None) -> None:
        """Take where requests go and how long to wait; `log` is called with a line per request when debugging."""
        self.backend = backend
        self._settings = settings
        self._wire = Transport(backend, settings, log)
        self._extensions: frozenset[str] | None = None
        self._is_irons = False

    def begin_command(self) -> None:
        """Give the requests from now on an id of their own, where a face keeps this client from command to command."""
        self._wire.renew_id()

    @property
    def made(self) -> MadeSandboxes:
        """Which sandboxes the settings' profile made here."""
        from irons.client.made import MadeSandboxes

        return MadeSandboxes.of(self._settings)

    # Sandboxes

    def create(self, name: str, public_key: str, **more: Unpack[CreateOptions]) -> Sandbox:
        """Create a sandbox, and remember that this profile made it.

        `more` is described at `CreateOptions`. With an allow rule and no `mode` the mode is `deny`; `mode=None` follows all sandboxes' mode.
        """
        if "mode" not in more and any(rule.get("list") == "allow" for rule in more.get("rules") or ()):
            more["mode"] = "deny"
        body = {"name": name, "public_key": public_key, **{k: v for k, v in more.items() if v is not None}}
        answer = self.call("POST", "/sandboxes", body, retry=False)
        made = sandbox_of({"name": name, "status": "creating", **answer})
        self.made.add(made.id)
        return made

    def list(self, labels: Iterable[str] = ()) -> tuple[Sandbox, ...]:
        """All sandboxes, or those with all of these labels (`key=value`, or `key` alone; needs irons' own server).

        Raises `Unsupported` where the server has no such route.
        """
        wanted = ",".join(labels)
        if wanted:
            self.need("labels", "a server that knows of labels")
        answer = self.call("GET", "/sandboxes", params={"label": wanted} if wanted else None, route=True)
        return tuple(sandbox_of(row) for row in rows_of(answer, "sandboxes"))

    def status(self, name: str, *, within: float | None = None, wait: float = 0.0) -> Sandbox:
        """One sandbox. `within` makes it one poll: asked once, for at most so many seconds.

        `wait` has the server answer only once the sandbox is made, started or stopped, or so many seconds have passed; needs irons' own server.
        """
        path = f"/sandboxes/{_segment(name)}"
        params = {"wait": f"{wait:.3f}"} if wait else None
        answer = self.call(
            "GET", path, params=params, retry=None if within is None else False, within=within, patience=wait
        )
        found = sandbox_of({"name": name, **answer})
        if not found.status:
            raise ApiError(
                f"the server's answer does not say what state {name} is in",
                hint="is this the URL of a v0 API? irons config show names its source",
            )
        return found

    def change(self, name: str, **terms: Unpack[NewTerms]) -> Sandbox:
        """Change how long a sandbox may live; needs irons' own server.

        `terms` are `ttl` and `idle_stop` in seconds (None: no limit) and `rm`, whether it is destroyed at the end of its ttl.
        """
        self.need("terms", "a server that ends sandboxes by time")
        return sandbox_of({"name": name, **self.call("PATCH", f"/sandboxes/{_segment(name)}", terms)})

    def extend(self, name: str, seconds: float) -> Sandbox:
        """Move the end of a sandbox's time to live on; needs irons' own server."""
        self.need("terms", "a server that ends sandboxes by time")
        path = f"/sandboxes/{_segment(name)}/extend"
        return sandbox_of({"name": name, **self.call("POST", path, {"seconds": int(seconds)}, retry=False)})

    def hold(self, name: str, *, wait: float = 20.0) -> bool:
        """Hold a sandbox that was created with `held=True`, for up to `wait` seconds; needs irons' own server.

        When no call holds it for a minute it is destroyed, no matter what runs in it. Returns whether it still ends that way.
        """
        path = f"/sandboxes/{_segment(name)}/hold"
        answer = self.call("POST", path, params={"wait": str(wait)}, retry=False, patience=wait)
        return answer.get("held") is True

    def release(self, name: str) -> None:
        """Let a sandbox that was created with `held=True` live on; needs irons' own server."""
        self.call("DELETE", f"/sandboxes/{_segment(name)}/hold")

    def start(self, name: str, *, boot: bool = True) -> None:
        """Ask for a sandbox to be started; without `boot` nothing in it starts by itself, which needs irons' own server."""
        params = None if boot else {"boot": "false"}
        self.call("POST", f"/sandboxes/{_segment(name)}/start", params=params)

    def boot_output(self, name: str) -> str:
        """The last 64 KiB of what a sandbox printed while it booted; needs irons' own server."""
        return text_of(self.call("GET", f"/sandboxes/{_segment(name)}/boot").get("output"))

    def stop(self, name: str) -> None:
        """Ask for a sandbox to be stopped."""
        self.call("POST", f"/sandboxes/{_segment(name)}/stop")

    def destroy(self, name: str) -> None:
        """Destroy a sandbox; a running one is refused with `Conflict`."""
        self.call("DELETE", f"/sandboxes/{_segment(name)}")

    def ssh(self, name: str) -> SshAddress:
        """Where its SSH answers."""
        answer = self.call("GET", f"/sandboxes/{_segment(name)}/ssh")
        return SshAddress(
            host=text_of(answer.get("host")),
            port=whole_of(answer.get("port")) or 0,
            username=text_of(answer.get("username")),
            host_keys=texts_of(answer.get("host_keys")),
            cell=text_of(answer.get("cell")),
            command=text_of(answer.get("command")),
            oom_kills=whole_of(answer.get("oom_kills")),
            memory=whole_of(answer.get("memory")),
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

    def change_rules(
        self,
        kind: Literal["allow", "deny", "remove"],
        patterns: Sequence[str],
        sandbox: str | None = None,
        *,
        private: Sequence[str] = (),
        note: str = "",
        broad: bool = False,
        dry_run: bool = False,
    ) -> RulesChanged:
        """Allow, deny or remove patterns in one request: all of them, or none.

        More than one pattern, and `dry_run`, need a server with the extension `rule-batches`: any other one would carry out
        a dry run.

        Args:
            kind: What is done.
            patterns: One at least.
            sandbox: Whose rules; None for the account's.
            private: Networks that allowed names may lead to.
            note: Kept with each rule.
            broad: Accept wildcards over private public suffixes.
            dry_run: Change nothing; the answer is what it would be.
        """
        params = {"dry_run": "true"} if dry_run else {}
        if kind == "remove" and len(patterns) == 1:
            params["domain"] = patterns[0]
            answer = self.call("DELETE", f"{_egress(sandbox)}/rules", params=params, route=True)
        else:
            which = {"domain": patterns[0]} if len(patterns) == 1 else {"domains": list(patterns)}
            more = {"private": list(private), "note": note, "broad": broad}
            body = {**which, **{key: value for key, value in more.items() if value}}
            route = sandbox is not None or kind == "remove"
            answer = self.call(
                "POST",
                f"{_egress(sandbox)}/{kind}",
                body,
                params=params,
                removes=kind == "remove",
                route=route,
            )
        return rules_changed_of(answer, patterns)

    def rules(self, sandbox: str | None = None) -> EgressRules:
        """The allow and deny lists, account-wide or of one sandbox."""
        answer = self.call("GET", _egress(sandbox), route=sandbox is not None)
        return EgressRules(
            allowed=texts_of(answer.get("allowed_domains")),
            denied=texts_of(answer.get("denied_domains")),
            mode=text_of(answer.get("mode")),
            rules=tuple(rows_of(answer, "rules")),
            revision=text_of(answer.get("revision")),
        )

    def replace_rules(
        self, policy: Mapping[str, Any], sandbox: str | None = None, *, dry_run: bool = False
    ) -> dict[str, Any]:
        """Put a whole policy in place at once; needs irons' own server.

        A policy with the `revision` of the rules it was made of is refused with `Conflict` where they have changed since.
        """
        params = {"dry_run": "true"} if dry_run else None
        return self.call("PUT", _egress(sandbox), dict(policy), params=params, route=True)

    def mode(self, sandbox: str | None = None) -> dict[str, Any]:
        """The egress mode: `{"mode": "warn" | "deny", …}`."""
        return self.call("GET", f"{_egress(sandbox)}/mode", route=sandbox is not None)

    def set_mode(
        self, mode: str | None, sandbox: str | None = None, *, dry_run: bool = False
    ) -> dict[str, Any]:
        """Set the egress mode; None makes a sandbox follow the account again.

        With `dry_run` nothing changes, and the answer is what it would be; needs the extension `rule-batches`.
        """
        params = {"dry_run": "true"} if dry_run else None
        return self.call(
            "PUT", f"{_egress(sandbox)}/mode", {"mode": mode}, params=params, route=sandbox is not None
        )

    def check(self, host: str, sandbox: str | None = None, *, live: bool = False) -> dict[str, Any]:
        """What the gateway would say of a host, and with `live` how it reaches it; needs irons' own server."""
        params = {
            "host": host,
            **({"sandbox": sandbox} if sandbox else {}),
            **({"live": "true"} if live else {}),
        }
        return self.call("GET", "/egress/check", params=params, route=True)

    # Audit

    def audit(self, sandbox: str | None = None, token: int = 0, **filters: Unpack[AuditFilters]) -> AuditPage:
        """One page of the audit log after `token`; filters need irons' own server.

        They are since, until, verdict, host, limit, wait, page_size and changes.
        """
        path = f"/sandboxes/{_segment(sandbox)}/audit/egress" if sandbox else "/audit/egress"
        params = {k: str(v) for k, v in filters.items() if v is not None}
        if token:
            params["pageToken"] = str(token)
        wait = float(filters.get("wait") or 0)
        answer = self.call("GET", path, params=params, route=sandbox is None, patience=wait)
        events = tuple(event_of(row, sandbox or "") for row in rows_of(answer, "events"))
        names = ("page_token", "left_out", "change_token")
        token, left_out, cursor = (max(0, whole_of(answer.get(name)) or 0) for name in names)
        rotated = tuple(rotated_of(row, sandbox or "") for row in rows_of(answer, "rotated"))
        unrecorded = tuple(unrecorded_of(row, sandbox or "") for row in rows_of(answer, "unrecorded"))
        changed = tuple(event_of(row, sandbox or "") for row in rows_of(answer, "changed"))
        return AuditPage(events, token, left_out, rotated, unrecorded, changed, cursor)

    def hosts(self, sandbox: str, **filters: Unpack[HostFilters]) -> tuple[HostTried, ...]:
        """What a sandbox tried by host, the one tried last at the end; needs irons' own server. Filters: verdict, host, limit."""
        path = f"/sandboxes/{_segment(sandbox)}/audit/hosts"
        params = {k: str(v) for k, v in filters.items() if v is not None}
        answer = self.call("GET", path, params=params)
        return tuple(host_of(row) for row in rows_of(answer, "hosts"))

    def totals(self, sandbox: str, *, within: float | None = None) -> Totals:
        """How many connections a sandbox has tried, and how many were refused; needs irons' own server. `within` as for `status`."""
        path = f"/sandboxes/{_segment(sandbox)}/audit/totals"
        answer = self.call("GET", path, retry=None if within is None else False, within=within)
        return Totals(*(max(0, whole_of(answer.get(name)) or 0) for name in ("connections", "refused")))

    def events(
        self, sandbox: str | None = None, token: int = 0, **filters: Unpack[AuditFilters]
    ) -> Iterator[Event]:
        """The whole audit log, oldest first, page after page until one is empty. Raises `ApiError` where it never ends."""
        turned = Pages()
        while True:
            page = self.audit(sandbox, token, **filters)
            if page.left_out and "page_size" not in filters:
                filters = {**filters, "page_size": PAGE_SIZE}
                continue
            yield from page.events
            if not page.events or not page.token or page.token == token:
                return
            token = page.token
            turned.to(token)

    def version(self) -> ServerInfo:
        """What the server is; raises `Unsupported` at other servers."""
        answer = self.call("GET", "/version", route=True)
        return ServerInfo(
            text_of(answer.get("name")), text_of(answer.get("version")), texts_of(answer.get("extensions"))
        )

    @property
    def extensions(self) -> frozenset[str]:
        """What the server can beyond the wire contract, asked once; nothing where it does not say."""
        if self._extensions is None:
            try:
                server = self.version()
            except (Unsupported, NotFound):
                self._extensions = frozenset()
            else:
                self._extensions, self._is_irons = frozenset(server.extensions), server.name == "irons"
        return self._extensions

    def need(self, extension: str, what: str) -> None:
        """Raise `Unsupported` where the server lacks an extension; `what` is what would be needed ("a server that …")."""
        if extension not in self.extensions:
            older = "the server is an older irons: end it by `irons local down` where it runs; the next command starts the newer one"
            raise Unsupported(
                f"this needs {what}; this one does not report that it can",
                hint=older if self._is_irons else "irons' own server can: --api-url local",
            )

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, str] | None = None,
        retry: bool | None = None,
        removes: bool | None = None,
        route: bool = False,
        patience: float = 0.0,
        within: float | None = None,
    ) -> dict[str, Any]:
        """Make one call and return its JSON object (empty where the body is), for routes that have no method here.

        Args:
            method: GET, POST, PUT, PATCH, DELETE.
            path: Relative to the API URL, its segments percent-encoded.
            body: Sent as JSON.
            params: The query.
            retry: Whether it may be sent again; by default all but POST /sandboxes may.
            removes: The call removes things: where its answer was lost and it is sent again, a 404 means that it is done.
                By default DELETE does.
            route: The route is not in every server: a 404 or 405 that names no thing is `Unsupported`.
            patience: Seconds that the server may take beyond the read timeout.
            within: Seconds that neither timeout exceeds.
        """
        return self._wire.call(
            method,
            path,
            body,
            params=params,
            retry=retry is not False,
            removes=method == "DELETE" if removes is None else removes,
            route=route,
            patience=patience,
            within=within,
        )

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _segment(name: str) -> str:
    return quote(name, safe="")


def _egress(sandbox: str | None) -> str:
    return f"/sandboxes/{_segment(sandbox)}/egress" if sandbox else "/egress"
