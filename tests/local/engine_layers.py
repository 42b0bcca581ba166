"""Saving a sandbox of the namespace engine as an image, with real machines on both; run by `engine_run` as root and as a user."""

from __future__ import annotations

import errno
import platform
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import cast

from irons_local.engines.conformance import Bench, expect
from irons_local.engines.namespace.engine import NamespaceEngine
from irons_local.engines.protocol import Copies, KeptFiles
from irons_local.images.catalog import Images
from irons_local.linux.idmap import is_machines_root

_SETXATTR = 188 if platform.machine() == "x86_64" else 5
_CHANGES = (
    "mkdir -p work/deep .ssh && echo kept > work/deep/file && ln work/deep/file work/link && mkfifo work/pipe && chmod 2755 work && echo k > .ssh/authorized_keys"
    " && sudo rm /etc/os-release /etc/debian_version && sudo sh -c 'rm -r /usr/share/doc; mkdir /usr/share/doc;"
    " echo new > /usr/share/doc/new; cp /usr/bin/true /srv/able; chmod 751 /; touch /etc/ssh/ssh_host_rsa_key'"
)
_LOOK = "cat work/deep/file; stat -c %h work/link; stat -c '%a %F' work work/pipe; ls /usr/share/doc; ls /etc/debian_version /srv/able 2>&1; stat -c %a /"
_SEEN = "kept\n2\n2755 directory\n644 fifo\nnew\nls: cannot access '/etc/debian_version': No such file or directory\n/srv/able\n"


_REPOSITORY = """set -e
git config --global user.email me@example.com; git config --global user.name me; git config --global init.defaultBranch main
git init -q work; cd work; mkdir -p sub/deep; echo one >sub/deep/file; echo a >top; git add -A; git commit -qm one
git checkout -qb side; echo two >sub/deep/file; mkdir other; echo b >other/file; git add -A; git commit -qm two
git checkout -q main; echo c >top; git commit -qam three
"""
_WORK = """set -e
cd work; git checkout -q side; git rebase -q main; [ "$(cat sub/deep/file top)" = "$(printf 'two\\nc')" ]
echo more >>sub/deep/file; git stash -q; git checkout -q main; [ ! -e other ]; git checkout -q side; git stash pop -q
git commit -qam four; git gc -q --prune=now; git clone -q . ../clone; git worktree add -q ../tree main
git rm -rq other; git commit -qm five; git reset -q --hard HEAD~1; git clean -qfdx; git fsck --no-progress
[ -e other/file ] && [ -z "$(git status --porcelain)" ]; echo; echo whole
"""


async def a_save_is_shared_and_lasts(images: Images, bench: Bench) -> None:
    """The saved sandbox and a new one of its image see the same files and change them apart; only the first has its keys."""
    first, made = await bench.running("first", environment={"MARKER": "a-value-of-its-own"})
    ran = await bench.ssh(first, made, _CHANGES)
    expect(ran.code == 0, f"the changes: {ran}")
    await bench.engine.stop(first)
    image = await images.save(first, "tools")
    expect(len(image.layers) == 2, f"it has the layers {image.layers}")
    await bench.engine.start(first)
    ran = await bench.ssh(first, made, f"{_LOOK}; cat .ssh/authorized_keys; hostname; cat /etc/hostname")
    expect(ran.text == f"{_SEEN}751\nk\nfirst\nfirst\n", f"the sandbox: {ran}")
    spec = replace(bench.spec("second"), image="tools")
    also = await bench.engine.create(spec)
    await bench.engine.start(spec.id)
    ran = await bench.ssh(spec.id, also, f"{_LOOK}; ls .ssh /etc/ssh/ssh_host* 2>&1; cat /etc/hostname")
    expect(ran.text.startswith(f"{_SEEN}755\n") and ran.text.endswith("\nsecond\n"), f"the copy: {ran}")
    expect("authorized_keys\n" not in ran.text and "rsa_key\n" not in ran.text, f"the copy has keys: {ran}")
    for sandbox, known in ((first, made), (spec.id, also)):
        ran = await bench.ssh(
            sandbox, known, "echo more >> work/deep/file && cat work/deep/file && rm -r work && ls"
        )
        expect(ran.text == "kept\nmore\n", f"a change: {ran}")
    await bench.engine.stop(spec.id)
    await images.save(spec.id, "more")
    await bench.engine.destroy(first)
    await bench.engine.start(spec.id)
    ran = await bench.ssh(spec.id, also, "ls; ls /srv")
    expect(ran.text == "able\n", f"after the first is gone: {ran}")
    await images.remove("more")
    await bench.engine.destroy(spec.id)
    await images.remove("tools")
    left = list(images.layers.root.iterdir())
    expect(not left, f"layers are left: {left}")


