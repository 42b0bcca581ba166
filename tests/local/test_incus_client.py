"""The client of Incus's REST API against a stand-in that answers as Incus does, and as it should not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from irons_local.engines.incus import project
from irons_local.engines.incus.client import Incus, IncusError
from irons_local.engines.incus.reach.ways import SocketWay
from irons_local.errors import EngineError

SOCKET = Path("/nowhere/unix.socket")


def sync(metadata: Any) -> httpx.Response:
    """An answer of Incus that is there at once."""
    return httpx.Response(200, json={"type": "sync", "status_code": 200, "metadata": metadata})


def begun(operation: str) -> httpx.Response:
    """An answer of Incus that names an operation."""
    return httpx.Response(202, json={"type": "async", "status_code": 100, "operation": operation})


def refused(status: int, why: str) -> httpx.Response:
    """A refusal of Incus."""
    return httpx.Response(status, json={"type": "error", "error": why, "error_code": status})


def asked(answer: Callable[[httpx.Request], httpx.Response], work: Callable[[Incus], Awaitable[Any]]) -> Any:
    """What a call comes to at an Incus that answers like this."""

    async def run() -> Any:
        incus = Incus(SocketWay(SOCKET), "irons", httpx.MockTransport(answer))
        try:
            return await work(incus)
        finally:
            await incus.close()

    return asyncio.run(run())


def test_every_request_names_the_project() -> None:
    """No request is about another project than that of irons."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return (
            begun("/1.0/operations/op1?project=irons")
            if request.method == "PUT"
            else sync({"status_code": 200})
        )

    async def work(incus: Incus) -> None:
        await incus.get("")
        await incus.find("instances/a")
        await incus.change("PUT", "instances/a/state", {"action": "start"})
        await incus.push("a", "/sbin/init", b"text", 0o700)
        await incus.read_file("a", "/etc/hosts", 100, 60.0)
        await incus.remove_file("a", "/sbin/init")

    asked(answer, work)
    assert {request.url.params.get("project") for request in seen} == {"irons"}
    assert seen[0].url.path == "/1.0"


def test_an_operation_is_waited_for_by_its_id() -> None:
    """The path of a forwarded request's operation ends with a query: what is asked is its id alone, until it has ended."""
    waited: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return begun("/1.0/operations/0d5e?project=irons")
        waited.append(request.url.path)
        done = {"status_code": 200, "metadata": {"fingerprint": "f"}}
        return sync({"status_code": 103} if len(waited) < 3 else done)

    found = asked(answer, lambda incus: incus.change("POST", "instances", {}))
    assert found == {"fingerprint": "f"}
    assert waited == ["/1.0/operations/0d5e/wait"] * 3


def test_a_failed_operation_is_one_line() -> None:
    """What an operation failed with is the error, on one line, without what a terminal would act on."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return begun("/1.0/operations/op")
        return sync({"status_code": 400, "err": "Parent device\n'irs-1' doesn't \x1b[31mexist"})

    with pytest.raises(IncusError) as caught:
        asked(answer, lambda incus: incus.change("POST", "instances", {}))
    assert caught.value.message == "Incus: Parent device 'irs-1' doesn't ?[31mexist"
    assert caught.value.code == "failed"


def test_a_cancelled_wait_cancels_the_operation() -> None:
    """Who gives up waiting has Incus give up, too, and comes back when the operation has ended."""
    deleted: list[str] = []
    ends: list[str] = []

    async def run() -> None:
        waiting = asyncio.Event()

        async def answer(request: httpx.Request) -> httpx.Response:
            if request.method == "POST":
                return begun("/1.0/operations/op?project=irons")
            if request.method == "DELETE":
                deleted.append(request.url.path)
                return sync({})
            if deleted:
                ends.append(request.url.path)
                return sync({"status_code": 103 if len(ends) < 3 else 401})
            waiting.set()
            await asyncio.Event().wait()
            raise AssertionError

        incus = Incus(SocketWay(SOCKET), "irons", httpx.MockTransport(answer))
        task = asyncio.create_task(incus.change("POST", "instances", {}))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await incus.close()

    asyncio.run(run())
    assert deleted == ["/1.0/operations/op"]
    assert ends == ["/1.0/operations/op/wait"] * 3


def _raising(error: Exception) -> Callable[[httpx.Request], httpx.Response]:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error

    return answer


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (
            _raising(httpx.ConnectError("No such file")),
            "machine",
            f"Incus does not answer at {SOCKET}: No such file",
        ),
        (_raising(httpx.ReadTimeout("")), "machine", "Incus did not answer within 300 s"),
        (_raising(httpx.ReadError("")), "machine", "the connection to Incus was lost: ReadError"),
        (lambda _: refused(500, "no leader"), "failed", "Incus: no leader"),
        (lambda _: httpx.Response(502, text="<html>"), "failed", "what answers for Incus is not Incus"),
        (lambda _: httpx.Response(200, text="[]"), "failed", "what answers for Incus is not Incus"),
        (lambda _: begun(""), "failed", "an operation without an id"),
    ],
    ids=["away", "silent", "lost", "refusing", "no JSON", "no object", "no operation"],
)
def test_every_fault_is_one_line(
    answer: Callable[[httpx.Request], httpx.Response], code: str, said: str
) -> None:
    """An Incus that is away, silent, broken or something else costs one line that says which."""
    with pytest.raises(IncusError) as caught:
        asked(answer, lambda incus: incus.change("POST", "instances", {}))
    assert said in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.code == code


def test_the_socket_is_asked_and_no_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an Incus the path of the socket is in the error, whatever proxy the environment names."""
    monkeypatch.setenv("ALL_PROXY", "http://proxy.example.test:3128")
    path = tmp_path / "unix.socket"

    async def run() -> None:
        incus = Incus(SocketWay(path), "irons")
        try:
            await incus.get("")
        finally:
            await incus.close()

    with pytest.raises(IncusError, match=f"does not answer at {path}"):
        asyncio.run(run())


