"""The pure parts of the `vm` engine: command line, settings, disks, limits, and what a guest boots from."""

from __future__ import annotations

import asyncio
import io
import os
import re
import socket
import struct
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from tests import vm_left_out
from tests.e2e.attempts import ATTEMPTS, BENEATH
from tests.local.engine_attacks import ATTACKS

from irons_local.bundle import sshd
from irons_local.bundle.oci import CONFIG_DIRECTORY
from irons_local.doctor.checks import judge
from irons_local.doctor.facts import Facts
from irons_local.engines.conformance import CHECKS
from irons_local.engines.vm import guest, launch, limits, qcow2, qemu
from irons_local.errors import EngineError
from irons_local.images.bootable import cpio, initrd
from irons_local.images.kit.store import MadeKit
from irons_local.images.sources import debian
from irons_local.limits import Limits
from irons_local.linux import namespaces
from irons_local.linux.processes import Process

if TYPE_CHECKING:
    from irons_local.engines.protocol import Cells

OWN = {sshd.HOST_KEY: "secret", sshd.AUTHORIZED: "ssh-ed25519 AAAA me\n"}
HARDWARE = qemu.Hardware(processors=2, memory=512 << 20)
ELF_HEAD = struct.Struct("<5s11xHHIQQQIHHHHHH")


def _after(words: list[str], option: str) -> list[str]:
    return [words[number + 1] for number, word in enumerate(words[:-1]) if word == option]


def test_the_command_line_confines_qemu_and_forwards_ssh_alone() -> None:
    """The filter denies new programs, one port is forwarded to the guest, and the host shows it nothing."""
    words = qemu.arguments("/usr/bin/qemu", HARDWARE)
    assert _after(words, "-sandbox") == [
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
    ]
    (network,) = _after(words, "-netdev")
    assert network.count("hostfwd=") == 1
    assert "hostfwd=tcp:127.0.0.1:22-" in network
    whole = " ".join(words)
    for door in ("tftp", "smb=", "guestfwd", "vsock", "9p", "virtiofs", "-fsdev", "vnc", "spice"):
        assert door not in whole
    assert {"-nodefaults", "-no-user-config"} <= set(words)


def test_the_command_line_names_each_disks_format() -> None:
    """No format is probed, and what a disk is read over is named here and not taken from what the guest can write to."""
    disks = _after(qemu.arguments("/usr/bin/qemu", HARDWARE, layers=2), "-blockdev")
    nodes = [dict(part.split("=", 1) for part in disk.split(",")) for disk in disks]
    assert [(each["node-name"], each["driver"], each.get("backing")) for each in nodes] == [
        ("base", "raw", None),
        ("layer1", "qcow2", "base"),
        ("layer0", "qcow2", "layer1"),
        ("root", "qcow2", "layer0"),
        ("settings", "raw", None),
    ]
    assert [each.get("read-only") for each in nodes] == ["on", "on", "on", None, "on"]
    assert all(each["file.driver"] == "file" for each in nodes)


def test_the_disk_of_the_kernel_kit_comes_after_the_others() -> None:
    """A guest knows its disks by their order, also one that has no kit."""
    names = [word for word in _after(qemu.arguments("q", HARDWARE, kit=True), "-device") if "blk" in word]
    assert [name.partition("drive=")[2] for name in names] == ["root", "settings", "kit"]
    (disk,) = (
        each for each in _after(qemu.arguments("q", HARDWARE, kit=True), "-blockdev") if "=kit," in each
    )
    assert disk.startswith("node-name=kit,driver=raw,read-only=on,file.driver=file,")


def test_layers_and_the_kit_are_shown_to_qemu_read_only() -> None:
    """Of what QEMU's own root file system shows, the machine's disk alone can be written."""
    mounts = launch.configuration(["qemu"], kvm=False, layers=2, kit=True)["mounts"]
    shown = {
        each["destination"]: each["options"] for each in mounts if each["destination"].startswith("/vm/")
    }
    assert {"/vm/layer0", "/vm/layer1", "/vm/kit"} < set(shown)
    assert [place for place, options in shown.items() if "rw" in options] == ["/vm/disk"]


