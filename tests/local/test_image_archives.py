"""What archives become, and which are refused."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import posixpath
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.local.image_archives import (
    SYSTEM,
    Entry,
    Place,
    archive,
    docker_archive,
    entry,
    ids,
    make_place,
    oci_archive,
    tar_bytes,
    unpacking,
)

from irons_local.errors import EngineError
from irons_local.images.inside.archive import ArchiveError
from irons_local.images.inside.unpack import checked_link, checked_name
from irons_local.linux.idmap import outer_map


@pytest.fixture
def place() -> Iterator[Place]:
    """A place of its own."""
    with make_place() as made:
        yield made


@unpacking
def test_a_tar_of_a_root_file_system_becomes_an_image(place: Place) -> None:
    """Files, owners, modes, links and times are those of the archive; the account is added; identity is removed."""
    image = place.imported(
        *SYSTEM,
        entry("home/"),
        entry("srv/suid", b"x", mode=0o4755, uid=7, gid=8, mtime=1000),
        entry("srv/hard", type=tarfile.LNKTYPE, linkname="srv/suid"),
        entry("srv/soft", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        entry("etc/ssh/ssh_host_rsa_key", b"secret"),
        entry("etc/machine-id", b"0123\n"),
        entry("dev/sda", type=tarfile.BLKTYPE, devmajor=8),
        entry("dev/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    )
    rootfs = image.rootfs
    assert (image.sshd, image.tini, image.os) == ("/usr/sbin/sshd", "", "Little 1")
    found = (rootfs / "srv/suid").stat()
    assert stat.S_IMODE(found.st_mode) == 0o4755
    assert found.st_mtime == 1000
    assert ids(rootfs / "srv/suid") == (7, 8)
    assert found.st_ino == (rootfs / "srv/hard").stat().st_ino
    assert str((rootfs / "srv/soft").readlink()) == "/etc/passwd"
    assert not (rootfs / "etc/ssh/ssh_host_rsa_key").exists()
    assert (rootfs / "etc/machine-id").read_text() == ""
    assert list((rootfs / "dev").iterdir()) == []
    assert "irons:x:1000:1000::/home/irons:/bin/sh" in (rootfs / "etc/passwd").read_text()
    assert "irons:*:" in (rootfs / "etc/shadow").read_text()
    assert stat.S_IMODE((rootfs / "etc/shadow").stat().st_mode) == 0o640
    assert stat.S_IMODE((rootfs / "etc/sudoers.d/irons").stat().st_mode) == 0o440
    assert ids(rootfs / "home/irons") == (1000, 1000)
    assert ids(rootfs) == (0, 0)
    assert stat.S_IMODE(rootfs.stat().st_mode) == 0o755
    assert [each.name for each in place.images.listed()] == ["little"]


@unpacking
def test_an_image_of_debian_has_the_directories_of_man_pages(place: Place) -> None:
    """A lean image that leaves them out gets them, because scripts of packages put links there; others stay as they are."""
    sections = [f"man{number}" for number in range(1, 9)]
    lean = place.imported(*SYSTEM, entry("etc/dpkg/"), entry("usr/share/"))
    assert sorted(path.name for path in (lean.rootfs / "usr/share/man").iterdir()) == sections
    assert not (place.imported(*SYSTEM, entry("usr/share/")).rootfs / "usr/share/man").exists()


HOSTILE = {
    "an absolute path": entry("/etc/cron.d/x", b"x"),
    "a path that climbs": entry("etc/../../x", b"x"),
    "a link that climbs": entry("etc/out", type=tarfile.SYMTYPE, linkname="../../x"),
    "a link to nothing": entry("etc/out", type=tarfile.SYMTYPE, linkname=""),
    "a hard link that climbs": entry("etc/out", type=tarfile.LNKTYPE, linkname="../x"),
    "an absolute hard link": entry("etc/out", type=tarfile.LNKTYPE, linkname="/etc/shadow"),
    "a hard link to what is not there": entry("etc/out", type=tarfile.LNKTYPE, linkname="etc/none"),
    "an owner no sandbox has": entry("etc/x", b"x", uid=70000),
    "a negative owner": entry("etc/x", b"x", uid=-1),
    "a name too long": entry("etc/" + "x" * 300, b"x"),
}


@unpacking
@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_archive_is_refused(place: Place, hostile: Entry) -> None:
    """The archive is refused as a whole, in one line, and nothing of it is left."""
    path = archive(place.root / "a.tar", *SYSTEM, hostile)
    assert place.refused(place.images.import_(path, "little")).code == "image"


@unpacking
def test_links_in_the_way_lead_nowhere_outside(place: Place) -> None:
    """Writing through a link of the archive's own stays below its root."""
    outside = place.root / "outside"
    outside.mkdir(mode=0o777)
    outside.chmod(0o777)
    image = place.imported(
        *SYSTEM,
        entry("srv", type=tarfile.SYMTYPE, linkname=str(outside)),
        entry("srv/file", b"x"),
    )
    assert list(outside.iterdir()) == []
    assert image.size > 0