async def directories_are_renamed_where_they_can_be(images: Images, bench: Bench) -> None:
    """As root a directory of the image and one that was saved can be renamed, in the copy too; a user gets EXDEV, and `mv` works."""
    first, made = await bench.running("first")
    await bench.ssh(first, made, "mkdir -p old/deep && echo kept > old/deep/file")
    await bench.engine.stop(first)
    await images.save(first, "tools")
    await bench.engine.start(first)
    spec = replace(bench.spec("second"), image="tools")
    also = await bench.engine.create(spec)
    await bench.engine.start(spec.id)
    renamed = "perl -e 'rename($ARGV[0], $ARGV[1]) or print 0 + $!, qq(\\n)'"
    for sandbox, known in ((first, made), (spec.id, also)):
        ran = await bench.ssh(
            sandbox, known, f"{renamed} old new; sudo {renamed} /usr/share/doc /usr/share/docs"
        )
        expect(ran.text == ("" if is_machines_root() else f"{errno.EXDEV}\n" * 2), f"a rename: {ran}")
        ran = await bench.ssh(sandbox, known, "mv old new 2>/dev/null; cat new/deep/file; ls")
        expect(ran.text == "kept\nnew\n", f"the files: {ran}")
    await bench.engine.stop(spec.id)
    await images.save(spec.id, "more")
    third = replace(bench.spec("third"), image="more")
    made = await bench.engine.create(third)
    await bench.engine.start(third.id)
    ran = await bench.ssh(
        third.id, made, f"cat new/deep/file; ls; {renamed} new newer; ls; ls -d /usr/share/doc"
    )
    expect(ran.text.startswith("kept\nnew\n"), f"what was renamed before the save: {ran}")
    for sandbox in (first, spec.id, third.id):
        await bench.engine.destroy(sandbox)
    for name in ("more", "tools"):
        await images.remove(name)


async def git_works_on_directories_of_a_layer(images: Images, bench: Bench) -> None:
    """What git does with a repository that was saved, in the sandbox and in the copy; only `git mv` of a directory needs root."""
    first, made = await bench.running("first")
    if (await bench.ssh(first, made, "command -v git")).code:
        # The default image has none; the one of a CI may.
        return
    ran = await bench.ssh(first, made, _REPOSITORY)
    expect(ran.code == 0, f"the repository: {ran}")
    await bench.engine.stop(first)
    await images.save(first, "tools")
    await bench.engine.start(first)
    spec = replace(bench.spec("second"), image="tools")
    also = await bench.engine.create(spec)
    await bench.engine.start(spec.id)
    for sandbox, known in ((first, made), (spec.id, also)):
        ran = await bench.ssh(sandbox, known, f"exec 2>&1; {_WORK}")
        expect(ran.code == 0 and ran.text.endswith("\nwhole\n"), f"git: {ran}")
        ran = await bench.ssh(sandbox, known, "cd work && git mv sub moved 2>&1 || mv sub moved; ls")
        expect("moved" in ran.text.split("\n") and "sub" not in ran.text.split("\n"), f"a move: {ran}")
    for sandbox in (first, spec.id):
        await bench.engine.destroy(sandbox)
    await images.remove("tools")


async def marks_of_an_overlay_cannot_be_forged(_: Images, bench: Bench) -> None:
    """A sandbox's root can make neither a whiteout nor an attribute that the overlay below it would believe."""
    sandbox, made = await bench.running()
    ran = await bench.ssh(sandbox, made, "sudo mkdir /srv/mine /srv/usr && sudo mknod /srv/whiteout c 0 0")
    expect(ran.code == 1, f"a whiteout: {ran}")
    for value, *names in (("y", "overlay.opaque"), ("/etc", "overlay.redirect"), ("", "overlay.metacopy")):
        for name in (f"{space}.{name}" for space in ("trusted", "user") for name in names):
            words = f"my @w = (q(/usr), q({name}), q({value}));"
            script = f"{words} syscall({_SETXATTR}, @w, {len(value)}, 0) and print 0 + $!"
            ran = await bench.ssh(sandbox, made, f"sudo perl -e '{script}'")
            refused = ran.text in (str(errno.EPERM), str(errno.EOPNOTSUPP))
            # What the kernel takes of a user is an attribute like any other, of which the overlay reads nothing.
            expect(refused or not name.startswith("trusted"), f"{name}: {ran}")
    await bench.engine.stop(sandbox)
    await bench.engine.start(sandbox)
    ran = await bench.ssh(sandbox, made, "ls -d /usr/bin/perl /usr/lib /usr/passwd 2>/dev/null")
    expect(ran.text == "/usr/bin/perl\n/usr/lib\n", f"after a start: {ran}")


