"""From `create` to a working SSH session in a virtual machine, next to plain QEMU with the same kernel, disk and hardware.

`python -m bench.vm [ROUNDS]`, as root, with qemu-system-x86_64 installed. They take turns. The stages of the plain run are read
from its console, and say where the time goes: QEMU and its firmware, the kernel, the initial RAM disk, systemd, and the SSH server.
Plain QEMU also runs once more in each turn as a `microvm`, which shows what the machine `q35` costs.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from irons_local.bundle import sshd
from irons_local.engines.vm import guest, qcow2, qemu
from irons_local.images.bootable import store
from irons_local.images.catalog import MACHINE, Images
from irons_local.paths import Paths

BAR = 1.3
"""How many times longer than plain QEMU a create may take."""

OWN_BAR = 60.0
"""Megabytes that QEMU itself may have resident, next to the guest's memory and the translated code."""

MEMORY = 512 << 20
WITHIN = 600
MARKS = (
    ("qemu and firmware", re.compile(rb"Linux version")),
    ("kernel", re.compile(rb"virtio_blk virtio\d")),
    ("initial RAM disk", re.compile(rb"systemd\[1\]: systemd \d|Welcome to ")),
    ("systemd", re.compile(rb"irons-ssh\.service|The SSH server of irons")),
)
"""What ends a stage, as the console prints it."""


MICROVM = "microvm,acpi=on,pcie=on,pit=on,pic=on,rtc=on"
"""The same virtio devices behind a PCI bus, so that the initial RAM disk is the same."""


class Boot(NamedTuple):
    """One boot of plain QEMU: seconds to the SSH banner, and to the end of each stage; seconds of the processor; megabytes, as `Resident.own`."""

    whole: float
    stages: Mapping[str, float]
    processor: float
    memory: float


def _plain_words(room: Path, image: store.Bootable, port: int) -> list[str]:
    """The engine's own command line outside of a cell: the console on standard output, and no monitors."""
    words = qemu.arguments(qemu.find(), qemu.Hardware(min(2, os.cpu_count() or 1), MEMORY))
    places = {
        f"{qemu.FILES}/{qemu.DISK}": str(room / "disk"),
        f"{qemu.FILES}/{qemu.BASE}": str(image.disk),
        f"{qemu.FILES}/{qemu.KERNEL}": str(image.kernel),
        f"{qemu.FILES}/{qemu.INITRD}": str(image.initrd),
        f"{qemu.FILES}/{qemu.SETTINGS}": str(room / "settings"),
        "hostfwd=tcp:127.0.0.1:22-": f"hostfwd=tcp:127.0.0.1:{port}-",
        "quiet loglevel=4": "loglevel=6",
    }
    kept: list[str] = []
    pairs = iter(words)
    for word in pairs:
        if word in ("-chardev", "-mon", "-serial"):
            next(pairs)
            continue
        for old, new in places.items():
            word = word.replace(old, new)  # noqa: PLW2901 (each place in turn)
        kept.append(word)
    return [*kept, "-serial", "stdio"]


