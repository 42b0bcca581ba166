"""Proxies and certificates that the environment names: used where they can be, and named where they can't."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.core.test_wire import client

from irons.errors import ConfigError
from irons.trust import proxy_for, trusted

HTTPS = "https://sandboxes.example.com:8443"


@pytest.mark.parametrize(
    ("env", "proxy"),
    [
        ({}, None),
        ({"HTTPS_PROXY": ""}, None),
        ({"HTTPS_PROXY": "http://proxy.test:3128"}, "http://proxy.test:3128"),
        ({"HTTPS_PROXY": "proxy.test:3128"}, "http://proxy.test:3128"),
        ({"ALL_PROXY": "http://all.test:1"}, "http://all.test:1"),
        ({"HTTPS_PROXY": "http://upper.test:1", "https_proxy": "http://lower.test:1"}, "http://lower.test:1"),
        ({"HTTP_PROXY": "http://plain.test:1"}, None),
    ],
)
def test_the_proxy_of_an_https_server(env: dict[str, str], proxy: str | None) -> None:
    """HTTPS_PROXY, else ALL_PROXY; lower case wins; plain HTTP and unix sockets go directly."""
    assert proxy_for(HTTPS, env) == proxy
    assert proxy_for("http://sandboxes.example.com", env) is None


@pytest.mark.parametrize(
    ("excepted", "url", "direct"),
    [
        ("*", HTTPS, True),
        ("sandboxes.example.com", HTTPS, True),
        ("example.com", HTTPS, True),
        (".example.com", HTTPS, True),
        ("sandboxes.example.com:8443", HTTPS, True),
        ("sandboxes.example.com:443", HTTPS, False),
        ("les.example.com", HTTPS, False),
        ("localhost, [::1]", "https://[::1]:1", True),
        ("localhost, ::1", "https://[::1]:1", True),
        ("localhost,[::1]", HTTPS, False),
        ("10.0.0.0/8", "https://10.1.2.3", True),
        ("10.0.0.0/8", "https://11.1.2.3", False),
        ("10.0.0.0/99,,  ,:", "https://10.1.2.3", False),
    ],
)
def test_who_is_reached_without_a_proxy(excepted: str, url: str, direct: bool) -> None:
    """NO_PROXY has names, domains, ports, addresses with and without brackets, and networks; what is none is passed over."""
    found = proxy_for(url, {"HTTPS_PROXY": "http://proxy.test:1", "NO_PROXY": excepted})
    assert (found is None) is direct


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize(
    "value",
    [
        "socks5://u:secret@127.0.0.1:9",
        "socks4://h:1",
        "ftp://x:1",
        "http://",
        "http://x:port",
        "http://[::1",
        "a b",
    ],
)
def test_a_proxy_that_cannot_be_used_is_named(name: str, value: str, irons_env: dict[str, str]) -> None:
    """The variable is named, on one line, without its value, and a client is never made."""
    with client(HTTPS, {**irons_env, name: value}) as api, pytest.raises(ConfigError) as caught:
        api.status("one")
    assert caught.value.message.startswith(f"{name} ")
    assert "secret" not in f"{caught.value.message}{caught.value.hint}"


def test_certificates_that_cannot_be_used_are_named(tmp_path: Path, irons_env: dict[str, str]) -> None:
    """A missing file, one without a certificate, and what is not a directory: variable, path and reason."""
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing\n")
    for name, path, why in (
        ("SSL_CERT_FILE", tmp_path / "missing.pem", "No such file"),
        ("SSL_CERT_FILE", empty, "no certificate"),
        ("SSL_CERT_FILE", tmp_path, "Is a directory|no certificate"),
        ("SSL_CERT_DIR", empty, "not a directory"),
    ):
        with (
            client(HTTPS, {**irons_env, name: str(path)}) as api,
            pytest.raises(ConfigError, match=f"{name}: {path}.*({why})"),
        ):
            api.status("one")
    assert trusted({"SSL_CERT_DIR": str(tmp_path)}).get_ca_certs() == []
    assert trusted({}).get_ca_certs()
