"""Notes on the certificate authorities that sandboxes of this machine trust."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irons.client.names import NameCache

if TYPE_CHECKING:
    from irons.context import Context


_FOR_GOOD = 1e9


def say_trusted(ctx: Context) -> None:
    """Say whose certificate authorities this machine's sandboxes trust; once for each set of them."""
    from irons_local.config.authority_files import signature

    # Reading certificates takes OpenSSL's library: only where a file is new.
    if not NameCache.of(ctx.settings, what=f"read-{signature(ctx.settings.path)[:16]}").claim(_FOR_GOOD):
        return
    from irons_local.config.authorities import carried

    found = carried(ctx.settings.path)
    if found.count and NameCache.of(ctx.settings, what=f"trusted-{found.digest}").claim(_FOR_GOOD):
        ctx.progress(
            f"sandboxes trust {found.count} certificate{'s' if found.count != 1 else ''} of {', '.join(found.files)}; "
            "ca = [] under [local] in the configuration carries none"
        )
