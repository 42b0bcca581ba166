"""What an image says of its programs: read as a stranger's text, and kept by accounts, records and sessions."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.local.image_archives import SYSTEM, Place, archive, entry, make_place, tar_bytes, unpacking

from irons_local.bundle import session
from irons_local.bundle.image_config import EMPTY, ImageConfig
from irons_local.errors import EngineError
from irons_local.images.catalog import Image
from irons_local.images.sources.reference import Reference

TOLD = {
    "Env": ["PATH=/opt/bin:/bin", "A=b=c", "NOTHING", "B AD=1", "OLD="],
    "WorkingDir": "/srv/app",
    "User": "web",
    "Entrypoint": ["/entry"],
    "Cmd": ["serve", "--all"],
}


@pytest.fixture
def place() -> Iterator[Place]:
    """A place of its own."""
    with make_place() as made:
        yield made


def docker(place: Place, config: dict[str, Any], *entries: Any) -> Path:
    """What `docker save` writes of an image of one layer with this configuration."""
    manifest = json.dumps([{"Config": "c.json", "Layers": ["l.tar"]}]).encode()
    layer = tar_bytes(*entries)
    parts = (
        entry("c.json", json.dumps({"config": config}).encode()),
        entry("l.tar", layer),
        entry("manifest.json", manifest),
    )
    return archive(place.root / "docker.tar", *parts)


def test_a_configuration_is_read() -> None:
    """Variables without a value's sign or a proper name are left out; the entrypoint comes with its arguments."""
    found = ImageConfig.of({"config": TOLD})
    assert found.env == {"PATH": "/opt/bin:/bin", "A": "b=c", "OLD": ""}
    assert (found.workdir, found.user) == ("/srv/app", "web")
    assert found.entrypoint == ("/entry", "serve", "--all")


@pytest.mark.parametrize(
    "told",
    [
        None,
        [],
        {"config": []},
        {"config": {"Env": {}, "WorkingDir": "relative", "User": "-x", "Entrypoint": "sh"}},
        {"config": {"Env": ["A=\0"], "WorkingDir": "/a\nb", "User": "a b", "Cmd": [1]}},
        {"config": {"Env": ["A=\ud800"], "WorkingDir": "/", "User": "x" * 99, "Cmd": ["x" * (1 << 20)]}},
    ],
)
def test_what_is_not_of_its_form_is_left_out(told: Any) -> None:
    """No shape of a stranger's JSON raises anything, and none of it gets through."""
    assert ImageConfig.of(told) == EMPTY


@pytest.mark.slow
@given(
    st.dictionaries(st.sampled_from(["Env", "User", "WorkingDir", "Cmd"]), st.lists(st.text()) | st.text())
)
def test_any_text_becomes_one_word_each_of_a_session(told: dict[str, Any]) -> None:
    """No matter what the values are, a session's files hold one assignment per variable and one line for the directory."""
    found = ImageConfig.of({"config": told})
    files = session.of_image(found.env, found.workdir)
    assert files.get(session.WORKDIR, "/\n").count("\n") == 1
    assert "\0" not in "".join(files.values())


@unpacking
def test_the_images_user_is_who_one_is(place: Place) -> None:
    """Its account is opened for keys and may use sudo where the image has it; its search path holds in login shells."""
    own = [each for each in SYSTEM if each[0] not in ("etc/passwd", "etc/shadow")]
    accounts = (
        entry("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/srv:/usr/sbin/nologin\n"),
        entry("etc/shadow", b"root:*:1:0:99999:7:::\nweb:!:1:0:99999:7:::\n", mode=0o640),
        entry("etc/profile.d/"),
    )
    path = docker(place, TOLD, *own, *accounts)
    image = asyncio.run(place.images.import_(path, "app"))
    assert (image.username, image.user) == ("web", "web, root by sudo")
    assert image.config == ImageConfig.of({"config": TOLD})
    assert Image.read(image.home) == image
    etc = image.rootfs / "etc"
    assert "web:x:33:33::/srv:/bin/sh" in (etc / "passwd").read_text()
    assert "web:*:" in (etc / "shadow").read_text()
    assert (etc / "sudoers.d/irons").read_text().startswith("web ALL")
    assert (etc / "profile.d/irons-image.sh").read_text() == "PATH=/opt/bin:/bin\nexport PATH\n"


@unpacking
@pytest.mark.parametrize(
    ("user", "name", "line"),
    [
        ("65532", "irons", "irons:x:65532:0::/:/bin/sh"),
        ("65532:100", "irons", "irons:x:65532:100::/:/bin/sh"),
        ("0", "root", "root:x:0:0:root:/root:/bin/sh"),
        ("99999999", "root", "root:x:0:0:root:/root:/bin/sh"),
        ("nobody-here", "root", "root:x:0:0:root:/root:/bin/sh"),
    ],
)
def test_a_user_by_number_or_without_an_account(place: Place, user: str, name: str, line: str) -> None:
    """A number without an account gets one; what cannot be anybody inside is left out."""
    image = asyncio.run(
        place.images.import_(docker(place, {"User": user}, entry("app", b"#!", mode=0o755)), "app")
    )
    assert (image.username, image.may_sudo) == (name, False)
    assert line in (image.rootfs / "etc/passwd").read_text().splitlines()


