"""One connection of HTTP/2 in the clear (RFC 9113): both directions, without I/O.

Header blocks are decoded, judged, and go on as they came. What they are compressed with belongs to the connection: once
a request was refused the server knows less than the client believes, so no further block goes on. The refused request is
answered here, the client gets GOAWAY, and requests that run are finished.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from irons_local.gateway.budget.undecided import Holding
from irons_local.gateway.http1.authority import BadRequestError
from irons_local.gateway.http2 import frames as h2
from irons_local.gateway.http2.budget import (
    EMPTY,
    MAX_BLOCK,
    MOST_CONTINUATIONS,
    MOST_STREAMS,
    OFFERED_STREAMS,
    FrameBudget,
)
from irons_local.gateway.http2.frames import Frames, Http2Error, Piece
from irons_local.gateway.http2.heads import MAX_TABLE, Field, Lists, Request, check_trailers, read_request
from irons_local.gateway.http2.replies import Words, reply

LARGE = 512
"""Bytes of a header block that cost as much as another request."""
TOGETHER = 64
"""Frames that are handled together: a fraction of a millisecond's work."""
HEADS_TOGETHER = 4
WINDOW = 65_535
MOST_WINDOW = 0x7FFF_FFFF
MOST_PENDING = 128 << 10
"""Bytes of answers that wait until the server has ended a frame, which it may never do."""


class Undecided(Enum):
    """What a judge answers that says later whether a request may go on."""

    ASKED = "nothing more of the client is handled until `decide`"


Judge = Callable[[Request | BadRequestError], Words | Undecided | None]
"""Judges a request, or what is wrong with it: None where it may go on."""


@dataclass(slots=True)
class Stream:
    """One request that went on.

    Attributes:
        left: bytes of body that are still to come; None where that was not sent.
        asked: the client has sent all of it.
        answered: the server has.
        grpc: it is answered by gRPC's trailers.
    """

    left: int | None
    grpc: bool
    asked: bool = False
    answered: bool = False


class _Question(NamedTuple):
    """A request that is not judged yet: its number, how it reads, its frames, and whether it has a body."""

    number: int
    found: Request | BadRequestError
    parts: list[bytes]
    ended: bool


