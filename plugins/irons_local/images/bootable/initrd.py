"""The initial RAM disk: finds the machine's disk, unpacks its settings, and hands over to process 1.

It is one static busybox, the modules that the disk needs, and a script. What the script does with the settings is
in the settings themselves (`SETUP`), so that an initial RAM disk serves every later version of irons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from irons_local.bundle.oci import CONFIG_DIRECTORY
from irons_local.images.bootable import cpio

SETUP = "setup"
"""The settings file that the script runs before the image's init, with the root directory of the machine as its argument."""

FIRST = "first-program"
"""The settings file in which `SETUP` may leave the words of process 1, instead of the image's `/sbin/init`."""

WANTED = ("virtio_pci", "virtio_mmio", "virtio_blk", "virtio_net")
"""The modules without which there is no disk and no network; what they need is added."""

_SCRIPT = f"""#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
failed() {{ echo "irons: $*"; sync; poweroff -f; }}
mount -t proc -o nosuid,noexec,nodev proc /proc
mount -t devtmpfs -o nosuid,mode=0755 devtmpfs /dev
for module in $(cat /modules/order); do insmod "/modules/$module" || :; done
tries=0
until [ -b /dev/vda ] && [ -b /dev/vdb ]; do
  tries=$((tries + 1))
  [ "$tries" -lt 600 ] || failed "the disk did not appear"
  sleep 0.05
done
mount -t ext4 -o rw /dev/vda /root || failed "the disk cannot be mounted"
mount -t tmpfs -o nosuid,nodev,mode=0755 tmpfs /root/run || failed "the image has no directory /run"
mkdir -p /root{CONFIG_DIRECTORY}
tar -x -f /dev/vdb -C /root{CONFIG_DIRECTORY} || failed "the settings cannot be read"
sh /root{CONFIG_DIRECTORY}/{SETUP} /root || failed "the settings cannot be laid"
init=/sbin/init
if [ -f /root{CONFIG_DIRECTORY}/{FIRST} ]; then
  init=$(cat /root{CONFIG_DIRECTORY}/{FIRST})
else
  [ -x /root$init ] || [ -L /root$init ] || failed "the image has no /sbin/init: it cannot be a virtual machine"
fi
mkdir -p /root/dev /root/proc
mount -o move /dev /root/dev
mount -o move /proc /root/proc
exec switch_root /root $init
"""


def build(busybox: bytes, modules: Sequence[tuple[str, bytes]]) -> bytes:
    """The archive.

    Args:
        busybox: the program, linked statically.
        modules: name and content of each module, in the order in which they are loaded.
    """
    order = "".join(f"{name}\n" for name, _ in modules)
    return cpio.archive(
        (
            *(cpio.directory(name) for name in ("bin", "dev", "modules", "proc", "root", "run")),
            cpio.character_device("dev/console", 5, 1),
            cpio.file("bin/busybox", busybox, 0o755),
            cpio.file("init", _SCRIPT.encode(), 0o755),
            cpio.file("modules/order", order.encode()),
            *(cpio.file(f"modules/{name}", content) for name, content in modules),
        )
    )


def load_order(dependencies: str, wanted: Sequence[str] = WANTED) -> list[str]:
    """Paths of the modules to load, each after what it needs; a wanted one that is built in or not there is left out.

    Args:
        dependencies: text of modules.dep (depmod(8)).
        wanted: names of modules.
    """
    needs: dict[str, list[str]] = {}
    for line in dependencies.splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
    named = {_name(path): path for path in needs}
    found: dict[str, None] = {}
    for name in wanted:
        if name in named:
            _add(named[name], needs, found)
    return list(found)


def _add(path: str, needs: Mapping[str, Sequence[str]], found: dict[str, None]) -> None:
    # modules.dep has all that a module needs, what is needed first at the end.
    for each in reversed(needs.get(path, ())):
        found.setdefault(each)
    found.setdefault(path)


def _name(path: str) -> str:
    return path.rpartition("/")[2].partition(".")[0].replace("-", "_")


def is_static(program: bytes) -> bool:
    """Whether an ELF program of 64 bits names no interpreter, and so needs no libraries (elf(5))."""
    if program[:5] != b"\x7fELF\x02":
        return False
    offset = int.from_bytes(program[32:40], "little")
    size, count = int.from_bytes(program[54:56], "little"), int.from_bytes(program[56:58], "little")
    kinds = (program[offset + n * size : offset + n * size + 4] for n in range(count))
    return b"\x03\0\0\0" not in kinds
