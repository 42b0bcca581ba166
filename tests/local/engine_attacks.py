"""What a sandbox's root tries against the machine it is on, next to the network; each must come to nothing."""

from __future__ import annotations

import asyncio
import base64
import errno
import os
import platform
import re
import shlex
import struct
import subprocess
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

from irons_local.bundle import boot_steps, trust
from irons_local.bundle.sysview import limit_files
from irons_local.config.authorities import read_authorities
from irons_local.engines.conformance import Bench, Ran, expect
from irons_local.engines.namespace.engine import NamespaceEngine
from irons_local.errors import EngineError
from irons_local.images.catalog import Images
from irons_local.limits import Limits


def i386_program(code: bytes) -> bytes:
    """A static program for i386: an ELF header, one segment, and the code."""
    base = 0x08048000
    size = 52 + 32 + len(code)
    header = b"\x7fELF\x01\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIIIIIHHHHHH", 2, 3, 1, base + 84, 52, 0, 0, 52, 32, 1, 0, 0, 0
    )
    return header + struct.pack("<IIIIIIII", 1, 0, base, base, size, size, 7, 0x1000) + code


# Each exits with the errno of making an AF_VSOCK socket.
_EXIT = b"\xf7\xd8\x89\xc3\xb8\x01\0\0\0\xcd\x80"  # neg eax; mov ebx, eax; mov eax, 1; int 0x80
_SOCKET = (
    b"\xb8\x67\x01\0\0\xbb\x28\0\0\0\xb9\x01\0\0\0\x31\xd2\xcd\x80" + _EXIT
)  # eax=359 ebx=40 ecx=1 edx=0
_SOCKETCALL = (
    b"\x6a\x00\x6a\x01\x6a\x28\xb8\x66\0\0\0\xbb\x01\0\0\0\x89\xe1\xcd\x80" + _EXIT
)  # push 0, 1, 40; eax=102 ebx=1 ecx=esp

_SOCKET_CALL = 41 if platform.machine() == "x86_64" else 198
_INOTIFY_INIT1 = 294 if platform.machine() == "x86_64" else 26

_PERL_VSOCK = "perl -e 'socket(my $s, 40, 1, 0) and exit 0; exit $!'"
_PERL_PACKET = "sudo perl -e 'socket(my $s, 17, 3, 768) and exit 0; exit $!'"


async def _inside(bench: Bench, command: str) -> Ran:
    sandbox, made = await bench.running()
    return await bench.ssh(sandbox, made, command)


async def vsock_is_refused(bench: Bench) -> None:
    """AF_VSOCK, which no namespace holds, can't be made, nor AF_PACKET, nor by 32-bit calls."""
    sandbox, made = await bench.running()
    for command in (_PERL_VSOCK, _PERL_PACKET):
        ran = await bench.ssh(sandbox, made, command)
        expect(ran.code == errno.EAFNOSUPPORT, f"{command}: {ran}")
    for code in (_SOCKET, _SOCKETCALL):
        text = base64.b64encode(i386_program(code)).decode()
        ran = await bench.ssh(sandbox, made, f"echo {text} | base64 -d > p; chmod +x p; ./p")
        # 126: this kernel runs no 32-bit programs at all.
        expect(ran.code in (errno.EAFNOSUPPORT, 126), f"32-bit: {ran}")
    ran = await bench.ssh(
        sandbox, made, "perl -e 'socket(my $s, 2, 1, 0) or exit $!; socket($s, 10, 2, 0) or exit $!'"
    )
    expect(ran.code == 0, f"ordinary sockets: {ran}")


