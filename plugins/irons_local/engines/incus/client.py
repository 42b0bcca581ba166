"""Incus's REST API: requests, and operations waited for; every failure is one line.

Of the API this uses what Incus 6.0 and 7.0 both have (https://linuxcontainers.org/incus/docs/main/rest-api/).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Mapping
from typing import IO, Any, NoReturn
from urllib.parse import quote

import httpx

from irons_local.engines.incus.reach.ways import Way
from irons_local.errors import EngineError

_ANSWER_WITHIN = 300.0
"""Seconds that one answer may take: on a busy machine Incus's database alone takes many of them."""
_WAIT_SLICE = 30
"""Seconds that one question about an operation waits at most, before it is asked again."""
_CHUNK = 1 << 20
_SAID_AT_MOST = 300
_ABSENT = 404
_SUCCESS = 200
_NO_QUORUM = "no available cowsql leader"
_FINAL = 200
"""Codes of operations from here on are ends: success 200, failed 400, cancelled 401."""

Answer = Mapping[str, Any]


class IncusError(EngineError):
    """Incus refused, failed or cannot be reached.

    Attributes:
        status: the HTTP status that it answered with or would have; 0 where there was no answer.
        gone: certainly nothing answers any more, such as where nothing listens at its socket.
    """

    def __init__(self, status: int, message: str, hint: str = "", *, gone: bool = False) -> None:
        super().__init__("machine" if status == 0 else "failed", message, hint)
        self.status = status
        self.gone = gone

    @property
    def busy(self) -> bool:
        """Whether another operation on the same instance was in the way."""
        return "busy running" in self.message


