"""Messages and descriptors between the processes of the local backend."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons_local.ipc.aio import AsyncLink
from irons_local.ipc.framing import (
    MAX_BYTES,
    FrameReader,
    LinkClosedError,
    LinkError,
    Message,
    RequestError,
    Sender,
    encode,
    line_of,
)
from irons_local.ipc.link import Link
from irons_local.ipc.unixsock import listen, peer_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x"), "the disk is full; free some space"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk is full; free some space"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "Permission denied: /x"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (OSError("it is closed"), "it is closed"),
        (ValueError("no such cell"), "no such cell"),
    ],
)
def test_an_error_in_an_answer(error: Exception, said: str) -> None:
    """An error is told in one line without a number; of a full disk what to do."""
    assert line_of(error) == said


def _pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


@pytest.mark.slow
@given(st.lists(st.dictionaries(st.text(), JSON, max_size=4), max_size=5), st.integers(1, 7))
def test_messages_survive_any_cutting(bodies: list[dict[str, object]], size: int) -> None:
    """Messages arrive whole and in order however the stream is cut."""
    near, far = _pair()
    far.setblocking(False)
    with near, far:
        receiver, got = FrameReader(far), []
        stream = b"".join(encode(body) for body in bodies)
        for start in range(0, len(stream), size):
            near.sendall(stream[start : start + size])
            while (message := receiver.step()) is not None:
                got.append(message.body)
        assert got == bodies


@given(st.binary(min_size=4, max_size=200))
def test_garbage_never_becomes_anything_else(data: bytes) -> None:
    """Bytes that are not messages give a LinkError, or nothing yet, and no other exception."""
    near, far = _pair()
    far.setblocking(False)
    with near, far:
        near.sendall(data)
        receiver = FrameReader(far)
        with contextlib.suppress(LinkError):
            while receiver.step() is not None:
                continue


def test_descriptors_stay_with_their_message() -> None:
    """Each message gets the descriptors it was sent with, and none of its neighbours'."""
    near, far = _pair()
    near.setblocking(False)
    inodes = []
    with Link(far) as link:
        sender = Sender(near)
        for count in (0, 2, 0, 1, 3, 0):
            pipes = [os.pipe() for _ in range(count)]
            inodes.append([os.fstat(read).st_ino for read, _ in pipes])
            sender.push({"op": "n", "count": count}, [read for read, _ in pipes])
            for fd in (end for pipe in pipes for end in pipe):
                os.close(fd)
        assert sender.flush()
        near.close()
        for expected in inodes:
            message = link.recv()
            assert message.body["count"] == len(expected)
            assert [os.fstat(fd).st_ino for fd in message.fds] == expected
            assert not any(os.get_inheritable(fd) for fd in message.fds)
            message.close()
        with pytest.raises(LinkClosedError):
            link.recv()


def test_request_keeps_notices_and_raises_errors() -> None:
    """A request gets its own answer; a notice that came first waits; an error answer is raised."""
    near, far = _pair()
    with Link(near) as one, Link(far) as other:

        def serve() -> None:
            first = other.recv()
            other.send({"op": "news"})
            other.send({"id": first.body["id"], "ok": {"twice": first.body["n"] * 2}})
            second = other.recv()
            other.send({"id": second.body["id"], "error": {"code": "no", "message": "not today"}})

        thread = Thread(target=serve)
        thread.start()
        assert one.request("double", n=21).body == {"twice": 42}
        with pytest.raises(RequestError, match="not today") as caught:
            one.request("double", n=1)
        thread.join()
        assert caught.value.code == "no"
        assert one.recv().body == {"op": "news"}