async def the_kernel_is_out_of_reach(bench: Bench) -> None:
    """Mounts, device nodes, kernel settings, the kernel log and the clock are refused to its root."""
    script = """
    mount -t tmpfs none /mnt && echo LEAK mount
    mknod /tmp/sda b 8 0 && echo LEAK mknod
    echo 1 > /proc/sys/kernel/panic && echo LEAK sysctl
    echo b > /proc/sysrq-trigger && echo LEAK sysrq
    dmesg && echo LEAK dmesg
    date -s 2001-01-01 && echo LEAK clock
    ls /sys/kernel /sys/class && echo LEAK sys
    cat /proc/kcore | head -c 1 | grep . && echo LEAK kcore
    ip link set lo down && echo LEAK link
    ip route add 203.0.113.0/24 dev lo && echo LEAK route
    chroot /proc/1/root true || echo LEAK own root refused
    exit 0
    """
    ran = await _inside(bench, f"sudo sh -c '{script}' 2>/dev/null")
    expect("LEAK" not in ran.text, ran.text)


async def limits_are_seen_and_not_changed(bench: Bench) -> None:
    """Processors and memory are counted by the sandbox's limits; its root can change no file that says so, nor are there others."""
    limits = Limits(cpus=0.5, memory=256 << 20)
    sandbox, made = await bench.running("seen", limits)
    facts = (await bench.engine.look(sandbox)).facts or {}
    held = {name for name in ("cpus", "memory") if f"{name}_note" not in facts}
    ran = await bench.ssh(sandbox, made, "nproc; getconf _NPROCESSORS_ONLN; cd /sys; find . -type f | sort")
    count, online, *files = ran.text.split()
    there = len(os.sched_getaffinity(0))
    expect(count == online == str(1 if "cpus" in held else there), f"processors: {ran.text}")
    controllers = {{"cpus": "cpu", "memory": "memory"}[name] for name in held}
    told = [f"./{path}" for path in limit_files(limits, controllers)]
    expected = {*told, *(f"./devices/system/cpu/{name}" for name in ("online", "possible", "present"))}
    expect({path for path in files if "pids" not in path} == expected, f"files: {files}, not {expected}")
    if "memory" in held:
        ran = await bench.ssh(
            sandbox,
            made,
            "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes; echo ${JDK_JAVA_OPTIONS#*=}",
        )
        expect(ran.text.split() == [str(256 << 20)] * 3, f"memory: {ran.text}")
    script = """
    cd /sys
    for file in $(find . -type f); do
      echo 1 2>/dev/null >$file && echo LEAK write $file
      rm -f $file 2>/dev/null && echo LEAK rm $file
      chmod 777 $file 2>/dev/null && echo LEAK chmod $file
    done
    for directory in $(find . -type d); do mkdir $directory/x && echo LEAK mkdir $directory; done
    mount -o remount,rw /sys && echo LEAK remount; umount /sys && echo LEAK umount
    unshare -Urm sh -c "umount /sys && echo LEAK umount; mount -o remount,rw,bind /sys && echo LEAK remount; mount -t sysfs x /mnt && echo LEAK sysfs; mount -t cgroup2 x /mnt && echo LEAK cgroup2; mount -t cgroup -o memory x /mnt && echo LEAK cgroup"
    for kind in "cgroup2" "cgroup -o freezer" "cgroup -o memory"; do
      unshare -UrmC sh -c "mount -t $kind x /mnt || exit 0; mkdir /mnt/x && echo LEAK mkdir $kind
        for file in /mnt/*; do (echo 1 >\\$file) && echo LEAK \\$file; done"
    done
    cat $(find . -type f) /proc/self/cgroup /proc/mounts
    """
    ran = await bench.ssh(sandbox, made, f"sudo sh -c {shlex.quote(script)} 2>/dev/null")
    expect("LEAK" not in ran.text, ran.text)
    for name in (platform.node(), sandbox):
        expect(not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", ran.text), f"{name} is seen: {ran.text}")


async def nested_namespaces_are_harmless(bench: Bench) -> None:
    """A user namespace made inside gives no right over the cell's network or the outer mounts."""
    script = (
        "unshare -Ur sh -c 'ip route add 203.0.113.0/24 dev lo && echo LEAK route; "
        "ip link set lo down && echo LEAK link; mount -t sysfs sys /mnt && echo LEAK sysfs; "
        "umount /proc/sys && echo LEAK sys; echo 1 > /proc/sys/kernel/panic && echo LEAK sysctl; "
        "mount -o remount,rw /run/irons && echo LEAK remount'; exit 0"
    )
    ran = await _inside(bench, f"{script} 2>/dev/null; sudo {script} 2>/dev/null")
    expect("LEAK" not in ran.text, ran.text)


async def packet_filters_are_out_of_reach(bench: Bench) -> None:
    """No namespace made inside opens the kernel's packet filter or its IPsec; plain netlink stays."""
    for protocol, code in ((12, errno.EPROTONOSUPPORT), (6, errno.EPROTONOSUPPORT), (0, 0)):
        script = f"unshare -Urn perl -e 'socket(my $s, 16, 3, {protocol}) and exit 0; exit $!'"
        ran = await _inside(bench, script)
        expect(ran.code == code, f"netlink {protocol}: {ran}")
        # The same by a register whose upper half the kernel does not look at.
        for family, wide in ((16, protocol + (1 << 32)), (16 + (1 << 32), protocol)):
            script = f"unshare -Urn perl -e 'exit $! if syscall({_SOCKET_CALL}, {family}, 3, {wide}) < 0'"
            ran = await _inside(bench, script)
            expect(ran.code in (code, errno.EAFNOSUPPORT), f"netlink {family} {wide}: {ran}")


async def its_ids_are_its_own(bench: Bench) -> None:
    """Its root is neither this user nor the machine's root, and a set-user-id file can't become theirs."""
    ran = await _inside(
        bench, "cat /proc/self/uid_map; sudo sh -c 'cp /bin/sh /sh; chmod 6755 /sh; stat -c %u:%g:%a /sh'"
    )
    inside, outside, _ = ran.text.split("\n")[0].split()
    expect(inside == "0" and outside == "1", f"map: {ran.text}")
    expect(ran.text.endswith("0:0:6755\n"), f"set-user-id inside: {ran.text}")


async def its_settings_are_not_its_own(bench: Bench) -> None:
    """It can read what it was given of SSH settings and keys, and change none of it."""
    script = "echo x >> /run/irons/authorized_keys; rm -f /run/irons/sshd_config; mount -o remount,rw /run/irons; exit 0"
    sandbox, made = await bench.running()
    await bench.ssh(sandbox, made, f"sudo sh -c '{script}'; sudo rm -rf /etc/ssh /home/irons/.ssh")
    await bench.engine.stop(sandbox)
    await bench.engine.start(sandbox)
    expect((await bench.ssh(sandbox, made, "true")).code == 0, "it locked its owner out")


async def links_lead_nowhere_on_the_host(bench: Bench) -> None:
    """Links and odd trees it leaves behind don't lead a restart or a removal out of it, nor stop them."""
    sandbox, made = await bench.running()
    target = bench.directory / "target"
    target.mkdir()
    (target / "kept").write_text("kept")
    script = f"""
    rm -rf /etc/hosts /srv /opt; ln -s {target} /srv; ln -s {target}/kept /etc/hosts; ln -s / /opt
    mkdir /deep; cd /deep; i=0; while [ $i -lt 2500 ]; do mkdir d; cd d; i=$((i+1)); done; touch end
    mkdir -m 000 /closed; touch /closed/file; chmod 000 /closed/file; touch /tmp/strange-$(printf "\\\\n\\\\377")
    """
    ran = await bench.ssh(sandbox, made, f"sudo sh -c '{script}'")
    expect(ran.code == 0, ran.text)
    await bench.engine.stop(sandbox)
    await bench.engine.start(sandbox)
    await bench.engine.destroy(sandbox)
    expect((target / "kept").read_text() == "kept", "something outside was harmed")


async def what_users_share_is_not_used_up(bench: Bench) -> None:
    """A sandbox that takes all the inotify instances and terminals it can get leaves some to everybody else."""
    (first, made), (second, other) = await bench.running("greedy"), await bench.running("modest")
    script = (
        '$| = 1; $n++ while syscall($ARGV[0], 0) >= 0; while (open(my $f, "+<", "/dev/ptmx")) { push @t, $f } '
        "print scalar @t; mkdir q(/tmp/full); select undef, undef, undef, 0.05 until -e q(/tmp/over)"
    )
    greedy = asyncio.create_task(bench.ssh(first, made, f"perl -e '{script}' {_INOTIFY_INIT1}"))
    full = await bench.ssh(first, made, "until [ -e /tmp/full ]; do sleep 0.05; done")
    expect(full.code == 0, f"the greedy one: {full}")
    ran = await bench.ssh(second, other, f"perl -e 'exit(syscall({_INOTIFY_INIT1}, 0) < 0)'")
    expect(ran.code == 0, "no inotify instance was left")
    await bench.ssh(first, made, "touch /tmp/over")
    terminals = int((await greedy).text)
    expect(0 < terminals <= 256, f"terminals: {terminals}")


async def orphans_are_collected(bench: Bench) -> None:
    """Process 1 collects what its parent left behind: no zombie stays."""
    orphans = "for i in 1 2 3 4 5; do sh -c 'sleep 0.1 & exit'; done"
    # A program of the SSH server's may be a zombie too, for a moment.
    left = "left=$(grep -s '^State:.Z' /proc/[0-9]*/status; pgrep -x sleep)"
    ended = f'i=0; while {left}; [ -n "$left" ] && [ $((i += 1)) -lt 300 ]; do sleep 0.1; done'
    ran = await _inside(bench, f'{orphans}; {ended}; printf %s "$left"')
    expect(ran.text == "", f"what is left: {ran}")


async def memory_is_limited_where_it_can_be(bench: Bench) -> None:
    """A process that eats memory without end is ended where status says that the limit holds."""
    spec = bench.spec(limits=Limits(memory=128 << 20))
    made = await bench.engine.create(spec)
    await bench.engine.start(spec.id)
    facts = (await bench.engine.look(spec.id)).facts or {}
    expect("memory" in facts, "status says nothing of memory")
    if "memory_note" not in facts:
        ran = await bench.ssh(spec.id, made, "perl -e '$x = \"x\" x (400 << 20); print length $x'")
        expect(ran.code != 0, f"400 MB were had where 128 MB are allowed: {ran}")
    expect((await bench.ssh(spec.id, made, "true")).code == 0, "it does not answer any more")


async def carried_authorities_come_and_go(bench: Bench) -> None:
    """A carried CA is in the trust store and the variables, gone at the start after it left, and in no saved image."""
    certificate, key = bench.directory / "ca.pem", bench.directory / "ca.key"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-days", "2", "-subj", "/CN=Company", "-keyout", str(key), "-out", str(certificate)]
    await asyncio.to_thread(subprocess.run, words, check=True, capture_output=True)
    certificate.write_text(f"{key.read_text()}{certificate.read_text()}", encoding="utf-8")
    found = read_authorities([str(certificate)])
    shown = {trust.AUTHORITIES: found.pem, trust.BUNDLE: found.bundle}
    engine = bench.engine
    assert isinstance(engine, NamespaceEngine)
    engine._shown = lambda: shown
    sandbox, made = await bench.running()
    line = found.pem.splitlines()[1]
    store = f"grep -rlsF {line} /etc/ssl/certs /usr/local/share/ca-certificates"
    # Says yes also where other files go while it looks, as those of an update do.
    found_there = store.replace("-rlsF", "-rqsF")
    written = f"grep -sqF {line} /etc/ssl/certs/ca-certificates.crt"
    wait = f"i=0; until {written} || [ $i -ge 1200 ]; do i=$((i + 1)); sleep 0.1; done; "
    ran = await bench.ssh(
        sandbox, made, f"{wait}{store} | wc -l; grep -cF {line} $SSL_CERT_FILE; env | grep -c /run/irons/ca"
    )
    expect(ran.code == 0, f"inside: {ran}")
    counts = [int(text) for text in ran.text.split()]
    expect(counts[0] >= 2 and counts[1:] == [1, 4], f"in the store, the bundle and the variables: {counts}")
    leaked = await bench.ssh(
        sandbox, made, "sudo grep -rl 'PRIVATE KEY' /run/irons/ca.pem /run/irons/ca-bundle.pem"
    )
    expect(leaked.text == "", f"a private key was carried: {leaked}")
    # What a program that updates the store leaves where the sandbox is stopped meanwhile.
    await bench.ssh(sandbox, made, "cd /etc/ssl/certs && sudo cp ca-certificates.crt ca-certificates.crt.new")
    await bench.engine.stop(sandbox)
    images = Images(bench.directory.parent / "images", bench.directory.parent / "sandboxes")
    await images.save(sandbox, "trusting")
    engine._shown = lambda: dict.fromkeys(shown, "")
    copy = replace(bench.spec("copy"), image="trusting")
    made_copy = await bench.engine.create(copy)
    # The step that would take it out is left out: nothing of it may have been saved.
    with mock.patch.object(boot_steps, "ALWAYS", ()):
        await bench.engine.start(copy.id, boot=False)
    ran = await bench.ssh(
        copy.id, made_copy, f"{store}; ls /etc/ssl/certs | grep irons-; env | grep -c /run/irons/ca"
    )
    expect(ran.text == "0\n", f"what a saved image has of it: {ran}")
    await bench.engine.destroy(copy.id)
    await images.remove("trusting")
    # It is a step of irons: a start without the sandbox's own steps has it too.
    await bench.engine.start(sandbox, boot=False)
    gone = f"i=0; while {found_there} && [ $i -lt 1200 ]; do i=$((i + 1)); sleep 0.1; done; {store}; ls /etc/ssl/certs | grep irons-"
    ran = await bench.ssh(sandbox, made, gone)
    expect(ran.text == "", f"after it left the setting: {ran}")


async def the_disk_is_limited_where_it_can_be(bench: Bench) -> None:
    """As root a sandbox has the room that it was given, keeps its files, and is saved; an ordinary user is refused first."""
    spec = bench.spec("limited", Limits(disk=64 << 20))
    if os.geteuid() != 0:
        try:
            await bench.engine.create(spec)
        except EngineError as error:
            expect(error.code == "limit" and "virtual machines" in error.hint, f"refused with {error!r}")
        expect((await bench.engine.look(spec.id)).state == "absent", "something was made")
        return
    made = await bench.engine.create(spec)
    await bench.engine.start(spec.id)
    filled = await bench.ssh(
        spec.id, made, "head -c 100000000 /dev/zero > ~/fill; sudo sh -c 'head -c 9000 /dev/zero > /more'"
    )
    expect(filled.text.count("No space left on device") == 2, f"more fits than was given: {filled}")
    room = await bench.ssh(
        spec.id, made, "rm ~/fill; sudo rm -f /more; echo kept > ~/file; df -B1M --output=size / | tail -1"
    )
    expect(room.code == 0 and 32 <= int(room.text) <= 64, f"its own disk is {room}")
    await bench.engine.stop(spec.id)
    facts = (await bench.engine.look(spec.id)).facts or {}
    expect("disk_note" not in facts and int(facts["disk_used"]) < 48 << 20, f"status says {facts}")
    await bench.engine.start(spec.id)
    again = await bench.ssh(spec.id, made, "cat ~/file")
    expect(again.text == "kept\n", f"its files after a stop: {again}")
    await bench.engine.stop(spec.id)
    images = Images(bench.directory.parent / "images", bench.directory.parent / "sandboxes")
    await images.save(spec.id, "limited")
    copy = replace(bench.spec("copy"), image="limited")
    made = await bench.engine.create(copy)
    await bench.engine.start(copy.id)
    there = await bench.ssh(copy.id, made, "cat ~/file; df -B1M --output=size / | tail -1")
    expect(
        there.text.startswith("kept\n") and int(there.text.split()[1]) > 64, f"what was saved of it: {there}"
    )
    await bench.engine.destroy(copy.id)
    await images.remove("limited")


def _proc(path: str) -> str:
    return (Path("/proc") / path).read_text(encoding="utf-8")


_FREEZER = """
mkdir -p /tmp/two /tmp/one
mount -t cgroup2 none /tmp/two
mount -t cgroup -o freezer none /tmp/one
for group in $(find /sys/fs/cgroup /tmp/two /tmp/one -type d); do
  mkdir $group/cold && echo 0 >$group/cold/cgroup.procs
  for file in cgroup.freeze freezer.state; do
    [ -e $group/$file ] || continue
    echo FROZEN >$group/$file || echo 1 >$group/$file
  done
done
"""


async def what_froze_itself_is_destroyed(bench: Bench) -> None:
    """One that wrote to each freezer it can reach, and stopped every process but its first, is gone within 3 s."""
    took = [await _froze_itself(bench)]
    # A machine that is busy or stands still meanwhile adds to some of them.
    while took[-1] >= 3 and len(took) < 15:
        took.append(await _froze_itself(bench))
    expect(took[-1] < 3, f"it took {took} s")


async def _froze_itself(bench: Bench) -> float:
    """Have one freeze itself; the seconds that its end takes."""
    sandbox, made = await bench.running()
    facts = (await bench.engine.look(sandbox)).facts or {}
    script = (
        f"unshare --mount --cgroup sh -c {shlex.quote(_FREEZER)}; unshare -UrmC sh -c {shlex.quote(_FREEZER)}"
    )
    frozen = f"sudo sh -c {shlex.quote(script)} >/dev/null 2>&1; sudo sh -c 'kill -STOP -1; kill -STOP $$'"
    session = asyncio.create_task(bench.ssh(sandbox, made, frozen))
    server = _proc(f"{facts['pid']}/task/{facts['pid']}/children").split()[0]
    async with asyncio.timeout(60):
        while _proc(f"{server}/stat").rpartition(")")[2].split()[0] != "T":
            expect(not session.done(), "the session ended before it stopped anything")
            await asyncio.sleep(0.02)
    began = time.monotonic()
    await bench.engine.destroy(sandbox)
    took = time.monotonic() - began
    expect((await session).code != 0, "the session ended well")
    expect((await bench.engine.look(sandbox)).state == "absent", "it is still there")
    return took


async def what_stopped_is_asked_to_end(bench: Bench) -> None:
    """A process that stopped itself is continued at a stop, and does what it does at TERM."""
    sandbox, made = await bench.running()
    script = (
        "trap 'echo asked > asked; sync; exit' TERM; touch ready; kill -STOP $$; while :; do sleep 0.05; done"
    )
    started = f"nohup setsid sh -c {shlex.quote(script)} >/dev/null 2>&1 & until grep -qs '^State:.T' /proc/$!/status; do sleep 0.05; done"
    await bench.ssh(sandbox, made, started)
    # An emulated guest on a busy machine does not come that far in the time that a stop has else.
    await bench.engine.stop(sandbox, grace=600.0)
    await bench.engine.start(sandbox)
    ran = await bench.ssh(sandbox, made, "cat asked")
    expect(ran == Ran(0, "asked\n"), f"the process was not asked to end: {ran}")


ATTACKS: dict[str, Callable[[Bench], Awaitable[None]]] = {
    check.__name__: check
    for check in (
        vsock_is_refused,
        the_kernel_is_out_of_reach,
        limits_are_seen_and_not_changed,
        nested_namespaces_are_harmless,
        packet_filters_are_out_of_reach,
        its_ids_are_its_own,
        its_settings_are_not_its_own,
        links_lead_nowhere_on_the_host,
        what_users_share_is_not_used_up,
        orphans_are_collected,
        memory_is_limited_where_it_can_be,
        the_disk_is_limited_where_it_can_be,
        carried_authorities_come_and_go,
        what_froze_itself_is_destroyed,
        what_stopped_is_asked_to_end,
    )
}
