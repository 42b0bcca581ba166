"""HTTP/2 in the clear, without I/O (RFC 9113).

Frames, header lists, budgets and the gateway's own replies; `relay/http2` moves the bytes.
No sockets, no asyncio, no verdicts.
"""