def test_emulation_is_what_remains_without_kvm() -> None:
    """With KVM it comes first; without, QEMU is not asked to try it."""
    assert [name.split(",")[0] for name in _after(qemu.arguments("q", HARDWARE), "-accel")] == ["tcg"]
    by_kvm = qemu.arguments("q", HARDWARE._replace(kvm=True))
    assert [name.split(",")[0] for name in _after(by_kvm, "-accel")] == ["kvm", "tcg"]


def test_qemu_has_no_rights_and_writes_its_disk_alone() -> None:
    """Its own sandbox gives it no capability, no new privileges, and nothing of the host but `/usr`."""
    config = launch.configuration(["qemu"], kvm=False)
    assert all(not names for names in config["process"]["capabilities"].values())
    assert config["process"]["noNewPrivileges"] is True
    assert config["root"]["readonly"] is True
    bound = {each["destination"]: each["options"] for each in config["mounts"] if each["type"] == "bind"}
    assert set(bound) == {"/usr", "/vm/disk", "/vm/base", "/vm/kernel", "/vm/initrd", "/vm/settings"}
    assert [place for place, options in bound.items() if "ro" not in options] == ["/vm/disk"]
    assert "user" in {each["type"] for each in config["linux"]["namespaces"]}
    with_kvm = launch.configuration(["qemu"], kvm=True)
    assert "/dev/kvm" in {each["destination"] for each in with_kvm["mounts"]}


def test_the_settings_hold_the_identity_and_every_unit() -> None:
    """The archive is whole sectors; the host key is readable by root alone, and the keys carry their mark."""
    files = guest.settings(
        instance="sb_1", name="box", server="/usr/sbin/sshd", own=OWN, shown={"ca.pem": ""}
    )
    assert "ListenAddress" not in files[sshd.CONFIG]
    assert "IRONS_KEY=" in files[sshd.AUTHORIZED]
    content = guest.archive(files)
    assert len(content) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        modes = {member.name: member.mode for member in tar}
    assert modes[sshd.HOST_KEY] == 0o600
    assert modes["setup"] == 0o644
    for unit in re.findall(r"ln -s \.\./(\S+)", files["setup"]):
        assert f"units/{unit}" in modes


def test_a_guest_with_a_kit_runs_the_ssh_server_of_the_kit() -> None:
    """The unit and the small init start it, its scripts run by the kit's shell, and the image's own server is not named."""
    programs = MadeKit("kit", "img", 0, ("sshd", "sshd-session", "sh"), Path())

    def settings(*, services: bool) -> dict[str, str]:
        return guest.settings(
            instance="sb_1",
            name="box",
            server="/usr/sbin/sshd",
            own=OWN,
            shown={},
            programs=programs,
            services=services,
        )

    files = settings(services=True)
    assert not [name for name, text in files.items() if "/usr/sbin/sshd" in text]
    for name in ("units/irons-ssh.service", "small-init"):
        assert "/run/irons/kit/sshd -D" in files[name]
    assert "SshdSessionPath /run/irons/kit/sshd-session" in files[sshd.CONFIG]
    assert "exec /run/irons/kit/sh /run/irons/session" in files[sshd.CONFIG]
    assert {name for name in files if name.startswith("boot-")} == {
        *("boot-05-machine-id", "boot-10-trust", "boot-50-services", "boot-60-hook")
    }
    assert "boot-60-hook" not in settings(services=False)
    with tarfile.open(fileobj=io.BytesIO(guest.archive(files))) as tar:
        modes = {member.name: member.mode for member in tar}
    assert [name for name, mode in modes.items() if mode == 0o755] == ["acpi/PWRF/00000080"]


@pytest.mark.process
def test_the_scripts_of_a_guest_are_shell(tmp_path: Path) -> None:
    """What runs before the guest's init is parsed by a shell without complaint."""
    programs = MadeKit("kit", "img", 0, ("sshd", "sh"), tmp_path)
    files = guest.settings(instance="sb_1", name="box", server="", own=OWN, shown={}, programs=programs)
    unpacked = initrd.build(b"", ())
    script = unpacked[unpacked.index(b"#!/bin/busybox sh") : unpacked.index(b"exec switch_root")]
    own = [text for name, text in files.items() if name.startswith(("boot-", "small-init", "acpi"))]
    for number, text in enumerate((files["setup"], files["hook"], script.decode(), *own)):
        path = tmp_path / f"{number}.sh"
        path.write_text(text)
        subprocess.run(["sh", "-n", str(path)], check=True)


