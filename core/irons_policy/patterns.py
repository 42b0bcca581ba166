"""The patterns that rules are made of: what people may type, its one spelling, and what it covers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv6Network, ip_address, ip_network
from typing import Literal, cast

from irons_policy import floor
from irons_policy.addresses import Network, ends_in_number, is_single, loose_ipv4, unmapped_network
from irons_policy.hostnames import INTERNAL, Host, HostError, check_labels
from irons_policy.idn import PatternError, check_suffix, to_ascii

__all__ = [
    "DEFAULT_PORTS",
    "HTTP",
    "HTTPS",
    "Pattern",
    "PatternError",
    "covers",
    "narrowest",
    "parse_network",
    "parse_pattern",
    "read_never",
    "read_pattern",
]

HTTPS, HTTP = 443, 80
DEFAULT_PORTS = (HTTPS, HTTP)
"""What a pattern without a port covers."""

_URL = re.compile(r"([a-z][a-z0-9+.-]*):/+(.*)", re.IGNORECASE | re.DOTALL)
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_PREFIX = re.compile(r"0|[1-9][0-9]{0,2}")
_HEX_GROUPS = re.compile(r"[0-9a-fA-F:.]+")
_SCHEME_PORTS = {"http": None, "https": None, "ws": None, "wss": None, "ssh": 22, "git": 9418, "ftp": 21}
_JOINERS = "\u200c\u200d"
# A name may shrink in UTS 46, but not from more than this to something that anyone meant.
_LONGEST = 1024


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern in its canonical spelling.

    Attributes:
        text: the one spelling, which parses to this pattern again.
        kind: "name" (that name alone), "below" (every name under it), "any" or "network".
        name: the name of a "name" or "below" pattern, else "".
        network: the address or block of a "network" pattern, else None.
        ports: the TCP ports, or None for all of them.
    """

    text: str
    kind: Literal["name", "below", "any", "network"]
    name: str
    network: Network | None
    ports: tuple[int, ...] | None

    def covers_port(self, port: int) -> bool:
        """True when a connection to the port is within the pattern."""
        return self.ports is None or port in self.ports

    def covers_host(self, host: Host) -> bool:
        """True when the host, on any port, is within the pattern. Only literal addresses are in a network."""
        if self.kind == "any":
            return True
        if host.address is not None:
            return self.network is not None and host.address in self.network
        if self.kind == "below":
            return host.text.endswith("." + self.name)
        return self.kind == "name" and host.text == self.name

    @property
    def narrowness(self) -> tuple[int, int, int]:
        """A sorting key: the narrower the pattern, the greater (by host first, then by ports)."""
        ports = 0 if self.ports is None else 3 - len(self.ports)
        if self.network is not None:
            return (2, self.network.prefixlen, ports)
        rank = {"any": 0, "below": 1, "network": 2, "name": 3}[self.kind]
        return (rank, len(self.name), ports)


def parse_pattern(text: str, *, broad: bool = False) -> Pattern:
    """Read a pattern that a person typed.

    ``example.com`` · ``*.example.com`` · ``*`` · an IPv4 or IPv6 address or block; each alone, with ``:PORT`` or
    with ``:*`` (``[2001:db8::/32]:443`` for IPv6). Names go through UTS 46 (non-transitional) to A-labels.

    Args:
        text: what was typed.
        broad: accept a wildcard over a private public suffix, such as ``*.github.io``.

    Raises:
        PatternError: with the reason.
    """
    pattern = read_pattern(text)
    if pattern.kind == "name" and pattern.name == "localhost":
        raise PatternError(
            "localhost is the sandbox itself; for a server of this machine, choose another name, map it in "
            "[local.hosts] and pin its address with --private"
        )
    if pattern.kind == "below":
        check_suffix(pattern.name, broad=broad)
    return pattern