class Http2:
    """The state of one connection.

    Args:
        judge: judges each request.
        budget: what its client may send.
        holding: counts what is held of frames that are not whole, and of answers that wait.
        greeted: a server is there already, and says its settings itself. Otherwise the client is greeted here, so that
            it says its first request.

    Attributes:
        to_server: bytes that go to the server.
        reached: a server is there.
        going: GOAWAY was sent to the client.
        last: the last stream of which the server has heard.
    """

    def __init__(self, judge: Judge, budget: FrameBudget, holding: Holding, *, greeted: bool) -> None:
        self._judge = judge
        self._budget = budget
        self._holding = holding
        self._client = Frames(h2.DATA)
        self._server = Frames(h2.DATA, h2.HEADERS, h2.CONTINUATION, passes_unknown=True)
        self._lists = Lists()
        self._streams: dict[int, Stream] = {}
        self._dropped: dict[int, None] = {}
        self._seen = 0
        self._preface = h2.PREFACE
        self._begun = False
        self._block: Piece | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._answer_block = False
        self._pending = bytearray()
        self._returned = 0
        self._acks = 0 if greeted else 1
        self._offered = False
        self._introduced = False
        self._own_settings = 0
        self._room = WINDOW
        self._stream_room = WINDOW
        self._debt = 0
        self._table = 4096
        self._asking = 0
        self._question: _Question | None = None
        self._grpc = False
        self.to_server: list[bytes | memoryview] = []
        self.reached = greeted
        self.going = False
        self.last = 0
        if not greeted:
            budget.heard(h2.SETTINGS)
            self._pending += h2.settings({h2.MAX_CONCURRENT_STREAMS: OFFERED_STREAMS})

    @property
    def pending(self) -> bool:
        """True where something was answered here that has not gone to the client."""
        return bool(self._pending)

    @property
    def over(self) -> bool:
        """True where nothing more will be sent on it."""
        return self.going and not self._streams

    @property
    def partial(self) -> bool:
        """True where the rest of a frame, or of a header block, is waited for."""
        return self._client.partial or self._block is not None or bool(self._preface)

    def hold(self) -> None:
        """Count what is held, before more is waited for.

        Raises:
            TooMuchError: there is no room for it.
        """
        size = self._client.waiting + self._server.waiting + len(self._pending)
        if self._parts:
            size += self._size
        for part in self.to_server:
            size += len(part)
        self._holding.now(size)

    def close(self) -> None:
        """Hold nothing any more, and have nothing judged: the connection has ended."""
        self._holding.now(0)
        # Whoever judges refers back to this.
        self._judge = _closed

    def take_for_server(self) -> bytes:
        """What goes to the server now."""
        out, self.to_server = b"".join(self.to_server), []
        return out

    def take_for_client(self) -> bytes:
        """What was answered here and may go to the client now: nothing in the middle of the server's own words."""
        if self._answer_block or not self._server.between:
            return b""
        return self._take_pending()

    def feed_client(self, data: bytes) -> None:
        """Take bytes of the client's.

        Raises:
            Http2Error: it does not begin as HTTP/2 does.
        """
        if self._preface:
            size = min(len(data), len(self._preface))
            if data[:size] != self._preface[:size]:
                raise Http2Error("it does not begin as HTTP/2 does")
            self._preface, data = self._preface[size:], data[size:]
            if not self._preface and not self._introduced:
                self.to_server.append(h2.PREFACE)
        self._client.feed(data)

    def step_client(self) -> bool:
        """Handle some of what the client sent; True where there is more.

        Raises:
            Http2Error: it broke the protocol or a bound.
        """
        heads = 0
        for _ in range(TOGETHER):
            if self._question is not None:
                return False
            pieces = self._client.take(1)
            if not pieces:
                return False
            heads += pieces[0].kind in {h2.HEADERS, h2.CONTINUATION}
            self._from_client(pieces[0])
            if heads >= HEADS_TOGETHER:
                break
        return True

    def feed_server(self, data: bytes) -> None:
        """Take bytes of the server's."""
        self._server.feed(data)

    def introduce(self) -> bytes:
        """Begin with a server that may not speak HTTP/2 at all.

        Returns:
            What it may get in any case, with no byte of the client's choice in it. What the client has sent so far is
            for when it has answered with its settings, as every server does first (RFC 9113, section 3.4).
        """
        self._introduced = True
        self._own_settings = 1
        if self.to_server[:1] == [h2.PREFACE]:
            del self.to_server[0]
        return h2.PREFACE + h2.settings({h2.ENABLE_PUSH: 0})

    def step_server(self) -> tuple[bytes, bool]:
        """Handle some of what the server sent.

        Returns:
            What goes to the client, and whether there is more.

        Raises:
            Http2Error: it broke the protocol.
        """
        pieces = self._server.take(TOGETHER)
        out: list[bytes | memoryview] = []
        for piece in pieces:
            if piece.first and not self._answer_block and self.pending:
                out.append(self._take_pending())
            out.append(self._from_server(piece))
        out.append(self.take_for_client())
        return b"".join(out), len(pieces) == TOGETHER

    def refuse(self, words: Words) -> None:
        """Answer the request that is being judged, or every request that waits for a server that was not reached."""
        if not self.reached and self._begun:
            self._pending += h2.frame(h2.SETTINGS, h2.ACK, 0)
        if self._asking:
            self._refuse(self._asking, words, grpc=self._grpc)
        elif not self.reached:
            for number, stream in self._streams.items():
                self._answer(number, words, grpc=stream.grpc)
            self._streams.clear()
        self._go_away(words.reason)

    def end(self, error: Http2Error) -> None:
        """Tell the client that it is over, and why."""
        self._pending += h2.go_away(self.last, error.code, str(error))
        self.going = True

    def _from_client(self, piece: Piece) -> None:
        kind, number = piece.kind, piece.stream
        if not self._begun:
            if kind != h2.SETTINGS or piece.flags & h2.ACK:
                raise Http2Error("it does not begin with its settings")
            self._begun = True
        if self._block is not None and (kind != h2.CONTINUATION or number != self._block.stream):
            raise Http2Error("a header block is interrupted")
        if piece.first:
            self._budget.take(kind)
        if kind == h2.DATA:
            self._data(piece)
        elif kind in {h2.HEADERS, h2.CONTINUATION}:
            self._headers(piece)
        elif kind in {h2.SETTINGS, h2.PING, h2.GOAWAY}:
            self._of_connection(piece)
        elif kind == h2.WINDOW_UPDATE:
            self._window(piece)
        elif kind == h2.RST_STREAM:
            self._reset(piece)
        elif kind == h2.PUSH_PROMISE:
            raise Http2Error("a client does not push")
        # PRIORITY and what is not known may be ignored by whoever gets it (RFC 9113, sections 5.3.2 and 5.5).

    def _data(self, piece: Piece) -> None:
        number = piece.stream
        if not number or number > self._seen:
            raise Http2Error("data for no request")
        if number > self.last:
            if piece.first and piece.length:
                self._give_back(piece.length)
            if piece.last and piece.flags & h2.END_STREAM:
                self._dropped.pop(number, None)
            return
        stream = self._streams.get(number)
        if stream is not None:
            self._count(stream, piece)
        elif piece.first:
            # The server may have ended it already, and still counts what arrives.
            self._budget.take(EMPTY)
        # What waits for the server to be reached keeps nothing of what came with it.
        self.to_server.append(piece.raw if self.reached else bytes(piece.raw))
        if stream is not None and piece.last and piece.flags & h2.END_STREAM:
            self._asked(number, stream)

    def _count(self, stream: Stream, piece: Piece) -> None:
        if stream.asked:
            raise Http2Error("data after the end of a request", h2.STREAM_CLOSED)
        if not piece.first:
            return
        size = piece.length
        if piece.flags & h2.PADDED:
            size -= 1 + (piece.raw[h2.HEAD] if size else 0)
            if size < 0:
                raise Http2Error("a DATA frame is malformed")
        if not size and not piece.flags & h2.END_STREAM:
            self._budget.take(EMPTY)
        if stream.left is not None:
            stream.left -= size
            if stream.left < 0:
                raise Http2Error("a body is longer than it says")

    def _asked(self, number: int, stream: Stream) -> None:
        if stream.left:
            raise Http2Error("a body is shorter than it says")
        stream.asked = True
        if stream.answered:
            self._streams.pop(number, None)

    def _headers(self, piece: Piece) -> None:
        if piece.kind == h2.HEADERS:
            if not piece.stream % 2:
                raise Http2Error("a request has no stream of its own")
            self._block, self._parts, self._size = piece, [], 0
        elif self._block is None:
            raise Http2Error("a header block has no beginning")
        self._parts.append(bytes(piece.raw))
        self._size += piece.length
        self._budget.take(h2.HEADERS, piece.length // LARGE)
        if len(self._parts) > MOST_CONTINUATIONS or self._size > MAX_BLOCK:
            raise Http2Error("a header block is too large", h2.ENHANCE_YOUR_CALM)
        if not piece.flags & h2.END_HEADERS:
            return
        begun, parts = self._block, self._parts
        self._block, self._parts = None, []
        if begun is None:
            raise AssertionError
        whole = h2.block(begun._replace(raw=parts[0])) + b"".join(part[h2.HEAD :] for part in parts[1:])
        fields = self._lists.decode(whole)
        ended = bool(begun.flags & h2.END_STREAM)
        if begun.stream > self._seen:
            self._request(begun.stream, fields, parts, ended=ended)
        else:
            self._trailers(begun.stream, fields, parts, ended=ended)

    def _request(self, number: int, fields: list[Field], parts: list[bytes], *, ended: bool) -> None:
        self._seen = number
        if len(self._streams) + len(self._dropped) >= MOST_STREAMS:
            raise Http2Error("too many requests at once", h2.ENHANCE_YOUR_CALM)
        found: Request | BadRequestError
        try:
            found = read_request(fields)
        except BadRequestError as error:
            found = error
        self._grpc = isinstance(found, Request) and found.grpc
        if not ended:
            self._dropped[number] = None
        self._asking = number
        question = _Question(number, found, parts, ended)
        words = self._judge(found)
        if words is Undecided.ASKED:
            self._question = question
        else:
            self._decided(question, words)

    def decide(self, words: Words | None) -> None:
        """Say whether the request may go on that was asked about; `step_client` then goes on with what follows it.

        Args:
            words: how it is refused; None where it may go on.
        """
        question, self._question = self._question, None
        if question is not None:
            self._decided(question, words)

    def _decided(self, question: _Question, words: Words | None) -> None:
        number, found, parts, ended = question
        self._asking = 0
        if words is not None or isinstance(found, BadRequestError):
            self._refuse(number, words or Words(403, 7, str(found), ""), grpc=self._grpc)
            self._go_away((words or Words(403, 7, str(found), "")).reason)
        elif self.going:
            # It is allowed, and the client may ask again on another connection.
            self._say(h2.number(h2.RST_STREAM, number, h2.REFUSED_STREAM))
            self._dropped.pop(number, None)
        else:
            self._dropped.pop(number, None)
            self._streams[number] = stream = Stream(found.length, found.grpc)
            self.last = number
            self.to_server += parts
            if ended:
                self._asked(number, stream)

    def _trailers(self, number: int, fields: list[Field], parts: list[bytes], *, ended: bool) -> None:
        try:
            check_trailers(fields)
        except BadRequestError as error:
            raise Http2Error(str(error)) from None
        if not ended:
            raise Http2Error("a request has two heads")
        if number > self.last:
            self._dropped.pop(number, None)
            return
        stream = self._streams.get(number)
        if stream is not None and stream.asked:
            raise Http2Error("a trailer after the end of a request", h2.STREAM_CLOSED)
        if not self.going:
            self.to_server += parts
        elif stream is not None:
            # A recipient may leave trailers out (RFC 9110, section 6.5.2).
            self.to_server.append(h2.frame(h2.DATA, h2.END_STREAM, number))
        if stream is not None:
            self._asked(number, stream)

    def _of_connection(self, piece: Piece) -> None:
        if piece.stream:
            raise Http2Error("a frame of the connection is on a stream")
        if piece.kind == h2.GOAWAY or (piece.kind == h2.PING and self.reached):
            self.to_server.append(piece.raw)
        elif piece.kind == h2.PING:
            if not piece.flags & h2.ACK:
                self._say(h2.frame(h2.PING, h2.ACK, 0, piece.payload))
        elif piece.flags & h2.ACK:
            if self._acks:
                self._acks -= 1
            else:
                self.to_server.append(piece.raw)
        else:
            self._settings(h2.read_settings(piece.payload))

    def _settings(self, said: dict[int, int]) -> None:
        self._stream_room = said.get(h2.INITIAL_WINDOW_SIZE, self._stream_room)
        self._table = min(self._table, said.get(h2.HEADER_TABLE_SIZE, self._table))
        said[h2.ENABLE_PUSH] = 0
        self.to_server.append(h2.settings(said))

    def _window(self, piece: Piece) -> None:
        if piece.length != 4:
            raise Http2Error("a WINDOW_UPDATE frame has the wrong size", h2.FRAME_SIZE_ERROR)
        if piece.stream:
            if piece.stream > self._seen:
                raise Http2Error("a window for no request")
            if piece.stream <= self.last:
                self.to_server.append(piece.raw)
            return
        size = int.from_bytes(piece.payload, "big") & 0x7FFF_FFFF
        self._room += size
        # What was answered here used a window of which the server knows nothing.
        paid = min(size, self._debt)
        self._debt -= paid
        if not paid:
            self.to_server.append(piece.raw)
        elif size > paid:
            self.to_server.append(h2.number(h2.WINDOW_UPDATE, 0, size - paid))

    def _reset(self, piece: Piece) -> None:
        if piece.length != 4:
            raise Http2Error("a RST_STREAM frame has the wrong size", h2.FRAME_SIZE_ERROR)
        if not piece.stream or piece.stream > self._seen:
            raise Http2Error("a reset of no request")
        self._dropped.pop(piece.stream, None)
        self._streams.pop(piece.stream, None)
        if piece.stream <= self.last:
            self.to_server.append(piece.raw)

    def _refuse(self, number: int, words: Words, *, grpc: bool) -> None:
        self._answer(number, words, grpc=grpc)
        if number in self._dropped:
            # The answer is whole, and the rest of the request is not wanted (RFC 9113, section 8.1).
            self._pending += h2.number(h2.RST_STREAM, number, h2.NO_ERROR)
            self._dropped.pop(number)

    def _say(self, frames: bytes) -> None:
        """Answer what the client asked, as soon as the server's own words allow it."""
        if len(self._pending) > MOST_PENDING:
            raise Http2Error("too much was asked that could not be answered yet", h2.ENHANCE_YOUR_CALM)
        self._pending += frames

    def _take_pending(self) -> bytes:
        out = bytes(self._pending)
        self._pending.clear()
        self._returned = 0
        return out

    def _give_back(self, size: int) -> None:
        """Give window of the connection back, with one frame for what waits together."""
        last = h2.number(h2.WINDOW_UPDATE, 0, self._returned)
        if self._returned and self._pending.endswith(last):
            del self._pending[-len(last) :]
            size += self._returned
        self._returned = min(size, MOST_WINDOW)
        self._say(h2.number(h2.WINDOW_UPDATE, 0, self._returned))

    def _answer(self, number: int, words: Words, *, grpc: bool) -> None:
        room = min(self._room, self._stream_room)
        frames, used = reply(number, words, grpc=grpc, room=room, table=self._table)
        self._say(frames)
        self._room -= used
        self._debt += used

    def _go_away(self, reason: str) -> None:
        if not self.going:
            self._pending += h2.go_away(self.last, h2.NO_ERROR, reason)
            self.going = True

    def _from_server(self, piece: Piece) -> bytes | memoryview:
        kind, number = piece.kind, piece.stream
        if kind == h2.PUSH_PROMISE:
            raise Http2Error("the server pushes")
        if piece.first and kind == h2.DATA:
            self._room -= piece.length
            self._budget.heard(kind)
        if kind in {h2.HEADERS, h2.CONTINUATION} and piece.first:
            self._answer_block = not piece.flags & h2.END_HEADERS
        if kind == h2.RST_STREAM:
            self._streams.pop(number, None)
        elif kind in {h2.DATA, h2.HEADERS} and piece.last and piece.flags & h2.END_STREAM:
            stream = self._streams.get(number)
            if stream is not None:
                stream.answered = True
                if stream.asked:
                    self._streams.pop(number)
        elif kind == h2.PING and not piece.flags & h2.ACK:
            self._budget.heard(kind)
        elif kind == h2.SETTINGS and not piece.flags & h2.ACK:
            self._budget.heard(kind)
            return self._offer(h2.read_settings(piece.payload))
        elif kind == h2.SETTINGS and self._own_settings:
            # It acknowledges those that it was introduced with.
            self._own_settings -= 1
            return b""
        return piece.raw

    def _offer(self, said: dict[int, int]) -> bytes:
        """A server's settings, within the bounds that are kept here."""
        said.pop(h2.ENABLE_CONNECT_PROTOCOL, None)
        if h2.HEADER_TABLE_SIZE in said:
            said[h2.HEADER_TABLE_SIZE] = min(said[h2.HEADER_TABLE_SIZE], MAX_TABLE)
        if not self._offered or h2.MAX_CONCURRENT_STREAMS in said:
            self._offered = True
            said[h2.MAX_CONCURRENT_STREAMS] = min(
                said.get(h2.MAX_CONCURRENT_STREAMS, OFFERED_STREAMS), OFFERED_STREAMS
            )
        return h2.settings(said)


def _closed(_: Request | BadRequestError) -> None:
    raise AssertionError("a connection that has ended has nothing judged")
