"""Whether a host is this machine by the way it is written, so that what goes to it passes no network."""

from __future__ import annotations


def is_loopback(host: str) -> bool:
    """Tell whether a host is `localhost` or a loopback address (RFC 1122, section 3.2.1.3); nothing is resolved."""
    if host == "localhost":
        return True
    from ipaddress import ip_address

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