_COPIED = (
    "sh -c 'mkdir -p work; echo kept > work/file; sudo rm /etc/debian_version; sudo sh -c \"rm -r /usr/share/doc; mkdir /usr/share/doc;"
    ' echo new > /usr/share/doc/new; touch /etc/ssh/ssh_host_rsa_key"; setsid sh -c "while :; do date +%s%N > beat; done" '
    "</dev/null >/dev/null 2>&1 &'"
)
_WHO = "cat /etc/hostname /etc/machine-id; hostname; cat work/file; ls /usr/share/doc /etc/debian_version /etc/ssh/ssh_host* 2>/dev/null"


async def a_copy_is_a_new_machine(images: Images, bench: Bench) -> None:
    """A snapshot of a running sandbox and one of a stopped one have its files; a copy is another machine, and a restore brings them back."""
    first, made = await bench.running("first", environment={"MARKER": "a-value-of-its-own"})
    expect(isinstance(bench.engine, Copies), "the engine makes no copies")
    engine = cast("NamespaceEngine", bench.engine)
    ran = await bench.ssh(first, made, _COPIED)
    expect(ran.code == 0, f"the changes: {ran}")
    parent = await bench.ssh(first, made, "cat /etc/machine-id; cat beat")
    took = await engine.capture(first, "sn_0000000000000001", "one")
    expect(took.pause > 0, f"it was not paused: {took}")
    other = 'i=0; until now=$(cat beat); [ -n "$now" ] && [ "$now" != "$then" ]; do [ $((i += 1)) -lt 500 ] || exit 9; sleep 0.1; done'
    beat = await bench.ssh(first, made, f"then=; {other}; then=$now; {other}; ps -eo stat=")
    expect(beat.code == 0, f"it does not go on: {beat}")
    expect("T" not in beat.text, f"something is stopped: {beat}")
    await engine.stop(first)
    await engine.capture(first, "sn_0000000000000002", "two")
    for number in (1, 2):
        spec = replace(bench.spec(f"copy{number}"), snapshot=f"sn_{number:016x}")
        also = await engine.create(spec)
        expect(also.host_keys != made.host_keys, "it has the host key of another")
        await engine.start(spec.id)
        ran = await bench.ssh(spec.id, also, f"{_WHO}; echo [$MARKER]")
        host, own, *rest = ran.text.splitlines()
        expect(host == spec.name, f"its name: {ran}")
        expect(len(own) == 32 and own not in parent.text, f"its machine-id: {ran}")
        expect(rest == [spec.name, "kept", "/usr/share/doc:", "new", "[]"], f"its files: {ran}")
        await bench.ssh(spec.id, also, "echo more >> work/file")
        await engine.stop(spec.id)
        await engine.destroy(spec.id)
    await engine.start(first)
    ran = await bench.ssh(
        first, made, "cat work/file; rm -r work; sudo rm -r /usr/share/doc; cat /etc/machine-id; echo $MARKER"
    )
    expect(ran.text.startswith("kept\n") and ran.text.endswith("a-value-of-its-own\n"), f"the first: {ran}")
    expect(ran.text.splitlines()[1] in parent.text, f"its machine-id: {ran}")
    await engine.stop(first)
    kept: list[KeptFiles] = []

    async def recorded(files: KeptFiles) -> None:
        kept.append(files)

    await engine.restore(first, "sn_0000000000000001", "sn_0000000000000003", "before", recorded)
    expect([bool(files.layer) for files in kept] == [True], f"what was kept: {kept}")
    await engine.start(first)
    ran = await bench.ssh(first, made, f"{_WHO}; echo $MARKER")
    expect(ran.text.splitlines()[0] == "first" and "kept" in ran.text, f"restored: {ran}")
    expect(ran.text.splitlines()[1] in parent.text, f"its machine-id: {ran}")
    await engine.stop(first)
    for number in (1, 2, 3):
        await engine.discard(f"sn_{number:016x}")
    await engine.destroy(first)
    left = list(images.layers.root.iterdir())
    expect(not left, f"layers are left: {left}")


LAYERS: dict[str, Callable[[Images, Bench], Awaitable[None]]] = {
    each.__name__: each
    for each in (
        a_copy_is_a_new_machine,
        a_save_is_shared_and_lasts,
        directories_are_renamed_where_they_can_be,
        git_works_on_directories_of_a_layer,
        marks_of_an_overlay_cannot_be_forged,
    )
}
