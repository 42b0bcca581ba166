"""Joining a fleet: by a token, a machine gets a certificate of the server's."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from irons.version import __version__
from irons_local.fleet.certificates import ask, fingerprint_of
from irons_local.fleet.link import joining_context, receive, send
from irons_local.fleet.messages import Join, body_of
from irons_local.fleet.token import JoinToken, split_address
from irons_local.ipc.framing import LinkError, Message, RequestError, answer_of
from irons_local.member.identity import write_identity

_WITHIN = 60.0


class JoinError(Exception):
    """This machine did not join; the message is one line."""


async def join(token: JoinToken, home: Path) -> None:
    """Join by a token, and keep what comes of it.

    Args:
        token: of `irons fleet add`.
        home: the agent's directory.

    Raises:
        JoinError: the server is not there, is another one, or refuses.
        OSError: what came of it cannot be written.
    """
    host, port = split_address(token.address)
    request = ask(token.name)
    try:
        async with asyncio.timeout(_WITHIN):
            reader, writer = await asyncio.open_connection(host, port, ssl=joining_context())
    except (OSError, ssl.SSLError) as error:
        raise JoinError(f"the server at {token.address} cannot be reached: {error}") from error
    try:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        if der is None or fingerprint_of(der) != token.fingerprint:
            # Before anything is sent: the secret is for the server that made the token.
            raise JoinError(f"the server at {token.address} is not the one that made this token")
        await send(writer, {"id": 1, **body_of(Join(token.name, token.secret, request.text, __version__))})
        answer = answer_of(Message(await receive(reader), [])).body
    except RequestError as error:
        raise JoinError(error.message) from error
    except LinkError as error:
        raise JoinError(f"the server at {token.address} did not answer: {error}") from error
    finally:
        writer.transport.abort()
    certificate, ca = answer.get("certificate"), answer.get("ca")
    if not isinstance(certificate, str) or not isinstance(ca, str):
        raise JoinError("the server answered with something else")
    write_identity(home, token.name, token.address, ca=ca, certificate=certificate, key=request.key)
