"""Programs of Debian and PyPI, inside a sandbox and next to it, on the machine's own network where it has some."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.lab import Lab, Person, becoming, eventually
from tests.machine import Machine

DEBIAN = "deb.debian.org"
PYPI = ("pypi.org", "files.pythonhosted.org")
INSIDE = ("buildah", "podman", "crun", "busybox-static", "rsync", "python3")
"""Packages that the tests of `tools` need in it."""
CONTAINERFILE = """\
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "touch", "/made"]
CMD ["/bin/busybox", "ls", "/made"]
"""


class OwnNetwork(Lab):
    """The machine itself in place of the lab's host."""

    def enter(self, *, user: str | None = None) -> list[str]:
        """Nothing needs to be entered."""
        return becoming(user)


@pytest.fixture(scope="module")
def at_home(person: Person, place: Path, lab: Lab, image_tar: Path, machine: Machine) -> Iterator[Person]:
    """The person on the machine's own network, with a locked sandbox named `packages`."""
    for host in (DEBIAN, *PYPI):
        try:
            socket.create_connection((host, 80), timeout=5).close()
        except OSError:
            machine.miss(f"network: {host} can't be reached", optional=True)
    home = place / f"home-{person.user or 'root'}"
    for directory in (home, home / "run", home / ".ssh"):
        directory.mkdir(mode=0o700)
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / ".ssh/id_ed25519")]
    subprocess.run(words, check=True)
    if person.user:
        subprocess.run(["chown", "-R", f"{person.user}:", str(home)], check=True)
    network = OwnNetwork(lab.host, lab.internet, lab.arrivals_file, lab.directory)
    moved = replace(person, lab=network, home=home)
    moved.ok("local", "image", "import", str(image_tar), "--as", "debian", timeout=300)
    moved.ok("create", "packages", "--mode", "deny", timeout=180)
    yield moved
    moved.run("local", "uninstall", "--purge", "--yes", timeout=180)


def test_apt_and_pip_install_from_allowed_mirrors_and_from_nowhere_else(at_home: Person) -> None:
    """Refused first, then allowed by name, packages are installed; the log names each mirror."""
    refused = at_home.inside("packages", "sudo apt-get update 2>&1", timeout=180)
    assert "403" in refused.stdout
    at_home.ok("egress", "allow", "--sandbox", "packages", DEBIAN, *PYPI)
    install = "sudo apt-get update -q && sudo apt-get install -q -y --no-install-recommends python3-pip"
    installed = at_home.inside("packages", install, timeout=180)
    assert installed.returncode == 0, installed.stdout + installed.stderr
    trusted = " ".join(f"--trusted-host {host}" for host in PYPI)
    pip = f"pip3 install -q --break-system-packages {trusted} six && python3 -c 'import six; print(six.__version__)'"
    done = at_home.inside("packages", pip, timeout=180)
    assert done.stdout.startswith("1."), done.stderr
    passed = {event["host"] for event in at_home.events("packages") if event["verdict"] == "allowed"}
    assert passed >= {DEBIAN, *PYPI}


@pytest.fixture(scope="module")
def tools(at_home: Person, machine: Machine) -> str:
    """A sandbox in which packages were installed in mode `warn`."""
    at_home.ok("create", "tools", "--mode", "warn", timeout=180)
    packages = " ".join(INSIDE)
    install = f"sudo apt-get update -q && sudo apt-get install -q -y --no-install-recommends {packages}"
    installed = at_home.inside("tools", install, timeout=300)
    if "Unable to locate package" in installed.stderr:
        machine.miss(f"packages: {installed.stderr.strip().splitlines()[-1]}", optional=True)
    assert installed.returncode == 0, installed.stdout + installed.stderr
    return "tools"


def test_a_sandbox_is_locked_to_the_mirror_that_it_used(at_home: Person, tools: str) -> None:
    """What apt used is suggested and allowed by `lock`; then apt works under `deny`, and nothing else gets out."""
    suggested = json.loads(at_home.ok("egress", "suggest", tools, "-o", "json"))
    assert DEBIAN in {row["pattern"] for row in suggested}
    assert f"+ allow {DEBIAN}" in at_home.ok("egress", "lock", tools, "--yes").splitlines()
    again = at_home.inside(tools, "sudo apt-get update -q", timeout=180)
    assert again.returncode == 0, again.stdout + again.stderr
    assert at_home.inside(tools, f"curl -sf -m 60 http://{PYPI[0]}/").returncode == 22