class Incus:
    """One Incus, and one project in it.

    Args:
        way: the way to it.
        project: the project that all requests are about.
        transport: carries requests in place of the way.
    """

    def __init__(self, way: Way, project: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._way = way
        self.project = project
        self._base = way.bases[0]
        # It logs each request, and what is not well is an error here.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._http = httpx.AsyncClient(
            transport=transport or way.transport(),
            timeout=_ANSWER_WITHIN,
            # Nothing of this machine's environment, such as a proxy, has to do with a local socket.
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def get(self, path: str, **query: str) -> Any:
        """What is at a path, such as `instances/NAME`.

        Raises:
            IncusError: there is no answer, or a refusal.
        """
        return (await self._answer("GET", path, query)).get("metadata")

    async def find(self, path: str, **query: str) -> Any:
        """What is at a path, or None where nothing is.

        Raises:
            IncusError: there is no answer, or a refusal.
        """
        try:
            return await self.get(path, **query)
        except IncusError as error:
            if error.status == _ABSENT:
                return None
            raise

    async def change(self, method: str, path: str, body: Answer | None = None, *, target: str = "") -> Any:
        """Ask for a change and wait until it is made; gives what the answer or its operation says of it.

        A call that is cancelled has the operation cancelled where Incus can, and comes back when it has ended.

        Args:
            method: POST, PUT, PATCH or DELETE.
            path: what it is about.
            body: what is sent.
            target: the member of the cluster that is to do it; "" for Incus's choice.

        Raises:
            IncusError: there is no answer, a refusal, or the operation failed.
        """
        query = {"target": target} if target else {}
        answer = await self._answer(method, path, query, json=body)
        if answer.get("type") != "async":
            return answer.get("metadata")
        return await self._finished(_operation_of(answer))

    async def push(self, instance: str, path: str, data: bytes, mode: int) -> None:
        """Write a file of an instance, owned by its root.

        Raises:
            IncusError: there is no answer, or a refusal.
        """
        headers = {
            "X-Incus-uid": "0",
            "X-Incus-gid": "0",
            "X-Incus-mode": f"{mode:04o}",
            "X-Incus-type": "file",
            "X-Incus-write": "overwrite",
            "Content-Type": "application/octet-stream",
        }
        where = f"instances/{quote(instance)}/files"
        await self._answer("POST", where, {"path": path}, content=data, headers=headers)

    async def read_file(self, instance: str, path: str, most: int, within: float) -> bytes:
        """The first bytes of a file of an instance.

        Args:
            instance: its name.
            path: the file.
            most: how many bytes at most.
            within: seconds that it may take: what is there may be no plain file.

        Raises:
            IncusError: there is no answer, or a refusal.
        """
        where, data = f"{self._base}/1.0/instances/{quote(instance)}/files", b""
        query = {"project": self.project, "path": path}
        try:
            async with (
                asyncio.timeout(within),
                self._http.stream(
                    "GET", where, params=query, headers={"Accept-Encoding": "identity"}
                ) as response,
            ):
                if response.is_error or response.headers.get("X-Incus-type", "file") != "file":
                    raise IncusError(response.status_code, f"Incus: no file {path}")
                async for chunk in response.aiter_bytes():
                    data += chunk
                    if len(data) >= most:
                        break
        except (httpx.HTTPError, OSError, TimeoutError) as error:
            raise IncusError(0, f"Incus gave no file {path}: {_line(error)}") from error
        return data[:most]

    async def remove_file(self, instance: str, path: str) -> None:
        """Remove a file of an instance, a link as such; one that is not there is passed over.

        Raises:
            IncusError: there is no answer, or a refusal.
        """
        try:
            await self._answer("DELETE", f"instances/{quote(instance)}/files", {"path": path})
        except IncusError as error:
            if error.status != _ABSENT:
                raise

    async def upload(self, metadata: bytes, rootfs: IO[bytes]) -> str:
        """Make an image of a root file system as a tar archive; gives its fingerprint.

        Args:
            metadata: a tar archive with `metadata.yaml`.
            rootfs: the archive; read from its beginning.

        Raises:
            IncusError: there is no answer, or a refusal.
        """
        boundary = "irons-image-parts"
        head = (
            _part(boundary, "metadata") + metadata + b"\r\n" + _part(boundary, "rootfs"),
            f"\r\n--{boundary}--\r\n".encode(),
        )
        size = sum(map(len, head)) + os.fstat(rootfs.fileno()).st_size
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Content-Length": str(size)}

        async def content() -> AsyncIterator[bytes]:
            yield head[0]
            rootfs.seek(0)
            while data := await asyncio.to_thread(rootfs.read, _CHUNK):
                yield data
            yield head[1]

        answer = await self._answer("POST", "images", {}, content=content(), headers=headers)
        done = await self._finished(_operation_of(answer))
        try:
            return str(done["fingerprint"])
        except (KeyError, TypeError):
            _strange(200, "an image without a fingerprint")

    async def _finished(self, operation: str) -> Any:
        where = f"operations/{quote(operation)}"
        try:
            while True:
                found = await self.get(f"{where}/wait", timeout=str(_WAIT_SLICE))
                code = found.get("status_code") if isinstance(found, dict) else None
                if not isinstance(code, int):
                    _strange(_SUCCESS, "an operation without a state")
                if code >= _FINAL:
                    break
        except asyncio.CancelledError:
            await asyncio.shield(self._given_up(where))
            raise
        if code != _SUCCESS:
            raise IncusError(code, f"Incus: {_line(found.get('err') or found.get('status'))}")
        return found.get("metadata")

    async def _given_up(self, where: str) -> None:
        """Have an operation cancelled, and come back when it has ended: many cannot be, and go on."""
        with contextlib.suppress(EngineError):
            await self._answer("DELETE", where, {})
        with contextlib.suppress(EngineError):
            while (await self.get(f"{where}/wait", timeout=str(_WAIT_SLICE)))["status_code"] < _FINAL:
                pass

    async def _answer(self, method: str, path: str, query: Mapping[str, str], **more: Any) -> Answer:
        try:
            response = await self._sent(method, path, query, **more)
        except (httpx.ConnectError, httpx.ConnectTimeout, FileNotFoundError, PermissionError) as error:
            raise IncusError(
                0,
                f"Incus does not answer at {self._way.name}: {self._way.explain(error) or _line(error)}",
                "is its service running?",
                gone=await asyncio.to_thread(self._way.is_gone),
            ) from error
        except httpx.TimeoutException as error:
            raise IncusError(0, f"Incus did not answer within {_ANSWER_WITHIN:.0f} s") from error
        except (httpx.HTTPError, OSError) as error:
            raise IncusError(
                0, f"the connection to Incus was lost: {_line(error) or type(error).__name__}"
            ) from error
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            _strange(response.status_code, "no object of JSON")
        if answer.get("type") == "error" or response.is_error:
            raise _refusal(response.status_code, _line(answer.get("error") or ""))
        return answer

    async def _sent(self, method: str, path: str, query: Mapping[str, str], **more: Any) -> httpx.Response:
        """Send a request to the member that took the last one, or to the first that can be connected to."""
        failures: list[Exception] = []
        for base in (self._base, *(each for each in self._way.bases if each != self._base)):
            url = f"{base}/1.0/{path}".rstrip("/")
            try:
                response = await self._http.request(
                    method, url, params={"project": self.project, **query}, **more
                )
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                # Nothing of the request was sent.
                failures.append(error)
            else:
                self._base = base
                return response
        # What one says of its certificate is more than that another does not answer.
        raise next((each for each in failures if self._way.explain(each)), failures[0])


def _refusal(status: int, why: str) -> IncusError:
    if _NO_QUORUM in why:
        return IncusError(
            status,
            "the cluster of Incus has no quorum: most of its database members must be online",
            "incus cluster list",
        )
    return IncusError(status, f"Incus: {why or f'status {status}'}")


def _operation_of(answer: Answer) -> str:
    """The id of an operation. The answer's path to it may end with a query, after which nothing can be appended."""
    operation = str(answer.get("operation") or "").partition("?")[0].rpartition("/")[2]
    if not operation:
        _strange(_SUCCESS, "an operation without an id")
    return operation


def _part(boundary: str, name: str) -> bytes:
    return (
        f"--{boundary}\r\n"
        f'Content-Disposition: form-data; name="{name}"; filename="{name}.tar"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()


def _line(said: object) -> str:
    """What someone else said, as one line that a terminal can be given."""
    text = " ".join(str(said).split())
    return "".join(each if each.isprintable() else "?" for each in text)[:_SAID_AT_MOST]


def _strange(status: int, what: str) -> NoReturn:
    raise IncusError(status or 1, f"what answers for Incus is not Incus: {what} (status {status})")
