"""How a refusal looks to the program that was refused, and to whoever reads its output: HTTP answers, as bytes."""

from __future__ import annotations


def response(status: str, text: str, kind: str = "text/plain; charset=utf-8") -> bytes:
    """A whole HTTP/1.1 response that ends the connection."""
    body = text.encode("utf-8", "replace")
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


RETRY_AFTER = 5
"""Seconds after which a client may try again what a person is asked about."""


def forbidden_page(host: str, port: int, reason: str, command: str | None, *, asked: bool = False) -> str:
    """The text of that page; see `forbidden`."""
    lines = [f"irons: egress denied: {host}:{port}: {reason}"]
    if asked:
        lines.append("A person is being asked. Try again in a while: the answer applies to the next try.")
    if command is not None:
        lines.append(f"To allow it, on the machine that runs irons: {command}")
    return "\n".join(lines) + "\n"


def forbidden(host: str, port: int, reason: str, command: str | None, *, asked: bool = False) -> bytes:
    """The 403 that names the host.

    Args:
        host: canonical.
        port: the port it was asked at.
        reason: one line, without anything that the sandbox may not know.
        command: what a person types to allow it; None where no rule would.
        asked: a person is asked, so that another try may pass.
    """
    answer = response("403 Forbidden", forbidden_page(host, port, reason, command, asked=asked))
    more = f"X-Irons-Denied: 1\r\n{f'Retry-After: {RETRY_AFTER}' + chr(13) + chr(10) if asked else ''}"
    return answer.replace(b"\r\n", b"\r\n" + more.encode("ascii"), 1)


def unreachable(host: str, port: int, reason: str) -> bytes:
    """The 502 for a server that is allowed but was not reached."""
    return response("502 Bad Gateway", unreachable_page(host, port, reason))


def unreachable_page(host: str, port: int, reason: str) -> str:
    """The text of that page."""
    return f"irons: {host}:{port} is allowed but was not reached: {reason}\n"
