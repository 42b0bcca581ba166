"""HTTP/1.1 as a strict reader and writer of heads and bodies (RFC 9112).

What was parsed is written out again in one canonical form; what is ambiguous is refused.
No verdicts, and no dialling.
"""
