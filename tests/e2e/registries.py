"""What the stand-in internet has of package registries: one package in each, in files that their own programs ask for.

All is below `/registry/` of every name, in plain and in TLS. `{origin}` in a file is the scheme and host by which it is asked for.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

PACKAGES = b"Package: thing\nVersion: 1.0\nArchitecture: all\nFilename: thing.deb\nSize: 0\n\n"
WHEEL = "thing-1.0-py3-none-any.whl"
METADATA = "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n"
PACKUMENT = {
    "name": "thing",
    "dist-tags": {"latest": "1.0.0"},
    "versions": {"1.0.0": {"name": "thing", "version": "1.0.0", "dist": {"tarball": "{origin}/thing.tgz"}}},
}


def lay_registries(directory: Path) -> None:
    """Write the files of apt, PyPI, npm, crates and Go below a directory."""
    _lay_debian(directory / "debian")
    _lay_wheel(directory / "simple" / "thing")
    _lay_module(directory / "go" / "example.test" / "thing" / "@v")
    crates = {"dl": "{origin}/registry/crates/dl", "api": "{origin}/registry/crates"}
    found = {"crates": [{"name": "thing", "max_version": "1.0.0", "description": ""}], "meta": {"total": 1}}
    for name, holds in (
        ("npm/thing", PACKUMENT),
        ("crates/config.json", crates),
        ("crates/api/v1/crates", found),
    ):
        _write(directory / name, json.dumps(holds).encode())


def _lay_debian(directory: Path) -> None:
    """A flat repository without a signature."""
    _write(directory / "Packages", PACKAGES)
    digest = hashlib.sha256(PACKAGES).hexdigest()
    release = f"Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n {digest} {len(PACKAGES)} Packages\n"
    _write(directory / "Release", release.encode())


def _lay_wheel(directory: Path) -> None:
    """A page of the simple repository API (PEP 503), and the wheel that it links to."""
    _write(
        directory / "index.html",
        f'<!DOCTYPE html><html><body><a href="{WHEEL}">{WHEEL}</a></body></html>'.encode(),
    )
    about = "thing-1.0.dist-info"
    with zipfile.ZipFile(directory / WHEEL, "w") as wheel:
        wheel.writestr("thing.py", "")
        wheel.writestr(f"{about}/METADATA", METADATA)
        wheel.writestr(
            f"{about}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: irons\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(
            f"{about}/RECORD", f"thing.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n"
        )


def _lay_module(directory: Path) -> None:
    """A module as Go's proxy protocol has it."""
    module = "module example.test/thing\n"
    _write(directory / "v1.0.0.info", b'{"Version": "v1.0.0"}')
    _write(directory / "v1.0.0.mod", module.encode())
    with zipfile.ZipFile(directory / "v1.0.0.zip", "w") as packed:
        packed.writestr("example.test/thing@v1.0.0/go.mod", module)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