@pytest.mark.process
def test_a_copy_boots_where_its_identity_cannot_be_written(tmp_path: Path) -> None:
    """A file that may not be changed, such as by `chattr +i` in the original, stays as it is, and the rest is laid."""
    files = guest.settings(instance="sb_2", name="copy", server="/usr/sbin/sshd", own=OWN, shown={})
    for name, text in files.items():
        path = tmp_path / CONFIG_DIRECTORY.strip("/") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    # No file of this machine can be made such for any user: a directory cannot be written to either.
    (tmp_path / "etc" / "machine-id" / "sub").mkdir(parents=True)
    refusing = 'ip() { :; }\ncp() { case "$2" in */etc/resolv.conf) return 1;; *) command cp "$@";; esac; }\n'
    words = ["sh", "-c", refusing + files["setup"], "sh", str(tmp_path)]
    told = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert told == "/etc/resolv.conf cannot be written, and stays as it is\n"
    assert (tmp_path / "etc" / "hostname").read_text() == "copy\n"
    assert (tmp_path / "var/lib/irons/instance").read_text() == "sb_2\n"


def test_a_disk_is_an_empty_qcow2_without_a_backing_file() -> None:
    """Its header has version 3, the size, no backing file, no encryption and no external data."""
    content = qcow2.empty(16 << 30)
    magic, version, backing, backing_size, bits, size, crypt = struct.unpack_from(">4sIQIIQI", content)
    assert (magic, version, backing, backing_size, bits) == (b"QFI\xfb", 3, 0, 0, 16)
    assert (size, crypt) == (16 << 30, 0)
    assert struct.unpack_from(">Q", content, 72) == (0,)
    assert len(content) == 4 << 16
    with pytest.raises(ValueError, match="whole sectors"):
        qcow2.empty(1000)
    with pytest.raises(ValueError, match="too many"):
        qcow2.empty(1 << 60)


def test_limits_have_the_machines_defaults_and_bounds() -> None:
    """Memory and processors are filled in; the disk is at least as large as the image on it."""
    given = limits.filled(Limits())
    assert given.memory == 1 << 30
    assert given.cpus is not None
    assert 1 <= given.cpus <= 2
    assert limits.disk_of(given, 600 << 20) == 16 << 30
    assert limits.disk_of(replace(given, disk=(1 << 30) + 7), 600 << 20) == 1 << 30
    with pytest.raises(EngineError, match="the least is 256"):
        limits.filled(Limits(memory=128 << 20))
    with pytest.raises(EngineError, match="the image alone takes"):
        limits.disk_of(replace(given, disk=600 << 20), 600 << 20)


def test_the_control_group_has_room_for_qemu() -> None:
    """Its memory is the guest's and the stated overhead; its processes are QEMU's threads."""
    group = launch.group_limits(limits.filled(Limits(memory=512 << 20, cpus=1.5)))
    assert group.memory == (512 << 20) + qemu.OVERHEAD
    assert group.processes == qemu.THREADS + 2
    assert launch.hardware(Limits(memory=512 << 20, cpus=1.5), kvm=False, services=True).processors == 2


class SilentCells:
    """Cells whose every connection is accepted, as QEMU does; only the last of them is answered.

    Args:
        silent: how many are not.
    """

    def __init__(self, silent: int) -> None:
        self.ends: list[socket.socket] = []
        self.patience: list[float] = []
        self._silent = silent

    async def connect(self, cell: str, address: str, port: int, *, within: float) -> socket.socket:
        """A connection."""
        assert (cell, address, port) == ("sb_1", "127.0.0.1", 22)
        near, far = socket.socketpair()
        near.setblocking(False)
        self.ends.append(far)
        self.patience.append(within)
        if len(self.ends) > self._silent:
            far.sendall(b"SSH-")
        return near


