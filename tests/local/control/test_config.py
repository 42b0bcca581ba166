"""What the control plane was configured to be, in two files that people and commands write."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path

import pytest

from irons_local.config.server import LocalTable, ServerConfig, ServerConfigError, read_config


def test_no_files_are_the_defaults(tmp_path: Path) -> None:
    """Nothing was asked for: the unix socket alone, SSH on loopback."""
    found = read_config(tmp_path / "server.json", tmp_path / "config.toml")
    assert found == ServerConfig()
    assert (found.host, found.ssh_host) == (None, "127.0.0.1")


def test_both_files_are_heeded(tmp_path: Path) -> None:
    """`server.json` says where to listen, null being the default, `[local]` what to keep and the usual engine."""
    asked = {
        "host": "127.0.0.1",
        "port": 7411,
        "tls_cert": None,
        "tls_key": None,
        "ssh_host": None,
        "later": 1,
    }
    (tmp_path / "server.json").write_text(json.dumps(asked))
    (tmp_path / "config.toml").write_text(
        '[local]\nengine = "vm"\nkeep_events = 5\nkeep_days = 7\nconnections = 2000\n'
    )
    found = read_config(tmp_path / "server.json", tmp_path / "config.toml")
    assert found == ServerConfig(
        host="127.0.0.1", port=7411, engine="vm", keep_events=5, keep_days=7, connections=2000
    )


@pytest.mark.parametrize(
    ("listening", "settings"),
    [
        ("{", ""),
        ("[]", ""),
        ('{"host": 5}', ""),
        ('{"port": "x"}', ""),
        ("{}", "[local\n"),
        ("{}", "local = 5\n"),
        ("{}", "[local]\nkeep_events = 0\n"),
        ("{}", '[local]\nkeep_days = "many"\n'),
        ("{}", "[local]\nkeep_days = true\n"),
        ("{}", "[local]\nconnections = 0\n"),
        ("{}", "[local]\ngateway_workers = 0\n"),
        ("{}", "[local]\ngateway_workers = 65\n"),
        ("{}", '[local]\nupstream_proxy = "http://me:secret@proxy.test"\n'),
        ("{}", '[local]\nsynthetic_pool = "10.0.0.0/24"\n'),
        ("{}", '[local]\nsynthetic_pool = "127.0.0.0/8"\n'),
        ("{}", '[local]\nsynthetic_pool = "fd00::/16"\n'),
        ("{}", '[local]\nsynthetic_pool = "all"\n'),
        ("{}", "ask = 5\n"),
        ("{}", '[ask]\nexec = "ask-me"\n'),
        ("{}", '[ask]\nexec = [""]\n'),
        ("{}", '[ask]\nexec = ["a"]\nexec_may = ["yes"]\n'),
        ("{}", '[ask]\nexec = ["a"]\nhold = 1\n'),
        ("{}", '[ask]\nnever = "paste.example"\n'),
        ("{}", "[ask]\nnever = [5]\n"),
        ("{}", '[ask]\nnever = ["a b"]\n'),
    ],
)
def test_nonsense_is_one_line_that_names_the_file(tmp_path: Path, listening: str, settings: str) -> None:
    """A file that is invalid is named, in one line."""
    (tmp_path / "server.json").write_text(listening)
    (tmp_path / "config.toml").write_text(settings)
    with pytest.raises(ServerConfigError) as caught:
        read_config(tmp_path / "server.json", tmp_path / "config.toml")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_hosts_are_read_again_when_they_change(tmp_path: Path) -> None:
    """Names and addresses come in one spelling; a broken file leaves what was, none means none."""
    path = tmp_path / "config.toml"
    hosts = LocalTable(path).hosts
    assert hosts() == {}
    path.write_text('[local.hosts]\n"Web.Example.Test." = "192.0.2.1"\ndb = ["2001:DB8::1", "192.0.2.2"]\n')
    assert hosts() == {
        "web.example.test": (ip_address("192.0.2.1"),),
        "db": (ip_address("2001:db8::1"), ip_address("192.0.2.2")),
    }
    path.write_text('[local.hosts]\n"a b" = "192.0.2.1"\n')
    assert "db" in hosts()
    path.unlink()
    assert hosts() == {}


def test_what_is_never_asked_about_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """A pattern without a port is for all ports; an invalid one leaves what was, and is no reason to ask."""
    path = tmp_path / "config.toml"
    never = LocalTable(path).never
    assert never() == ()
    path.write_text('[ask]\nnever = ["*.Paste.example", "a.example:22", "2001:db8::1", "10.0.0.0/8:*"]\n')
    spelled = ["*.paste.example:*", "a.example:22", "[2001:db8::1]:*", "10.0.0.0/8:*"]
    assert [each.text for each in never()] == spelled
    path.write_text('[ask]\nnever = ["a b"]\n')
    assert len(never()) == len(spelled)
    path.write_text("[ask]\n")
    assert never() == ()


def test_the_upstream_proxy_is_read_again_when_it_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A changed setting counts at once; an invalid one leaves what was, and the warning shows nothing of its value."""
    path = tmp_path / "config.toml"
    local = LocalTable(path)
    assert local.upstream() is None
    path.write_text(
        '[local]\nupstream_proxy = "http://me:secret@proxy.test:3128"\nno_proxy = ["10.0.0.0/8"]\n'
    )
    found = local.upstream()
    assert found is not None
    assert (found.host.text, found.port, found.credentials) == ("proxy.test", 3128, b"me:secret")
    path.write_text('[local]\nupstream_proxy = "socks5://me:secret@proxy.test:1"\n')
    assert local.upstream() == found
    assert "HTTP proxy" in caplog.text
    assert "secret" not in caplog.text
    path.write_text("[local]\n")
    assert local.upstream() is None
