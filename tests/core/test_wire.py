"""The client against a server that misbehaves."""

from __future__ import annotations

import inspect
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from tests.ports import reserved_port

from irons.client.api import Api
from irons.client.backends import unreachable
from irons.client.channels import HttpxChannel
from irons.errors import (
    ApiError,
    AuthError,
    ConfigError,
    Conflict,
    IronsError,
    NotFound,
    Unreachable,
    Unsupported,
    UsageError,
)
from irons.hookspecs import Backend
from irons.host import PluginHost
from irons.settings.settings import load
from irons.testing import FakeApi, faults


@pytest.fixture
def api(fake_api: FakeApi, irons_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """A client of the fake server that does not pause for long."""
    monkeypatch.setattr("irons.client.transport.BACK_OFF", 0.001)
    fake_api.add("one")
    with client(fake_api.url, irons_env) as opened:
        yield opened


def client(url: str, env: dict[str, str], **flags: object) -> Api:
    """A client of `url`."""
    from irons.client.api import open_api

    settings = load({"api_url": url, **flags}, env)
    return open_api(settings, PluginHost(env, built_in=()))


class Clock:
    """Stands where the client looks at the time: it goes on only while the client pauses."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """The seconds that were slept."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Pass them."""
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The client's time."""
    made = Clock()
    monkeypatch.setattr("irons.client.transport.time", made)
    return made


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, ApiError, 1),
        (401, AuthError, 4),
        (403, AuthError, 4),
        (404, NotFound, 3),
        (409, Conflict, 5),
        (418, ApiError, 1),
        (500, ApiError, 1),
    ],
)
def test_refusals_have_their_kind(
    api: Api, fake_api: FakeApi, status: int, kind: type[ApiError], code: int
) -> None:
    """Each status of the contract is an error of its own kind, with the server's words."""
    fake_api.fail(faults.error(status, "because \x1b[31m of \u202e it"))
    with pytest.raises(kind) as caught:
        api.status("one")
    assert type(caught.value) is kind
    assert caught.value.exit_code == code
    assert caught.value.status == status
    assert caught.value.message == "because \\x1b[31m of \\u202e it"


def test_a_page_of_html_is_cut_and_cleaned(api: Api, fake_api: FakeApi) -> None:
    """An error that is not JSON is shown as it is: on one line, cleaned."""
    fake_api.fail(faults.html(500))
    with pytest.raises(ApiError, match=r"the server answered 500 .*Bad Gateway.*\\x1b\[31mnginx") as caught:
        api.status("one")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("body", [b"[1]", b"null", b'"x"', b"<html>", b'{"a": ', b"[" * 200_000, b"\xff\xfe"])
def test_what_is_no_json_object_is_an_error(api: Api, fake_api: FakeApi, body: bytes) -> None:
    """A 2xx answer whose body is not a JSON object is refused, not half read."""
    fake_api.fail(faults.Fault(200, body))
    with pytest.raises(ApiError, match="not a JSON object"):
        api.status("one")


def test_an_empty_body_is_fine(api: Api, fake_api: FakeApi) -> None:
    """A 2xx answer without a body says that it worked."""
    fake_api.fail(faults.Fault(204, b""))
    api.start("one")


@pytest.mark.parametrize("status", [301, 302, 307])
def test_redirects_are_not_followed(api: Api, fake_api: FakeApi, status: int) -> None:
    """A redirect is not a success, and no request (nor the key) goes where it points."""
    fake_api.fail(faults.Fault(status, b"", {"Location": "http://203.0.113.1/"}))
    with pytest.raises(ApiError, match=f"the server answered {status}"):
        api.status("one")
    assert len(fake_api.calls) == 1


