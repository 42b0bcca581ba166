"""Which sandboxes a command means: by name, by label, or all; the latter two only those that this profile made."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from irons.command import Arg, Flag, Opt
from irons.errors import NotFound, UsageError

if TYPE_CHECKING:
    from irons.context import Context

_KEY = r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?"
"""The key of a label, as the server takes it."""

NAMES = Arg(
    "names",
    "The sandboxes' names.",
    kind="sandbox",
    takes="+",
    metavar="NAME",
    instead=("everything", "labels"),
)
ALL = Flag(("--all",), "All sandboxes that this profile made.", name="everything")
LABEL = Opt(
    ("--label",),
    "Those it made with this label; each one more narrows it.",
    metavar="KEY[=VALUE]",
    kind="label",
    many=True,
    name="labels",
)
"""The parameters of a command on several sandboxes; its handler gives `names`, `everything`, `labels` to `selected`."""

_MOST_NAMED = 5


def selected(
    ctx: Context, names: Iterable[str], *, everything: bool = False, labels: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Return the names of the sandboxes that are meant, each once; with `--all` there may be none.

    Args:
        ctx: The call's context.
        names: Those named in words.
        everything: Whether all are meant that this profile made.
        labels: Labels (`key=value`, or `key` alone) that they must have.

    Raises:
        UsageError: Names are given next to `--all` or `--label`.
        NotFound: No sandbox that this profile made has these labels.
        Unsupported: The server cannot list sandboxes, or knows no labels.
    """
    named = tuple(dict.fromkeys(names))
    if not everything and not labels:
        return named
    if named:
        raise UsageError(
            f"{named[0]} is named together with {'--all' if everything else '--label'}",
            hint="give names, or --all, or --label",
        )
    checked_labels(labels, valued=False)
    found = ctx.api.list(labels)
    own = ctx.api.made.among(sandbox.id for sandbox in found)
    others = [sandbox.name for sandbox in found if sandbox.id not in own]
    if others:
        ctx.progress(f"left out, since this profile did not make them: {_some(others)}")
    if labels and not own:
        raise NotFound(f"no sandbox that this profile made has the label {', '.join(labels)}")
    return tuple(sandbox.name for sandbox in found if sandbox.id in own)


def checked_labels(words: Iterable[str], *, valued: bool) -> dict[str, str]:
    """Return labels as key → value (empty for a key alone); what is allowed in a value is the server's to say.

    Raises:
        UsageError: A word has no key or an invalid one, or no value where `valued`, or a comma, or two words have one key with two values.
    """
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or "," in word or (valued and not equals):
            wanted = "KEY=VALUE" if valued else "KEY or KEY=VALUE"
            raise UsageError(f"--label takes {wanted} without a comma, not {word!r}")
        if not re.fullmatch(_KEY, key, re.ASCII):
            raise UsageError(
                f"--label takes a key of letters, digits and . _ / -, at most 63 characters, not {key!r}"
            )
        if found.setdefault(key, value) != value:
            raise UsageError(f"--label has two values for {key!r}: {found[key]!r} and {value!r}")
    return found


def _some(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
