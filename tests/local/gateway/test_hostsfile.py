"""The host's hosts file."""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.e2e.lab import eventually
from tests.local.gateway.stand import Stand

from irons_local.gateway.reach import hostsfile
from irons_local.gateway.reach.hostsfile import MOST_BYTES, HostsFile, parse_hosts
from irons_local.gateway.reach.resolve import HostLookup, ResolveError
from irons_policy.addresses import Address

GET = "GET / HTTP/1.1\nHost: {}\nConnection: close\n\n"


def test_each_name_has_the_addresses_of_all_its_lines() -> None:
    """Aliases, comments, tabs and case are read as glibc reads them."""
    text = b"# 9.9.9.9 no\n203.0.113.1\tWeb.test  web # old\n\n2001:db8::1 web.test\n203.0.113.9\n"
    assert parse_hosts(text) == {
        b"web.test": [b"203.0.113.1", b"2001:db8::1"],
        b"web": [b"203.0.113.1"],
    }


def test_a_file_is_read_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies beyond a mebibyte or 100,000 lines is left out; a line that is cut in two is too."""
    line = b"203.0.113.1 " + b"a" * 87 + b"\n"
    assert len(parse_hosts(line * 20_000 + b"203.0.113.2 beyond\n")) == 1
    cut = b"#" * (MOST_BYTES - 20) + b"\n203.0.113.1 web.test\n"
    assert parse_hosts(cut) == {}
    monkeypatch.setattr(hostsfile, "MOST_LINES", 3)
    assert parse_hosts(b"\n\n1.1.1.1 third\n1.1.1.1 fourth\n") == {b"third": [b"1.1.1.1"]}


@given(st.binary(max_size=400))
def test_any_bytes_are_survived(data: bytes) -> None:
    """Any file gives names with lists of texts."""
    assert all(parse_hosts(data).values())


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    """Written, replaced and removed files count at once; what is not an address is left out."""
    path = tmp_path / "hosts"
    hosts = HostsFile(path)
    assert hosts.addresses("web.test") == []
    path.write_text("203.0.113.1 web.test\nnonsense web.test\n")
    assert hosts.addresses("web.test") == [ip_address("203.0.113.1")]
    fresh = tmp_path / "fresh"
    fresh.write_text("203.0.113.2 web.test\n")
    fresh.rename(path)
    assert hosts.addresses("web.test") == [ip_address("203.0.113.2")]
    path.unlink()
    assert hosts.addresses("web.test") == []


def test_what_is_not_a_regular_file_holds_nobody_up(tmp_path: Path) -> None:
    """A FIFO or a directory in the file's place has no names."""
    os.mkfifo(tmp_path / "fifo")
    assert HostsFile(tmp_path / "fifo").addresses("web.test") == []
    assert HostsFile(tmp_path).addresses("web.test") == []


def test_the_hosts_file_goes_before_the_resolver(tmp_path: Path) -> None:
    """A name of the file is not asked for; any other is."""
    path = tmp_path / "hosts"
    path.write_text("203.0.113.1 web.test\n")
    asked: list[str] = []

    def ask(name: str) -> list[Address]:
        asked.append(name)
        raise ResolveError("none")

    look = HostLookup(HostsFile(path), ask)
    assert look("web.test") == [ip_address("203.0.113.1")]
    with pytest.raises(ResolveError):
        look("other.test")
    assert asked == ["other.test"]


def test_a_name_of_the_host_s_hosts_file_is_reached_under_the_floor(stand: Stand) -> None:
    """It is reached without a DNS query and its address stays outside; one that leads inwards is refused."""
    path = stand.lab.directory / "hosts"
    before = path.read_text()
    try:
        path.write_text(f"{before}203.0.113.10 intranet.test\n10.9.8.7 inward.test\n")
        stand.policy("deny", ["intranet.test", "inward.test"])
        answer = stand.http("intranet.test", GET.format("intranet.test"))
        assert answer.startswith(b"HTTP/1.1 200")
        assert stand.event(host="intranet.test", kind="close")["address"] == "203.0.113.10"
        refused = stand.http("inward.test", GET.format("inward.test"))
        assert refused.startswith(b"HTTP/1.1 403")
        assert b"10.9.8.7" not in refused
        assert stand.event(host="inward.test")["address"] == "10.9.8.7"
        assert not [each for each in stand.arrivals() if each["kind"] == "dns"]
        path.write_text(f"{before}203.0.113.11 intranet.test\n")

        def moved() -> bool:
            # An answer is remembered for a moment.
            stand.http("intranet.test", GET.format("intranet.test"))
            return bool(stand.event(host="intranet.test", kind="close")["address"] == "203.0.113.11")

        eventually(moved)
    finally:
        path.write_text(before)


def test_a_single_label_works_where_the_policy_names_it(stand: Stand) -> None:
    """A rule or `[local.hosts]` lets a name without a dot exist inside; any other does not."""
    path = stand.lab.directory / "hosts"
    before = path.read_text()
    try:
        path.write_text(f"{before}203.0.113.10 intranet\n")
        stand.policy("deny", ["intranet", "registry"], hosts={"registry": ["203.0.113.11"]})
        for name in ("intranet", "registry"):
            assert stand.http(name, GET.format(name)).startswith(b"HTTP/1.1 200")
        stand.policy("warn", ["*"])
        assert stand.dns("intranet").header.rcode == 3
        stand.policy("warn", [], deny=["intranet"])
        assert stand.http("intranet", GET.format("intranet")).startswith(b"HTTP/1.1 200")
    finally:
        path.write_text(before)