@unpacking
@pytest.mark.parametrize("target", ["etc/passwd", "etc", "etc/shadow", "etc/sudoers.d"])
def test_an_image_that_links_its_accounts_away_harms_nobody(place: Place, target: str) -> None:
    """The account is never added through a link that the image laid."""
    victim = place.root / "victim"
    victim.write_text("kept\n")
    victim.chmod(0o666)
    others = [each for each in SYSTEM if not each[0].startswith(target)]
    path = archive(place.root / "a.tar", *others, entry(target, type=tarfile.SYMTYPE, linkname=str(victim)))
    with contextlib.suppress(EngineError):
        asyncio.run(place.images.import_(path, "little"))
    assert victim.read_text() == "kept\n"


@unpacking
def test_only_file_capabilities_are_kept_of_extended_attributes(place: Place) -> None:
    """An overlay's own marks, or any other attribute, can't be smuggled in; file capabilities are the sandbox's own."""
    capability = b"\x01\0\0\2\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    headers = {
        "SCHILY.xattr.user.overlay.opaque": "y",
        "SCHILY.xattr.user.mine": "x",
        "SCHILY.xattr.security.capability": capability.decode("latin-1"),
    }
    image = place.imported(*SYSTEM, entry("usr/bin/ping", b"x", mode=0o755, pax_headers=headers))
    assert os.listxattr(image.rootfs / "usr/bin/ping") == ["security.capability"]
    kept = os.getxattr(image.rootfs / "usr/bin/ping", "security.capability")
    assert int.from_bytes(kept[-4:], "little") == outer_map().host_uid(1)


@unpacking
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda _: b"", "not a tar archive"),
        (lambda _: b"hello" * 1000, "not a tar archive"),
        (lambda data: b"\x28\xb5\x2f\xfd" + data, "zstd"),
        (lambda data: data[: len(data) // 2], "damaged"),
        (lambda data: gzip.compress(data)[:-300], "damaged"),
    ],
    ids=["empty", "foreign", "zstd", "cut", "cut and compressed"],
)
def test_what_is_no_whole_archive_is_refused(
    place: Place, spoil: Callable[[bytes], bytes], says: str
) -> None:
    """An empty, foreign, cut or compressed-as-we-can't file is refused with the reason."""
    path = place.root / "a.tar"
    path.write_bytes(spoil(tar_bytes(*SYSTEM, entry("big", os.urandom(200_000)))))
    assert says in place.refused(place.images.import_(path, "little")).message


@unpacking
def test_an_image_of_one_program_gets_what_a_login_needs(place: Place) -> None:
    """Without accounts, shell and sudo one is root, with the shell of the kit; nothing else is added."""
    image = place.imported(entry("srv/app", b"#!", mode=0o755))
    assert (image.sshd, image.username) == ("", "root")
    assert (image.rootfs / "etc/passwd").read_text().startswith("root:x:0:0:root:/root:/bin/sh\nsshd:x:")
    assert str((image.rootfs / "bin/sh").readlink()) == "/run/irons/kit/sh"
    assert not (image.rootfs / "home/irons").exists()
    # Exported and imported again the link leads nowhere on the way, and stays what it was.
    asyncio.run(place.images.export("little", place.root / "out.tar"))
    again = asyncio.run(place.images.import_(place.root / "out.tar", "again"))
    assert str((again.rootfs / "bin/sh").readlink()) == "/run/irons/kit/sh"