def read_pattern(text: str, *, mapped: bool = False) -> Pattern:
    """Read a pattern as ``parse_pattern`` does, but for the public suffixes: for rules that were accepted before.

    Args:
        text: the pattern.
        mapped: it went through UTS 46 already; an ASCII name in lower case is then taken as it is, without the
            large tables of that standard.

    Raises:
        PatternError: with the reason.
    """
    _check_characters(text)
    _check_url(text)
    host, port_text = _split_port(text)
    ports = _ports(port_text)
    tail = "" if port_text is None else f":{port_text}"
    if host == "*":
        return Pattern("*" + tail, "any", "", None, ports)
    network = _network(host)
    if network is not None:
        spelled = str(network.network_address) if is_single(network) else str(network)
        if tail and isinstance(network, IPv6Network):
            spelled = f"[{spelled}]"
        return Pattern(spelled + tail, "network", "", network, ports)
    kind: Literal["name", "below"] = "below" if host.startswith("*.") else "name"
    name = _name(host.removeprefix("*.") if kind == "below" else host, mapped=mapped)
    spelled = f"*.{name}" if kind == "below" else name
    return Pattern(spelled + tail, kind, name, None, ports)


def parse_network(text: str) -> Network:
    """Read an address or a block, as ``--private`` takes it.

    Raises:
        PatternError: with the reason.
    """
    _check_characters(text)
    network = _network(text)
    if network is None:
        raise PatternError(f"{text!r} is neither an address nor a block such as 10.0.0.0/8")
    return network


def covers(pattern: Pattern) -> str:
    """What a rule with this pattern covers, in one sentence."""
    if pattern.ports is None:
        ports = "any port"
    elif len(pattern.ports) == 1:
        ports = f"port {pattern.ports[0]}"
    else:
        ports = f"ports {HTTPS} and {HTTP}"
    if pattern.kind == "any":
        return f"Every name and every literal address, on {ports}."
    if pattern.kind == "below":
        return f"Every name below {pattern.name}, however deep, but not {pattern.name} itself, on {ports}."
    if pattern.kind == "name":
        return f"{pattern.name} alone, and no name below it, on {ports}."
    network = pattern.network
    if network is None:
        raise AssertionError(pattern)
    made = f"{network.network_address} itself" if is_single(network) else f"any address in {network}"
    sentence = f"Connections made to {made}, on {ports}; a deny rule also stops names that lead there"
    step, what = floor.held(network) or ("", "")
    if step == "never":
        sentence += f", and an allow rule opens nothing, for this is {what}"
    elif step:
        sentence += f", and an allow rule needs --private too, for this is {what}"
    return sentence + "."


def narrowest(host: str, port: int, *, exact: bool = False) -> str:
    """The text of the narrowest pattern that covers a host on a port: without a port it covers ``DEFAULT_PORTS``.

    Args:
        host: a name or an address.
        port: the port.
        exact: name the port in any case, as HOST:PORT.
    """
    if port in DEFAULT_PORTS and not exact:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def read_never(given: object) -> tuple[Pattern, ...]:
    """Read `[ask] never`, what no person is asked about: patterns as in rules, which without a port are for every port.

    Raises:
        PatternError: it is not a list of patterns; the message names the one that is not.
    """
    if not isinstance(given, list | tuple):
        raise PatternError("expected a list of patterns")
    found: list[Pattern] = []
    for text in cast("Iterable[object]", given):
        if not isinstance(text, str):
            raise PatternError("expected a list of patterns")
        try:
            pattern = read_pattern(text)
        except PatternError as error:
            raise PatternError(f"{text[:80]!r}: {error}") from None
        # Several ports are those of a pattern that names none.
        several = pattern.ports is not None and len(pattern.ports) > 1
        found.append(replace(pattern, ports=None, text=f"{_bracketed(pattern)}:*") if several else pattern)
    return tuple(dict.fromkeys(found))


def _bracketed(pattern: Pattern) -> str:
    network = pattern.network
    return f"[{pattern.text}]" if network is not None and network.version == 6 else pattern.text


def _check_characters(text: str) -> None:
    if not text:
        raise PatternError("the pattern is empty")
    if len(text) > _LONGEST:
        raise PatternError(f"the pattern is longer than {_LONGEST} characters")
    for character in text:
        if character.isspace():
            raise PatternError("a pattern holds no spaces; give one pattern at a time")
        category = unicodedata.category(character)
        if category in {"Cc", "Cs", "Co", "Cn"} or (category == "Cf" and character not in _JOINERS):
            raise PatternError(f"the pattern holds an invisible character, U+{ord(character):04X}")
    if "," in text:
        raise PatternError("a pattern holds no comma; give one pattern at a time")
    if "%" in text:
        raise PatternError("a pattern holds no %: zones and escapes have no place in it")


