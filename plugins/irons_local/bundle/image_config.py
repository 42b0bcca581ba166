"""What an image says of how its programs are run: variables, directory, user, entrypoint. All of it is a stranger's text.

Source: the OCI image configuration 1.0 (`config.Env`, `WorkingDir`, `User`, `Entrypoint`, `Cmd`); Docker's is the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}(?::[A-Za-z0-9_.-]{1,64})?")
_TEXT_AT_MOST = 4096
_ALL_AT_MOST = 128 << 10
_ENTRIES_AT_MOST = 1024


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What is taken from an image's configuration.

    Attributes:
        env: its variables.
        workdir: the directory that programs start in; "" where it names none, or the root.
        user: name or number of who runs them, with a group after a colon; "" where it names none.
        entrypoint: the program that it is made for, with arguments.
    """

    env: Mapping[str, str]
    workdir: str = ""
    user: str = ""
    entrypoint: tuple[str, ...] = ()

    @classmethod
    def of(cls, body: Any) -> Self:
        """Read the configuration of an archive; what is not of its form is left out.

        Args:
            body: the parsed JSON of the image configuration.
        """
        told = body.get("config") if isinstance(body, dict) else None
        told = told if isinstance(told, dict) else {}
        pairs = (entry.partition("=") for entry in _texts(told.get("Env")))
        env = {name: value for name, equals, value in pairs if equals and _NAME.fullmatch(name)}
        workdir = _text(told.get("WorkingDir"))
        user = _text(told.get("User"))
        return cls(
            env,
            workdir if workdir.startswith("/") and workdir.strip("/") else "",
            user if _USER.fullmatch(user) else "",
            (*_texts(told.get("Entrypoint")), *_texts(told.get("Cmd"))),
        )

    @classmethod
    def from_record(cls, body: Mapping[str, Any]) -> Self:
        """The configuration that `dataclasses.asdict` made this of."""
        return cls(
            **{**body, "env": dict(body.get("env", {})), "entrypoint": tuple(body.get("entrypoint", ()))}
        )


EMPTY = ImageConfig({})
"""Of an image without a configuration."""


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _TEXT_AT_MOST or not value.isprintable():
        return ""
    return value


def _texts(value: object) -> tuple[str, ...]:
    """Texts that can be handed to a program, or none at all where they are too many or one of them cannot."""
    if not isinstance(value, list) or len(value) > _ENTRIES_AT_MOST:
        return ()
    if any(not isinstance(each, str) or "\0" in each or not _encodes(each) for each in value):
        return ()
    return tuple(value) if sum(map(len, value)) <= _ALL_AT_MOST else ()


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