@unpacking
@pytest.mark.parametrize(
    ("shell", "locked", "becomes"),
    [
        ("/bin/sh", "!", "root:x:0:0:root:/root:/bin/sh"),
        ("/sbin/nologin", "!!", "root:x:0:0:root:/root:/bin/sh"),
        ("/bin/none", "*", "root:x:0:0:root:/root:/bin/sh"),
    ],
)
def test_root_of_an_image_without_sudo_can_log_in(
    place: Place, shell: str, locked: str, becomes: str
) -> None:
    """A locked account, or one whose shell lets no one in, is opened for keys; the password stays unusable."""
    without = [each for each in SYSTEM if each[0] not in ("usr/bin/sudo", "etc/passwd", "etc/shadow")]
    image = place.imported(
        *without,
        entry("sbin/nologin", b"#!", mode=0o755),
        entry("etc/passwd", f"daemon:x:1:1:::\nroot:x:0:0:root:/root:{shell}\n".encode()),
        entry("etc/shadow", f"daemon:!::0:::::\nroot:{locked}::0:::::\n".encode(), mode=0o640),
    )
    assert image.username == "root"
    assert not (image.rootfs / "etc/sudoers.d/irons").exists()
    assert becomes in (image.rootfs / "etc/passwd").read_text().splitlines()
    shadow = (image.rootfs / "etc/shadow").read_text()
    assert "root:*::0:::::" in shadow
    assert "daemon:!::0:::::" in shadow
    assert stat.S_IMODE((image.rootfs / "etc/shadow").stat().st_mode) == 0o640


def test_an_archive_that_is_not_there_is_bad_input(place: Place) -> None:
    """A path that can't be opened is the caller's mistake."""
    assert place.refused(place.images.import_(place.root / "none.tar", "x")).code == "input"


def test_a_directory_is_no_archive(place: Place) -> None:
    """An import of a directory says that it is one."""
    refused = place.refused(place.images.import_(place.root, "x"))
    assert (refused.code, refused.message) == ("input", f"{place.root} is a directory")


@pytest.mark.parametrize("name", ["", "-x", "../x", "a b", ".x", "x" * 65, "ü"])
def test_a_name_that_is_none_is_refused(place: Place, name: str) -> None:
    """Names of images are plain words."""
    archive(place.root / "a.tar", *SYSTEM)
    assert place.refused(place.images.import_(place.root / "a.tar", name)).code == "input"


@unpacking
@pytest.mark.parametrize(
    "data", [docker_archive(), oci_archive(), gzip.compress(oci_archive())], ids=["docker", "oci", "oci.gz"]
)
def test_layers_lie_over_one_another(place: Place, data: bytes) -> None:
    """Of a Docker or OCI archive the layers are laid over one another, with what they remove removed."""
    path = place.root / "a.tar"
    path.write_bytes(data)
    image = asyncio.run(place.images.import_(path, "little"))
    assert image.os == "Two"
    assert list((image.rootfs / "srv").iterdir()) == []
    assert [each.name for each in (image.rootfs / "opt").iterdir()] == ["c"]


@unpacking
def test_an_archive_for_another_processor_is_refused(place: Place) -> None:
    """The error names the architecture that is missing."""
    path = place.root / "a.tar"
    path.write_bytes(oci_archive("pdp11"))
    assert "no image for" in place.refused(place.images.import_(path, "little")).message


@unpacking
def test_a_manifest_that_names_what_is_not_there_is_refused(place: Place) -> None:
    """A layer that is missing is named."""
    path = place.root / "a.tar"
    path.write_bytes(tar_bytes(entry("manifest.json", json.dumps([{"Layers": ["gone.tar"]}]).encode())))
    assert "gone.tar" in place.refused(place.images.import_(path, "little")).message


@given(st.lists(st.sampled_from(["..", ".", "", "a", "b c", "ü"]), max_size=6).map("/".join))
def test_a_checked_name_stays_below(name: str) -> None:
    """Every path that passes is relative, and names nothing above."""
    try:
        checked = checked_name(name)
    except ArchiveError:
        assert name.startswith("/") or ".." in name.split("/")
        return
    assert not checked.startswith("/")
    assert posixpath.normpath(f"/root/{checked}").startswith("/root")


@given(
    st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=4).map("/".join),
    st.lists(st.sampled_from(["..", ".", "a"]), min_size=1, max_size=6).map("/".join),
)
def test_a_checked_link_stays_below(name: str, target: str) -> None:
    """A relative link that passes leads nowhere above the root, and one that doesn't is refused."""
    climbs = False
    path = ["r", *name.split("/")[:-1]]
    for part in target.split("/"):
        if part == "..":
            path = path[:-1]
            climbs = climbs or not path
        elif part != ".":
            path.append(part)
    if climbs:
        with pytest.raises(ArchiveError):
            checked_link(name, target)
    else:
        assert checked_link(name, target) == target


def test_a_place_is_removed_also_where_it_is_interrupted() -> None:
    """Ctrl-C, a test that is left out, a failure: nothing of a place stays."""
    roots = list[Path]()
    for reason in (KeyboardInterrupt, pytest.skip.Exception, AssertionError):
        with pytest.raises(reason), make_place() as place:  # noqa: PT012
            roots.append(place.root)
            archive(place.root / "a.tar", *SYSTEM)
            raise reason
    assert [root.exists() for root in roots] == [False] * 3
