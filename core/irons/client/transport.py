"""One call of the v0 API over HTTP: sent, sent again where that is safe, its answer read or its refusal made an error.

No httpx exception leaves this module.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from irons.client.backends import unreachable
from irons.client.channels import Channel, channel
from irons.client.receiving import Reply
from irons.errors import ApiError, AuthError, Conflict, NotFound, Unsupported, UsageError
from irons.text import clean

if TYPE_CHECKING:
    from irons.hookspecs import Backend
    from irons.settings.settings import Settings

ATTEMPTS = 4
BACK_OFF = 0.2
"""Seconds before the first retry; doubled each time."""

LONGEST_PAUSE = 30.0
"""The most seconds of a Retry-After that are waited."""

CONNECT_SHARE = 0.9
"""How much of the connect timeout the attempts to connect may take together, so that the whole command ends within it."""

WHOLE = 5.0
"""How many times the read timeout an answer may take from its request to its last byte."""

_AGAIN = (429, 502, 503, 504)


class Transport:
    """One channel to the server, and the rules by which a call is tried again."""

    def __init__(self, backend: Backend, settings: Settings, log: Callable[[str], None] | None) -> None:
        """Take where requests go and how long to wait; `log` is called with a line per request when debugging."""
        self._backend = backend
        self._settings = settings
        self._log = log
        self.face = "library"
        self.renew_id()
        self._channel: Channel | None = None

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        *,
        params: Mapping[str, str] | None,
        retry: bool,
        removes: bool,
        route: bool,
        patience: float,
        within: float | None,
    ) -> dict[str, Any]:
        """Make one call; the arguments are those of `Api.call`."""
        if self._channel is None:
            self._channel = channel(self._backend, self._settings)
        way = self._channel
        read, connect = self._timeouts(patience, within)
        whole = read if within is not None else read * WHOLE
        attempts = ATTEMPTS if retry else 1
        give_up = time.monotonic() + connect
        arrived = False
        for attempt in range(1, attempts + 1):
            began = time.monotonic()
            pause = BACK_OFF * 2 ** (attempt - 1)
            try:
                reply = way.send(
                    method,
                    path,
                    body=body,
                    params=params,
                    request_id=self.request_id,
                    face=self.face,
                    read=read,
                    connect=max(give_up - began, 0.01),
                    whole=whole,
                )
            except way.failures as error:
                self._say(method, path, type(error).__name__, began)
                now = time.monotonic()
                if not isinstance(error, way.unsent):
                    arrived = True
                    give_up = now + pause + connect
                if attempt == attempts or isinstance(error, way.final) or now + pause >= give_up:
                    raise unreachable(self._backend, self._settings, error) from None
            except UnicodeEncodeError:
                raise UsageError(
                    "an argument is not valid UTF-8 (it has a lone surrogate), so no request can carry it"
                ) from None
            else:
                self._say(method, path, str(reply.status), began)
                if removes and reply.status == 404 and arrived:
                    # The first try did it, and only its answer was lost.
                    return {}
                arrived = True
                if reply.status not in _AGAIN or attempt == attempts:
                    return self._read(reply, path, route=route)
                pause = _asked_pause(reply, pause)
                give_up = time.monotonic() + pause + connect
            time.sleep(pause)
        raise AssertionError(attempts)

    def renew_id(self) -> None:
        """Begin another command: the requests of one have the same id."""
        # `secrets` would import what most commands do without.
        self.request_id = os.urandom(8).hex()

    def close(self) -> None:
        """Close the connections."""
        if self._channel is not None:
            self._channel.close()

    def _timeouts(self, patience: float, within: float | None) -> tuple[float, float]:
        limit = float("inf") if within is None else within
        read = min(float(self._settings["read_timeout"]) + patience, limit)
        return read, min(float(self._settings["connect_timeout"]) * CONNECT_SHARE, limit)

    def _read(self, reply: Reply, path: str, *, route: bool) -> dict[str, Any]:
        if not 200 <= reply.status < 300:
            raise _refusal(reply, path, route=route)
        if not reply.content.strip():
            return {}
        answer = reply.object()
        if answer is None:
            raise ApiError(
                f"the server at {clean(self._backend.base_url)} answered with something that is not a JSON object: "
                f"{reply.excerpt(80)!r}",
                hint="is this the URL of a v0 API? irons config show names its source",
                status=reply.status,
            )
        return answer

    def _say(self, method: str, path: str, outcome: str, began: float) -> None:
        if self._log is not None:
            took = (time.monotonic() - began) * 1000
            self._log(
                f"{method} {self._backend.base_url}{path} {outcome} {took:.1f} ms, request {self.request_id}"
            )


_LISTS = (
    ("/egress/check", "irons list shows what there is"),
    ("/egress", "irons egress list --all shows the rules"),
    ("/keys", "irons local key list shows the keys"),
    ("/images", "irons image list shows the images"),
)
"""By the beginning of a path: the hint where what it names is not there, and the server gives none."""


def _listed_by(path: str) -> str:
    """Return the hint where what a path names is not there."""
    parts = path.split("/")
    if parts[1:2] == ["sandboxes"] and parts[3:] in (["egress", "rules"], ["egress", "remove"]):
        return f"irons egress list --sandbox {parts[2]} shows its rules"
    named_by = (about for begin, about in _LISTS if path.startswith(begin))
    return next(named_by, "irons list shows what there is")


def _refusal(reply: Reply, path: str, *, route: bool) -> ApiError:
    status = reply.status
    said, named = _error_text(reply)
    if 300 <= status < 400 and reply.location:
        return _redirected(reply)
    hint = (reply.object() or {}).get("hint")
    shown = clean(hint.strip(), limit=300) if isinstance(hint, str) else ""
    if status in (401, 403):
        another = "set a key by --api-key, IRONS_API_KEY or irons config set api_key KEY"
        return AuthError(said, hint=shown or another, status=status)
    if route and (status in (405, 501) or (status == 404 and not named)):
        return Unsupported(
            "this server can't do that: it has no such route",
            hint="irons' own server can: --api-url local",
            status=status,
        )
    if status == 404:
        return NotFound(said, hint=shown or _listed_by(path), status=status)
    if status == 409:
        return Conflict(said, hint=shown, status=status)
    return ApiError(said, hint=shown, status=status)


def _redirected(reply: Reply) -> ApiError:
    """Redirects are not followed, for the key would go along; a person may do it."""
    reason = clean(reply.reason, limit=80) or "a redirect"
    try:
        target = urlsplit(reply.location)
        there = (
            f"{target.scheme}://{target.netloc.rpartition('@')[2]}"
            if target.scheme and target.hostname
            else ""
        )
    except ValueError:
        there = ""
    where = clean(there or reply.location, limit=100)
    return ApiError(
        f"the server answered {reply.status} {reason}: it redirects to {where}",
        hint=f"redirects are not followed; is the API URL {where}?"
        if there
        else "is this the URL of a v0 API?",
        status=reply.status,
    )


def _error_text(reply: Reply) -> tuple[str, bool]:
    """The server's own words, cleaned and cut, and whether they came as the contract's error object."""
    told = (reply.object() or {}).get("error")
    if isinstance(told, str) and told.strip():
        return clean(told.strip(), limit=300), True
    text = reply.excerpt(160)
    reason = clean(reply.reason, limit=80) or "an error"
    return f"the server answered {reply.status} {reason}" + (f": {text}" if text else ""), False


def _asked_pause(reply: Reply, otherwise: float) -> float:
    """Seconds that the server asks to be left alone (RFC 9110, 10.2.3; its date form is not read)."""
    said = reply.retry_after
    return min(float(said), LONGEST_PAUSE) if said.isascii() and said.isdigit() else otherwise
