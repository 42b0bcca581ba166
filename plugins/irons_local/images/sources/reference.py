"""References to images of a registry, such as `python:3.12`, as people type them.

Source: the grammar of `distribution/reference` and the OCI distribution specification 1.1 ("Pulling manifests").
"""

from __future__ import annotations

import re
from typing import NamedTuple

from irons.settings.loopback import is_loopback

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
_GRAMMAR = re.compile(
    rf"(?P<name>(?:(?P<host>{_HOST})/)?{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_LENGTH_AT_MOST = 255


class Reference(NamedTuple):
    """An image at a registry.

    Attributes:
        name: where it is, with the registry where one is given.
        tag: which of them; "" for the one that is called `latest`.
        digest: `sha256:` and 64 digits that its manifest must have, or "".
        host: the registry with its port, or "".
    """

    name: str
    tag: str
    digest: str
    host: str

    @classmethod
    def parse(cls, text: str) -> Reference | None:
        """The reference of that text; None where it is not one."""
        found = _GRAMMAR.fullmatch(text) if len(text) <= _LENGTH_AT_MOST else None
        if found is None:
            return None
        host = found["host"] or ""
        # What could be a directory of the default registry is one: a host has a dot, a port, or is `localhost`.
        if host and not (set(host) & set(".:[")) and host != "localhost":
            host = ""
        return cls(found["name"], found["tag"] or "", found["digest"] or "", host)

    @property
    def address(self) -> str:
        """What to ask the registry for: by digest where there is one, which a tag would only contradict."""
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag or 'latest'}"

    @property
    def is_plain(self) -> bool:
        """True where it could be the name of an image of this machine as well: it has neither place, tag nor digest."""
        return not (self.tag or self.digest or "/" in self.name)

    @property
    def is_on_this_machine(self) -> bool:
        """True where the registry is at a loopback address, to which plain HTTP is as good as TLS."""
        host = self.host.rpartition(":")[0] if re.search(r":[0-9]+$", self.host) else self.host
        return is_loopback(host.strip("[]"))
