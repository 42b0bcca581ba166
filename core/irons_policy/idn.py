"""Names as people type them: UTS 46 to A-labels, and the public suffixes that no wildcard may cover."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList


class PatternError(ValueError):
    """A pattern that cannot be a rule; the message says why and, where it can, what to type instead."""


def to_ascii(text: str) -> str:
    """A typed name in lower-case A-labels, by UTS 46 without its transitional mappings.

    ``idna`` encodes label by label here, for it refuses underscores, and hyphens in the third and fourth
    place, which names in use do have; plain ASCII labels are checked by ``check_labels`` instead.
    """
    if text.isascii() and "xn--" not in text.lower():
        return text.lower()
    import idna

    try:
        mapped = idna.uts46_remap(text, std3_rules=False, transitional=False)
        return ".".join(_a_label(label) for label in mapped.split("."))
    except (idna.IDNAError, UnicodeError) as error:
        raise PatternError(f"{text!r} is not an internationalised name: {error}") from None


def _a_label(label: str) -> str:
    import idna

    if not label.isascii():
        return idna.encode(label, uts46=True, transitional=False).decode("ascii")
    if not label.startswith("xn--"):
        return label
    plain = label[4:].encode("ascii").decode("punycode")
    # The validity criteria of UTS 46, section 4.1: what an A-label stands for must be mapped to itself.
    if plain.isascii() or plain.encode("punycode").decode("ascii") != label[4:]:
        raise idna.IDNAError(f"{label} stands for nothing valid")
    if idna.uts46_remap(plain, std3_rules=False, transitional=False) != plain:
        raise idna.IDNAError(f"{label} stands for nothing valid")
    return label


@cache
def _suffixes(*, only_icann: bool) -> PublicSuffixList:
    """The list, read at the first wildcard: it takes some 20 ms, and a policy file may hold hundreds of them."""
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList(accept_unknown=False, only_icann=only_icann)


def registrable(name: str) -> str:
    """Return the registrable domain of a name by the public suffix list; of a suffix, or a single label, the name itself."""
    suffix = _suffixes(only_icann=False).publicsuffix(name, accept_unknown=True)
    if suffix is None or suffix == name:
        return name
    return f"{name.removesuffix(f'.{suffix}').rpartition('.')[2]}.{suffix}"


def check_suffix(name: str, *, broad: bool) -> None:
    """Refuse a wildcard over a public suffix (publicsuffix.org), where anyone may register the next name."""
    if _suffixes(only_icann=True).publicsuffix(name) == name:
        raise PatternError(
            f"*.{name} would cover every name registered under {name}; name one, as *.example.{name}"
        )
    if broad:
        return
    if _suffixes(only_icann=False).publicsuffix(name) == name:
        raise PatternError(
            f"under {name} anyone can have a name, and *.{name} covers them all; --broad accepts that"
        )
    if "." not in name:
        raise PatternError(f"{name} is not a known suffix, so *.{name} counts as one; --broad accepts that")