def test_an_endless_answer_is_refused(api: Api, fake_api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more of an answer is read than an answer can be long."""
    monkeypatch.setattr("irons.client.receiving.LARGEST_ANSWER", 1000)
    fake_api.fail(faults.Fault(200, b'{"x": "' + b"y" * 5000 + b'"}'))
    with pytest.raises(ApiError, match="longer than"):
        api.status("one")


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_overload_is_tried_again(api: Api, fake_api: FakeApi, status: int) -> None:
    """A server that is busy for a moment is asked again."""
    fake_api.fail(faults.error(status), times=2)
    assert api.status("one").status == "ready"
    assert len(fake_api.calls) == 3


def test_overload_that_stays_is_an_error(
    api: Api, fake_api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trying again ends after some attempts, with the server's words."""
    fake_api.fail(faults.error(503, "busy"), times=99)
    with pytest.raises(ApiError, match="busy"):
        api.status("one")
    assert len(fake_api.calls) == 4


def test_retry_after_is_kept(api: Api, fake_api: FakeApi, clock: Clock) -> None:
    """Retry-After says how long to wait."""
    fake_api.fail(faults.too_many("7"))
    assert api.status("one").name == "one"
    assert clock.now == 7


@pytest.mark.slow
@pytest.mark.parametrize("said", ["soon", "-1", "Wed, 21 Oct 2026 07:28:00 GMT", "¹"])
def test_a_retry_after_that_is_no_number_is_passed_over(api: Api, fake_api: FakeApi, said: str) -> None:
    """What Retry-After says is believed only as plain seconds."""
    fake_api.fail(faults.too_many(said.encode().decode("latin-1")))
    assert api.status("one").name == "one"


def test_dropped_connections_are_tried_again(api: Api, fake_api: FakeApi) -> None:
    """A connection that broke is made again for a call that can be repeated."""
    fake_api.fail(faults.dropped(), times=2)
    fake_api.fail(faults.broken_off())
    assert api.status("one").name == "one"


@pytest.mark.parametrize(
    "fault", [faults.dropped(), faults.error(503), faults.too_many(), faults.broken_off(), faults.error(502)]
)
def test_create_is_never_sent_twice(api: Api, fake_api: FakeApi, fault: faults.Fault) -> None:
    """No matter what becomes of the request, a second sandbox is never asked for."""
    fake_api.fail(fault)
    with pytest.raises(IronsError):
        api.create("two", "ssh-ed25519 AAAA")
    assert fake_api.lines() == ["POST /sandboxes"]


def test_slow_answers_end_in_time(fake_api: FakeApi, irons_env: dict[str, str]) -> None:
    """The read timeout ends a call, and it is not made again."""
    fake_api.fail(faults.held(threading.Event()), times=9)
    irons_env["IRONS_READ_TIMEOUT"] = "0.2"
    with client(fake_api.url, irons_env) as api, pytest.raises(Unreachable, match="no answer in time"):
        api.status("one")
    assert len(fake_api.calls) <= 1


@pytest.mark.parametrize("seconds", [0.1, 0.5, 1, 3])
def test_a_closed_port_is_told_within_the_connect_timeout(
    irons_env: dict[str, str], clock: Clock, seconds: float
) -> None:
    """A port where nothing listens gives `Unreachable` before the connect timeout is over, retries included."""
    irons_env["IRONS_CONNECT_TIMEOUT"] = str(seconds)
    with (
        reserved_port() as port,
        client(f"http://127.0.0.1:{port}", irons_env) as api,
        pytest.raises(Unreachable, match="did not answer"),
    ):
        api.status("one")
    assert clock.now < seconds
    assert clock.now > 0 or seconds == 0.1


def test_a_full_backlog_is_told_within_the_connect_timeout(
    irons_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that never takes the connection gives `Unreachable` before the connect timeout is over."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        address = deaf.getsockname()
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        given: list[float] = []
        send = HttpxChannel.send
        here = threading.get_ident()

        def noted(channel: HttpxChannel, *words: Any, connect: float, **more: Any) -> object:
            if threading.get_ident() == here:
                given.append(connect)
            return send(channel, *words, connect=connect, **more)

        monkeypatch.setattr(HttpxChannel, "send", noted)
        try:
            irons_env["IRONS_CONNECT_TIMEOUT"] = "0.5"
            with client(f"http://127.0.0.1:{address[1]}", irons_env) as api, pytest.raises(Unreachable):
                api.status("one")
            # One attempt had all of the time, so that none is left for another.
            assert len(given) == 1
            assert 0 < given[0] < 0.5
        finally:
            for one in waiting:
                one.close()


def test_a_silent_resolver_is_told_within_the_connect_timeout(
    irons_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is never resolved gives `Unreachable` before the connect timeout is over."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    answered = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: answered.wait() and [])
    irons_env["IRONS_CONNECT_TIMEOUT"] = "0.2"
    try:
        with (
            client("https://slow.example.com", irons_env) as api,
            pytest.raises(Unreachable, match="in time"),
        ):
            api.status("one")
    finally:
        answered.set()


def test_what_no_request_can_carry_is_a_slip(api: Api, fake_api: FakeApi) -> None:
    """Half a character, as a broken pipe or paste leaves it, is reported as what it is, and nothing is sent."""
    with pytest.raises(UsageError, match="lone surrogate"):
        api.check("\udc80.example")
    assert fake_api.calls == []


def test_a_route_that_is_not_there_is_unsupported(api: Api, fake_api: FakeApi) -> None:
    """An older server without a route is distinguished from a sandbox that is not there."""
    fake_api.has_list = False
    with pytest.raises(Unsupported, match="no such route"):
        api.list()
    with pytest.raises(NotFound):
        api.status("nobody")


def test_names_are_percent_encoded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is one path segment, no matter what is in it."""
    asked: list[str] = []

    def call(_method: str, path: str, *_: object, **__: object) -> dict[str, object]:
        asked.append(path)
        return {"status": "ready"}

    monkeypatch.setattr(api._wire, "call", call)
    api.status("a/../b?c#d e")
    assert asked == ["/sandboxes/a%2F..%2Fb%3Fc%23d%20e"]


def test_every_request_carries_what_the_contract_says(fake_api: FakeApi, irons_env: dict[str, str]) -> None:
    """The headers of the wire contract are there, on a call without a body too."""
    fake_api.key = "secret-key"
    fake_api.add("one", "stopped")
    with client(fake_api.url, irons_env, api_key="secret-key") as api:
        api.start("one")
    headers = {name.lower(): value for name, value in fake_api.calls[0].headers.items()}
    assert headers["authorization"] == "Bearer secret-key"
    assert headers["accept"] == "application/json"
    assert headers["content-type"] == "application/json"


def test_one_connection_serves_many_calls(api: Api, fake_api: FakeApi) -> None:
    """Connections are kept alive from call to call."""
    api.status("one")
    opened = api._wire._channel
    assert isinstance(opened, HttpxChannel)
    client = opened._opened
    api.status("one")
    assert client is not None
    assert opened._opened is client


@pytest.mark.parametrize("when", ["before", "while it connects"])
def test_a_closed_client_keeps_no_connection(
    api: Api, fake_api: FakeApi, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """What a thread still sends once another one has closed the client is answered, and no connection is left."""
    connect = socket.create_connection
    connections: list[socket.socket] = []

    def connected(*words: Any, **more: Any) -> socket.socket:
        made = connect(*words, **more)
        connections.append(made)
        if when == "while it connects":
            api.close()
        return made

    monkeypatch.setattr(socket, "create_connection", connected)
    if when == "before":
        api.status("one")
        api.close()
    assert api.status("one").status == "ready"
    assert len(connections) == 2
    assert [each.fileno() for each in connections] == [-1, -1]


def _all_subclasses(kind: type[Exception]) -> Iterator[type[Exception]]:
    for one in kind.__subclasses__():
        yield one
        yield from _all_subclasses(one)


def _httpx_exceptions() -> list[type[Exception]]:
    tops = [
        found
        for _, found in inspect.getmembers(httpx, inspect.isclass)
        if issubclass(found, Exception) and found.__module__.startswith("httpx")
    ]
    return sorted(
        {*tops, *(one for top in tops for one in _all_subclasses(top))}, key=lambda one: one.__name__
    )


@pytest.mark.parametrize("kind", _httpx_exceptions(), ids=lambda kind: kind.__name__)
def test_no_httpx_exception_leaks(api: Api, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:
    """No matter what httpx raises, the client raises an error of irons' own tree, with no trace of httpx."""
    error = kind.__new__(kind)
    Exception.__init__(error, "it \x1b[31m broke")

    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("irons.client.channels.HttpxChannel.send", fails)
    with pytest.raises(IronsError) as caught:
        api.status("one")
    assert caught.value.exit_code == 6
    assert "\x1b" not in caught.value.message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("key", ["two words", "line\n", "schlüssel", "tab\there", "\x00"])
def test_a_key_that_no_header_carries_is_refused_unseen(
    fake_api: FakeApi, irons_env: dict[str, str], key: str
) -> None:
    """A key with a line end or the like is refused before a request, and not shown."""
    irons_env["IRONS_API_KEY"] = key
    with pytest.raises(ConfigError, match="no HTTP header can carry") as caught:
        client(fake_api.url, irons_env)
    assert key not in caught.value.message + caught.value.hint
    assert "IRONS_API_KEY" in caught.value.hint
    assert not fake_api.calls


def test_the_hosted_service_is_said_to_be_retired(irons_env: dict[str, str]) -> None:
    """Where the default URL of old does not answer, the error says why and what to do."""
    settings = load({"api_key": "k"}, irons_env)
    error = unreachable(Backend(settings.api_url), settings, httpx.ConnectError("no"))
    assert "https://elrond.ironcd.dev did not answer" in error.message
    assert "retired" in error.message
    assert "api_url local" in error.hint
    assert "--api-url" in error.hint


def test_an_unreachable_local_backend_says_where_to_look(irons_env: dict[str, str]) -> None:
    """The local backend's silence points at its own commands."""
    settings = load({"api_url": "local"}, irons_env)
    error = unreachable(Backend("http://irons", local=True), settings, httpx.ReadTimeout("x"))
    assert "irons local status" in error.hint


def test_a_removal_whose_answer_was_lost_is_done(api: Api, fake_api: FakeApi) -> None:
    """A 404 on the second try of a DELETE is what was wanted: the first one did it. On the first try it is an error."""
    with pytest.raises(NotFound):
        api.destroy("two")
    for fault in (faults.dropped(), faults.error(503)):
        fake_api.add("gone")
        fake_api.sandboxes.pop("gone")
        fake_api.fail(fault, "DELETE /sandboxes/gone")
        api.destroy("gone")
    with pytest.raises(NotFound):
        api.destroy("gone")
    fake_api.fail(faults.dropped(), "GET /sandboxes/gone")
    with pytest.raises(NotFound):
        api.status("gone")


def test_a_removal_may_take_longer_than_an_answer(fake_api: FakeApi, irons_env: dict[str, str]) -> None:
    """The server answers once all files are gone; that is waited for as long as a state is."""
    fake_api.add("large", "stopped")
    fake_api.fail(faults.slow(0.5), "DELETE /sandboxes/large")
    irons_env["IRONS_READ_TIMEOUT"] = "0.1"
    with client(fake_api.url, irons_env) as api:
        api.destroy("large")
    assert "large" not in fake_api.sandboxes


@pytest.mark.parametrize(
    ("word", "wire"),
    [
        ("allowed", "allowed"),
        ("denied", "blocked"),
        ("Denied", "blocked"),
        ("would-deny", "warn"),
        ("would_deny", "warn"),
        ("blocked", "blocked"),
        ("warn", "warn"),
        ("denied,would-deny", "blocked,warn"),
    ],
)
def test_verdicts_are_asked_for_in_any_spelling(api: Api, fake_api: FakeApi, word: str, wire: str) -> None:
    """The words of the commands and the API's own are taken by each call that filters by verdict; the API's are sent."""
    fake_api.extensions = (*fake_api.extensions, "audit-hosts")
    fake_api.add("one")
    list(api.events("one", verdict=word))
    api.hosts("one", verdict=word)
    asked = [call.query["verdict"] for call in fake_api.calls if "verdict" in call.query]
    assert asked == [wire, wire]


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda api: api.remove_rule("a.example"), "irons egress list --all shows the rules"),
        (lambda api: api.remove_rule("a.example", "one"), "irons egress list --sandbox one shows its rules"),
        (lambda api: api.rules("one"), "irons list shows what there is"),
        (lambda api: api.revoke_key("k"), "irons local key list shows the keys"),
        (lambda api: api.remove_access("one", "k"), "irons list shows what there is"),
        (lambda api: api.check("a.example", "one"), "irons list shows what there is"),
    ],
    ids=["rule", "rule of a sandbox", "rules of a sandbox", "API key", "access", "check"],
)
def test_what_is_not_there_is_listed_by_its_own_command(
    api: Api, fake_api: FakeApi, call: Callable[[Api], object], hint: str
) -> None:
    """A server without hints leads to the list of what was named, where the path alone says what that is."""
    for line in (
        "GET /egress/check",
        "DELETE /egress/rules",
        "DELETE /sandboxes/one/egress/rules",
        "GET /sandboxes/one/egress",
        "DELETE /keys/k",
        "DELETE /sandboxes/one/access/k",
    ):
        fake_api.fail(faults.Fault(404, b'{"error": "none"}'), line)
    with pytest.raises(NotFound) as caught:
        call(api)
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("told", "hint"),
    [({}, "irons list shows what there is"), ({"hint": "look \x1b there"}, "look \\x1b there")],
)
def test_what_is_not_there_has_the_servers_hint(
    api: Api, fake_api: FakeApi, told: dict[str, str], hint: str
) -> None:
    """Where a server says how to see what there is, that is shown; otherwise it is the list of sandboxes."""
    body = json.dumps({"error": "none", **told}).encode()
    fake_api.fail(faults.Fault(404, body), "GET /sandboxes/one")
    with pytest.raises(NotFound) as caught:
        api.status("one")
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("name", "hint"),
    [("irons", "irons local down"), ("another", "--api-url local"), (None, "--api-url local")],
)
def test_a_server_that_lacks_an_extension(api: Api, fake_api: FakeApi, name: str | None, hint: str) -> None:
    """An irons that lacks it is an older one, which ends by a command; another server never gets it."""
    body = json.dumps({"name": name, "extensions": []} if name else {}).encode()
    fake_api.fail(faults.Fault(200, body), "GET /version")
    with pytest.raises(Unsupported) as caught:
        api.need("audit-hosts", "a server that sums up")
    assert hint in caught.value.hint


