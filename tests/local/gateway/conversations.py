"""Conversations as lists of turns: what clients and servers say over HTTP/1, HTTP/2, TLS and plain text, well and ill meant."""

from __future__ import annotations

from random import Random

import hpack
from tests.local.gateway.stand import client_hello, retry_request
from tests.local.gateway.talks import DIRECTLY, LITERAL, ROOM, Change, Talk, Turn, Way, client, rules, server

from irons_local.gateway.conversation.events import Side
from irons_local.gateway.http2 import frames as h2
from irons_local.gateway.inspect.sniff import POSTGRES_SSL

GOOD, EVIL = "web.test", "evil.test"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SECRET = client_hello(GOOD)
SERVER_HELLO = b"\x16\x03\x03\x00\x28\x02\x00\x00\x24\x03\x03" + bytes(32) + b"\0\0"
BANNER = b"220 mail.test ESMTP\r\n"
WARN = rules("warn", ())


def request(host: str = GOOD, line: str = "GET / HTTP/1.1", *fields: str, body: str = "") -> bytes:
    """A request of HTTP/1."""
    return ("\r\n".join([line, f"Host: {host}", *fields]) + "\r\n\r\n" + body).encode("latin-1")


def streams(*hosts: str, body: bytes = b"") -> bytes:
    """The beginning of HTTP/2, and one request for each host."""
    encoder, out = hpack.Encoder(), h2.PREFACE + h2.settings({})
    for number, host in enumerate(hosts):
        fields = [
            (":method", "POST" if body else "GET"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", host),
        ]
        flags = h2.END_HEADERS | (0 if body else h2.END_STREAM)
        out += h2.frame(h2.HEADERS, flags, 2 * number + 1, encoder.encode(fields))
        if body:
            out += h2.frame(h2.DATA, h2.END_STREAM, 2 * number + 1, body)
    return out


def answered(stream: int = 1) -> bytes:
    """A server's answer in HTTP/2."""
    block = hpack.Encoder().encode([(":status", "200")])
    return h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, block)


SETTINGS = h2.settings({h2.MAX_CONCURRENT_STREAMS: 100})


def http(*turns: Turn | Change, port: int = 80, name: str | None = GOOD) -> Talk:
    """A talk on the port of HTTP, where one host is allowed."""
    return Talk(turns, name, port, rules())


def tls(*turns: Turn, port: int = 443, name: str | None = GOOD) -> Talk:
    """A talk on the port of TLS."""
    return http(*turns, port=port, name=name)


def mail(*turns: Turn, port: int = 2525, name: str | None = GOOD) -> Talk:
    """A talk on a port that may carry any protocol."""
    return Talk(turns, name, port, rules(allow=[f"{GOOD}:*", "203.0.113.9:*"]))


def by_proxy(*turns: Turn, **way: bool) -> Talk:
    """A talk on the port of HTTP where there is an upstream proxy."""
    return http(*turns)._replace(way=Way(**way))


