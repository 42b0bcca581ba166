"""Fetching an image from a registry by skopeo(1): its manifest, whose digest names it, then all of it as one archive.

skopeo finds the person's credentials by itself (containers-auth.json(5)), and checks each layer against its digest. What
it writes is an archive like any other: unpacked as hostile, and nothing of it is run here.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import shutil
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import cast

from irons.text import clean
from irons_local.disk_room import Room
from irons_local.errors import EngineError
from irons_local.images.sources.reference import Reference
from irons_local.linux.programs import search_path
from irons_local.linux.userns_call import end
from irons_local.progress import Progress

_MANIFEST_AT_MOST = 4 << 20
_COMPLAINT_AT_MOST = 64 << 10
_LOOK_EVERY = 0.5
_WORDS_AT_MOST = 300
_MESSAGE = re.compile(r'level=(?:fatal|error) msg="((?:[^"\\]|\\.)*)"')
_NAMED = re.compile(
    r"""^(?:[Ee]rror parsing image name|initializing source|Error determining manifest MIME type for) \S+: """
)
_UNKNOWN = ("manifest unknown", "name unknown", "repository name not known", "not found", "404")
_DENIED = ("unauthorized", "authentication required", "denied", "403", "401")


async def digest_of(reference: Reference) -> str:
    """Ask the registry for the manifest, or the list of manifests; gives its digest, as `sha256:…`.

    Raises:
        EngineError: there is no such image, it cannot be had, or it is not the one of the reference's digest.
    """
    words = ["inspect", "--raw", *_tls(reference, ""), f"docker://{reference.address}"]
    process = await _start(words, None)
    complaint = asyncio.ensure_future(_complaint(process))
    try:
        body = b""
        while more := await cast("asyncio.StreamReader", process.stdout).read(_MANIFEST_AT_MOST):
            body += more
            if len(body) > _MANIFEST_AT_MOST:
                raise EngineError("image", f"the manifest of {reference.address} is too large")
        code, why = await process.wait(), await complaint
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        # A pipe that is not read to its end stays open, and the process is waited for until it closes.
        while await cast("asyncio.StreamReader", process.stdout).read(_MANIFEST_AT_MOST):
            pass
        await asyncio.shield(end(process))
        complaint.cancel()
    if code:
        raise _failed(reference, why)
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    if reference.digest and digest != reference.digest:
        raise EngineError("image", f"{reference.address}: the registry answered with another image, {digest}")
    return digest


async def fetch(reference: Reference, digest: str, archive: Path, progress: Progress) -> None:
    """Write the image of a digest to an archive, as `docker save` does.

    Args:
        reference: where it is.
        digest: which one, as `digest_of` gave it.
        archive: the file, in a directory that holds what is temporary, too.
        progress: called with the progress.

    Raises:
        EngineError: it cannot be had, does not have its digest, or does not fit on the disk.
    """
    source = f"docker://{reference.name}@{digest}"
    words = [
        *("--tmpdir", str(archive.parent), "copy", "--retry-times", "2"),
        *_tls(reference, "src-"),
        source,
        f"docker-archive:{archive}",
    ]
    process = await _start(words, archive.parent)
    complaint = asyncio.ensure_future(_complaint(process))
    watch = asyncio.ensure_future(_watch(archive.parent))
    told = asyncio.ensure_future(_narrate(process, progress))
    try:
        ended = asyncio.ensure_future(process.wait())
        await asyncio.wait((ended, watch), return_when=asyncio.FIRST_COMPLETED)
        if watch.done():
            watch.result()
        await told
        if await ended:
            raise _failed(reference, await complaint)
    finally:
        watch.cancel()
        await asyncio.shield(end(process))
        await asyncio.gather(watch, told, complaint, return_exceptions=True)


async def _start(words: list[str], temporary: Path | None) -> Process:
    program = shutil.which("skopeo", path=search_path())
    if program is None:
        raise EngineError("machine", "skopeo is not installed", "see `irons doctor`: skopeo")
    env = dict(os.environ) if temporary is None else {**os.environ, "TMPDIR": str(temporary)}
    return await asyncio.create_subprocess_exec(
        # It ends with this process, however that ends.
        *("setpriv", "--pdeathsig", "TERM", "--", program, *words),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        env=env,
        start_new_session=True,
    )


async def _complaint(process: Process) -> str:
    """The end of what a program says on its standard error."""
    kept = b""
    while more := await cast("asyncio.StreamReader", process.stderr).read(_COMPLAINT_AT_MOST):
        kept = (kept + more)[-_COMPLAINT_AT_MOST:]
    return kept.decode(errors="replace")


async def _narrate(process: Process, progress: Progress) -> None:
    layers = 0
    while more := await cast("asyncio.StreamReader", process.stdout).read(_COMPLAINT_AT_MOST):
        if b"Copying blob" in more:
            layers += more.count(b"Copying blob")
            progress(f"fetching layer {layers}", None)


async def _watch(directory: Path) -> None:
    """Raise once too little room is left on the disk; it never comes back by itself."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while True:
            Room(descriptor, "the image").take(1)
            await asyncio.sleep(_LOOK_EVERY)
    finally:
        os.close(descriptor)


def _tls(reference: Reference, side: str) -> list[str]:
    return [f"--{side}tls-verify=false"] if reference.is_on_this_machine else []


def _failed(reference: Reference, complaint: str) -> EngineError:
    found = _MESSAGE.findall(complaint)
    lines = complaint.strip().splitlines()
    why = found[-1].replace('\\"', '"') if found else (lines[-1] if lines else "no reason given")
    why = _NAMED.sub("", why)
    message = f"{reference.address} was not fetched: {clean(why, limit=_WORDS_AT_MOST)}"
    low = why.lower()
    if any(word in low for word in _UNKNOWN):
        return EngineError("absent", message)
    if any(word in low for word in _DENIED):
        return EngineError(
            "image", message, f"skopeo login {reference.host or 'docker.io'} keeps credentials"
        )
    return EngineError("image", message)