async def _greeted(cells: SilentCells) -> None:
    """Wait for a guest whose QEMU gave a reason."""
    started = namespaces.started(os.getpid())
    assert started is not None
    read, write = os.pipe()
    os.write(write, b"qemu: a reason\n")
    try:
        await launch.greeted(cast("Cells", cells), "sb_1", Process(os.getpid(), started), read)
    finally:
        for descriptor in (read, write):
            os.close(descriptor)
        for end in cells.ends:
            end.close()


def test_a_slow_guest_is_asked_less_and_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection that is given up costs the guest a process of its server: they must not pile up."""
    monkeypatch.setattr(launch, "_GREETING_WITHIN", 0.01)
    monkeypatch.setattr(launch, "_ASK_AGAIN", 0.0)
    cells = SilentCells(4)
    asyncio.run(_greeted(cells))
    waits = [0.01 * launch._MORE_PATIENCE**number for number in range(5)]
    assert cells.patience == pytest.approx(waits)
    # Where one each 10 ms would be a hundred in a second, there are 15.
    assert 0.01 * launch._MORE_PATIENCE**15 > 1


def test_a_guest_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has what QEMU printed last."""
    monkeypatch.setattr(launch, "_GREETING_WITHIN", 0.01)
    monkeypatch.setattr(launch, "_ASK_AGAIN", 0.0)
    monkeypatch.setattr(launch, "READY_WITHIN", 0.1)
    with pytest.raises(EngineError, match=r"did not answer .*a reason") as raised:
        asyncio.run(_greeted(SilentCells(10_000)))
    assert raised.value.code == "timeout"


def test_too_little_memory_is_refused_with_the_sum() -> None:
    """What is needed, what is free, and what to do are in one error."""
    launch.check_memory(512 << 20, "MemTotal: 4194304 kB\nMemAvailable: 2097152 kB\n")
    launch.check_memory(512 << 20, "MemTotal: 4194304 kB\n")
    with pytest.raises(EngineError, match=r"a guest of 512 MiB needs 832 MiB .* 500 MiB is free") as raised:
        launch.check_memory(512 << 20, f"MemAvailable: {500 << 10} kB\n")
    assert "--memory" in raised.value.hint


def test_no_qemu_is_said_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A create is refused before anything is made."""
    monkeypatch.setattr(qemu, "search_path", lambda: "/nonexistent")
    with pytest.raises(EngineError, match="qemu-system-x86_64 is not installed") as raised:
        limits.check(Limits())
    assert (raised.value.code, "apt-get install qemu-system-x86" in raised.value.hint) == ("machine", True)


@pytest.mark.parametrize(
    ("facts", "what", "fix"),
    [
        (Facts(), "by KVM", ""),
        (Facts(kvm="there is no /dev/kvm"), "no KVM (there is no /dev/kvm): QEMU emulates", ""),
        (
            Facts(programs={**Facts().programs, qemu.PROGRAM: ""}, kvm=None),
            "only --engine vm needs it",
            "apt-get install -y qemu-system-x86",
        ),
    ],
)
def test_doctor_says_how_virtual_machines_run(facts: Facts, what: str, fix: str) -> None:
    """None of it is in the way of sandboxes, and a lack has its fix."""
    check = next(each for each in judge(facts) if each.name == "vm")
    assert check.ok
    assert what in check.what
    assert fix in check.fix


def test_modules_are_loaded_after_what_they_need() -> None:
    """The order is that of modules.dep from its end; what is built in is left out."""
    text = (
        "kernel/virtio_blk.ko: kernel/virtio_ring.ko kernel/virtio.ko\n"
        "kernel/virtio_ring.ko:\nkernel/virtio.ko:\n"
        "kernel/virtio-pci.ko.xz: kernel/modern.ko kernel/virtio_ring.ko kernel/virtio.ko\nkernel/modern.ko:\n"
    )
    assert initrd.load_order(text) == [
        "kernel/virtio.ko",
        "kernel/virtio_ring.ko",
        "kernel/modern.ko",
        "kernel/virtio-pci.ko.xz",
        "kernel/virtio_blk.ko",
    ]


@pytest.mark.process
@pytest.mark.needs("busybox")
def test_an_initial_ram_disk_is_read_by_cpio(tmp_path: Path) -> None:
    """What is archived here is what cpio(1) lists, with the modules' order."""
    content = initrd.build(b"\x7fELF", (("a.ko", b"12345"), ("b.ko", b"")))
    done = subprocess.run(
        ["busybox", "cpio", "-t"], input=content, capture_output=True, cwd=tmp_path, check=True
    )
    listed = done.stdout.decode().splitlines()
    assert {"init", "bin/busybox", "dev/console", "modules/a.ko", "modules/b.ko", "modules/order"} <= set(
        listed
    )