TALKS: dict[str, Talk] = {
    "a request": http(client(request()), server(ANSWER)),
    "a request in pieces": http(
        client(request()[:9]), client(request()[9:30]), client(request()[30:]), server(ANSWER)
    ),
    "two requests": http(client(request()), server(ANSWER), client(request()), server(ANSWER)),
    "two requests at once": http(client(request() * 2), server(ANSWER * 2)),
    "a body": http(
        client(request(GOOD, "POST / HTTP/1.1", "Content-Length: 4", body="ab")),
        client(b"cd"),
        server(ANSWER),
    ),
    "a body in chunks": http(
        client(request(GOOD, "POST / HTTP/1.1", "Transfer-Encoding: chunked", body="002;x\r\nab\r\n")),
        client(b"0\r\nX: y\r\nHost: evil.test\r\n\r\n"),
        server(ANSWER),
    ),
    "malformed chunks": http(
        client(request(GOOD, "POST / HTTP/1.1", "Transfer-Encoding: chunked", body="2\r\nab")), client(b"XX")
    ),
    "a body that does not end": http(
        client(request(GOOD, "POST / HTTP/1.1", "Content-Length: 4", body="ab")), client()
    ),
    "another host": http(client(request(EVIL))),
    "another host later": http(client(request()), server(ANSWER), client(request(EVIL))),
    "another host at once": http(client(request() + request(EVIL))),
    "another host in warn": Talk((client(request(EVIL)), server(ANSWER)), GOOD, 80, WARN),
    "another host later in warn": Talk(
        (client(request()), server(ANSWER), client(request(EVIL)), server(ANSWER)), GOOD, 80, WARN
    ),
    "a denied name": http(client(request(EVIL)), name=EVIL),
    "a denied name, malformed": http(client(b"GET / HTTP/1.1\r\n"), name=EVIL),
    "no policy": Talk((client(request()),), GOOD, 80, None),
    "no policy, TLS": Talk((client(SECRET),), GOOD, 443, None),
    "an absolute target": http(client(request(GOOD, f"GET http://{GOOD}/a HTTP/1.1")), server(ANSWER)),
    "an absolute target elsewhere": http(client(request(GOOD, f"GET http://{EVIL}/a HTTP/1.1"))),
    "CONNECT": http(client(request(GOOD, f"CONNECT {EVIL}:443 HTTP/1.1"))),
    "two hosts": http(client(request(GOOD, "GET / HTTP/1.1", f"Host: {EVIL}"))),
    "no host": http(client(b"GET / HTTP/1.1\r\n\r\n")),
    "HTTP/2.0 in words": http(client(b"GET / HTTP/2.0\r\nHost: web.test\r\n\r\n")),
    "a lone LF": http(client(b"GET / HTTP/1.1\nHost: web.test\n\n")),
    "a head that does not end": http(client(b"GET / HTTP/1.1\r\nHost: web.test\r\n"), client()),
    "a large head": http(client(request(GOOD, "GET / HTTP/1.1", "X: " + "x" * 70_000))),
    "a malformed second request": http(client(request()), server(ANSWER), client(b"GET  / HTTP/1.1\r\n\r\n")),
    "HTTP on the port of TLS": tls(client(request())),
    "HTTP at an address": Talk((client(request()), server(ANSWER)), None, 80, rules()),
    "HTTP at an address, elsewhere": Talk((client(request(EVIL)),), None, 80, rules()),
    "a WebSocket": http(
        client(request(GOOD, "GET / HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket")),
        server(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nhello"),
        client(request(EVIL)),
        server(b"\x81\0"),
    ),
    "a WebSocket that is declined": http(
        client(request(GOOD, "GET / HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket")), server(ANSWER)
    ),
    "a WebSocket as second request": http(
        client(request()),
        server(ANSWER),
        client(request(GOOD, "GET / HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket")),
        server(ANSWER),
    ),
    "nothing but an end": http(client()),
    "blank lines": http(client(b"\r\n\r\n" + request()), server(ANSWER)),
    "too many blank lines": http(client(b"\r\n" * 40 + request())),
    "TLS": tls(
        client(SECRET), server(SERVER_HELLO), client(b"\x17\x03\x03\0\x01x"), server(b"\x17\x03\x03\0\x01y")
    ),
    "TLS in pieces": tls(client(SECRET[:3]), client(SECRET[3:90]), client(SECRET[90:]), server(SERVER_HELLO)),
    "TLS with more behind it": tls(client(SECRET + client_hello(EVIL)), server(SERVER_HELLO)),
    "TLS to another name": tls(client(client_hello(EVIL))),
    "TLS to another name in warn": Talk((client(client_hello(EVIL)), server(SERVER_HELLO)), GOOD, 443, WARN),
    "TLS that does not end": tls(client(SECRET[:100]), client()),
    "malformed TLS": tls(client(SECRET[:5] + b"\x01\0\0\x04" + bytes(len(SECRET)))),
    "TLS on the port of HTTP": http(client(SECRET)),
    "TLS at an address": Talk((client(SECRET), server(SERVER_HELLO)), None, 443, rules()),
    "a denied name, TLS": tls(client(client_hello(EVIL)), name=EVIL),
    "a server without TLS": tls(client(SECRET), server(b"HTTP/1.1 400 Bad\r\n\r\n"), client(b"more")),
    "a server that closes": tls(client(SECRET), server()),
    "a second ClientHello": tls(
        client(SECRET), server(retry_request()), client(SECRET), server(SERVER_HELLO)
    ),
    "a second ClientHello elsewhere": tls(
        client(SECRET), server(retry_request()), client(client_hello(EVIL))
    ),
    "no second ClientHello": tls(client(SECRET), server(retry_request()), client(b"GET / HTTP/1.1\r\n")),
    "HTTP/2": mail(client(streams(GOOD)), server(SETTINGS), server(answered())),
    "HTTP/2 in pieces": mail(
        client(streams(GOOD)[:30]),
        client(streams(GOOD)[30:50]),
        client(streams(GOOD)[50:]),
        server(SETTINGS),
        server(answered()),
    ),
    "HTTP/2 to another host": mail(client(streams(EVIL))),
    "HTTP/2 to another host later": mail(
        client(streams(GOOD)),
        server(SETTINGS),
        client(streams(GOOD, EVIL)[len(streams(GOOD)) :]),
        server(answered()),
    ),
    "HTTP/2 to two hosts at once": mail(client(streams(GOOD, EVIL)), server(SETTINGS), server(answered())),
    "HTTP/2 with a body": mail(client(streams(GOOD, body=b"abc")), server(SETTINGS), server(answered())),
    "HTTP/2 on the port of HTTP": http(client(streams(GOOD))),
    "HTTP/2 without a request": mail(client(streams()), client()),
    "malformed HTTP/2": mail(client(h2.PREFACE + h2.frame(h2.DATA, 0, 1, b"x"))),
    "HTTP/2 to a server of another kind": mail(
        client(streams(GOOD)), server(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    ),
    "HTTP/2 malformed later": mail(
        client(streams(GOOD)), server(SETTINGS), client(h2.frame(h2.DATA, 0, 99, b"x"))
    ),
    "mail": mail(client(b"EHLO a\r\n"), server(BANNER), client(b"QUIT\r\n"), server(b"221\r\n")),
    "STARTTLS": mail(
        client(b"EHLO a\r\n"),
        server(BANNER),
        client(b"STARTTLS\r\n"),
        server(b"220 go\r\n"),
        client(SECRET),
        server(SERVER_HELLO),
        client(b"\x17\x03\x03\0\x01x"),
    ),
    "STARTTLS elsewhere": mail(
        client(b"EHLO a\r\n"),
        server(BANNER),
        client(b"STARTTLS\r\n"),
        server(b"220 go\r\n"),
        client(client_hello(EVIL)),
    ),
    "STARTTLS in one breath": mail(
        client(b"STARTTLS\r\n" + SECRET), server(b"220 go\r\n"), server(SERVER_HELLO)
    ),
    "Postgres": mail(client(POSTGRES_SSL[0]), server(b"S"), client(SECRET), server(SERVER_HELLO)),
    "Postgres elsewhere": mail(client(POSTGRES_SSL[0]), server(b"S"), client(client_hello(EVIL))),
    "TLS in the middle of a message": mail(client(b"\x20\0\0\x01" + SECRET), server(SERVER_HELLO)),
    "TLS in the middle of a message, elsewhere": mail(client(b"\x20\0\0\x01" + client_hello(EVIL))),
    "SSH": mail(
        client(b"SSH-2.0-a\r\n"),
        server(b"SSH-2.0-b\r\n"),
        client(b"\0\0\x01" + client_hello(EVIL)),
        server(b"\0\0"),
    ),
    "a request on another port": mail(client(request(GOOD)), server(ANSWER)),
    "a request on another port, elsewhere": mail(client(request(EVIL))),
    "a late request": mail(client(b"\0\1\2\n" + request(EVIL)), server(b"x")),
    "a request in pieces on another port": mail(
        client(b"GET /\x01"), client(b" HTTP/1.1\r\nHost: evil.test\r\n\r\n")
    ),
    "a malformed request after the server's end": http(
        client(request()), server(ANSWER), server(), client(b"GET  / HTTP/1.1\r\n\r\n")
    ),
    "an answer that begins like HTTP/2": mail(client(request()), server(SETTINGS), server(answered())),
    "an answer that begins like HTTP/2, after the client's end": mail(
        client(b"\0\n"), client(), server(SETTINGS)
    ),
    "a name that leads nowhere": http(client(request()))._replace(way=Way(resolves=False)),
    "a name that leads nowhere, TLS": tls(client(SECRET))._replace(way=Way(resolves=False)),
    "a name that leads nowhere, HTTP/2": mail(client(streams(GOOD)))._replace(way=Way(resolves=False)),
    "a server that is not there": http(client(request()))._replace(way=Way(answers=False)),
    "a proxy that resolves": by_proxy(client(request()), server(ANSWER), by_name=True),
    "a proxy that resolves, TLS": tls(client(SECRET), server(SERVER_HELLO))._replace(
        way=Way(by_name=True, resolves=False)
    ),
    "a proxy that is not there": by_proxy(client(request()), by_name=True, answers=False),
    "a proxy that resolves a denied name": by_proxy(client(request(EVIL)), by_name=True)._replace(name=EVIL),
    "a proxy that forwards": by_proxy(client(request()), server(ANSWER), forwards=True),
    "a proxy that forwards a body": by_proxy(
        client(request(GOOD, "POST / HTTP/1.1", "Content-Length: 4", "Expect: 100-continue")),
        client(b"abcd"),
        server(b"HTTP/1.1 100 Continue\r\n\r\n" + ANSWER[:30]),
        server(ANSWER[30:]),
        forwards=True,
    ),
    "a proxy that forwards a malformed body": by_proxy(
        client(request(GOOD, "POST / HTTP/1.1", "Transfer-Encoding: chunked", body="2\r\nab")),
        client(b"XX"),
        forwards=True,
    ),
    "a proxy that forwards, and another request": by_proxy(
        client(request() + request(EVIL)), server(ANSWER), client(request(EVIL)), server(), forwards=True
    ),
    "a proxy that forwards to another host": by_proxy(client(request(EVIL)), forwards=True),
    "a proxy that answers itself": by_proxy(
        client(request()), server(b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\n\r\n"), forwards=True
    ),
    "a proxy that does not answer": by_proxy(client(request()), server(), forwards=True),
    "a proxy and a WebSocket": by_proxy(
        client(request(GOOD, "GET / HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket")), forwards=True
    ),
    "a policy that denies what goes on": http(
        client(request()), server(ANSWER), Change(rules(allow=[])), client(request()), server(ANSWER)
    ),
    "a policy that allows what goes on": http(
        client(request()), server(ANSWER), Change(rules("warn")), client(request()), server(ANSWER)
    ),
    "a policy that no longer lets two names pass": Talk(
        (client(request(EVIL)), server(ANSWER), Change(rules("deny"))), GOOD, 80, WARN
    ),
    "a policy that comes before the request is whole": http(
        client(request()[:20]), Change(rules(allow=[])), client(request()[20:])
    ),
    "a log that is full": http(client(request()))._replace(room=0),
    "a log that is full before the verdict": http(client(request()))._replace(room=1),
    "a log that is full before a refusal": http(client(request(EVIL)))._replace(room=1),
    "a log that is full before a second name": Talk(
        (client(request()), server(ANSWER), client(request(EVIL)), server(ANSWER)), GOOD, 80, WARN, 3
    ),
    "TLS to a server that begins like HTTP/2": mail(
        client(b"\x17\3\3\0\1xSTARTTLS\r\n"), server(SETTINGS), client(SECRET), server(SERVER_HELLO)
    ),
    "TLS elsewhere, to a server that begins like HTTP/2": mail(
        client(b"\x17\3\3\0\1xSTARTTLS\r\n"), server(SETTINGS), client(client_hello(EVIL))
    ),
    "a first line without end": mail(client(b"x" * 9000)),
    "text without end": http(client(b"hello"), client()),
    "a PROXY header before a request": mail(client(b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\n" + request(EVIL))),
    "an address that is allowed": mail(client(b"hello\n"), server(b"world\n"), name=None),
    "an address that is denied": Talk((client(b"hello\n"),), None, 2525, rules()),
}


_SAID = [
    request(),
    request(EVIL),
    request(GOOD, "POST / HTTP/1.1", "Content-Length: 4", body="abcd"),
    request(GOOD, "POST / HTTP/1.1", "Content-Length: 4", "Expect: 100-continue"),
    request(GOOD, "POST / HTTP/1.1", "Transfer-Encoding: chunked", body="2\r\nab\r\n0\r\n\r\n"),
    request(GOOD, "POST / HTTP/1.1", "Transfer-Encoding: chunked", body="2\r\nabX\r\n"),
    request(GOOD, "GET / HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket"),
    request(GOOD, f"GET http://{EVIL}/ HTTP/1.1"),
    request(GOOD, f"CONNECT {EVIL}:443 HTTP/1.1"),
    request()[:-2],
    SECRET,
    client_hello(EVIL),
    b"\x20\0\0\x01" + SECRET,
    b"\x20\0\0\x01" + client_hello(EVIL),
    streams(GOOD),
    streams(EVIL),
    streams(GOOD, EVIL),
    streams(GOOD, body=b"abc"),
    streams(),
    h2.frame(h2.PING, 0, 0, bytes(8)),
    h2.frame(h2.DATA, 0, 99, b"x"),
    POSTGRES_SSL[0],
    b"STARTTLS\r\n",
    b"EHLO a\r\n",
    b"SSH-2.0-a\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12),
    b"\r\n",
    b"\0\1\2",
    b"x",
    b"\x14\x03\x03\0\x01\x01",
    b"\x17\x03\x03\0\x01x",
]
_ANSWERED = [
    ANSWER,
    ANSWER[:-1],
    BANNER,
    SERVER_HELLO,
    retry_request(),
    SETTINGS,
    SETTINGS + answered(),
    answered(),
    h2.frame(h2.PING, 0, 0, bytes(8)),
    b"S",
    b"SSH-2.0-b\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 S\r\n\r\n",
    b"\x15\x03\x03\0\x02\x02\x28",
]
_WAYS = [
    *[DIRECTLY] * 10,
    Way(by_name=True),
    Way(by_name=True, resolves=False),
    Way(forwards=True),
    Way(by_name=True, forwards=True),
    Way(resolves=False),
    Way(answers=False),
]
_POLICIES = [
    *[rules("deny", [f"{GOOD}:*", f"{LITERAL}:*"])] * 5,
    *[rules("warn", [f"{GOOD}:*", f"{LITERAL}:*"])] * 3,
    rules("warn", [], [EVIL]),
    rules("deny", []),
    None,
]


def made_up(chance: Random) -> Talk:
    """A conversation by chance: what programs say, whole, spoilt or in pieces, in an order that may be a likely one."""
    turns: list[Turn | Change] = []
    for _ in range(chance.randint(1, 3)):
        turns += [client(part) for part in _pieces(chance, _spoilt(chance))]
        turns += [server(chance.choice(_ANSWERED)) for _ in range(chance.choice([0, 1, 1, 2]))]
        if chance.random() < 0.05:
            turns.append(chance.choice([client, server])())
        if chance.random() < 0.05:
            policy = chance.choice(_POLICIES[:-1])
            turns.append(Change(policy or WARN))
    name = chance.choice([GOOD, GOOD, GOOD, GOOD, EVIL, None])
    port, policy = chance.choice([80, 443, 2525, 2525]), chance.choice(_POLICIES)
    room, way = chance.choice([ROOM] * 15 + [0, 1, 2, 3, 4]), chance.choice(_WAYS)
    if way.forwards and port != 80:
        way = DIRECTLY
    return Talk(_until_ends(turns), name, port, policy, room, way)


def numbered(number: int) -> Talk:
    """The conversation of this number, the same each time but for what is random in a ClientHello."""
    return made_up(Random(number))


def _until_ends(turns: list[Turn | Change]) -> tuple[Turn | Change, ...]:
    """The turns without those of a side that has ended."""
    ended: set[Side] = set()
    kept: list[Turn | Change] = []
    for turn in turns:
        if isinstance(turn, Change) or turn.side not in ended:
            kept.append(turn)
        if isinstance(turn, Turn) and not turn.data:
            ended.add(turn.side)
    return tuple(kept)


def _spoilt(chance: Random) -> bytes:
    """What a client says in one breath; now and then with another byte in it, or with its end missing."""
    said = b"".join(chance.choices(_SAID, k=chance.choice([1, 1, 1, 2])))
    spoil = chance.random()
    if spoil < 0.15:
        at = chance.randrange(len(said))
        return said[:at] + chance.randbytes(1) + said[at + 1 :]
    if spoil < 0.25:
        return said[: chance.randint(1, len(said))]
    return said


def _pieces(chance: Random, said: bytes) -> list[bytes]:
    """The same in up to three reads; mostly in one."""
    if chance.random() < 0.7:
        return [said]
    at = sorted(chance.randint(0, len(said)) for _ in range(2))
    return [part for part in (said[: at[0]], said[at[0] : at[1]], said[at[1] :]) if part]
