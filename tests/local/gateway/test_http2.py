"""One connection of HTTP/2, without I/O: what goes on, what is answered here, and what ends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.local.gateway.talks import stand_still

from irons_local.gateway.budget.undecided import FREE, Holding, TooMuchError
from irons_local.gateway.budget.undecided import Budget as Held
from irons_local.gateway.http1.authority import BadRequestError
from irons_local.gateway.http2 import frames as h2
from irons_local.gateway.http2.budget import MOST_STREAMS, FrameBudget
from irons_local.gateway.http2.conversation import Http2
from irons_local.gateway.http2.frames import Frames, Http2Error, Piece, frame, settings
from irons_local.gateway.http2.heads import MAX_TABLE, Request
from irons_local.gateway.http2.replies import Words

GOOD, EVIL = "web.test", "evil.test"
START = h2.PREFACE + settings({})
NO = Words(403, 7, "no", "no, not that\n")


def judge(found: Request | BadRequestError) -> Words | None:
    """Let requests to one host pass."""
    if isinstance(found, BadRequestError):
        return NO._replace(reason=str(found))
    return None if all(host.text == GOOD for host in found.hosts) else NO


class Seen(NamedTuple):
    """What came of a conversation."""

    engine: Http2
    server: bytes
    client: bytes


def talk(*turns: bytes, step: int = 1 << 20, greeted: bool = True) -> Seen:
    """Let a client say something, with a server that says nothing."""
    engine = Http2(judge, FrameBudget(FrameBudget(clock=stand_still)), Holding(Held()), greeted=greeted)
    server, client = b"", b""
    for turn in turns:
        for at in range(0, len(turn), step):
            engine.feed_client(turn[at : at + step])
            more = True
            while more:
                more = engine.step_client()
                server += engine.take_for_server()
                client += engine.take_for_client()
    return Seen(engine, server, client)


def cut(data: bytes) -> list[Piece]:
    """The frames in bytes."""
    frames = Frames()
    frames.feed(data.removeprefix(h2.PREFACE))
    found = frames.take(1 << 20)
    assert not frames.partial
    return found


class Client:
    """Writes requests, with a compression state of its own."""

    def __init__(self) -> None:
        self.encoder = hpack.Encoder()

    def block(self, host: str, *more: tuple[str, str], path: str = "/x") -> bytes:
        """A header block."""
        fields = [(":method", "POST"), (":scheme", "http"), (":authority", host), (":path", path), *more]
        block: bytes = self.encoder.encode(fields)
        return block

    def ask(
        self, stream: int, host: str = GOOD, *more: tuple[str, str], end: bool = True, path: str = "/x"
    ) -> bytes:
        """A HEADERS frame."""
        flags = h2.END_HEADERS | (h2.END_STREAM if end else 0)
        return frame(h2.HEADERS, flags, stream, self.block(host, *more, path=path))


def raw(*fields: tuple[str, str]) -> bytes:
    """A HEADERS frame of any fields on the first stream."""
    block: bytes = hpack.Encoder().encode(list(fields))
    return frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 1, block)


def test_an_allowed_request_goes_on_as_it_came() -> None:
    """Its header block and its body are the client's own bytes; the settings say that nothing may be pushed."""
    client = Client()
    said = client.ask(1, end=False) + frame(h2.DATA, h2.END_STREAM, 1, b"body")
    seen = talk(START, said)
    assert seen.server == h2.PREFACE + settings({h2.ENABLE_PUSH: 0}) + said
    assert seen.client == b""
    assert not seen.engine.going


def test_a_refused_request_is_answered_here() -> None:
    """By a page, in literals alone, and a GOAWAY; the server gets nothing."""
    seen = talk(START, Client().ask(1, EVIL))
    assert seen.server == h2.PREFACE + settings({h2.ENABLE_PUSH: 0})
    head, body, away = cut(seen.client)
    assert (b":status", b"403") in set(hpack.Decoder().decode(head.payload, raw=True))
    assert body.payload == b"no, not that\n"
    assert (away.kind, away.payload[:4]) == (h2.GOAWAY, b"\0\0\0\0")
    decoder = hpack.Decoder()
    decoder.decode(head.payload)
    assert not decoder.header_table.dynamic_entries
    assert seen.engine.over