def test_a_rule_that_was_removed_before_is_removed(own_api: FakeApi, irons_env: dict[str, str]) -> None:
    """The same holds for a rule."""
    with client(own_api.url, irons_env) as api:
        own_api.fail(faults.dropped(), "DELETE /egress/rules")
        (rule,) = api.remove_rule("gone.example").rules
        assert rule.pattern == "gone.example"
        with pytest.raises(NotFound):
            api.remove_rule("gone.example")


def test_rules_that_were_removed_before_are_removed(own_api: FakeApi, irons_env: dict[str, str]) -> None:
    """Of several rules, too: a removal whose answer was lost has been made where the rules are gone."""
    with client(own_api.url, irons_env) as api:
        own_api.fail(faults.dropped(), "POST /egress/remove")
        done = api.change_rules("remove", ["a.example", "b.example"])
        assert [rule.pattern for rule in done.rules] == ["a.example", "b.example"]
        with pytest.raises(NotFound):
            api.change_rules("remove", ["a.example", "b.example"])


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("https://u:secret@api.example.com:8443/x?y", "https://api.example.com:8443"),
        ("/elsewhere", "/elsewhere"),
        ("/\x9b31m", "/\\x9b31m"),
    ],
)
def test_a_redirect_says_where_to(api: Api, fake_api: FakeApi, location: str, said: str) -> None:
    """The target's host is reported, so that a person can set the URL; nothing secret or hostile of it is shown."""
    fake_api.fail(faults.Fault(308, b"", {"Location": location}))
    with pytest.raises(ApiError, match="the server answered 308") as caught:
        api.status("one")
    assert said in caught.value.message
    assert "secret" not in caught.value.message + caught.value.hint
    assert "\x9b" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    "fault", [faults.Fault(204), faults.Fault(200, b""), faults.Fault(200, b'{"name": "one"}')]
)
def test_a_status_without_a_state_is_an_error(api: Api, fake_api: FakeApi, fault: faults.Fault) -> None:
    """An answer that does not say what state a sandbox is in is not taken for one."""
    fake_api.fail(fault)
    with pytest.raises(ApiError, match="what state one is in"):
        api.status("one")


def test_bytes_that_are_not_utf8_are_replaced(api: Api, fake_api: FakeApi) -> None:
    """One bad byte in a text does not make the rest unreadable."""
    fake_api.fail(faults.Fault(200, b'{"name": "one", "status": "ready", "metadata": {"note": "a\xffb"}}'))
    assert api.status("one").metadata == {"note": "a\ufffdb"}
