"""HTTP itself: what is hostile or malformed gets one JSON error, and the description is the truth."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.local.control.lab import KEY, control_plane, run

from irons_local.control.api.app import MOST_BYTES, ROUTES
from irons_local.control.api.routing import JSON, ApiRoute
from irons_local.control.schema.errors import HttpError
from irons_local.control.schema.schemas import check
from irons_local.control.store.database import StoreError

BODIES: tuple[bytes, ...] = (
    b"",
    b"nonsense",
    b"[]",
    b"null",
    b'"text"',
    b"1",
    b'{"name": NaN}',
    b'{"name"',
    b"\xff\xfe{}",
    b"[" * 200_000,
    b'{"a":' * 100_000,
    b"9" * 10_000,
    b'{"name": {"$ne": 1}, "public_key": []}',
    b'{"name": ["x"], "public_key": true}',
)


@pytest.mark.slow
def test_malformed_bodies_are_400(tmp_path: Path) -> None:
    """No matter what comes as a body where JSON is expected, the answer is 400 with a text, and the server lives on."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            for route in ROUTES:
                if route.body is None:
                    continue
                path = route.path.replace("{name}", "box")
                for body in BODIES:
                    answer = await lab.client.request(route.method, path, content=body)
                    assert answer.status_code == 400, (route.path, body[:40], answer.text)
                    assert list(answer.json()) == ["error"]
            assert (await lab.client.get("/version")).status_code == 200

    run(work())


def test_a_huge_body_is_413(tmp_path: Path) -> None:
    """A body beyond the limit is refused, announced in its length or not, also where no body is expected."""

    async def work() -> None:
        async def endless() -> AsyncIterator[bytes]:
            for _ in range(MOST_BYTES // 65_536 + 2):
                yield b" " * 65_536

        async with control_plane(tmp_path) as lab:
            for method, path in (
                ("POST", "/sandboxes"),
                ("PUT", "/egress"),
                ("POST", "/sandboxes/box/start"),
            ):
                answer = await lab.client.request(method, path, content=b" " * (MOST_BYTES + 1))
                assert (answer.status_code, list(answer.json())) == (413, ["error"])
                answer = await lab.client.request(method, path, content=endless())
                assert answer.status_code == 413

    run(work())


def test_what_is_not_served_is_json_too(tmp_path: Path) -> None:
    """Unknown paths are 404, unknown methods 405 with `Allow`, both with an error text."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            for path in (
                "/",
                "/nothing",
                "/sandboxes/",
                "/sandboxes/a%2Fb",
                "/sandboxes/a/b",
                "/%00",
                "/..%2f..",
            ):
                answer = await lab.client.get(path)
                assert (answer.status_code, list(answer.json())) == (404, ["error"]), path
            answer = await lab.client.patch("/sandboxes")
            assert (answer.status_code, list(answer.json())) == (405, ["error"])
            assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}
            assert (await lab.client.head("/version")).status_code == 200

    run(work())


def test_hostile_names_in_paths_are_just_not_there(tmp_path: Path) -> None:
    """Names no sandbox can have, percent-encoded, are 404 everywhere, and come back as harmless ASCII."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            for name in (
                "%1b%5b31m",
                "%22%3b--",
                "' OR 1=1",
                "%e2%80%ae",
                "x" * 5_000,
                "%ff",
                "sb_0000000000000000",
            ):
                for method, tail in (("GET", ""), ("DELETE", ""), ("POST", "/start"), ("GET", "/egress")):
                    answer = await lab.client.request(method, f"/sandboxes/{name}{tail}")
                    assert answer.status_code == 404, (name, method, tail)
                    assert answer.content.isascii()
                    assert b"\x1b" not in answer.content

    run(work())


def test_raw_rubbish_on_the_socket_harms_nobody(tmp_path: Path) -> None:
    """Bytes that are no HTTP, endless heads and silence end that connection alone."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            for sent in (
                b"\x16\x03\x01rubbish\r\n\r\n",
                b"GET / HTTP/1.1\r\nx: " + b"y" * 300_000,
                b"GET\r\n\r\n",
            ):
                reader, writer = await asyncio.open_unix_connection(str(lab.paths.api_socket))
                writer.write(sent)
                with contextlib.suppress(ConnectionError):
                    writer.write_eof()
                    answer = await reader.read()
                    head, _, body = answer.partition(b"\r\n\r\n")
                    assert head.split()[1] in (b"400", b"431")
                    assert list(json.loads(body)) == ["error"]
                writer.close()
            _, silent = await asyncio.open_unix_connection(str(lab.paths.api_socket))
            assert (await lab.client.get("/version")).status_code == 200
            silent.close()

    run(work())


def test_the_socket_is_the_owners_alone(tmp_path: Path) -> None:
    """`api.sock` has mode 0600 in a directory with mode 0700, and the database is not readable for others."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            assert lab.paths.api_socket.stat().st_mode & 0o777 == 0o600
            assert lab.paths.runtime.stat().st_mode & 0o777 == 0o700

    run(work())