def test_what_is_not_there_is_none() -> None:
    """A refusal with 404 is an answer for `find`, and any other is an error."""
    assert asked(lambda _: refused(404, "not found"), lambda incus: incus.find("instances/a")) is None
    with pytest.raises(IncusError, match="not authorized"):
        asked(lambda _: refused(403, "not authorized"), lambda incus: incus.find("instances/a"))


def test_a_large_file_is_read_to_its_bound() -> None:
    """Of a file that a sandbox made large no more is kept than was asked for."""
    found = asked(
        lambda _: httpx.Response(200, content=b"x" * 100_000),
        lambda incus: incus.read_file("a", "/run/irons/log/output", 1000, 60.0),
    )
    assert found == b"x" * 1000


def test_an_upload_has_both_parts(tmp_path: Path) -> None:
    """An image goes as its metadata and its files, in this order, with its size known before."""
    sent: list[tuple[bytes, str]] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            sent.append((await request.aread(), request.headers["Content-Length"]))
            return begun("/1.0/operations/op")
        return sync({"status_code": 200, "metadata": {"fingerprint": "abc"}})

    async def run() -> str:
        incus = Incus(SocketWay(SOCKET), "irons", httpx.MockTransport(answer))
        (tmp_path / "rootfs.tar").write_bytes(b"<rootfs>")
        try:
            with (tmp_path / "rootfs.tar").open("rb") as rootfs:
                return await incus.upload(b"<metadata>", rootfs)
        finally:
            await incus.close()

    assert asyncio.run(run()) == "abc"
    ((body, length),) = sent
    assert int(length) == len(body)
    assert body.index(b'name="metadata"') < body.index(b"<metadata>") < body.index(b'name="rootfs"')
    assert body.index(b'name="rootfs"') < body.index(b"<rootfs>")


OURS = {
    "features.images": "true",
    "restricted": "true",
    "restricted.devices.nic": "allow",
    "restricted.cluster.target": "allow",
    "user.irons": "1",
}
NEW_ENOUGH = ["container_nic_ipvlan", "projects_restrictions", "projects_restricted_cluster_target"]


class Standing:
    """An Incus with or without the project, and with some pools."""

    def __init__(
        self, config: dict[str, str] | None, pools: list[dict[str, str]], extensions: list[str]
    ) -> None:
        self._config = config
        self._pools = pools
        self._extensions = extensions
        self.changes: list[tuple[str, str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if request.method != "GET":
            self.changes.append((request.method, path, json.loads(request.content)))
            return sync({})
        if path == "/1.0":
            return sync({"api_extensions": self._extensions, "environment": {"server_version": "0.1"}})
        if path == "/1.0/projects/irons":
            return (
                refused(404, "Project not found") if self._config is None else sync({"config": self._config})
            )
        return sync(self._pools)


POOLS = [{"name": "slow", "driver": "dir"}, {"name": "default", "driver": "btrfs"}]


def test_the_project_is_made_restricted() -> None:
    """Where there is no project it is made, with all restrictions but for the network device and the member."""
    standing = Standing(None, POOLS, NEW_ENOUGH)
    assert asked(standing, project.ensure) == project.Pool("default", bounds=True)
    ((method, path, body),) = standing.changes
    assert (method, path, body["name"]) == ("POST", "/1.0/projects", "irons")
    loosened = {
        key for key, value in body["config"].items() if key.startswith("restricted.") and value != "block"
    }
    assert body["config"]["restricted"] == "true"
    assert loosened == {"restricted.devices.nic", "restricted.cluster.target"}


@pytest.mark.parametrize(
    ("config", "pools", "extensions", "said"),
    [
        ({}, POOLS, NEW_ENOUGH, "project irons that is not of irons"),
        ({**OURS, "restricted": "false"}, POOLS, NEW_ENOUGH, "was changed: restricted is false"),
        (
            {**OURS, "restricted.containers.privilege": "allow"},
            POOLS,
            NEW_ENOUGH,
            "was changed: restricted.containers.privilege is allow",
        ),
        (OURS, [], NEW_ENOUGH, "Incus has no storage pool"),
        (OURS, POOLS, [], "Incus 0.1 is too old"),
    ],
)
def test_an_incus_that_does_not_fit_is_refused_and_not_changed(
    config: dict[str, str], pools: list[dict[str, str]], extensions: list[str], said: str
) -> None:
    """Another's project, a loosened one, no storage and an old version are refused with a fix, and nothing is changed."""
    standing = Standing(config, pools, extensions)
    with pytest.raises(EngineError) as caught:
        asked(standing, project.ensure)
    assert said in caught.value.message
    assert caught.value.hint
    assert not standing.changes
