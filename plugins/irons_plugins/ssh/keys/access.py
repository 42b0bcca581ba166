"""Handler of `access`: which public keys open a sandbox."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from irons.client.scoped_names import keep_access
from irons.errors import NotFound, UsageError
from irons_plugins.ssh.connect.identities import Identities
from irons_plugins.ssh.connect.kept import end_kept
from irons_plugins.ssh.keys.public_key import PublicKey, find_key, read_key

if TYPE_CHECKING:
    from irons.client.models.sandboxes import AuthorizedKey
    from irons.context import Context

_ID = re.compile(r"[0-9a-f]{16}")


def access(ctx: Context, *, name: str, action: str | None, file: str | None) -> Sequence[AuthorizedKey]:
    """List the keys that open a sandbox, or add or remove those of a public key file; return the keys there are then.

    Raises:
        UsageError: A file is missing, or is not a public key file.
        NotFound: The key to remove does not open the sandbox.
    """
    action = action or "list"
    if action == "list" and file is not None:
        raise UsageError("access list takes no file")
    if action != "list" and file is None:
        raise UsageError(
            f"access {action} needs a public key file",
            hint=f"irons access {name} {action} ~/.ssh/id_ed25519.pub",
        )
    ctx.api.need("access", "a server that can change the keys of a sandbox")
    rows = ctx.api.access(name) if file is None else _changed(ctx, name, action, file)
    keep_access(ctx.settings, name, rows)
    return rows


def _changed(ctx: Context, name: str, action: str, file: str) -> Sequence[AuthorizedKey]:
    """Add or remove the keys of a file; return the keys there are then."""
    if action == "add":
        before = {row.id for row in ctx.api.access(name)}
        public = find_key(file, ctx.settings.env)
        rows = ctx.api.add_access(name, public.text)
        _remember(ctx, name, public)
        fresh = [row for row in rows if row.id not in before]
        for row in fresh:
            ctx.progress(f"{row.type} {row.fingerprint} opens {name}")
        if not fresh:
            ctx.progress(f"it opens {name} already")
        return rows
    known = ctx.api.access(name)
    for identity in _ids(ctx, known, file):
        known = ctx.api.remove_access(name, identity)
        end_kept(ctx.settings, name, gently=True)
        _forget(ctx, name, identity)
        ctx.progress(f"{file} no longer opens {name}; its sessions have ended")
    return known


def _remember(ctx: Context, name: str, public: PublicKey) -> None:
    """Offer the private key that lies next to an added public key, where no other key is known to open the sandbox."""
    identities = Identities.of(ctx.settings)
    if public.identity != public.path and identities.of_sandbox(name) is None:
        identities.remember(name, public.identity)


def _forget(ctx: Context, name: str, removed: str) -> None:
    """Offer a private key no longer whose public key was removed."""
    identities = Identities.of(ctx.settings)
    private = identities.of_sandbox(name)
    if private is None:
        return
    with suppress(UsageError):
        public = private if private.suffix == ".pub" else private.with_name(f"{private.name}.pub")
        if removed in map(id_of, read_key(public).text.splitlines()):
            identities.forget(name)


def _ids(ctx: Context, known: Sequence[AuthorizedKey], named: str) -> list[str]:
    """The ids of the keys that are meant: by id, by fingerprint, or by the public key file."""
    given = [row.id for row in known if named in (row.id, row.fingerprint)]
    if given or _ID.fullmatch(named) or named.startswith("SHA256:"):
        if not given:
            raise NotFound(f"no key {named!r} opens it", hint="irons access NAME lists those that do")
        return given
    try:
        wanted = [id_of(line) for line in find_key(named, ctx.settings.env).text.splitlines()]
    except UsageError as error:
        error.hint = "an id or a fingerprint names a key, too: irons access NAME lists them"
        raise
    found = [row.id for row in known if row.id in wanted]
    if not found:
        raise NotFound(f"no key of {named} opens it", hint="irons access NAME lists those that do")
    return found


def id_of(line: str) -> str:
    """The id that the server gives a key: from the SHA-256 of what is encoded in its line."""
    for word in line.split():
        if word.startswith("AAAA"):
            try:
                return hashlib.sha256(base64.b64decode(word, validate=True)).hexdigest()[:16]
            except (binascii.Error, ValueError):
                return ""
    return ""
