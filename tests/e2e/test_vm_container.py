"""A container's archive as a virtual machine: it has no kernel, no init and no SSH server, and boots by the kernel kit all the same."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path

import pytest

from irons_local.engines.vm import launch, qmp
from tests.e2e.conftest import clear_policy
from tests.e2e.lab import Person, eventually
from tests.e2e.machines import ALL, WITHIN, end_all, inside, status
from tests.e2e.test_vm_docker import container_image
from tests.machine import Machine

ROOT = pytest.param("root", marks=pytest.mark.skipif(not ALL, reason="only make test-vm runs it as root"))

WORDS = ("--engine", "vm", "--image", "tiny", "--memory", "256M", "--disk", "2G", "--mode", "deny")

ASKED = """
asked() {
  tries=0
  until said=$(wget -O - "$1" 2>&1); [ -n "${said##*reset*}" ] && [ -n "${said##*timed out*}" ]; do
    [ $((tries += 1)) -lt 30 ] || break
  done
  echo "$said"
}
asked http://web.example.test/
asked http://evil.example.test/
"""
"""As busybox has it; the gateway resets a connection that has said nothing in its time, as an emulated guest may."""

BOOTED = """
tr '\\0' ' ' </proc/1/cmdline; echo; id -un; hostname
modprobe dummy && [ -d /sys/module/dummy ] && echo 'its modules load'
touch /run/irons/kit/new || echo 'the kit is read-only'
mkdir -p /etc/irons
printf '#!/bin/sh\\necho hooked >/root/hook\\n' >/etc/irons/boot
chmod 755 /etc/irons/boot
tries=0
until [ "$(df -k / | awk 'END { print $2 }')" -gt 1500000 ]; do
  [ $((tries += 1)) -lt 600 ] || break
  sleep 1
done
df -k / | awk 'END { print ($2 > 1500000 ? "the disk is whole" : $2) }'
echo kept >/root/kept
"""


def check_egress(person: Person) -> None:
    """What is allowed is answered, what is not is refused, and both are in the log."""
    done = inside(person, "little", ASKED)
    assert '"line": "GET / HTTP/1.1"' in done.stdout, done
    assert "403" in done.stdout, done
    wanted = {("web.example.test", "allowed"), ("evil.example.test", "blocked")}
    assert eventually(lambda: wanted <= {(each["host"], each["verdict"]) for each in person.events("little")})


async def press(commands: Path) -> None:
    """Press the power button of a machine."""
    async with qmp.connected(commands) as monitor:
        await monitor.execute("system_powerdown")


def check_restart(person: Person) -> None:
    """At its power button the guest shuts itself down, with what it wrote on its disk; its hook runs at the next start."""
    pid = int(status(person, "little")["pid"])
    (commands,) = person.home.rglob(f"sandboxes/*/{launch.COMMANDS}")

    def pressed() -> str | None:
        with suppress(OSError, qmp.QmpError):
            asyncio.run(press(commands))
        return status(person, "little").get("reason")

    assert "shut itself down" in eventually(pressed, within=WITHIN)
    eventually(lambda: not Path(f"/proc/{pid}").exists(), what="the end of QEMU")
    person.ok("start", "little", timeout=WITHIN)
    assert inside(person, "little", "cat /root/kept").stdout == "kept\n"
    assert eventually(lambda: inside(person, "little", "cat /root/hook").stdout, within=WITHIN) == "hooked\n"
    person.ok("stop", "little", timeout=WITHIN)


def check_saved(person: Person) -> None:
    """Saved as an image, it makes another machine with its files, which is judged by its own rules."""
    person.ok("local", "image", "save", "little", "--as", "prepared", timeout=WITHIN)
    words = ("create", "other", "--engine", "vm", "--image", "prepared", "--memory", "256M", "--mode", "deny")
    person.ok(*words, "--wait-timeout", f"{WITHIN}s", timeout=WITHIN)
    assert status(person, "other")["image"] == "prepared"
    done = inside(person, "other", "cat /root/kept; hostname; wget -O - http://web.example.test/ 2>&1")
    assert done.stdout.splitlines()[:2] == ["kept", "other"], done
    assert "403" in done.stdout, done
    person.ok("local", "image", "remove", "prepared")


@pytest.mark.vm
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("person", [ROOT, "user"], indirect=True)
def test_a_containers_archive_is_a_virtual_machine(
    person: Person, machine: Machine, vm_image: Path, place: Path
) -> None:
    """It boots with the kit's kernel, modules and SSH server, is judged and logged; in `make test-vm` it starts again after a clean end."""
    machine.require("qemu-system-x86_64", "mke2fs")
    clear_policy(person)
    tiny = place / "tiny.tar"
    tiny.write_bytes(container_image(vm_image))
    person.ok("local", "image", "import", str(vm_image), "--as", "debian-vm", timeout=300)
    try:
        person.ok("local", "image", "import", str(tiny), "--as", "tiny", timeout=300)
        words = ("create", "little", *WORDS, "--allow", "web.example.test", "--wait-timeout", f"{WITHIN}s")
        person.ok(*words, timeout=WITHIN)
        done = inside(person, "little", BOOTED)
        init, *lines = done.stdout.splitlines()
        assert init == "/run/irons/kit/busybox sh /run/irons/small-init ", done
        assert lines == [
            "root",
            "little",
            "its modules load",
            "the kit is read-only",
            "the disk is whole",
        ], done
        check_egress(person)
        if ALL:
            check_restart(person)
            check_saved(person)
    finally:
        tiny.unlink()
        for each in json.loads(person.ok("list", "-o", "json")):
            person.ok("destroy", each["name"], "--force", timeout=180)
        for name in ("prepared", "tiny"):
            person.run("local", "image", "remove", name, timeout=180)
        end_all(person)
