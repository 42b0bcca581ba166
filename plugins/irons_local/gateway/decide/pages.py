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


def forbidden_page(host: str, port: int, reason: str, command: str | None) -> str:
    """The text of that page; see `forbidden`."""
    lines = [f"irons: egress denied: {host}:{port}: {reason}"]
    if command is not None:
        lines.append(f"To allow it, on the machine that runs irons: {command}")
    return "\n".join(lines) + "\n"


def forbidden(host: str, port: int, reason: str, command: str | None) -> bytes:
    """The 403 that names the host.

    Args:
        host: canonical.
        port: the port it was asked at.
        reason: one line, without anything that the sandbox may not know.
        command: what a person types to allow it; None where no rule would.
    """
    answer = response("403 Forbidden", forbidden_page(host, port, reason, command))
    return answer.replace(b"\r\n", b"\r\nX-Irons-Denied: 1\r\n", 1)


def unreachable(host: str, port: int, reason: str) -> bytes:
    """The 502 for a server that is allowed but was not reached."""
    return response("502 Bad Gateway", unreachable_page(host, port, reason))


def unreachable_page(host: str, port: int, reason: str) -> str:
    """The text of that page."""
    return f"irons: {host}:{port} is allowed but was not reached: {reason}\n"
