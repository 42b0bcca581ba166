"""Certificate authorities that are carried into sandboxes: certificates alone, and everything else is named."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from tests.local.test_doctor import WELL

from irons.settings.settings import load
from irons_local.config import authorities, authority_files
from irons_local.config.authorities import Authorities, carried, read_authorities
from irons_local.config.authority_files import AuthoritiesError, LeftOut, paths_of, signature
from irons_local.doctor.checks import judge
from irons_plugins.local.trusted import say_trusted

if TYPE_CHECKING:
    from irons.context import Context


def authority(directory: Path, name: str) -> None:
    """Make a certificate `ca` and its private key `key` in a directory."""
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-days", "2", "-subj", f"/CN={name}"]
    words += ["-keyout", str(directory / "key"), "-out", str(directory / "ca")]
    subprocess.run(words, check=True, capture_output=True)


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a certificate and its private key."""
    directory = tmp_path_factory.mktemp("company")
    authority(directory, "Company")
    return directory


@pytest.mark.process
def test_only_certificates_are_carried(company: Path, tmp_path: Path) -> None:
    """A key, a comment and a broken certificate next to it stay here, and each is named with its file."""
    pem, key = (company / "ca").read_text(), (company / "key").read_text()
    broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    path = tmp_path / "all.pem"
    path.write_text(f"# Company\npassword: secret\n{key}{pem}{broken}{pem}")
    found = read_authorities([str(path)])
    assert (found.pem, found.count, found.files) == (pem, 1, (str(path),))
    assert found.bundle.endswith(pem)
    assert [each.why for each in found.left_out] == [
        "a private key in it stays on this machine",
        "a certificate in it cannot be read",
    ]


def test_files_in_der_and_directories_are_read(company: Path, tmp_path: Path) -> None:
    """A certificate in DER is one too; in a directory the files with the usual endings count, further down too."""
    pem = (company / "ca").read_text()
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "ca.der").write_bytes(ssl.PEM_cert_to_DER_cert(pem))
    (tmp_path / "README").write_text(pem)
    assert read_authorities([str(tmp_path)]).pem == pem
    (tmp_path / "below" / "ca.der").write_bytes(ssl.PEM_cert_to_DER_cert(pem) + b"more")
    found = read_authorities([str(tmp_path)])
    assert (found.count, found.bundle, found.left_out[0].why) == (0, "", "it holds no certificate")


def test_what_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is not there is named where the setting names it, and a large one is not read."""
    monkeypatch.setattr(authority_files, "USUAL", (str(tmp_path / "none"),))
    assert read_authorities(None) == Authorities()
    assert read_authorities([str(tmp_path / "none")]).left_out[0].why == "there is no such file"
    (tmp_path / "large").write_bytes(b"x" * (authorities.MOST_BYTES + 1))
    assert read_authorities([str(tmp_path / "large")]).left_out[0].why == "it is too large"
    assert read_authorities([]) == Authorities()


def test_the_setting(company: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the usual places are read, an empty list carries nothing, and an invalid one is an error."""
    monkeypatch.setattr(authority_files, "USUAL", (str(company / "ca"),))
    settings = tmp_path / "config.toml"
    assert carried(settings).count == 1
    settings.write_text("[local]\nca = []\n")
    assert carried(settings).count == 0
    settings.write_text('[local]\nca = ["ca.pem"]\n')
    assert "absolute paths" in carried(settings).left_out[0].why
    for invalid in ("ca.pem", [1], ["relative"]):
        with pytest.raises(AuthoritiesError):
            paths_of({"ca": invalid})


def test_doctor_names_what_is_carried_and_what_is_not() -> None:
    """What is left out fails the check only where nothing is carried at all."""
    left = (LeftOut("/x.pem", "a private key in it stays on this machine"),)
    for found, ok in (
        (Authorities(), True),
        (Authorities(pem="p", count=1, files=("/x.pem",), left_out=left), True),
        (Authorities(left_out=left), False),
    ):
        check = next(each for each in judge(replace(WELL, authorities=found)) if each.name == "company-ca")
        assert check.ok is ok
        assert ("/x.pem (a private key" in check.what) is bool(found.left_out)


@pytest.mark.process
def test_create_says_once_what_is_trusted(
    company: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Certificates are named with their files by the first create, and by the first one after they changed; `[]` says nothing."""
    ca, config = tmp_path / "ca.pem", tmp_path / "config.toml"
    ca.write_text((company / "ca").read_text())
    config.write_text(f'[local]\nca = ["{ca}"]\n')
    env = {"HOME": str(tmp_path), "IRONS_CONFIG": str(config)}
    said: list[str] = []

    def create() -> list[str]:
        said.clear()
        say_trusted(cast("Context", SimpleNamespace(settings=load({}, env), progress=said.append)))
        return said

    (line,) = create()
    assert line.startswith(f"sandboxes trust 1 certificate of {ca}; ca = [] ")
    assert create() == []
    ca.touch()
    assert create() == []
    authority(tmp_path, "Another")
    ca.write_text((company / "ca").read_text() + (tmp_path / "ca").read_text())
    assert create()[0].startswith("sandboxes trust 2 certificates of ")
    config.write_text("[local]\nca = []\n")
    assert create() == []


def test_files_are_read_again_only_once_one_has_changed(
    company: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading them takes longer than all else of a start: neither a second start nor a second create does."""
    ca = tmp_path / "ca.pem"
    ca.write_text((company / "ca").read_text())
    settings = tmp_path / "config.toml"
    settings.write_text(f'[local]\nca = ["{ca}"]\n')
    reads: list[object] = []

    def counted(paths: Sequence[str] | None) -> Authorities:
        reads.append(paths)
        return read_authorities(paths)

    monkeypatch.setattr(authorities, "read_authorities", counted)
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(variable, raising=False)
    carrying, before = authorities.Carrying(), signature(settings)
    assert carrying.read([str(ca)]).count == 1
    # Where this process stands, and what is written there, is of no account.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "written").touch()
    assert carrying.read([str(ca)]).count == 1
    assert len(reads) == 1
    assert signature(settings) == before
    ca.write_text("")
    assert signature(settings) != before
    assert carrying.read([str(ca)]).count == 0
    assert carrying.read([]) == Authorities()
    assert len(reads) == 3
