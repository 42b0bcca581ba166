"""TLS as far as it is visible: ClientHello, ServerHello and alerts (RFC 8446), parsed by OpenSSL or by their length.

Modules here are pure: bytes in, names and lengths out.
No sockets, no verdicts, no keys.
"""