def _as_microvm(words: Sequence[str]) -> list[str]:
    """The same command line for a machine without what a personal computer has.

    It has no clock to measure the processor's by, so that the kernel is given the frequency.
    """
    kilohertz = re.search(r"cpu MHz\s*: ([0-9.]+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    assert kilohertz is not None
    clock = f"tsc_early_khz={round(float(kilohertz[1]) * 1000)}"
    machine = words.index("-machine") + 1
    return [
        MICROVM if number == machine else word.replace("no_timer_check tsc=reliable", clock)
        for number, word in enumerate(words)
    ]


def _plain(room: Path, image: store.Bootable, *, microvm: bool = False) -> Boot:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (room / "disk").write_bytes(qcow2.empty(16 << 30))
    words = _plain_words(room, image, port)
    start = time.monotonic()
    process = subprocess.Popen(
        _as_microvm(words) if microvm else words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        said, stages = b"", dict[str, float]()
        while time.monotonic() - start < WITHIN:
            said += process.stdout.read() or b""
            for name, mark in MARKS:
                if name not in stages and mark.search(said):
                    stages[name] = time.monotonic() - start
            if _greets(port):
                whole = time.monotonic() - start
                return Boot(whole, stages, _processor(process.pid), resident(process.pid).own)
            assert process.poll() is None, said.decode(errors="replace")
            time.sleep(0.05)
        raise TimeoutError(said.decode(errors="replace")[-2000:])
    finally:
        process.kill()
        process.wait()


def _processor(pid: int) -> float:
    """Seconds of the processor that a process has had (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _greets(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as made:
            return made.recv(4) == b"SSH-"
    except OSError:
        return False


def _irons(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "irons", *words], capture_output=True, text=True, timeout=WITHIN, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Resident(NamedTuple):
    """Memory of a QEMU that runs, in megabytes: all that is its own, and what of that no file backs."""

    own: float
    anonymous: float


def resident(pid: int) -> Resident:
    """Measure what is resident of QEMU beyond the guest's memory and the buffer of translated code (smaps, proc(5))."""
    own = anonymous = 0
    text = Path(f"/proc/{pid}/smaps").read_text()
    for mapping in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", text, flags=re.MULTILINE)[1:]:
        found = re.findall(r"^(\w+): +(\d+) kB$", mapping, re.MULTILINE)
        sizes = {key: int(kilobytes) * 1024 for key, kilobytes in found}
        # Memory that may be written and run is translated code.
        if sizes["Size"] == MEMORY or mapping.split()[1].startswith("rwx"):
            continue
        own += sizes["Rss"]
        anonymous += sizes["Anonymous"]
    return Resident(own / 1e6, anonymous / 1e6)


class Created(NamedTuple):
    """One create: seconds until it has returned, and what QEMU has in memory then."""

    seconds: float
    memory: Resident


def _ours(number: int) -> Created:
    name = f"bench-vm-{number}"
    start = time.monotonic()
    _irons("create", name, "--engine", "vm", "--memory", f"{MEMORY >> 20}M", "--wait-timeout", f"{WITHIN}s")
    took = time.monotonic() - start
    pid = json.loads(_irons("status", name, "-o", "json"))["metadata"]["pid"]
    memory = resident(int(pid))
    _irons("destroy", name, "--force")
    return Created(took, memory)


async def _bootable(paths: Paths) -> store.Bootable:
    images = Images(paths.images, paths.sandboxes)
    image = images.find(MACHINE) or await images.build(MACHINE, machine=True)
    return await store.ensure(images, image)


def main() -> int:
    """Measure, print, and return 1 where the bar is missed."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    if os.geteuid() != 0 or shutil.which(qemu.PROGRAM) is None:
        print("bench.vm needs root and qemu-system-x86_64: left out")
        return 0
    places = Paths.of().create()
    image = asyncio.run(_bootable(places))
    _irons("local", "up")
    ours: list[Created] = []
    plain: list[Boot] = []
    small: list[Boot] = []
    with tempfile.TemporaryDirectory(prefix="irons-bench-") as made:
        room = Path(made)
        key = asyncio.run(sshd.make_host_key(room, "bench"))
        own = {sshd.HOST_KEY: (room / sshd.HOST_KEY).read_text(), sshd.AUTHORIZED: f"{key}\n"}
        files = guest.settings(instance="bench", name="bench", server="/usr/sbin/sshd", own=own, shown={})
        (room / "settings").write_bytes(guest.archive(files))
        for number in range(rounds):
            plain.append(_plain(room, image))
            small.append(_plain(room, image, microvm=True))
            ours.append(_ours(number))
    base = statistics.median(boot.whole for boot in plain)
    mine = statistics.median(each.seconds for each in ours)
    print(f"plain QEMU to the SSH banner   {base:6.1f} s")
    print(f"irons create to a session      {mine:6.1f} s   {mine / base:.2f} x (bar {BAR})")
    for name, boots in (("q35", plain), ("microvm", small)):
        whole, processor, memory = (
            statistics.median(each)
            for each in zip(*((boot.whole, boot.processor, boot.memory) for boot in boots), strict=True)
        )
        print(f"plain {name:<24} {whole:6.1f} s   {processor:.1f} s of the processor, {memory:.1f} MB")
    before = 0.0
    for name, _ in (*MARKS, ("ssh server", None)):
        ends = [boot.whole if name == "ssh server" else boot.stages.get(name, 0.0) for boot in plain]
        end = statistics.median(ends)
        print(f"  {name:<20} {max(0.0, end - before):6.1f} s")
        before = max(before, end)
    size = statistics.median(each.memory.own for each in ours)
    anonymous = statistics.median(each.memory.anonymous for each in ours)
    print(
        f"QEMU's own memory              {size:6.1f} MB   (bar {OWN_BAR:g}); {anonymous:.1f} MB of it anonymous"
    )
    return int(mine > BAR * base or size > OWN_BAR)


if __name__ == "__main__":
    raise SystemExit(main())