def test_an_archive_has_whole_members_and_an_end() -> None:
    """Each member begins at a multiple of four with the format's number, and the last is the trailer."""
    content = cpio.archive((cpio.directory("d"), cpio.file("d/f", b"12345", 0o755)))
    assert len(content) % 4 == 0
    assert [found.start() % 4 for found in re.finditer(b"070701", content)] == [0, 0, 0]
    assert content.rstrip(b"\0").endswith(b"TRAILER!!!")


@pytest.mark.parametrize(("kinds", "static"), [((1, 2), True), ((1, 3, 2), False)])
def test_a_program_without_an_interpreter_is_static(kinds: tuple[int, ...], static: bool) -> None:
    """The program headers decide."""
    head = ELF_HEAD.pack(b"\x7fELF\x02", 2, 62, 1, 0, 64, 0, 0, 64, 56, len(kinds), 0, 0, 0)
    program = head.ljust(64, b"\0") + b"".join(struct.pack("<I", kind).ljust(56, b"\0") for kind in kinds)
    assert initrd.is_static(program) is static


def test_nothing_that_is_not_elf_is_static() -> None:
    """A script, or nothing at all, is no program to start a machine with."""
    assert not initrd.is_static(b"#!/bin/sh\n")
    assert not initrd.is_static(b"")


def test_an_image_for_machines_has_a_kernel_and_an_init(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The recipe adds packages and the hook that unpacks the kernel; the ordinary one has neither."""
    monkeypatch.setattr(debian, "search_path", lambda: str(tmp_path))
    (tmp_path / "mmdebstrap").touch(mode=0o755)
    with_kernel = " ".join(debian.recipe("http://mirror/debian", machine=True).command(root=True))
    assert "systemd-sysv" in with_kernel
    assert "linux-image-cloud-amd64" in with_kernel
    assert 'rm -f "$1/usr/sbin/policy-rc.d"' in with_kernel
    without = " ".join(debian.recipe("http://mirror/debian").command(root=True))
    assert "systemd" not in without
    assert "linux-image" not in without


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"guest": True, "reason": "guest-shutdown"}, "the guest shut itself down"),
        ({"reason": "host-signal"}, "QEMU was asked to end by a signal"),
        ({"reason": ["odd"]}, "the guest ended"),
        ({}, "the guest ended"),
    ],
)
def test_the_reason_of_an_end_is_in_words_of_ours(data: dict[str, object], why: str) -> None:
    """Nothing that QEMU says is shown as it is."""
    assert limits.ended(data) == why


def test_what_is_left_out_of_the_tests_is_there() -> None:
    """The one list of what is not tried on machines names checks, attacks and ways out that there are, each with its reason."""
    for left_out, there in (
        (vm_left_out.CHECKS, CHECKS),
        (vm_left_out.ATTACKS, ATTACKS),
        (vm_left_out.ATTEMPTS, {**ATTEMPTS, **BENEATH}),
        (vm_left_out.SUCCEEDS_INSIDE, {**ATTEMPTS, **BENEATH}),
    ):
        assert left_out.keys() < there.keys()
        assert all(left_out.values())
    hosts = {attempt.host for attempt in {**ATTEMPTS, **BENEATH}.values()}
    assert vm_left_out.NOT_LOGGED.keys() <= hosts


def test_a_test_that_stands_in_for_what_is_left_out_is_there() -> None:
    """Each test that the list names instead is a file of this repository."""
    source = Path(vm_left_out.__file__)
    root = source.parent
    named = re.findall(r"`(test_\w+)`|`tests/([\w./]+)`", source.read_text())
    assert named
    for name, path in named:
        assert list(root.rglob(f"{name}.py")) if name else (root / path).exists(), name or path