def test_a_refused_call_is_answered_in_grpcs_trailers() -> None:
    """With its code for a permission that is denied, and the reason."""
    seen = talk(START, Client().ask(1, EVIL, ("content-type", "application/grpc+proto")))
    found = hpack.Decoder().decode(cut(seen.client)[0].payload, raw=True)
    assert {(b":status", b"200"), (b"grpc-status", b"7"), (b"grpc-message", b"no")} <= set(found)


def test_no_header_block_goes_on_after_a_refused_one() -> None:
    """The field that a refused request put into the table is used by the next: its bytes never reach the server."""
    client = Client()
    first = client.ask(1, GOOD, end=False)
    refused = client.ask(3, EVIL, ("x-secret", "inserted"))
    next_one = client.ask(5, GOOD, ("x-secret", "inserted"))
    assert len(next_one) < len(first)
    trailers = frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 1, client.encoder.encode([("x-end", "1")]))
    seen = talk(START, first, refused, next_one, trailers)
    assert [piece.kind for piece in cut(seen.server)] == [h2.SETTINGS, h2.HEADERS, h2.DATA]
    assert cut(seen.server)[-1].flags == h2.END_STREAM
    last = cut(seen.client)[-1]
    assert (last.kind, last.stream, last.payload) == (h2.RST_STREAM, 5, b"\0\0\0\x07")


def test_the_body_of_a_refused_request_is_dropped_and_its_window_given_back() -> None:
    """Otherwise the requests that run would have no window left."""
    client = Client()
    said = client.ask(1, end=False) + client.ask(3, EVIL, end=False) + frame(h2.DATA, 0, 3, b"x" * 1000)
    seen = talk(START, said, frame(h2.DATA, h2.END_STREAM, 1, b"more"))
    assert b"xxx" not in seen.server
    assert seen.server.endswith(b"more")
    updates = [piece for piece in cut(seen.client) if piece.kind == h2.WINDOW_UPDATE]
    assert [(piece.stream, piece.payload) for piece in updates] == [(0, (1000).to_bytes(4, "big"))]
    resets = [piece for piece in cut(seen.client) if piece.kind == h2.RST_STREAM]
    assert [(piece.stream, piece.payload) for piece in resets] == [(3, bytes(4))]


def test_what_runs_ends_in_peace() -> None:
    """After a refusal an earlier request is answered to its end, and only then it is over."""
    client = Client()
    seen = talk(START, client.ask(1), client.ask(3, EVIL))
    engine = seen.engine
    assert engine.going
    assert not engine.over
    answer = frame(h2.HEADERS, h2.END_HEADERS, 1, b"\x88") + frame(h2.DATA, h2.END_STREAM, 1, b"answer")
    engine.feed_server(settings({}) + answer)
    out, _ = engine.step_server()
    assert out.endswith(answer)
    assert engine.over


def test_an_answer_from_here_waits_for_the_end_of_the_servers_frame() -> None:
    """Nothing comes between the bytes of one, or between the frames of one header block."""
    client = Client()
    engine = talk(START, client.ask(1)).engine
    data = frame(h2.DATA, 0, 1, b"y" * 100)
    begun, rest = frame(h2.HEADERS, 0, 1, b"\x88"), frame(h2.CONTINUATION, h2.END_HEADERS, 1, b"\x88")
    for one, other in ((data[:50], data[50:]), (begun, rest)):
        engine.feed_server(one)
        out, _ = engine.step_server()
        engine.feed_client(client.ask(5 if engine.going else 3, EVIL))
        engine.step_client()
        assert engine.pending
        assert engine.take_for_client() == b""
        engine.feed_server(other)
        more, _ = engine.step_server()
        assert (out + more).startswith(one + other)
        assert len(out + more) > len(one + other)


def test_windows_that_an_answer_from_here_used_are_not_given_to_the_server() -> None:
    """What the client gives back for it is kept."""
    client = Client()
    seen = talk(START, client.ask(1), client.ask(3, EVIL), h2.number(h2.WINDOW_UPDATE, 0, len(NO.page) + 5))
    assert cut(seen.server)[-1].payload == (5).to_bytes(4, "big")


def test_a_page_that_does_not_fit_is_left_out() -> None:
    """A client without a window gets the status alone."""
    seen = talk(h2.PREFACE + settings({h2.INITIAL_WINDOW_SIZE: 3}), Client().ask(1, EVIL))
    assert [piece.kind for piece in cut(seen.client)] == [h2.HEADERS, h2.GOAWAY]


