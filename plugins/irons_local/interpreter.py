"""How the backend's own processes are started: isolated from what is set, or lies about, where a command is typed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_NEEDED = (
    *(
        "irons",
        "irons_policy",
        "irons_local",
        "irons_plugins",
        "pluggy",
        "starlette",
        "h11",
        "httptools",
        "dnslib",
        "idna",
    ),
    *("publicsuffixlist", "hpack"),
)


def options() -> tuple[str, ...]:
    """The interpreter's options: `-I`, or `-P` where irons, or what it needs, is found only by what `-I` leaves out.

    That is `PYTHONPATH`, or the user's own `site-packages`.
    """
    if sys.flags.isolated:
        return ("-I",)
    import importlib.util
    import site

    places = {Path(place) for place in site.getsitepackages()}
    for place in tuple(places):
        places.update(_further(place))
    for name in _NEEDED:
        spec = importlib.util.find_spec(name)
        found = spec.origin if spec is not None else None
        if found is not None and Path(found).parents[1] not in places and Path(found).parent not in places:
            return ("-P",)
    return ("-I",)


def _further(place: Path) -> Iterator[Path]:
    """The directories that the path configuration files of a `site-packages` add (site(3))."""
    for file in place.glob("*.pth"):
        with suppress(OSError, UnicodeDecodeError):
            for line in file.read_text("utf-8").splitlines():
                if line.strip() and not line.startswith(("#", "import ", "import\t")):
                    yield place / line.strip()
