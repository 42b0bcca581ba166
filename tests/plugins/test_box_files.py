"""Files, ports and events of a sandbox as an object. The sandbox is this machine, by a real SSH server."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.request import urlopen

import pytest

from irons.errors import ApiError, IronsError, NotFound, UsageError
from irons.testing import FakeApi

from .boxes import HELLO, Make, leads_there
from .conftest import Sshd


def test_files_go_there_and_back(make_box: Make, sshd: Sshd, tmp_path: Path) -> None:
    """What is written is read as it was, whole, by paths of any form; a mode is kept or given; a link is replaced."""
    data = os.urandom(100_000)
    with make_box("one", attach=True) as box:
        box.write("a b/it's/$x", data, mode=0o755)
        assert box.read("~/a b/it's/$x") == data
        there = sshd.home / "a b" / "it's" / "$x"
        box.write(str(there), "ü\n")
        assert (there.read_text(), there.stat().st_mode & 0o777) == ("ü\n", 0o755)
        assert box.read_text(str(there)) == "ü\n"
        (tmp_path / "real").write_text("mine")
        (tmp_path / "link").symlink_to("real")
        box.write(str(tmp_path / "link"), "new")
        assert (tmp_path / "real").read_text() == "mine"
        assert (tmp_path / "link").read_text() == "new"
        box.write("-n", b"dash")
        assert box.read("-n") == b"dash"


def test_files_that_are_refused(make_box: Make, tmp_path: Path) -> None:
    """What is absent, a directory or too large is an error of its own; nothing is written over a directory."""
    with make_box("one", attach=True) as box:
        with pytest.raises(NotFound, match=r"there is no nowhere in one"):
            box.read("nowhere")
        with pytest.raises(IronsError, match="is a directory"):
            box.read(str(tmp_path))
        with pytest.raises(IronsError, match="larger than 1,000 bytes"):
            box.read("/dev/zero", most=1000)
        with pytest.raises(IronsError, match="is a directory"):
            box.write(str(tmp_path), b"x")
        with pytest.raises(UsageError):
            box.write("x", b"", mode=0o17777)
        with pytest.raises(UsageError):
            box.read("")
        assert list(tmp_path.glob("*.irons-*")) == []


def test_a_directory_is_listed(make_box: Make, tmp_path: Path) -> None:
    """Entries have kind, size and mode; names with any character come as they are; bounds hold."""
    place = tmp_path / "d"
    place.mkdir()
    (place / "new\nline").write_text("abc")
    (place / ".hidden").mkdir(mode=0o700)
    (place / "-l").symlink_to("nowhere")
    os.mkfifo(place / "pipe")
    with make_box("one", attach=True) as box:
        found = {entry.name: entry for entry in box.list(str(place))}
        kinds = {name: entry.kind for name, entry in found.items()}
        assert kinds == {"new\nline": "file", ".hidden": "directory", "-l": "link", "pipe": "other"}
        assert (found["new\nline"].size, found[".hidden"].mode) == (3, 0o700)
        assert found["pipe"].modified is not None
        assert [entry.name for entry in box.list(str(place))] == sorted(found)
        (tmp_path / "empty").mkdir()
        assert box.list(str(tmp_path / "empty")) == ()
        with pytest.raises(IronsError, match="more than 3 entries"):
            box.list(str(place), most=3)
        with pytest.raises(NotFound):
            box.list("nowhere")
        with pytest.raises(IronsError, match="is not a directory"):
            box.list(str(place / "pipe"))


@pytest.mark.parametrize(
    "data",
    [
        b"./../x\0\x0081a4 1 1\0",
        b"./a/b\0\x0081a4 1 1\0",
        b"./..\0\x0081a4 1 1\0",
        b"./a\0./b\0\x0081a4 1 1\0",
        b"./a\0\x00what\0",
        b"./a\0\x0081a4 1 1\n81a4 1 1\0",
        b"nonsense",
        b"./" + b"a" * 300 + b"\0\x0081a4 1 1\0",
    ],
)
def test_a_hostile_list_is_refused(data: bytes) -> None:
    """Names that lead elsewhere, and lists that are not as they should be, are an error and no entry."""
    from irons_plugins.box.files import _entries

    with pytest.raises(ApiError, match="invalid list"):
        _entries(data, "one", "~")


def test_directories_go_there_and_back(make_box: Make, sshd: Sshd, tmp_path: Path) -> None:
    """A directory and a file are copied under their own names, links as links; what leads out of it is left out."""
    source = tmp_path / "pro ject"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_text("x")
    (source / "link").symlink_to("deep/file")
    with make_box("one", attach=True) as box:
        box.upload(source, "there/in")
        box.upload(source / "deep" / "file", "there")
        there = sshd.home / "there"
        assert (there / "in" / "pro ject" / "link").readlink() == Path("deep/file")
        assert (there / "file").read_text() == "x"
        (there / "in" / "out").symlink_to("/etc/passwd")
        back = tmp_path / "back"
        back.mkdir()
        placed = box.download("there/in", back)
        assert (back / "in" / "pro ject" / "deep" / "file").read_text() == "x"
        assert placed.left_out == {"links that lead out": 1}
        box.download(f"{there}/file", back)
        assert (back / "file").read_text() == "x"
        with pytest.raises(NotFound, match="there is no there/nothing in one"):
            box.download("there/nothing", back)
        with pytest.raises(IronsError, match="bytes came"):
            box.download("there", back, most=0)
        for path, into in (("~", back), ("a/../b", back), ("there", tmp_path / "none")):
            with pytest.raises(UsageError):
                box.download(path, into)
        with pytest.raises(IronsError, match="No such file"):
            box.upload(tmp_path / "none")


# Ports and events


def test_a_port_leads_there_while_the_context_lasts(make_box: Make, served: int) -> None:
    """A free port here leads to the port there, and is closed afterwards; one that is taken is refused."""
    with make_box("one", attach=True) as box:
        with box.forward(served) as port, urlopen(f"http://127.0.0.1:{port}", timeout=60) as answer:
            assert answer.read() == HELLO
        assert not leads_there(port)
        with pytest.raises(IronsError, match="can't be listened on"), box.forward(80, local_port=served):
            pass
        with pytest.raises(UsageError), box.forward(0):
            pass


def test_events_are_followed(make_box: Make, fake_api: FakeApi) -> None:
    """What is there comes first, then each event as it happens; filters hold; `allow` and `check` are the sandbox's."""
    fake_api.record("a.example")
    fake_api.record("b.example", allowed=False, verdict="blocked")
    with make_box("one", attach=True) as box:
        assert [event.host for event in box.events()] == ["a.example", "b.example"]
        assert [event.host for event in box.events(verdict="denied")] == ["b.example"]
        coming = box.events(follow=True, host="*.example")
        assert [next(coming).host, next(coming).host] == ["a.example", "b.example"]
        fake_api.record("c.example")
        assert next(coming).host == "c.example"
        with pytest.raises(UsageError):
            box.events(host="https://a.example")
        assert box.allow("a.example", "c.example", note="mine").rules[0].changed
        assert {rule.pattern for rule in box.api.rules("one").rules} == {"a.example", "c.example"}
        assert box.check("a.example").host == "a.example"


def test_it_is_stopped_and_started(make_box: Make) -> None:
    """`stop` and `start` wait, and are a success where that is so already."""
    with make_box("x") as box:
        assert box.stop().status == "stopped"
        assert box.stop().status == "stopped"
        assert box.start().status == "ready"
        assert box.exec(["true"]).ok