def test_a_client_with_a_small_table_can_read_the_answer() -> None:
    """A table below the default is acknowledged at the beginning of the block."""
    seen = talk(h2.PREFACE + settings({h2.HEADER_TABLE_SIZE: 0}), Client().ask(1, EVIL))
    assert cut(seen.client)[0].payload[0] == 0x20


P = [(":method", "GET"), (":scheme", "http"), (":authority", GOOD), (":path", "/")]


MALFORMED: list[list[tuple[str, str]]] = [
    P[:2] + P[3:],
    [*P, (":authority", EVIL)],
    [*P, (":authority", GOOD)],
    [*P, ("host", EVIL)],
    [*P, ("host", GOOD), ("host", GOOD)],
    [*P[:2], ("host", GOOD), P[3]],
    [*P, ("x", "y"), (":path", "/")],
    [("x", "y"), *P],
    P[1:],
    [*P, (":protocol", "websocket")],
    [(":method", "CONNECT"), (":authority", GOOD)],
    [*P, (":odd", "1")],
    [*P[:3], (":path", "http://evil.test/")],
    [*P[:3], (":path", "")],
    [*P[:3], (":path", "/a b")],
    [*P[:3], (":path", "*")],
    [(":method", "G T"), *P[1:]],
    [P[0], (":scheme", "ftp"), *P[2:]],
    [*P, ("X", "y")],
    [*P, ("x y", "y")],
    [*P, ("x", "a\r\nb")],
    [*P, ("x", "a\0b")],
    [*P, ("x", " a")],
    [*P, ("connection", "close")],
    [*P, ("transfer-encoding", "chunked")],
    [*P, ("upgrade", "h2c")],
    [*P, ("te", "gzip")],
    [*P, ("content-length", "1"), ("content-length", "1")],
    [*P, ("content-length", "+1")],
    [*P[:2], (":authority", "a@web.test"), P[3]],
]


@pytest.mark.parametrize("fields", MALFORMED)
def test_a_malformed_request_is_refused(fields: list[tuple[str, str]]) -> None:
    """On its stream, and nothing of it reaches the server."""
    seen = talk(START, raw(*fields))
    assert cut(seen.server)[-1].kind == h2.SETTINGS
    assert [piece.kind for piece in cut(seen.client)][-1] == h2.GOAWAY


@pytest.mark.parametrize(
    "fields",
    [
        P,
        [*P, ("host", GOOD)],
        [*P, ("te", "trailers")],
        [*P, ("cookie", "a"), ("cookie", "b")],
    ],
)
def test_what_is_well_formed_passes(fields: list[tuple[str, str]]) -> None:
    """A host that is equal, and all that a request may hold."""
    assert cut(talk(START, raw(*fields)).server)[-1].kind == h2.HEADERS


def big(count: int) -> bytes:
    """A header block in many CONTINUATION frames."""
    return frame(h2.HEADERS, 0, 1, b"") + frame(h2.CONTINUATION, 0, 1, b"") * count


BOMB = hpack.Encoder().encode([("x", "y" * 4000)]) + b"\xbe" * 40
"""A field of the table, named again and again: 41 times its size."""


def rapid(count: int, host: str = GOOD) -> bytes:
    """Requests, each taken back at once."""
    client = Client()
    return b"".join(
        client.ask(2 * at + 1, host) + h2.number(h2.RST_STREAM, 2 * at + 1, 8) for at in range(count)
    )


def many(count: int) -> bytes:
    """Requests at once."""
    client = Client()
    return b"".join(client.ask(2 * at + 1) for at in range(count))


def trailed(field: tuple[str, str]) -> bytes:
    """A request with a trailer."""
    client = Client()
    head = client.ask(1, end=False)
    return head + frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 1, client.encoder.encode([field]))


def two_heads() -> bytes:
    """Two heads on one stream."""
    client = Client()
    return client.ask(1, end=False) + frame(
        h2.HEADERS, h2.END_HEADERS, 1, client.encoder.encode([("x", "y")])
    )


