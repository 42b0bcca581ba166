"""Proxies and certificates that the environment names: used where they can be, and named where they can't."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.core.test_wire import client

from irons.client.backends import unreachable
from irons.client.trust import proxy_for, trusted
from irons.errors import ConfigError
from irons.hookspecs import Backend
from irons.settings.settings import load

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


@pytest.mark.process
def test_the_setting_for_certificates_wins(tmp_path: Path) -> None:
    """`api_ca` names the file whose certificates alone count; one that cannot be used is named by the setting."""
    certificate = tmp_path / "ca.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-days", "2", "-subj", "/CN=Own", "-keyout", str(tmp_path / "key"), "-out", str(certificate)]
    subprocess.run(words, check=True, capture_output=True)
    env = {"SSL_CERT_FILE": "/nowhere", "HOME": str(tmp_path)}
    assert trusted(env, str(certificate)).cert_store_stats()["x509"] == 1
    assert trusted(env, "~/ca.pem").cert_store_stats()["x509"] == 1
    with pytest.raises(ConfigError, match=r"api_ca: /none: No such file"):
        trusted(env, "/none")


def test_a_certificate_that_is_not_trusted_names_the_setting(tmp_path: Path) -> None:
    """A server with a certificate of its own CA is an error that says which setting makes it known."""
    settings = load(env={"HOME": str(tmp_path), "IRONS_API_URL": "https://sandboxes.example.com"})
    error = unreachable(
        Backend("https://sandboxes.example.com"),
        settings,
        OSError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"),
    )
    assert "not trusted here" in error.message
    assert "irons config set api_ca" in error.hint
