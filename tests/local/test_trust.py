"""The boot step that takes carried certificates up, run here on directories laid out as distributions have them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from irons_local.bundle import boot_steps, trust
from irons_local.bundle.oci import CONFIG_DIRECTORY

pytestmark = pytest.mark.process

CERTIFICATE = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"
CARRIED = CERTIFICATE.format("AAAA") + CERTIFICATE.format("BBBB")

LAYOUTS = {
    "fedora": ("etc/pki/ca-trust/source/anchors", "update-ca-trust"),
    "arch": ("etc/ca-certificates/trust-source/anchors", "update-ca-trust"),
    "opensuse": ("etc/pki/trust/anchors", "update-ca-certificates"),
    "debian": ("usr/local/share/ca-certificates", "update-ca-certificates"),
}


class Image:
    """A directory tree of an image, with a program that notes that it was called."""

    def __init__(self, root: Path, anchors: str, program: str) -> None:
        self.root = root
        self.anchors = root / anchors
        self.carried = root / CONFIG_DIRECTORY.lstrip("/") / trust.AUTHORITIES
        self._called = root / "called"
        self._programs = root / "programs"
        for directory in (self.anchors, self.carried.parent, self._programs):
            directory.mkdir(parents=True)
        if program:
            path = self._programs / program
            path.write_text(f'#!/bin/sh\necho "$*" >>{self._called}\necho done\n', encoding="ascii")
            path.chmod(0o755)

    def start(self, carried: str, others: str = ":/usr/bin:/bin") -> int:
        """Run the step with these certificates and the programs of `others`; gives how often the program was called."""
        self.carried.write_text(carried, encoding="ascii")
        script = trust.SCRIPT
        for begin in ("/etc/", "/usr/local/", f"{CONFIG_DIRECTORY}/"):
            script = script.replace(begin, f"{self.root}{begin}")
        env = {"PATH": f"{self._programs}{others}"}
        done = subprocess.run(["/bin/sh", "-c", script], env=env, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        calls = self._called.read_text().count("\n") if self._called.exists() else 0
        self._called.unlink(missing_ok=True)
        return calls

    def found(self) -> list[str]:
        """The certificates that its program would take up."""
        return sorted(
            block + "-----END CERTIFICATE-----\n"
            for path in self.anchors.rglob("*")
            if path.suffix in (".crt", ".pem")
            for block in path.read_text().split("-----END CERTIFICATE-----\n")[:-1]
        )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_certificates_come_and_go(tmp_path: Path, layout: str) -> None:
    """They are taken up once, changed where they change, and taken out when the setting no longer has them."""
    image = Image(tmp_path, *LAYOUTS[layout])
    assert image.start("") == 0
    assert image.start(CARRIED) == 1
    assert image.found() == [CERTIFICATE.format("AAAA"), CERTIFICATE.format("BBBB")]
    assert image.start(CARRIED) == 0
    assert image.start(CERTIFICATE.format("BBBB")) == 1
    assert image.found() == [CERTIFICATE.format("BBBB")]
    assert image.start("") == 1
    assert image.found() == []
    assert image.start("") == 0


def test_an_image_without_a_program_is_left_alone(tmp_path: Path) -> None:
    """Where nothing would take certificates up, no file is made."""
    image = Image(tmp_path, LAYOUTS["fedora"][0], "")
    assert image.start(CARRIED, others="") == 0
    assert image.found() == []


def test_a_start_without_boot_has_the_steps_of_irons() -> None:
    """What the sandbox itself starts is skipped, and that is reported; the trust store is irons' own affair."""
    skipped, whole = boot_steps.files("sshd", None), boot_steps.files("sshd", boot_steps.STEPS)
    assert {name for name in skipped if name.startswith(f"{boot_steps.DRIVER}-")} == {
        "boot-05-machine-id",
        "boot-10-trust",
    }
    assert boot_steps.SKIPPED in skipped
    assert boot_steps.SKIPPED not in whole
    assert {"boot-10-trust", "boot-50-services", "boot-60-hook"} <= set(whole)
