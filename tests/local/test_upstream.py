"""The setting of an upstream proxy."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import pytest

from irons_local.config.upstream import Upstream, UpstreamError, read_upstream
from irons_policy.hostnames import Host


def read(url: str, **more: Any) -> Upstream:
    """The setting with this URL."""
    found = read_upstream({"upstream_proxy": url, **more})
    assert found is not None
    return found


def test_a_url_is_read() -> None:
    """Host and port come in their one spelling, user and password decoded."""
    found = read("http://me%40work:p%3Ass%20w@Proxy.Corp.test:3128/")
    assert (found.host, found.port) == (Host("proxy.corp.test"), 3128)
    assert found.authorization == b"Basic bWVAd29yazpwOnNzIHc="
    assert read("http://[2001:db8::1]:8080").host.address == ip_address("2001:db8::1")
    assert read("http://10.0.0.9:3128").authorization is None
    assert read("http://:secret@10.0.0.9:3128").credentials == b":secret"
    assert read_upstream({}) is None
    assert read_upstream({"upstream_proxy": ""}) is None


@pytest.mark.parametrize(
    "url",
    [
        "proxy.test:3128",
        "https://me:secret@proxy.test:3128",
        "socks5://me:secret@proxy.test:1080",
        "http://me:secret@proxy.test",
        "http://me:secret@proxy.test:0",
        "http://me:secret@proxy.test:99999",
        "http://me:secret@proxy.test:x",
        "http://me:secret@proxy.test:3128/path",
        "http://me:secret@proxy.test:3128?q",
        "http://me:secret@pro xy.test:3128",
        "http://me:secret@:3128",
        "http://me:secret@a..b:3128",
        "http://me:secret@[::1:3128",
        "http://me%0d%0aX:secret@proxy.test:3128",
        "http://m%3Ae:secret@proxy.test:3128",
        "http://me:secret@proxy.test:3128" + "/" * 2000,
        "http://me:secret\n@proxy.test:3128",
    ],
)
def test_a_url_that_is_none_is_refused_without_showing_it(url: str) -> None:
    """The error says what to write, and holds nothing of the value."""
    with pytest.raises(UpstreamError) as caught:
        read(url)
    assert "local.upstream_proxy" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "more",
    [
        {"no_proxy": "a.test"},
        {"no_proxy": [5]},
        {"no_proxy": [".corp.test"]},
        {"no_proxy": ["a.test:443"]},
        {"no_proxy": ["a.test:*"]},
        {"upstream_resolves": "yes"},
        {"upstream_proxy": 5},
    ],
)
def test_other_settings_are_read_strictly(more: dict[str, Any]) -> None:
    """Of the wrong type, or no hosts: refused, by name."""
    with pytest.raises(UpstreamError, match=next(iter(more))):
        read_upstream({"upstream_proxy": "http://proxy.test:3128", **more})


@pytest.mark.parametrize("more", [{"no_proxy": ["a:1"]}, {"no_proxy": "a.test"}, {"upstream_resolves": 1}])
def test_what_goes_with_a_proxy_is_checked_without_one(more: dict[str, Any]) -> None:
    """A fault in these is found when it is written, not when a proxy is named later."""
    with pytest.raises(UpstreamError):
        read_upstream(more)


def test_what_no_proxy_names_is_dialled_directly() -> None:
    """By name or by the address it leads to, on every port."""
    found = read(
        "http://proxy.test:3128", no_proxy=["*.corp.test", "git.test", "10.0.0.0/8", "2001:db8::/32"]
    )
    assert found.is_direct(Host("a.corp.test"))
    assert found.is_direct(Host("git.test"))
    assert not found.is_direct(Host("corp.test"))
    assert not found.is_direct(Host("web.test"), ip_address("203.0.113.1"))
    assert found.is_direct(Host("web.test"), ip_address("10.1.2.3"))
    assert found.is_direct(Host("web.test"), ip_address("::ffff:10.1.2.3"))
    assert found.is_direct(Host("2001:db8::1", ip_address("2001:db8::1")))
    assert read("http://proxy.test:3128", no_proxy=["*"]).is_direct(Host("web.test"))


def test_it_goes_to_the_gateway_and_shows_no_secret() -> None:
    """The JSON form reads back to an equal setting; what is printed has neither user nor password."""
    found = read("http://me:secret@proxy.test:3128", no_proxy=["*.corp.test"], upstream_resolves=True)
    assert Upstream.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert "secret" not in repr(found)
    assert "bWU6c2VjcmV0" not in repr(found)
    assert Upstream.from_json(None) is None
    broken: Any
    for broken in ({}, [], 5, {**found.to_json(), "port": "x"}, {**found.to_json(), "direct": 5}):
        with pytest.raises(UpstreamError):
            Upstream.from_json(broken)