def test_the_description_is_what_is_served(tmp_path: Path) -> None:
    """Every route is in `/openapi.json` with its parameters, body and failures, and nothing else is."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            document = (await lab.client.get("/openapi.json")).json()
            described = {
                (method.upper(), path) for path, methods in document["paths"].items() for method in methods
            }
            assert document["openapi"].startswith("3.1")
            assert described == {(route.method, route.path) for route in ROUTES}
            for method, path in described:
                # In every answer to such a request, the route is there.
                named = path.replace("{", "").replace("}", "")
                answer = await lab.client.request(method, named, content=b"[")
                assert answer.status_code != 405, (method, path)
                assert "there is nothing at" not in answer.text
        for route in ROUTES:
            operation = document["paths"][route.path][route.method.lower()]
            named_in = {(each["in"], each["name"]) for each in operation["parameters"]}
            assert named_in >= {("query", name) for name in route.query}
            assert ("requestBody" in operation) == (route.body is not None)
            assert str(route.status) in operation["responses"]

    run(work())


def test_answers_are_as_described(tmp_path: Path) -> None:
    """What the routes answer fits the schemas that the description gives."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create("box", rules=[{"pattern": "a.test", "list": "allow"}])
            calls: list[tuple[str, str, Any]] = [
                ("GET", "/sandboxes", None),
                ("GET", "/sandboxes/{name}", None),
                ("GET", "/sandboxes/{name}/ssh", None),
                ("GET", "/sandboxes/{name}/egress", None),
                ("PUT", "/sandboxes/{name}/egress", {"rules": []}),
                ("POST", "/egress/allow", {"domain": "b.test"}),
                ("GET", "/egress", None),
                ("GET", "/egress/mode", None),
                ("GET", "/sandboxes/{name}/egress/mode", None),
                ("PUT", "/egress/mode", {"mode": "deny"}),
                ("GET", "/audit/egress", None),
                ("GET", "/version", None),
                ("GET", "/status", None),
                ("POST", "/keys", {"label": "x"}),
                ("GET", "/keys", None),
                ("POST", "/sandboxes/{name}/stop", None),
            ]
            routes = {(route.method, route.path): route for route in ROUTES}
            for method, path, body in calls:
                route = routes[method, path]
                answer = await lab.client.request(method, path.replace("{name}", "box"), json=body)
                assert answer.status_code == route.status, answer.text
                check(route.answer, answer.json())

    run(work())


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer"}, True),
        ({"type": "integer"}, 1.5),
        ({"type": "number", "maximum": 3}, 4),
        ({"type": "string", "maxLength": 2}, "abc"),
        ({"type": "string"}, "a\0b"),
        ({"type": "array", "items": {"type": "string"}, "maxItems": 1}, ["a", "b"]),
        ({"type": ["string", "null"], "enum": ["a"]}, "b"),
        ({"type": "object", "properties": {}, "additionalProperties": False}, {"a": 1}),
        ({"type": "object", "required": ["a"]}, {}),
    ],
)
def test_schemas_hold(schema: dict[str, Any], value: Any) -> None:
    """A value that does not fit its schema is an error."""
    with pytest.raises(HttpError):
        check(schema, value)


def test_a_database_that_fails_is_503_with_one_line(tmp_path: Path) -> None:
    """When the database fails, requests say so in one line, and work again when it does."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            real = lab.store.write

            async def full(work: Any, **more: bool) -> Any:
                del work, more
                raise StoreError("the disk that holds irons.db is full; free some space")

            lab.store.write = full  # type: ignore[method-assign]
            answer = await lab.client.post("/sandboxes", json={"name": "box", "public_key": KEY})
            assert (answer.status_code, "full" in answer.json()["error"]) == (503, True)
            lab.store.write = real  # type: ignore[method-assign]
            await lab.create("box")

    run(work())


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=4,
)
_MEMBERS = (
    "name",
    "public_key",
    "mode",
    "rules",
    "domain",
    "private",
    "note",
    "broad",
    "label",
    "pattern",
    "list",
)
_LIKELY = st.dictionaries(
    st.sampled_from(_MEMBERS),
    _JSON | st.lists(st.dictionaries(st.sampled_from(_MEMBERS), _JSON, max_size=4), max_size=3),
    max_size=6,
)
_REQUESTS = st.lists(
    st.tuples(
        st.sampled_from(ROUTES),
        st.text(min_size=1, max_size=12),
        _JSON | _LIKELY,
        st.dictionaries(
            st.sampled_from(["domain", "host", "sandbox", "pageToken", "since", "limit", "verdict", "x"]),
            st.text(max_size=15),
            max_size=3,
        ),
    ),
    min_size=10,
    max_size=15,
)


CHECKS = (HealthCheck.too_slow, HealthCheck.data_too_large)


@pytest.mark.slow
@settings(max_examples=5, deadline=None, phases=[Phase.generate], suppress_health_check=list(CHECKS))
@given(requests=_REQUESTS)
def test_no_request_is_a_fault_of_the_server(
    requests: list[tuple[ApiRoute, str, Any, dict[str, str]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No matter what is asked of any route, the answer is JSON, or what the route says it is, and never 500."""

    async def work() -> None:
        async with control_plane(tmp_path_factory.mktemp("plane")) as lab:
            for route, name, body, query in requests:
                path = route.path.replace("{name}", quote(name, safe="")).replace(
                    "{id}", quote(name, safe="")
                )
                data = json.dumps(body).encode()
                answer = await lab.client.request(route.method, path, content=data, params=query)
                assert answer.status_code < 500, (route.method, path, body, query, answer.text)
                if route.media == JSON or not answer.is_success:
                    assert isinstance(answer.json(), dict)

    run(work())
