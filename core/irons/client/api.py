"""The client of the IronCD v0 API, and of what irons' own server answers beyond it: a method a call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from irons.client.calling.calls import segment
from irons.client.calling.egress import EgressCalls
from irons.client.calling.questions import QuestionCalls
from irons.client.calling.snapshots import SnapshotCalls
from irons.client.models.fields import rows_of, text_of
from irons.client.models.sandboxes import AuthorizedKey, Sandbox, SshAddress
from irons.errors import ApiError

if TYPE_CHECKING:
    from typing import Unpack

    from irons.client.models.audit import AuditFilters, AuditPage, HostFilters, HostTried, Totals
    from irons.client.models.changes import ChangeFilters, ChangesPage
    from irons.client.models.sandboxes import CreateOptions, NewTerms
    from irons.client.models.server import ApiKey, FleetMember, ImageInfo, NewApiKey, NewMember
    from irons.settings.settings import Settings
    from irons_policy.event import Event

__all__ = ["PAGE_SIZE", "Api", "Sandbox", "SshAddress", "connect", "open_api"]

PAGE_SIZE = 1_000
"""Events of a page, where a log is longer than what its server sends at once."""


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


class Api(EgressCalls, QuestionCalls, SnapshotCalls):
    """One client, one connection pool; each method is one call of the wire contract and returns data.

    Raises (every method):
        ApiError: The server refused (`NotFound`, `AuthError`, `Conflict`, `Unsupported` among them).
        Unreachable: The server did not answer.
    """

    # Sandboxes

    def create(self, name: str, public_key: str, **more: Unpack[CreateOptions]) -> Sandbox:
        """Create a sandbox, and remember that this profile made it.

        `more` is described at `CreateOptions`. With an allow rule and no `mode` the mode is `deny`; `mode=None` follows all sandboxes' mode.
        """
        if more.get("snapshot"):
            self.need("snapshots", "a server that makes snapshots")
        if "mode" not in more and any(rule.get("list") == "allow" for rule in more.get("rules") or ()):
            more["mode"] = "deny"
        body = {"name": name, "public_key": public_key, **{k: v for k, v in more.items() if v is not None}}
        answer = self.call("POST", "/sandboxes", body, retry=False)
        made = Sandbox.of({"name": name, "status": "creating", **answer})
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
        return tuple(map(Sandbox.of, rows_of(answer, "sandboxes")))

    def status(self, name: str, *, within: float | None = None, wait: float = 0.0) -> Sandbox:
        """One sandbox. `within` makes it one poll: asked once, for at most so many seconds.

        `wait` has the server answer only once the sandbox is made, started or stopped, or so many seconds have passed; needs irons' own server.
        """
        path = f"/sandboxes/{segment(name)}"
        params = {"wait": f"{wait:.3f}"} if wait else None
        answer = self.call(
            "GET", path, params=params, retry=None if within is None else False, within=within, patience=wait
        )
        found = Sandbox.of({"name": name, **answer})
        if not found.status:
            raise ApiError(
                f"the server's answer does not say what state {name} is in",
                hint="is this the URL of a v0 API? irons config show names its source",
            )
        return found

    def wait(self, name: str, state: str = "ready", *, timeout: float | None = None) -> Sandbox:
        """Wait until a sandbox is in a state, through failed polls, and return it.

        Args:
            name: The sandbox.
            state: The state, such as `ready` or `stopped`.
            timeout: Seconds to wait; by default the setting `wait_timeout`.

        Raises:
            TimedOut: It did not come to pass in time.
            IronsError: The sandbox went into `error`; the message has the server's reason.
        """
        from irons.client.following.waiting import wait_for_state

        patience = float(self._settings["wait_timeout"]) if timeout is None else timeout
        return wait_for_state(self, name, state, patience)

    def change(self, name: str, **terms: Unpack[NewTerms]) -> Sandbox:
        """Change how long a sandbox may live; needs irons' own server.

        `terms` are `ttl` and `idle_stop` in seconds (None: no limit) and `rm`, whether it is destroyed at the end of its ttl.
        """
        self.need("terms", "a server that ends sandboxes by time")
        return Sandbox.of({"name": name, **self.call("PATCH", f"/sandboxes/{segment(name)}", terms)})

    def extend(self, name: str, seconds: float) -> Sandbox:
        """Move the end of a sandbox's time to live on; needs irons' own server."""
        self.need("terms", "a server that ends sandboxes by time")
        path = f"/sandboxes/{segment(name)}/extend"
        return Sandbox.of({"name": name, **self.call("POST", path, {"seconds": int(seconds)}, retry=False)})

    def hold(self, name: str, *, wait: float = 20.0) -> bool:
        """Hold a sandbox that was created with `held=True`, for up to `wait` seconds; needs irons' own server.

        When no call holds it for a minute it is destroyed, no matter what runs in it. Returns whether it still ends that way.
        """
        path = f"/sandboxes/{segment(name)}/hold"
        answer = self.call("POST", path, params={"wait": str(wait)}, retry=False, patience=wait)
        return answer.get("held") is True

    def release(self, name: str) -> None:
        """Let a sandbox that was created with `held=True` live on; needs irons' own server."""
        self.call("DELETE", f"/sandboxes/{segment(name)}/hold")

    def start(self, name: str, *, boot: bool = True) -> None:
        """Ask for a sandbox to be started; without `boot` nothing in it starts by itself, which needs irons' own server."""
        params = None if boot else {"boot": "false"}
        self.call("POST", f"/sandboxes/{segment(name)}/start", params=params)

    def boot_output(self, name: str) -> str:
        """The last 64 KiB of what a sandbox printed while it booted; needs irons' own server."""
        return text_of(self.call("GET", f"/sandboxes/{segment(name)}/boot").get("output"))

    def stop(self, name: str) -> None:
        """Ask for a sandbox to be stopped."""
        self.call("POST", f"/sandboxes/{segment(name)}/stop")

    def destroy(self, name: str) -> None:
        """Destroy a sandbox; a running one is refused with `Conflict`.

        irons' own server answers when all files of it are removed, which is waited for as a state is (the setting `wait_timeout`).
        """
        patience = float(self._settings["wait_timeout"])
        self.call("DELETE", f"/sandboxes/{segment(name)}", patience=patience)

    def ssh(self, name: str) -> SshAddress:
        """Where its SSH answers."""
        return SshAddress.of(self.call("GET", f"/sandboxes/{segment(name)}/ssh"))

    # Who may enter

    def access(self, name: str) -> tuple[AuthorizedKey, ...]:
        """The public keys that open a sandbox; needs irons' own server."""
        return self._access("GET", name)

    def add_access(self, name: str, public_key: str) -> tuple[AuthorizedKey, ...]:
        """Have a sandbox opened by the keys of a public key file's text, too; all that open it then."""
        return self._access("POST", name, body={"public_key": public_key})

    def remove_access(self, name: str, key: str) -> tuple[AuthorizedKey, ...]:
        """Have a sandbox opened by a key, named by its id, no longer; those that still open it."""
        return self._access("DELETE", name, f"/{segment(key)}")

    def _access(
        self, method: str, name: str, which: str = "", body: Mapping[str, str] | None = None
    ) -> tuple[AuthorizedKey, ...]:
        answer = self.call(method, f"/sandboxes/{segment(name)}/access{which}", body, route=True)
        return tuple(map(AuthorizedKey.of, rows_of(answer, "keys")))

    # Audit

    def audit(self, sandbox: str | None = None, token: int = 0, **filters: Unpack[AuditFilters]) -> AuditPage:
        """One page of the audit log after `token`; filters need irons' own server.

        They are since, until, verdict, outcome, host, limit, wait, page_size, changes, ids, export and columns.
        """
        from irons.client.models.audit import AuditPage

        path = f"/sandboxes/{segment(sandbox)}/audit/egress" if sandbox else "/audit/egress"
        # Truth values are `true` and `false` on the wire.
        params = _on_the_wire(
            {
                k: str(v).lower() if isinstance(v, bool) else str(v)
                for k, v in filters.items()
                if v is not None
            }
        )
        if token:
            params["pageToken"] = str(token)
        wait = float(filters.get("wait") or 0)
        answer = self.call("GET", path, params=params, route=sandbox is None, patience=wait)
        return AuditPage.of(answer, sandbox or "")

    def hosts(self, sandbox: str, **filters: Unpack[HostFilters]) -> tuple[HostTried, ...]:
        """What a sandbox tried by host, the one tried last at the end; needs irons' own server. Filters: verdict, host, limit."""
        from irons.client.models.audit import HostTried

        path = f"/sandboxes/{segment(sandbox)}/audit/hosts"
        params = _on_the_wire({k: str(v) for k, v in filters.items() if v is not None})
        answer = self.call("GET", path, params=params)
        return tuple(map(HostTried.of, rows_of(answer, "hosts")))

    def totals(self, sandbox: str, *, within: float | None = None) -> Totals:
        """How many connections a sandbox has tried, and how many were refused; needs irons' own server. `within` as for `status`."""
        from irons.client.models.audit import Totals

        path = f"/sandboxes/{segment(sandbox)}/audit/totals"
        return Totals.of(self.call("GET", path, retry=None if within is None else False, within=within))

    def events(
        self, sandbox: str | None = None, token: int = 0, **filters: Unpack[AuditFilters]
    ) -> Iterator[Event]:
        """The whole audit log, oldest first, page after page until one is empty. Raises `ApiError` where it never ends."""
        from irons.client.models.audit import Pages

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

    def changes(
        self, sandbox: str | None = None, token: int = 0, **filters: Unpack[ChangeFilters]
    ) -> ChangesPage:
        """One page of the change log after `token`: of one sandbox, or all changes; needs irons' own server."""
        from irons.client.models.changes import ChangesPage

        self.need("change-log", "a server that records changes")
        path = f"/sandboxes/{segment(sandbox)}/audit/changes" if sandbox else "/audit/changes"
        params = {k: str(v) for k, v in filters.items() if v is not None}
        if token:
            params["pageToken"] = str(token)
        return ChangesPage.of(self.call("GET", path, params=params, patience=filters.get("wait") or 0))

    # The server

    def images(self) -> tuple[ImageInfo, ...]:
        """The images that sandboxes can start from, newest first; needs irons' own server."""
        from irons.client.models.server import ImageInfo

        return tuple(map(ImageInfo.of, rows_of(self.call("GET", "/images", route=True), "images")))

    def keys(self) -> tuple[ApiKey, ...]:
        """The API keys; needs irons' own server, reached from its own machine."""
        from irons.client.models.server import ApiKey

        return tuple(map(ApiKey.of, rows_of(self.call("GET", "/keys", route=True), "keys")))

    def create_key(self, label: str, role: str | None = None) -> NewApiKey:
        """Make an API key, as `keys` does; this answer alone has what opens the API.

        Args:
            label: What to call it.
            role: What it may do: `admin`, `user` or `auditor`; None leaves it to the server, whose keys may do all.
        """
        from irons.client.models.server import NewApiKey

        if role is not None:
            self.need("key-roles", "a server whose keys have roles")
        body = {"label": label} if role is None else {"label": label, "role": role}
        return NewApiKey.of(self.call("POST", "/keys", body, route=True, retry=False))

    def revoke_key(self, key: str) -> None:
        """Revoke an API key by its id or label, as `keys` does."""
        self.call("DELETE", f"/keys/{segment(key)}", route=True)

    def members(self) -> tuple[FleetMember, ...]:
        """The members of the fleet; needs irons' own server, reached from its own machine."""
        from irons.client.models.server import FleetMember

        return tuple(map(FleetMember.of, rows_of(self.call("GET", "/fleet/members", route=True), "members")))

    def add_member(self, name: str, address: str | None = None) -> NewMember:
        """Make a token by which a machine joins the fleet, as `members` does.

        Args:
            name: The member's.
            address: `HOST:PORT` at which it reaches the server; None is where the server listens.
        """
        from irons.client.models.server import NewMember

        body = {"name": name} if address is None else {"name": name, "address": address}
        return NewMember.of(self.call("POST", "/fleet/members", body, route=True, retry=False))

    def remove_member(self, name: str) -> None:
        """Remove a member of the fleet, as `members` does."""
        self.call("DELETE", f"/fleet/members/{segment(name)}", route=True)


def _on_the_wire(filters: dict[str, str]) -> dict[str, str]:
    """Filters with the wire's words for the verdicts."""
    if "verdict" not in filters:
        return filters
    from irons.terminal.words import wire_verdict

    return {**filters, "verdict": wire_verdict(filters["verdict"]) or ""}
