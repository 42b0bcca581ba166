"""Seconds that a connection is given for each thing that is waited for."""

from __future__ import annotations

PATIENCE = 10.0
"""In which a client must begin where only it can: on the ports of TLS and HTTP."""
GRACE_NAMED = 0.02
"""In which a client that speaks first has spoken; after them the server may be the one that does."""
GRACE_LITERAL = 0.3
"""The same for a connection to an address."""
GRACE_DENIED = 1.0
"""The same where the answer is no, whoever speaks first."""
LINE = 2.0
"""In which a first line that has begun is whole, else it may go on as it is."""
WHOLE = 10.0
"""In which a ClientHello that has begun is whole, and a first line on the ports of TLS and HTTP."""
HEAD = 10.0
"""In which the head of an HTTP/1 request that has begun is whole."""
REQUEST = 5.0
"""In which the first request of HTTP/2 comes before its server is dialled without one."""
FRAME = 10.0
"""In which a frame of HTTP/2, or a header block, that has begun is whole."""
CLOSING = 5.0
"""In which a client ends its side of a request-and-answer connection once the server has, unless it uploads."""