def _check_url(text: str) -> None:
    url = _URL.fullmatch(text)
    if url is None:
        if "@" in text:
            host = text.rpartition("@")[2].partition(":")[0].partition("/")[0]
            raise PatternError(f"a rule names a host, not a user at it{_advice(host, 22)}")
        host, slash, _ = text.partition("/")
        if slash and not _is_address(host.removeprefix("[")):
            raise PatternError(f"a rule names a host, without a path{_advice(host, None)}")
        return
    scheme, rest = url.group(1).lower(), url.group(2)
    authority = re.split(r"[/?#\\]", rest, maxsplit=1)[0].rpartition("@")[2]
    port = None if re.search(r":[0-9*]+$", authority) else _SCHEME_PORTS.get(scheme)
    raise PatternError(f"a rule names a host, not a URL{_advice(authority, port)}")


def _advice(host: str, port: int | None) -> str:
    try:
        advised = read_pattern(host if port is None else f"{host}:{port}").text
    except PatternError:
        return ""
    return f"; type {advised}"


def _split_port(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, bracket, tail = text[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise PatternError("an IPv6 pattern with a port is written [2001:db8::1]:443")
        if ":" not in host:
            raise PatternError("only IPv6 addresses stand in brackets")
        return host, tail[1:] if tail else None
    if text.count(":") > 1:
        return text, None
    host, colon, port = text.partition(":")
    return host, port if colon else None


def _ports(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return DEFAULT_PORTS
    if text == "*":
        return None
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise PatternError(f"{text!r} is not a port: a number from 1 to 65535, or * for all of them")
    return (int(text),)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _network(text: str) -> Network | None:
    """The address or block that ``text`` spells in the canonical way, None when it is a name."""
    address, slash, prefix = text.partition("/")
    if slash:
        if not _PREFIX.fullmatch(prefix):
            raise PatternError(f"{text!r}: a block ends in a prefix length, such as 10.0.0.0/8")
        try:
            loose = ip_network(text, strict=False)
        except ValueError:
            raise PatternError(f"{text!r} is not a block of addresses") from None
        if loose.network_address != ip_network(address).network_address:
            raise PatternError(f"{text} has bits set beyond its prefix; type {loose} or {address}")
        return unmapped_network(loose)
    if ":" in text:
        if not _HEX_GROUPS.fullmatch(text):
            raise PatternError(f"{text!r} is not an IPv6 address")
        try:
            return unmapped_network(IPv6Network(text))
        except ValueError:
            raise PatternError(f"{text!r} is not an IPv6 address") from None
    lowered = text.lower().removesuffix(".")
    if not lowered.isascii() or not ends_in_number(lowered):
        return None
    loose_address = loose_ipv4(lowered)
    if loose_address is None:
        raise PatternError(f"{text!r} ends in a number, so it is an address, and not a valid one")
    if str(loose_address) != text:
        # 010.0.0.1 is 8.0.0.1 to a resolver and 10.0.0.1 to a person: a rule must not have two readings.
        raise PatternError(f"{text} is another spelling of the address {loose_address}; type that")
    return ip_network(text)


def _name(text: str, *, mapped: bool) -> str:
    if "*" in text:
        raise PatternError("a wildcard stands alone (*) or first, before a dot (*.example.com)")
    plain = mapped and text.isascii() and text == text.lower()
    name = (text if plain else to_ascii(text)).removesuffix(".")
    try:
        check_labels(name)
    except HostError as error:
        raise PatternError(f"{text!r}: {error}") from None
    if ends_in_number(name):
        raise PatternError(f"{text!r} ends in a number, so it is an address; write addresses plainly")
    if name == INTERNAL:
        raise PatternError(f"{INTERNAL} is answered by irons itself, in every sandbox; no rule changes that")
    return name
