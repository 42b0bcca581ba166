"""Attacks as conversations: the inputs that other tests send through a real gateway, and what a server may never hear of them.

Each is opened to an allowed name in mode deny. Wherever its bytes are cut, nothing that names the other host goes on.
"""

from __future__ import annotations

from tests.local.gateway.conversations import ANSWER, SERVER_HELLO, SETTINGS
from tests.local.gateway.stand import BANNER, client_hello, retry_request
from tests.local.gateway.talks import Talk, Turn, client, rules, server
from tests.local.gateway.test_http2 import ENDS, GOOD, MALFORMED, START, Client, raw
from tests.local.gateway.test_http2_attacks import FLOODS
from tests.local.gateway.test_http_attacks import CHUNKED, EVIL, REFUSED, SMUGGLED, UPGRADES, WEB
from tests.local.gateway.test_second_hello import BEFORE

from irons_local.gateway.http2 import frames as h2

ALLOWED = rules(allow=[f"{WEB}:*"])
POST = b"POST /one HTTP/1.1\r\nHost: web.example.test\r\nTransfer-Encoding: chunked\r\n\r\n"
ONE, OTHER = client_hello(WEB), client_hello(EVIL)
BOTH = ONE[5:] + OTHER[5:]
IN_ONE_RECORD = b"\x16\x03\x01" + len(BOTH).to_bytes(2, "big") + BOTH
PROXY_1 = b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\n"
PROXY_2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12)


def _to(port: int, *turns: Turn) -> Talk:
    return Talk(turns, WEB, port, ALLOWED)


def _lines(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode("latin-1")


def _with_body(fields: str) -> bytes:
    return _lines(f"GET /one HTTP/1.1\nHost: {WEB}\n{fields}\n{'abc' if 'Length: 3' in fields else ''}")


def _good(said: bytes) -> Talk:
    return Talk((client(said), server(SETTINGS)), GOOD, 8080, rules(allow=[f"{GOOD}:*"]))


FLOODED = ("rapid reset", "too many at once", "empty DATA flood")
"""Well formed at its beginning: the live gateway has dialled by the time it meets the bound."""


def flood(name: str) -> Talk:
    """One of those."""
    return _good(START + ENDS[name]())


def _streams() -> dict[str, Talk]:
    one, other = Client(), Client()
    first = START + one.ask(1, WEB, end=False)
    more = one.ask(3, EVIL, ("x-secret", "evil")) + one.ask(5, WEB, ("x-secret", "evil"))
    body = h2.frame(h2.DATA, 0, 1, b"\nSTARTTLS\r\n" + OTHER)
    return {
        "HTTP/2: what a refused request inserted": _to(
            8080, client(first), server(SETTINGS), client(more + h2.frame(h2.DATA, h2.END_STREAM, 1, b"body"))
        ),
        "HTTP/2: a body that hides TLS from a server of mail": _to(
            8080, client(START + other.ask(1, WEB, end=False) + body), server(BANNER), client(OTHER)
        ),
        **{f"HTTP/2: {name}": _good(START + make()) for name, make in ENDS.items() if name not in FLOODED},
        **{
            f"HTTP/2: malformed, {number}": _good(START + raw(*fields))
            for number, fields in enumerate(MALFORMED)
        },
        **{
            f"HTTP/2: {name}": _to(8080, client(START + flood), server(SETTINGS))
            for name, (flood, _) in FLOODS.items()
        },
    }


def _hellos() -> dict[str, Talk]:
    found: dict[str, Talk] = {}
    for name, before in BEFORE.items():
        port = 2525 if before else 443
        said = [server(b"220 ready\r\n")] if before else []
        found |= {
            f"{name}: two hellos": _to(port, client(before + ONE + OTHER), *said, server(retry_request())),
            f"{name}: a second hello": _to(
                port, client(before + ONE), *said, server(retry_request()), client(OTHER)
            ),
            f"{name}: two hellos in one record": _to(
                port, client(before + IN_ONE_RECORD), *said, server(SERVER_HELLO)
            ),
            f"{name}: no TLS behind a hello": _to(
                port, client(before + ONE), *said, server(b"500 what?\r\n"), client(SMUGGLED)
            ),
            f"{name}: another name": _to(port, client(before + OTHER), *said, server(SERVER_HELLO)),
        }
    for greeting in (BANNER, b"S", b"SSH\r\n"):
        found[f"the word SSH to {greeting!r}"] = _to(
            2525, client(b"SSH-2.0-x\r\n"), server(greeting), client(b"STARTTLS\r\n"), client(OTHER)
        )
    return found


def _headers() -> dict[str, Talk]:
    return {
        f"a PROXY header of version {version}, and {name}": _to(2525, client(header + said), server(ANSWER))
        for version, header in ((1, PROXY_1), (2, PROXY_2))
        for name, said in (("a request", SMUGGLED), ("TLS", OTHER), ("HTTP/2", START + Client().ask(1, EVIL)))
    }


ATTACKS: dict[str, Talk] = {
    **{
        f"{name}, port {port}": _to(port, client(_lines(text)), server(ANSWER))
        for name, text in REFUSED.items()
        for port in (80, 8080)
    },
    **{
        f"chunks: {name}": _to(80, client(POST + body), client(SMUGGLED), server(ANSWER))
        for name, body in CHUNKED.items()
    },
    "chunks: fields that frame a request as trailers": _to(
        80, client(POST + b"0\r\nHost: evil.example.test\r\nContent-Length: 100\r\nX: y\r\n\r\n" + SMUGGLED)
    ),
    **{
        f"an upgrade: {name}": _to(port, client(_with_body(fields) + SMUGGLED), server(ANSWER))
        for name, fields in UPGRADES.items()
        for port in (80, 8080)
    },
    "a WebSocket that is declined": _to(
        80, client(_with_body("Connection: Upgrade\nUpgrade: websocket\n") + SMUGGLED), server(ANSWER)
    ),
    "a later request": _to(80, client(_with_body("")), server(ANSWER), client(SMUGGLED)),
    "a later request at once": _to(80, client(_with_body("") + SMUGGLED), server(ANSWER)),
    "plain text on the port of TLS": _to(443, client(SMUGGLED)),
    "opaque bytes on the port of HTTP": _to(80, client(b"\1\2\3evil")),
    **_streams(),
    **_hellos(),
    **_headers(),
}

NO_REFUSAL = {
    "a WebSocket that is declined",
    *(f"{name}: no TLS behind a hello" for name in BEFORE if name != "at once"),
}
"""What ends without a refusal: its server has the last word, or has not answered in TLS yet and what follows waits for that."""