def test_containers_are_built_and_run_inside(at_home: Person, tools: str) -> None:
    """Both of buildah and podman work as the ordinary user inside, as they are installed, and what they build runs."""
    build = (
        "set -e; mkdir -p ~/app; cd ~/app; cp /bin/busybox .; cat >Containerfile;"
        " buildah bud -t one . >log 2>&1 || { cat log; exit 1; };"
        " podman build -t two . >log 2>&1 || { cat log; exit 1; }"
    )
    built = at_home.run("exec", tools, "--", "sh", "-c", build, text=CONTAINERFILE, timeout=200)
    assert built.returncode == 0, built.stdout + built.stderr
    run = "for image in one two; do podman run --rm --network host $image; done"
    ran = at_home.inside(tools, f"{run}; podman run --rm --network host one /bin/busybox id -u", timeout=180)
    assert ran.stdout == "/made\n/made\n0\n", ran.stderr


@pytest.fixture
def by_name(at_home: Person, tools: str) -> Iterator[Path]:
    """OpenSSH's configuration with the sandboxes in it, for programs that run ssh."""
    at_home.ok("ssh-config", "--install")
    (at_home.home / "sent").mkdir(exist_ok=True)
    (at_home.home / "sent/note").write_text(f"for {tools}\n")
    yield at_home.home / ".ssh/config"
    at_home.ok("ssh-config", "--uninstall")


def _beside(person: Person, *words: str, env: dict[str, str] | None = None) -> str:
    """Run a program of the machine's as the person, expect exit code 0, and return its stdout."""
    done = subprocess.run(
        [*person.lab.enter(user=person.user), *words],
        env={**person.env, **(env or {})},
        cwd=person.home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def ansible(install: Callable[..., Path]) -> Path:
    """Ansible's own program."""
    return install("ansible", "ansible-core") / "ansible"


def test_rsync_and_ansible_find_a_sandbox_by_its_name(
    at_home: Person, tools: str, by_name: Path, ansible: Path, machine: Machine
) -> None:
    """After `ssh-config --install` they copy both ways, run modules, and become root, without an option of irons'."""
    machine.require("rsync")
    for source, target in (("sent/", f"{tools}.irons:there/"), (f"{tools}.irons:there/", "back/")):
        _beside(at_home, "rsync", "-a", "-e", f"ssh -F {by_name}", source, target)
    assert (at_home.home / "back/note").read_text() == f"for {tools}\n"
    words = (str(ansible), "all", "-i", f"{tools}.irons,", "-o")
    # A connection that Ansible keeps would outlive the test.
    env = {
        "ANSIBLE_SSH_ARGS": f"-F {by_name} -o ControlMaster=no",
        "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
    }
    assert '"ping": "pong"' in _beside(at_home, *words, "-m", "ping", env=env)
    assert _beside(at_home, *words, "-b", "-m", "command", "-a", "id -u", env=env).endswith("(stdout) 0\n")


def test_sshfs_mounts_a_sandbox(at_home: Person, tools: str, by_name: Path, machine: Machine) -> None:
    """Files of a sandbox are read and written through a mount of sshfs."""
    machine.require("sshfs")
    asked = [*at_home.lab.enter(user=at_home.user), "sh", "-c", "exec 3<>/dev/fuse"]
    opened = subprocess.run(asked, capture_output=True, text=True, check=False)
    if opened.returncode:
        machine.miss(f"sshfs: {opened.stderr.strip()}", optional=True)
    mounted = at_home.home / "mounted"
    _beside(at_home, "mkdir", "-p", str(mounted))
    words = [
        *at_home.lab.enter(user=at_home.user),
        "sshfs",
        "-f",
        "-F",
        str(by_name),
        f"{tools}.irons:",
        str(mounted),
    ]
    process = subprocess.Popen(words, env=at_home.env, cwd=at_home.home, stdin=subprocess.DEVNULL)
    try:
        eventually(lambda: str(mounted) in Path("/proc/mounts").read_text(), what="the mount")
        _beside(at_home, "sh", "-c", f"cat sent/note >{mounted}/by-sshfs")
        assert at_home.inside(tools, "cat ~/by-sshfs").stdout == f"for {tools}\n"
        assert _beside(at_home, "cat", f"{mounted}/by-sshfs") == f"for {tools}\n"
    finally:
        process.terminate()
        process.wait(180)
