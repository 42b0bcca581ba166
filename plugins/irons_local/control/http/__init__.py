"""The API's listener: HTTP/1.1 connections in, ASGI calls out, bounded in time and memory.

Sockets, phases, admission and framing live here.
Nothing here knows a route, a sandbox or a rule.
"""
