"""The tests' own Python with its HTTP clients, and wget, for a sandbox whose image has neither."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

HERE = "~/kit/clients"
"""Where the archive is unpacked inside."""
PYTHON = f"LD_LIBRARY_PATH={HERE}/lib PYTHONHOME={HERE} PYTHONPATH={HERE}/packages {HERE}/python"
WGET = f"LD_LIBRARY_PATH={HERE}/lib {HERE}/wget"
CLIENTS = ("requests", "httpx", "aiohttp", "pip")
LEFT_OUT = {"__pycache__", "site-packages", "dist-packages", "test", "idlelib", "tkinter", "ensurepip"}
LINKED = re.compile(r"^\t(?!ld-|lib(?:c|m|dl|rt|pthread|util|resolv)\.so)(\S+) => (/\S+)", re.MULTILINE)
"""A library in what ldd prints; of the C library the image has its own."""


def pack_clients(tar: Path) -> bool:
    """Write the archive, and tell whether wget is in it: not every machine has it."""
    wget, python = shutil.which("wget"), Path(sys.executable).resolve()
    standard = Path(sysconfig.get_path("stdlib"))
    programs = {"python": python, **({"wget": Path(wget)} if wget else {})}
    packages = {name: file for each in _needed(CLIENTS) for name, file in _files(each).items()}
    built = [*programs.values(), *(standard / "lib-dynload").glob("[!_]*.so")]
    built += [*(standard / "lib-dynload").glob("_[!t]*.so")]  # neither Tk nor modules of Python's own tests
    built += [file for file in packages.values() if file.suffix == ".so"]
    with tarfile.open(tar, "w", dereference=True) as archive:
        archive.add(standard, f"lib/{standard.name}", filter=_wanted)
        libraries = {f"lib/{name}": file for name, file in _linked(built).items()}
        for name, file in {**programs, **packages, **libraries}.items():
            archive.add(file, name)
    return bool(wget)


def _wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    name = member.name.rpartition("/")[2]
    return None if name in LEFT_OUT or name.startswith("config-") else member


def _needed(names: Iterable[str]) -> list[Distribution]:
    """The distributions of these names and what they require here, each once."""
    found: dict[str, Distribution] = {}
    left = [*names]
    while left:
        name = left.pop().lower().replace("_", "-")
        try:
            each = found.get(name) or distribution(name)
        except PackageNotFoundError:
            continue  # required for another Python
        if name not in found:
            found[name] = each
            left += [
                re.split(r"[^\w.-]", wanted)[0] for wanted in each.requires or () if "extra ==" not in wanted
            ]
    return [*found.values()]


def _files(each: Distribution) -> dict[str, Path]:
    """The files of a distribution that are imported, and what it says of itself, by their names in the archive."""
    return {
        f"packages/{file}": Path(str(file.locate()))
        for file in each.files or ()
        if ".." not in file.parts and "__pycache__" not in file.parts
    }


def _linked(programs: Iterable[Path]) -> dict[str, Path]:
    """The shared libraries of programs and modules, by name."""
    said = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
    return {name: Path(path) for name, path in LINKED.findall(said)}
