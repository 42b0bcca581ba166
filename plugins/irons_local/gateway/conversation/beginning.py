"""The first words of a connection: waited for until it is clear what it speaks and which name it says in the clear."""

from __future__ import annotations

import ssl

from irons_local.gateway.budget import patience
from irons_local.gateway.conversation.actions import Waits
from irons_local.gateway.conversation.events import CLIENT
from irons_local.gateway.conversation.exchange import Exchange, Steps
from irons_local.gateway.inspect.sniff import Kind, Opening, kind
from irons_local.gateway.tls import client_hello
from irons_local.gateway.tls.remembered import Hellos, KnownHello
from irons_policy.hostnames import HostError, canonical_host


def read_opening(
    exchange: Exchange, tls: ssl.SSLContext, hellos: Hellos | None, grace: float, *, strict: bool
) -> Steps[Opening]:
    """Read a client's first words.

    Args:
        exchange: the connection.
        tls: what `client_hello.context` made.
        hellos: ClientHellos that came before; None for none.
        grace: seconds in which the first byte must come, else the opening is silent.
        strict: the port allows only TLS or HTTP, so a text line may take its time.
    """
    exchange.hold(Waits.BEGINNING, grace)
    try:
        data = yield from exchange.hear(CLIENT)
    except TimeoutError:
        return Opening(Kind.UNDECIDED)
    finally:
        exchange.release()
    if not data:
        return Opening(Kind.UNDECIDED, ended=True)
    found = kind(data)
    if found is Kind.UNDECIDED:
        exchange.hold(Waits.FIRST_LINE, patience.WHOLE if strict else patience.LINE)
        try:
            while (found := kind(data)) is Kind.UNDECIDED:
                more = yield from exchange.hear(CLIENT)
                if not more:
                    return Opening(found, data, ended=True)
                data += more
        except TimeoutError:
            return Opening(Kind.UNDECIDED, data)
        finally:
            exchange.release()
    if found is Kind.TLS:
        known = None if hellos is None else hellos.find(data)
        if known is not None:
            return Opening(Kind.TLS, data, name=known.name, alert=known.alert)
        opening = yield from read_hello(exchange, tls, data)
        if opening.fault is None and hellos is not None:
            hellos.remember(opening.data, KnownHello(opening.name, opening.alert))
        return opening
    fault = "its first line has no end" if found is Kind.ENDLESS else None
    return Opening(found, data, fault=fault)


def read_hello(exchange: Exchange, tls: ssl.SSLContext, data: bytes) -> Steps[Opening]:
    """Read the rest of a ClientHello; what was read beyond its last record is given back.

    Args:
        exchange: the connection.
        tls: what `client_hello.context` made.
        data: how it begins.
    """
    reader = client_hello.Reader(tls)
    try:
        hello = reader.feed(data)
        if hello is None:
            exchange.hold(Waits.HELLO, patience.WHOLE)
        while hello is None:
            more = yield from exchange.hear(CLIENT)
            if not more:
                return Opening(Kind.TLS, data, ended=True, fault="the ClientHello was never finished")
            data += more
            hello = reader.feed(more)
    except client_hello.BadHelloError as error:
        return Opening(Kind.TLS, data, alert=error.alert, fault=str(error))
    except TimeoutError:
        return Opening(Kind.TLS, data, fault="the ClientHello was not finished in time")
    finally:
        reader.close()
        exchange.release()
    if hello.rest:
        data = data[: -len(hello.rest)]
        exchange.give_back(CLIENT, hello.rest)
    if hello.name is None:
        return Opening(Kind.TLS, data, alert=hello.alert)
    try:
        name = canonical_host(hello.name)
    except HostError as error:
        return Opening(Kind.TLS, data, alert=hello.alert, fault=f"malformed TLS server name: {error}")
    return Opening(Kind.TLS, data, name=name, alert=hello.alert)
