"""Which files the carried certificate authorities are read from, and whether one has changed; none of them is opened here.

Each create asks that, so this takes neither OpenSSL's library nor `dataclasses` to import.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from irons.files import digest

SETTING = "ca"
"""In `[local]`: paths of files and directories; an empty list carries nothing."""

USUAL = (
    "/usr/local/share/ca-certificates",
    "/etc/pki/ca-trust/source/anchors",
    "/etc/ca-certificates/trust-source/anchors",
)
"""Where a person, or a company, puts CAs of its own on Debian, Fedora and Arch."""

_SUFFIXES = (".crt", ".pem", ".cer", ".der")


class AuthoritiesError(ValueError):
    """The setting is invalid; the message is one line."""


class LeftOut(NamedTuple):
    """Something that is not carried, and why."""

    path: str
    why: str


def paths_of(local: Mapping[str, Any]) -> Sequence[str] | None:
    """The setting in a `[local]` table; None where it is not set.

    Raises:
        AuthoritiesError: it is not a list of absolute paths.
    """
    given = local.get(SETTING)
    if given is None:
        return None
    if not isinstance(given, list) or not all(
        isinstance(each, str) and each.startswith("/") for each in given
    ):
        raise AuthoritiesError(f"local.{SETTING} must be a list of absolute paths")
    return given


def setting_in(settings: Path) -> Sequence[str] | None:
    """The setting in a settings file; None where it is not set, or where there is no such file.

    Raises:
        AuthoritiesError: the file is not TOML, or the setting is invalid.
        OSError: the file can't be read.
    """
    try:
        text = settings.read_text()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise AuthoritiesError(str(error)) from error
    import tomllib

    try:
        local = tomllib.loads(text).get("local", {})
    except tomllib.TOMLDecodeError as error:
        raise AuthoritiesError(str(error)) from error
    if not isinstance(local, dict):
        raise AuthoritiesError("local must be a table")
    return paths_of(local)


def signature(settings: Path) -> str:
    """A short text that is another one once what `authorities.carried` reads has changed."""
    try:
        paths = setting_in(settings)
    except (OSError, AuthoritiesError):
        paths = None
    return signature_of(paths)


def signature_of(paths: Sequence[str] | None) -> str:
    """A short text that is another one once a file has changed that belongs to these; see `files_of`."""
    places = USUAL if paths is None else paths
    return digest(*(state_of(path) for path in (*map(Path, places), *files_of(paths, []))))


def state_of(path: Path) -> str:
    """What changes of a file or directory when it is written to or replaced."""
    try:
        found = path.stat()
    except OSError as error:
        return f"{path} {error.errno}"
    return f"{path} {found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def files_of(paths: Sequence[str] | None, left_out: list[LeftOut]) -> Iterator[Path]:
    """The files to read.

    Args:
        paths: files and directories; None stands for the usual places.
        left_out: what cannot be read is added to it.
    """
    for each in USUAL if paths is None else paths:
        path = Path(each)
        try:
            below = sorted(path.rglob("*")) if path.is_dir() else [path]
        except OSError as error:
            left_out.append(LeftOut(each, error.strerror or "it cannot be read"))
            continue
        if not path.exists():
            if paths is not None:
                left_out.append(LeftOut(each, "there is no such file"))
            continue
        yield from (file for file in below if file == path or (file.suffix in _SUFFIXES and file.is_file()))
