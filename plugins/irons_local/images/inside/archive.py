"""What an archive of a root file system is made of: a plain tar, or the layers of a Docker or OCI archive.

Sources: the OCI image layout specification 1.0 (`oci-layout`, `index.json`, `blobs/`), and what `docker save`
writes (`manifest.json`). Layers are tar, as they are or compressed with gzip, bzip2 or xz.
"""

# A tar file lives as long as the file beneath it, which the caller closes.
# ruff: noqa: SIM115
from __future__ import annotations

import json
import platform
import tarfile
from collections.abc import Iterator
from typing import IO, Any

_MAX_JSON = 4 << 20
_DISK = b"QFI\xfb"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


class ArchiveError(Exception):
    """The archive cannot be used; the message is one line for people."""


def layers(file: IO[bytes]) -> Iterator[tarfile.TarFile]:
    """The tar files that make up a root file system, lowest first; each is to be read before the next.

    Args:
        file: the archive, seekable.

    Raises:
        ArchiveError: it is none, or of a kind that is not understood.
    """
    try:
        outer = tarfile.open(fileobj=file, mode="r:*")
    except tarfile.TarError as error:
        raise ArchiveError(_why_not_tar(file)) from error
    first = outer.next()
    if first is None:
        raise ArchiveError("the archive is empty")
    names = _named_layers(outer)
    if names is None:
        file.seek(0)
        yield tarfile.open(fileobj=file, mode="r:*")
        return
    for name in names:
        with _member(outer, name) as layer:
            try:
                yield tarfile.open(fileobj=layer, mode="r:*")
            except tarfile.TarError as error:
                raise ArchiveError(f"layer {name}: {_why_not_tar(layer)}") from error


def configuration(file: IO[bytes]) -> Any:
    """The image configuration of an archive, parsed; None where it has none.

    Raises:
        ArchiveError: it is not an archive, or not of the form that it should have.
        tarfile.TarError: it is damaged.
    """
    file.seek(0)
    try:
        outer = tarfile.open(fileobj=file, mode="r:*")
    except tarfile.TarError as error:
        raise ArchiveError(_why_not_tar(file)) from error
    try:
        name = _configuration_name(outer)
        return None if name is None else _json(outer, name)
    except KeyError:
        return None
    except (AttributeError, TypeError, RecursionError) as error:
        raise ArchiveError("the archive's manifest is not in the form of one") from error
    finally:
        file.seek(0)


def stream(file: IO[bytes]) -> Iterator[tarfile.TarFile]:
    """The one plain, uncompressed tar that comes through a pipe.

    Raises:
        ArchiveError: it is none.
    """
    try:
        yield tarfile.open(fileobj=file, mode="r|")
    except tarfile.TarError as error:
        raise ArchiveError(f"what came is not a tar archive: {error}") from error


def _named_layers(outer: tarfile.TarFile) -> list[str] | None:
    """`_layer_names`, where the JSON may be of any shape and the files links to themselves."""
    try:
        return _layer_names(outer)
    except (AttributeError, TypeError, RecursionError) as error:
        raise ArchiveError("the archive's manifest is not in the form of one") from error


def _layer_names(outer: tarfile.TarFile) -> list[str] | None:
    """Names of the layers within, or None where the archive is the root file system itself."""
    # A root file system has none of these at its top, and to look for them reads every header of it once.
    for probe in ("manifest.json", "index.json"):
        try:
            body = _json(outer, probe)
        except KeyError:
            continue
        if probe == "manifest.json" and isinstance(body, list) and body:
            return [str(name) for name in body[0]["Layers"]]
        if probe == "index.json" and isinstance(body, dict):
            return _oci_layers(outer, body)
    return None


def _configuration_name(outer: tarfile.TarFile) -> str | None:
    """Name of the image configuration within; None where the archive is the root file system itself."""
    for probe in ("manifest.json", "index.json"):
        try:
            body = _json(outer, probe)
        except KeyError:
            continue
        if probe == "manifest.json" and isinstance(body, list) and body:
            return str(body[0]["Config"])
        if probe == "index.json" and isinstance(body, dict):
            return _blob(_oci_manifest(outer, body)["config"]["digest"])
    return None


def _oci_layers(outer: tarfile.TarFile, index: dict[str, Any]) -> list[str]:
    return [_blob(entry["digest"]) for entry in _oci_manifest(outer, index)["layers"]]


def _oci_manifest(outer: tarfile.TarFile, index: dict[str, Any], depth: int = 0) -> dict[str, Any]:
    manifests = [entry for entry in index.get("manifests", []) if isinstance(entry, dict)]
    wanted = _ARCHITECTURE.get(platform.machine(), platform.machine())
    fitting = [
        entry for entry in manifests if entry.get("platform", {}).get("architecture", wanted) == wanted
    ]
    if not fitting or depth > 2:
        raise ArchiveError(f"the archive has no image for {wanted}")
    body = _json(outer, _blob(fitting[0]["digest"]))
    if isinstance(body, dict) and "manifests" in body:
        return _oci_manifest(outer, body, depth + 1)
    if not isinstance(body, dict) or "layers" not in body:
        raise ArchiveError("the archive's manifest names no layers")
    return body


def _blob(digest: str) -> str:
    algorithm, _, value = str(digest).partition(":")
    return f"blobs/{algorithm}/{value}"


def _json(outer: tarfile.TarFile, name: str) -> Any:
    """A JSON file of the archive; raises KeyError when it is not there."""
    with _member(outer, name) as file:
        data = file.read(_MAX_JSON + 1)
    if len(data) > _MAX_JSON:
        raise ArchiveError(f"{name} in the archive is too large")
    try:
        return json.loads(data)
    except ValueError as error:
        raise ArchiveError(f"{name} in the archive is not JSON") from error


def _member(outer: tarfile.TarFile, name: str) -> IO[bytes]:
    for spelling in (name, f"./{name}"):
        try:
            file = outer.extractfile(spelling)
        except KeyError:
            continue
        except RecursionError:
            raise ArchiveError(f"{name} in the archive is a link to itself") from None
        if file is not None:
            return file
    raise KeyError(name)


def _why_not_tar(file: IO[bytes]) -> str:
    file.seek(0)
    begin = file.read(4)
    if begin == _DISK:
        return "it is a disk of a virtual machine (qcow2), and not a tar archive of its files"
    if begin == _ZSTD:
        return "it is compressed with zstd; unpack it first with: zstd -d"
    return "it is not a tar archive"