@pytest.mark.parametrize(
    ("text", "address", "plain", "here"),
    [
        ("python", "python:latest", True, False),
        ("python:3.12", "python:3.12", False, False),
        ("team/app", "team/app:latest", False, False),
        ("registry.example:5000/team/app:2", "registry.example:5000/team/app:2", False, False),
        ("localhost/app", "localhost/app:latest", False, True),
        ("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest", False, True),
        ("127.0.0.1.example.com/app", "127.0.0.1.example.com/app:latest", False, False),
        (f"app:1@sha256:{'a' * 64}", f"app@sha256:{'a' * 64}", False, False),
    ],
)
def test_references(text: str, address: str, *, plain: bool, here: bool) -> None:
    """What people type is one address; only a registry at a loopback address may be asked without TLS."""
    found = Reference.parse(text)
    assert found is not None
    assert (found.address, found.is_plain, found.is_on_this_machine) == (address, plain, here)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["", "-x", "--all", "A B", "../x", "x@sha256:12", "Upper", "a" * 300, "x:\n"]
)
def test_what_is_not_a_reference(text: str) -> None:
    """Nothing that could be an option, a path or a broken digest reaches skopeo."""
    assert Reference.parse(text) is None


class Skopeo:
    """A stand-in for skopeo, first on the PATH: it shows a manifest and copies an archive."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        directory.mkdir()
        monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
        self.does()

    def does(self, inspect: str = "printf manifest", copy: str = "cp archive.tar") -> None:
        """What it does for each of its two commands; `copy` gets the target as its last word."""
        text = (
            f'#!/bin/sh\ncd {self.directory}\necho "$*" >>asked\nfor last; do :; done\n'
            f'case "$*" in *inspect*) {inspect} ;; *) {copy} "${{last#docker-archive:}}" ;; esac\n'
        )
        (self.directory / "skopeo").write_text(text)
        (self.directory / "skopeo").chmod(0o755)


@pytest.fixture
def skopeo(place: Place, monkeypatch: pytest.MonkeyPatch) -> Skopeo:
    """A registry's image of one program, by way of a stand-in."""
    made = Skopeo(place.root / "bin", monkeypatch)
    docker(place, TOLD, entry("app", b"#!", mode=0o755)).rename(made.directory / "archive.tar")
    return made


@unpacking
def test_what_is_pulled_is_asked_for_by_its_digest(place: Place, skopeo: Skopeo) -> None:
    """The manifest's digest is recorded and fetched, no matter what the tag comes to mean in between."""
    image = asyncio.run(place.images.pull("registry.example/app:2"))
    digest = f"sha256:{hashlib.sha256(b'manifest').hexdigest()}"
    assert (image.name, image.digest) == ("registry.example/app:2", digest)
    assert image.source == "pulled from registry.example/app:2"
    assert image.config.env["A"] == "b=c"
    inspect, copy = (skopeo.directory / "asked").read_text().splitlines()
    assert inspect == "inspect --raw docker://registry.example/app:2"
    assert f"docker://registry.example/app@{digest} docker-archive:" in copy
    assert "tls-verify" not in inspect + copy
    assert place.left() == [image.id]
    assert {path.name for path in image.home.iterdir()} == {"image.json", "rootfs"}


@unpacking
def test_another_image_than_the_one_of_the_digest_is_refused(place: Place, skopeo: Skopeo) -> None:
    """A registry that answers with another manifest is found out, and nothing is fetched."""
    found = place.refused(place.images.pull(f"registry.example/app@sha256:{'a' * 64}"))
    assert "another image" in found.message
    assert len((skopeo.directory / "asked").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("said", "code", "hint"),
    [
        ("reading manifest 1 in h.example/app: manifest unknown: \\033[31mred", "absent", ""),
        ("reading manifest: unauthorized: authentication required", "image", "skopeo login h.example"),
        ("pinging container registry: connection refused", "image", ""),
    ],
)
@unpacking
def test_a_pull_that_fails_says_why(place: Place, skopeo: Skopeo, said: str, code: str, hint: str) -> None:
    """The registry's words are reported in one line, cleaned; what is missing is distinguished, and how to log in."""
    skopeo.does(inspect=f"printf 'time=x level=fatal msg=\"{said}\"' >&2; exit 1")
    found = place.refused(place.images.pull("h.example/app:1"))
    assert found.code == code
    assert "h.example/app:1 was not fetched" in found.message
    assert "\033" not in found.message
    assert hint in found.hint
    skopeo.does(copy="echo nothing >&2; exit 1; :")
    assert place.refused(place.images.pull("h.example/app:1")).message.endswith(": nothing")


@unpacking
def test_a_manifest_without_end_is_cut_short(place: Place, skopeo: Skopeo) -> None:
    """A registry that goes on sending is not listened to."""
    skopeo.does(inspect="exec cat /dev/zero")
    assert "too large" in place.refused(place.images.pull("h.example/app:1")).message


def test_pulling_needs_skopeo(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed, doctor's check is named; what is not a reference is bad input."""
    monkeypatch.setattr("irons_local.images.sources.fetching.search_path", lambda: "/nowhere")
    found = place.refused(place.images.pull("app:1"))
    assert (found.code, "skopeo" in found.hint) == ("machine", True)
    with pytest.raises(EngineError, match="not an image at a registry"):
        asyncio.run(place.images.pull("--all"))
