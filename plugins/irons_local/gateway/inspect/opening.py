"""The first words of a connection: read until it is clear what it speaks and which name it says in clear."""

from __future__ import annotations

import asyncio
import ssl

from irons_local.gateway.budget import patience
from irons_local.gateway.inspect.sniff import Kind, Opening, kind
from irons_local.gateway.streams.stream import Wire
from irons_local.gateway.tls import client_hello
from irons_local.gateway.tls.remembered import Hellos, Known
from irons_policy.hostnames import HostError, canonical_host

FIRST = 16_384
"""Bytes that are read before it is known what they are; more of a body waits in the kernel."""


async def read_opening(
    client: Wire, context: ssl.SSLContext, hellos: Hellos, grace: float, *, strict: bool
) -> Opening:
    """Read a client's first words.

    Args:
        client: the connection.
        context: what `client_hello.context` made.
        hellos: ClientHellos that came before.
        grace: seconds in which the first byte must come, else the opening is silent.
        strict: the port allows only TLS or HTTP, so a text line may take its time.

    Raises:
        OSError: the connection broke.
    """
    try:
        data = await client.recv(FIRST, within=grace)
    except TimeoutError:
        return Opening(Kind.UNDECIDED)
    if not data:
        return Opening(Kind.UNDECIDED, ended=True)
    found = kind(data)
    if found is Kind.UNDECIDED:
        try:
            async with asyncio.timeout(patience.WHOLE if strict else patience.LINE):
                while (found := kind(data)) is Kind.UNDECIDED:
                    more = await client.recv()
                    if not more:
                        return Opening(found, data, ended=True)
                    data += more
        except TimeoutError:
            await client.pace.rest()
            return Opening(Kind.UNDECIDED, data)
    if found is Kind.TLS:
        known = hellos.find(data)
        if known is not None:
            return Opening(Kind.TLS, data, name=known.name, alert=known.alert)
        opening = await read_hello(client, context, data)
        if opening.fault is None:
            hellos.remember(opening.data, Known(opening.name, opening.alert))
        return opening
    fault = "its first line has no end" if found is Kind.ENDLESS else None
    return Opening(found, data, fault=fault)


async def read_hello(client: Wire, context: ssl.SSLContext, data: bytes) -> Opening:
    """Read the rest of a ClientHello; what was read beyond its last record is held.

    Args:
        client: the connection.
        context: what `client_hello.context` made.
        data: how it begins.

    Raises:
        OSError: the connection broke.
    """
    reader = client_hello.Reader(context)
    try:
        hello = reader.feed(data)
        if hello is None:
            async with asyncio.timeout(patience.WHOLE):
                while hello is None:
                    more = await client.recv()
                    if not more:
                        return Opening(Kind.TLS, data, ended=True, fault="the ClientHello was never finished")
                    data += more
                    hello = reader.feed(more)
    except client_hello.BadHelloError as error:
        return Opening(Kind.TLS, data, alert=error.alert, fault=str(error))
    except TimeoutError:
        await client.pace.rest()
        return Opening(Kind.TLS, data, fault="the ClientHello was not finished in time")
    finally:
        reader.close()
    if hello.rest:
        data = data[: -len(hello.rest)]
        client.held = hello.rest + client.held
    if hello.name is None:
        return Opening(Kind.TLS, data, alert=hello.alert)
    try:
        name = canonical_host(hello.name)
    except HostError as error:
        return Opening(Kind.TLS, data, alert=hello.alert, fault=f"malformed TLS server name: {error}")
    return Opening(Kind.TLS, data, name=name, alert=hello.alert)
