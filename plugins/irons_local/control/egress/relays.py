"""Hosts through which anyone can pass anything on, and names that look made up: what a person is warned of before an answer.

A warning is all that follows: nothing is refused or allowed by it, and a host that is not here may do the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from irons_policy.hostnames import Host
from irons_policy.idn import registrable

VERSION: Final = "2026-11-27"
"""When the entries were last compared with their sources."""

RELAYS: Final[Mapping[str, tuple[str, str]]] = {
    "0x0.st": ("paste", "https://0x0.st/"),
    "dpaste.com": ("paste", "https://dpaste.com/api/"),
    "file.io": ("paste", "https://www.file.io/"),
    "gist.github.com": ("paste", "https://docs.github.com/en/get-started/writing-on-github/editing-and-sharing-content-with-gists"),
    "gist.githubusercontent.com": ("paste", "https://docs.github.com/en/get-started/writing-on-github/editing-and-sharing-content-with-gists"),
    "paste.rs": ("paste", "https://paste.rs/"),
    "pastebin.com": ("paste", "https://pastebin.com/doc_api"),
    "termbin.com": ("paste", "https://termbin.com/"),
    "transfer.sh": ("paste", "https://github.com/dutchcoders/transfer.sh"),
    "bore.pub": ("tunnel", "https://github.com/ekzhang/bore"),
    "devtunnels.ms": ("tunnel", "https://learn.microsoft.com/azure/developer/dev-tunnels/overview"),
    "localhost.run": ("tunnel", "https://localhost.run/docs/"),
    "loca.lt": ("tunnel", "https://github.com/localtunnel/localtunnel"),
    "ngrok.app": ("tunnel", "https://ngrok.com/docs/"),
    "ngrok.dev": ("tunnel", "https://ngrok.com/docs/"),
    "ngrok.io": ("tunnel", "https://ngrok.com/docs/"),
    "ngrok-free.app": ("tunnel", "https://ngrok.com/docs/"),
    "ngrok-free.dev": ("tunnel", "https://ngrok.com/docs/"),
    "pagekite.me": ("tunnel", "https://pagekite.net/docs/"),
    "serveo.net": ("tunnel", "https://serveo.net/"),
    "trycloudflare.com": ("tunnel", "https://developers.cloudflare.com/cloudflare-one/connections/connect-networks/do-more-with-tunnels/trycloudflare/"),
    "ts.net": ("tunnel", "https://tailscale.com/kb/1223/funnel"),
    "beeceptor.com": ("webhook", "https://beeceptor.com/docs/"),
    "discord.com": ("webhook", "https://discord.com/developers/docs/resources/webhook"),
    "hooks.slack.com": ("webhook", "https://api.slack.com/messaging/webhooks"),
    "ntfy.sh": ("webhook", "https://docs.ntfy.sh/publish/"),
    "oast.fun": ("webhook", "https://github.com/projectdiscovery/interactsh"),
    "oast.live": ("webhook", "https://github.com/projectdiscovery/interactsh"),
    "oast.me": ("webhook", "https://github.com/projectdiscovery/interactsh"),
    "oast.online": ("webhook", "https://github.com/projectdiscovery/interactsh"),
    "oast.pro": ("webhook", "https://github.com/projectdiscovery/interactsh"),
    "oast.site": ("webhook", "https://github.com/projectdiscovery/interactsh"),
    "oastify.com": ("webhook", "https://portswigger.net/burp/documentation/collaborator"),
    "pipedream.net": ("webhook", "https://pipedream.com/docs/workflows/building-workflows/triggers"),
    "requestcatcher.com": ("webhook", "https://requestcatcher.com/"),
    "api.telegram.org": ("webhook", "https://core.telegram.org/bots/api"),
    "webhook.site": ("webhook", "https://docs.webhook.site/"),
    "cloudflare-dns.com": ("doh", "https://developers.cloudflare.com/1.1.1.1/encryption/dns-over-https/"),
    "dns.adguard-dns.com": ("doh", "https://adguard-dns.io/en/public-dns.html"),
    "dns.alidns.com": ("doh", "https://www.alidns.com/"),
    "dns.google": ("doh", "https://developers.google.com/speed/public-dns/docs/doh"),
    "dns.nextdns.io": ("doh", "https://help.nextdns.io/"),
    "dns.quad9.net": ("doh", "https://quad9.net/service/service-addresses-and-features/"),
    "doh.cleanbrowsing.org": ("doh", "https://cleanbrowsing.org/filters/"),
    "doh.opendns.com": ("doh", "https://support.opendns.com/hc/en-us/articles/360038086532"),
    "one.one.one.one": ("doh", "https://developers.cloudflare.com/1.1.1.1/encryption/dns-over-https/"),
}  # fmt: skip
"""Names, each for itself and all below it: the kind, and a page of who runs it or of its program."""

_HEX = re.compile(r"[0-9a-f]{16,}")
_TURNS = re.compile(r"(?<=[a-z])(?=[0-9])|(?<=[0-9])(?=[a-z])")
_CONSONANTS = re.compile(r"[bcdfghjklmnpqrstvwxz]{7,}")
_LONG, _MANY_TURNS = 12, 4


def relay_of(host: Host) -> str | None:
    """Return the kind of relay that a host is known as: `paste`, `tunnel`, `webhook` or `doh`."""
    labels = host.text.split(".")
    for start in range(len(labels)):
        known = RELAYS.get(".".join(labels[start:]))
        if known is not None:
            return known[0]
    return None


def looks_random(host: Host) -> bool:
    """True where a label of a name looks made by a machine: long hex, or letters and digits in turns. A person judges the rest."""
    if host.address is not None:
        return False
    suffix = registrable(host.text).partition(".")[2]
    own = host.text.removesuffix(f".{suffix}") if suffix else host.text
    return any(map(_is_random, own.split(".")))


def _is_random(label: str) -> bool:
    # What stands for letters of other scripts looks like that by its nature.
    if label.startswith("xn--"):
        return False
    words = [each for each in re.split("[-_]", label) if each]
    return any(
        (_HEX.fullmatch(word) and any(map(str.isdigit, word)))
        or (len(word) >= _LONG and len(_TURNS.findall(word)) >= _MANY_TURNS)
        or _CONSONANTS.search(word) is not None
        for word in words
    )