def test_a_message_that_the_other_side_took_was_sent_though_it_ended_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who sends descriptors does not take the end of a link that was used up for a failure."""
    near, far = socket.socketpair()
    real = socket.send_fds

    def sent_and_taken(sock: socket.socket, data: list[memoryview], fds: list[int]) -> int:
        sent = real(sock, data, fds)
        far.close()
        return sent

    monkeypatch.setattr(socket, "send_fds", sent_and_taken)
    with near:
        Link(near).send({"ok": {}}, [near.fileno()])
        monkeypatch.undo()
        with pytest.raises(LinkClosedError):
            Link(near).send({"ok": {}}, [near.fileno()])


def test_oversized_message_is_refused_before_it_is_read() -> None:
    """A length beyond the limit ends the link at once; sending one is refused too."""
    near, far = _pair()
    with near, Link(far) as link:
        near.sendall((MAX_BYTES + 1).to_bytes(4, "big"))
        with pytest.raises(LinkError, match="too large"):
            link.recv()
    with pytest.raises(LinkError, match="too large"):
        encode({"x": "y" * MAX_BYTES})


def test_listen_under_a_long_path(tmp_path: Path) -> None:
    """A socket below a path longer than sun_path can be listened on and reached, owner-only, and replaced."""
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    path = directory / "keeper.sock"
    listen(path).close()
    with listen(path) as listener:
        assert path.stat().st_mode & 0o777 == 0o600
        with Link.to(path, timeout=60), listener.accept()[0] as accepted:
            assert peer_of(accepted).uid == os.geteuid()
    assert list(directory.iterdir()) == [path]


def test_async_requests_both_ways_at_once() -> None:
    """Two asyncio ends ask one another at the same time, descriptors and errors included."""

    async def serve(link: AsyncLink) -> None:
        while True:
            try:
                message = await link.recv()
            except LinkClosedError:
                return
            if message.body["op"] == "bad":
                await link.refuse(message, "bad", "no such thing")
            else:
                await link.answer(message, {"n": message.body["n"] + 1}, message.fds)
            message.close()

    async def scenario() -> None:
        near, far = _pair()
        one, other = AsyncLink(near), AsyncLink(far)
        servers = [asyncio.create_task(serve(one)), asyncio.create_task(serve(other))]
        answers = await asyncio.gather(
            *(link.request("next", n=number, within=60) for link in (one, other) for number in range(20))
        )
        assert [answer.body["n"] for answer in answers] == [*range(1, 21), *range(1, 21)]
        read, write = os.pipe()
        answer = await one.request("next", [read], n=1)
        assert os.fstat(answer.fds[0]).st_ino == os.fstat(read).st_ino
        answer.close()
        os.close(read)
        os.close(write)
        with pytest.raises(RequestError, match="no such thing"):
            await one.request("bad")
        one.close()
        await asyncio.gather(*servers)
        with pytest.raises(LinkClosedError):
            await other.request("next", n=1)

    asyncio.run(scenario())


def test_async_large_messages_wait_for_room() -> None:
    """A message larger than the socket's buffer is sent whole once the other side reads."""

    async def scenario() -> None:
        near, far = _pair()
        one, other = AsyncLink(near), AsyncLink(far)
        sending = asyncio.create_task(one.send({"op": "big", "text": "x" * 2_000_000}))
        message: Message = await other.recv()
        await sending
        assert len(message.body["text"]) == 2_000_000
        one.close()
        other.close()

    asyncio.run(scenario())


def test_async_waiters_learn_of_the_end() -> None:
    """A request in flight and a pending recv end with LinkClosedError when the other side goes."""

    async def scenario() -> None:
        near, far = _pair()
        one = AsyncLink(near)
        asked = asyncio.create_task(one.request("never"))
        heard = asyncio.create_task(one.recv())
        await asyncio.to_thread(far.recv, 100)
        far.close()
        for task in (asked, heard):
            with pytest.raises(LinkClosedError):
                await task
        assert one.closed

    asyncio.run(scenario())


def test_what_was_sent_before_the_other_side_ended_is_received_though_sending_fails() -> None:
    """A message with a descriptor that waits is not lost where the receiver first notices by a send that the sender is gone."""

    async def work() -> None:
        near, far = socket.socketpair()
        link = AsyncLink(near)
        with Link(far) as sender, open(os.devnull, "rb") as file:  # noqa: ASYNC230, PTH123
            sender.send({"op": "attach"}, [file.fileno()])
        with pytest.raises(LinkClosedError):
            await link.send({"op": "alive"})
        message = await link.recv()
        assert message.body == {"op": "attach"}
        assert len(message.fds) == 1
        message.close()
        with pytest.raises(LinkClosedError):
            await link.recv()

    asyncio.run(work())
