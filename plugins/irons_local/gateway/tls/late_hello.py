"""Follows anything that may be a ClientHello in the middle of what a client sends, without holding anything back.

Some protocols begin TLS in the same breath as the message that asks for it (MySQL), or wrap it in messages of
their own (TDS). A candidate is read along as the bytes go by; the one in a million that is not one ends as an error
that no one hears of.
"""

from __future__ import annotations

import re
import ssl

from irons_local.gateway.budget.undecided import Budget
from irons_local.gateway.tls.client_hello import BadHelloError, Hello, OddHelloError, Reader

MOST = 8
"""Seem to begin at once at most."""
READER = 1024
"""Bytes that one costs next to what it has been given."""
_BEGINS = re.compile(rb"\x16\x03...\x01", re.DOTALL)
"""What `client_hello.begins` says yes to."""
_TAIL = 5


class TooManyError(Exception):
    """More seem to begin at once than can be chance."""


class LateHelloScanner:
    """What may be ClientHellos in one connection.

    Args:
        context: what `client_hello.context` made.
        budget: of what the connections of its cell may hold.
    """

    def __init__(self, context: ssl.SSLContext, budget: Budget) -> None:
        self._context = context
        self._budget = budget
        self._readers: dict[Reader, int] = {}
        self._tail = b""

    def feed(self, data: bytes) -> Hello | None:
        """Read along.

        Returns:
            A ClientHello that has become whole with these bytes; its `rest` is the end of them.

        Raises:
            TooManyError: someone sows candidates to hide one.
            TooMuchError: there is no room for what they hold.
            OddHelloError: a ClientHello has become whole, and its records hold something else.
        """
        for reader in list(self._readers):
            found = self._read(reader, data)
            if found is not None:
                return found
        return self._begin(data)

    def close(self) -> None:
        """Free what is half read."""
        for reader in list(self._readers):
            self._drop(reader)

    def _begin(self, data: bytes) -> Hello | None:
        text = self._tail + data
        self._tail = text[-_TAIL:]
        # Two bytes are found many times faster than a pattern, and hardly ever there.
        at = text.find(b"\x16\x03")
        begun = 0
        while at >= 0 and (match := _BEGINS.search(text, at)):
            begun += 1
            # Also where each turns out to be none: finding that out is dear.
            if len(self._readers) >= MOST or begun > MOST:
                raise TooManyError
            self._budget.take(READER)
            reader = Reader(self._context)
            self._readers[reader] = READER
            found = self._read(reader, text[match.start() :])
            if found is not None:
                return found
            at = match.start() + 1
        return None

    def _drop(self, reader: Reader) -> None:
        reader.close()
        self._budget.give(self._readers.pop(reader))

    def _read(self, reader: Reader, data: bytes) -> Hello | None:
        self._budget.take(len(data))
        self._readers[reader] += len(data)
        try:
            found = reader.feed(data)
        except OddHelloError:
            raise
        except BadHelloError:
            self._drop(reader)
            return None
        if found is not None:
            self.close()
        return found
