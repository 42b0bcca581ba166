"""A gRPC server and client of one echo service, without TLS.

`grpc_echo.py serve PORT` serves until its standard input ends.
`grpc_echo.py call ADDRESS AUTHORITY KIND` makes one call, or one bidirectional stream, and prints what came as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc


def unary(request: bytes, _: Any) -> bytes:
    """Give it back."""
    return request


def stream(request: bytes, _: Any) -> Iterator[bytes]:
    """Give back each word."""
    yield from request.split()


def both(requests: Iterator[bytes], _: Any) -> Iterator[bytes]:
    """Give back each as it comes."""
    yield from requests


def serve(port: int) -> None:
    """Serve until standard input ends."""
    server = grpc.server(ThreadPoolExecutor(8))
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
        "Both": grpc.stream_stream_rpc_method_handler(both),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    server.add_insecure_port(f"0.0.0.0:{port}")
    server.start()
    print("ready", flush=True)
    sys.stdin.read()
    server.stop(None)


def call(address: str, authority: str, kind: str) -> None:
    """Make calls of one kind on one channel."""
    options = [("grpc.default_authority", authority), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(f"ipv4:{address}", options=options) as channel:
        try:
            print(json.dumps({"got": list(_call(channel, kind))}))
        except grpc.RpcError as error:
            print(json.dumps({"code": error.code().name, "details": error.details()}))


def _call(channel: grpc.Channel, kind: str) -> Iterator[str]:
    if kind == "unary":
        echo = channel.unary_unary("/test.Echo/Unary")
        for text in (b"one", b"x" * 500_000, b"three"):
            answer = echo(text, timeout=90)
            yield answer.decode() if len(answer) < 100 else str(len(answer))
    elif kind == "stream":
        for answer in channel.unary_stream("/test.Echo/Stream")(b"a b c", timeout=90):
            yield answer.decode()
    else:
        words = iter([b"x", b"y" * 100_000, b"z"])
        for answer in channel.stream_stream("/test.Echo/Both")(words, timeout=90):
            yield answer.decode() if len(answer) < 100 else str(len(answer))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        call(*sys.argv[2:5])