ENDS: dict[str, Callable[[], bytes]] = {
    "CONTINUATION flood": lambda: big(40),
    "CONTINUATION flood, large": lambda: (
        frame(h2.HEADERS, 0, 1, b"x" * 60_000) + frame(h2.CONTINUATION, 0, 1, b"x" * 6_000)
    ),
    "rapid reset": lambda: rapid(2_000),
    "HPACK bomb": lambda: frame(h2.HEADERS, h2.END_HEADERS, 1, BOMB),
    "a great table": lambda: frame(h2.HEADERS, h2.END_HEADERS, 1, b"\x3f\xe1\xff\x07"),
    "too many fields": lambda: frame(h2.HEADERS, h2.END_HEADERS, 1, b"\0\1a\1b" * 300),
    "too many fields, indexed": lambda: frame(h2.HEADERS, h2.END_HEADERS, 1, b"\x82" * 300),
    "updates of the table": lambda: frame(h2.HEADERS, h2.END_HEADERS, 1, b"\x20" * 60_000),
    "updates of the table, later": lambda: frame(h2.HEADERS, h2.END_HEADERS, 1, b"\x82\x20\x20\x20"),
    "a malformed block": lambda: frame(h2.HEADERS, h2.END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"),
    "SETTINGS flood": lambda: settings({}) * 200,
    "PING flood": lambda: frame(h2.PING, 0, 0, b"12345678") * 2_000,
    "empty DATA flood": lambda: Client().ask(1, end=False) + frame(h2.DATA, 0, 1) * 5_000,
    "PRIORITY flood": lambda: frame(h2.PRIORITY, 0, 1, bytes(5)) * 5_000,
    "a frame between": lambda: frame(h2.HEADERS, 0, 1, b"\x82") + frame(h2.PING, 0, 0, bytes(8)),
    "CONTINUATION of another": lambda: frame(h2.HEADERS, 0, 1, b"\x82") + frame(h2.CONTINUATION, 4, 3, b""),
    "CONTINUATION of none": lambda: frame(h2.CONTINUATION, h2.END_HEADERS, 1, b""),
    "an even stream": lambda: frame(h2.HEADERS, h2.END_HEADERS, 2, b"\x82"),
    "stream nought": lambda: frame(h2.HEADERS, h2.END_HEADERS, 0, b"\x82"),
    "a push": lambda: frame(h2.PUSH_PROMISE, h2.END_HEADERS, 1, bytes(4)),
    "data of none": lambda: frame(h2.DATA, 0, 1, b"x"),
    "too much padding": lambda: frame(h2.HEADERS, h2.END_HEADERS | h2.PADDED, 1, b"\x05ab"),
    "a pseudo-header in trailers": lambda: trailed((":path", "/")),
    "a host in trailers": lambda: trailed(("host", EVIL)),
    "two heads": two_heads,
    "a short body": lambda: (
        Client().ask(1, GOOD, ("content-length", "5"), end=False) + frame(h2.DATA, h2.END_STREAM, 1, b"abcd")
    ),
    "a long body": lambda: (
        Client().ask(1, GOOD, ("content-length", "5"), end=False) + frame(h2.DATA, 0, 1, b"abcdef")
    ),
    "a body where none is": lambda: Client().ask(1, GOOD, ("content-length", "5")),
    "data after the end": lambda: Client().ask(1) + frame(h2.DATA, 0, 1, b"x"),
    "too many at once": lambda: many(MOST_STREAMS + 1),
    "a great frame": lambda: (70_000).to_bytes(3, "big") + b"\x04\0" + bytes(4),
    "odd settings": lambda: frame(h2.SETTINGS, 0, 0, b"12345"),
    "settings of a stream": lambda: frame(h2.SETTINGS, 0, 1),
    "an odd window": lambda: frame(h2.WINDOW_UPDATE, 0, 0, b"123"),
    "an odd reset": lambda: frame(h2.RST_STREAM, 0, 1, b"123"),
    "a reset of none": lambda: h2.number(h2.RST_STREAM, 1, 0),
}


@pytest.mark.parametrize("step", [1, 1 << 20])
@pytest.mark.parametrize("make", ENDS.values(), ids=ENDS.keys())
def test_what_ends_a_connection(make: Callable[[], bytes], step: int) -> None:
    """Breaking the protocol or a bound, in one piece and byte by byte."""
    with pytest.raises(Http2Error):
        talk(START, make(), step=step)


@pytest.mark.parametrize(
    "first", [b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", h2.PREFACE + frame(h2.PING, 0, 0, bytes(8))]
)
def test_how_a_connection_begins(first: bytes) -> None:
    """With the preface and the client's settings."""
    with pytest.raises(Http2Error):
        talk(first)


def test_a_servers_settings_are_bounded() -> None:
    """The table that a client may use, the requests at once, and no CONNECT for protocols."""
    engine = talk(START).engine
    said = {h2.HEADER_TABLE_SIZE: 1 << 30, h2.ENABLE_CONNECT_PROTOCOL: 1, 5: 20_000}
    engine.feed_server(settings(said) + settings({5: 16_384}))
    first, other = cut(engine.step_server()[0])
    assert h2.read_settings(first.payload) == {
        h2.HEADER_TABLE_SIZE: MAX_TABLE,
        5: 20_000,
        h2.MAX_CONCURRENT_STREAMS: 256,
    }
    assert h2.read_settings(other.payload) == {5: 16_384}


def listen(engine: Http2) -> None:
    """Let it handle all that its client has sent."""
    while engine.step_client():
        pass


def in_the_middle_of_a_frame(*said: bytes) -> Http2:
    """A connection with one request under way, whose server has begun a frame and does not end it."""
    engine = talk(START, *said).engine
    engine.feed_server(settings({}) + frame(h2.DATA, 0, 1, bytes(100))[:20])
    engine.step_server()
    return engine


def test_windows_given_back_wait_as_one() -> None:
    """Bodies of refused requests cost nothing while the server is in the middle of a frame."""
    client = Client()
    engine = in_the_middle_of_a_frame(client.ask(1, end=False), client.ask(3, host=EVIL, end=False))
    assert engine.take_for_client() == b""
    waiting = len(engine._pending)
    for _ in range(100):
        engine.feed_client(frame(h2.DATA, 0, 3, b"x") * 500)
        listen(engine)
    assert len(engine._pending) == waiting + len(h2.number(h2.WINDOW_UPDATE, 0, 0))
    engine.feed_server(bytes(200))
    said = engine.step_server()[0]
    assert said.count(h2.number(h2.WINDOW_UPDATE, 0, 50_000)) == 1


def test_answers_that_cannot_be_said_are_bounded() -> None:
    """Who goes on to ask while the server never ends a frame is cut off."""
    client = Client()
    engine = in_the_middle_of_a_frame(client.ask(1, end=False), client.ask(3, host=EVIL))
    engine.feed_client(b"".join(client.ask(number, host=EVIL) for number in range(5, 4_000, 2)))
    with pytest.raises(Http2Error, match="could not be answered"):
        listen(engine)
    assert len(engine._pending) < 200_000


def test_what_is_not_whole_is_counted() -> None:
    """Bytes of a frame, of a header block and of answers that wait: what came out, and what a body has, is not."""
    held = Held(120_000)
    engine = Http2(judge, FrameBudget(FrameBudget(clock=stand_still)), Holding(held), greeted=False)
    client = Client()
    engine.feed_client(START + client.ask(1, end=False) + frame(h2.DATA, 0, 1, bytes(100_000)))
    listen(engine)
    engine.hold()
    assert held.held > 100_000 - FREE
    assert 100_000 < len(engine.take_for_server()) < 101_000
    engine.hold()
    assert held.held == 0
    body = frame(h2.DATA, 0, 1, bytes(100_000))
    for at in range(0, len(body), 30_000):
        engine.feed_client(body[at : at + 30_000])
        listen(engine)
        engine.take_for_server()
        engine.hold()
    assert held.held == 0
    block = frame(h2.HEADERS, 0, 3, bytes(20_000)) + frame(h2.CONTINUATION, 0, 3, bytes(10_000))[:9_000]
    engine.feed_client(block)
    listen(engine)
    engine.hold()
    assert held.held == 20_000 + 9_000 + len(engine._pending) - FREE
    engine.feed_server(frame(h2.SETTINGS, 0, 0, bytes(60_000))[:50_000])
    engine.step_server()
    engine.hold()
    with pytest.raises(TooMuchError):
        Holding(held).now(FREE + 50_000)
    engine.feed_server(frame(h2.SETTINGS, 0, 0, bytes(60_000))[50_000:])
    engine.step_server()
    engine.hold()
    assert held.held < 30_000
    engine.close()
    assert held.held == 0


def test_a_server_that_pushes_is_ended() -> None:
    """Its client wants none, by its settings."""
    engine = talk(START).engine
    engine.feed_server(frame(h2.PUSH_PROMISE, h2.END_HEADERS, 1, bytes(4)))
    with pytest.raises(Http2Error, match="push"):
        engine.step_server()


def test_a_client_is_greeted_where_no_server_is_yet() -> None:
    """Its acknowledgement of that greeting is kept from the server, and that of the server's own is not."""
    ack = frame(h2.SETTINGS, h2.ACK, 0)
    seen = talk(START, ack, Client().ask(1), ack, greeted=False)
    assert cut(seen.client)[0].kind == h2.SETTINGS
    assert [piece.flags for piece in cut(seen.server) if piece.kind == h2.SETTINGS] == [0, h2.ACK]


CONVERSATION = b"".join(
    (
        START,
        (client := Client()).ask(1, end=False, path="/" + "p" * 3000),
        frame(h2.DATA, h2.PADDED, 1, b"\x02abcd\0\0"),
        frame(h2.PING, 0, 0, b"12345678"),
        frame(99, 0, 0, b"unknown"),
        h2.number(h2.WINDOW_UPDATE, 0, 100),
        frame(h2.HEADERS, 0, 3, (block := client.block(GOOD, ("x-more", "m" * 200)))[:7]),
        frame(h2.CONTINUATION, 0, 3, block[7:20]),
        frame(h2.CONTINUATION, h2.END_HEADERS, 3, block[20:]),
        frame(h2.DATA, h2.END_STREAM, 3, b"z" * 5000),
        client.ask(5, EVIL, end=False),
        frame(h2.DATA, h2.END_STREAM, 5, b"dropped"),
        client.ask(7, GOOD),
        frame(h2.DATA, h2.END_STREAM, 1, b"last"),
    )
)


@given(st.integers(1, 400))
def test_pieces_make_no_difference_to_a_conversation(step: int) -> None:
    """However bytes are cut, byte by byte too, the same goes to either side."""
    whole, pieces = talk(CONVERSATION), talk(CONVERSATION, step=step)
    assert pieces.server == whole.server
    assert pieces.client == whole.client
    assert b"dropped" not in whole.server


def test_a_conversation_byte_by_byte() -> None:
    """The same as in one piece."""
    assert talk(CONVERSATION, step=1)[1:] == talk(CONVERSATION)[1:]


FRAME = st.builds(frame, st.integers(0, 12), st.integers(0, 255), st.integers(0, 9), st.binary(max_size=60))


@given(st.lists(FRAME, max_size=12), st.lists(st.integers(1, 50), max_size=30))
def test_frames_come_out_as_they_went_in(frames: list[bytes], cuts: list[int]) -> None:
    """In any pieces: nothing lost, nothing twice, and each begins and ends once."""
    data = b"".join(frames)
    for passed in ((), (h2.DATA,), tuple(range(10))):
        reader, left, found = Frames(*passed, passes_unknown=bool(passed)), data, []
        for size in [*cuts, len(data)]:
            reader.feed(left[:size])
            left = left[size:]
            found += reader.take(1000)
        assert b"".join(piece.raw for piece in found) == data
        assert reader.between
        assert not reader.partial
        assert (
            [piece.first for piece in found].count(True)
            == [piece.last for piece in found].count(True)
            == len(frames)
        )


@given(st.lists(FRAME, max_size=12), st.integers(1, 100))
def test_any_frames_are_survived(frames: list[bytes], step: int) -> None:
    """Hostile frames pass, are answered or end it; what reaches the server is frames, and no request to another host."""
    try:
        seen = talk(START + Client().ask(1, end=False) + b"".join(frames), step=step)
    except Http2Error:
        return
    assert [piece.kind for piece in cut(seen.server)].count(h2.HEADERS) >= 1
    cut(seen.client)


@given(st.lists(FRAME, max_size=12), st.integers(1, 100))
def test_any_server_is_survived(frames: list[bytes], step: int) -> None:
    """What a server says comes out whole and in order, but for its settings."""
    engine, data = talk(START + Client().ask(1, end=False)).engine, b"".join(frames)
    out = b""
    try:
        for at in range(0, len(data), step):
            engine.feed_server(data[at : at + step])
            out += engine.step_server()[0]
    except Http2Error:
        return
    kept = [piece for piece in cut(out) if piece.kind != h2.SETTINGS or piece.flags & h2.ACK]
    assert kept == [piece for piece in cut(data) if piece.kind != h2.SETTINGS or piece.flags & h2.ACK]
