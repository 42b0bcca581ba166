"""A sandbox's SSH server: its configuration, and the host key that is made for it outside, once."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import re
import shlex
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from irons_local.bundle import boot_steps, session
from irons_local.bundle.oci import CONFIG_DIRECTORY
from irons_local.cell.layout import SANDBOX4
from irons_local.errors import EngineError
from irons_local.linux.programs import search_path
from irons_local.linux.userns_call import end
from irons_local.spec import SSH_PORT

HOST_KEY = "ssh_host_ed25519_key"
AUTHORIZED = "authorized_keys"
CONFIG = "sshd_config"

_PUBLIC_KEY = re.compile(
    r"(?:ssh-[a-z0-9-]+|ecdsa-[a-z0-9-]+|sk-[a-z0-9@.-]+)(?:@openssh\.com)? [A-Za-z0-9+/]+={0,3}(?: .*)?"
)


def configuration(shell: str = session.SHELL, helpers: Mapping[str, str] = MappingProxyType({})) -> str:
    """The text of sshd_config(5): keys only, and nothing that would make a login wait.

    Args:
        shell: path of the shell that runs our scripts.
        helpers: options that say where the programs are that the server starts.
    """
    return "\n".join(
        (
            f"Port {SSH_PORT}",
            "ListenAddress 127.0.0.1",
            f"ListenAddress {SANDBOX4}",
            f"HostKey {CONFIG_DIRECTORY}/{HOST_KEY}",
            f"AuthorizedKeysFile {CONFIG_DIRECTORY}/{AUTHORIZED} .ssh/{AUTHORIZED}",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            "UsePAM no",
            "UseDNS no",
            "PrintMotd no",
            "PrintLastLog no",
            "X11Forwarding no",
            "AcceptEnv LANG LC_*",
            # Who came by which key; nothing that a person writes into ~/.ssh/environment.
            f"PermitUserEnvironment {session.KEY}",
            # The first shell only starts the script; bash would read ~/.bashrc for that shell too.
            "SetEnv SHLVL=1",
            f"ForceCommand {session.forced(shell)}",
            f"Subsystem sftp {session.SFTP}",
            "PidFile none",
            "MaxStartups 100:30:200",
            "MaxSessions 100",
            "LogLevel ERROR",
            *(f"{option} {path}" for option, path in helpers.items()),
            "",
        )
    )


def authorized(public_key: str) -> str:
    """The text of authorized_keys(5) for the public key file that a person gave.

    Raises:
        EngineError: it holds no key, or something that is not one.
    """
    keys = [line.strip() for line in public_key.splitlines()]
    keys = [line for line in keys if line and not line.startswith("#")]
    if not keys:
        raise EngineError("input", "the public key is empty")
    for line in keys:
        # An options field such as command="…" would be the sandbox's business, but it is most often a mistake.
        if not _PUBLIC_KEY.fullmatch(line):
            raise EngineError("input", "this is not an OpenSSH public key", "give the file that ends in .pub")
    return "\n".join(keys) + "\n"


def key_id(line: str) -> str:
    """The id of a key: 16 hexadecimal digits of the SHA-256 of what is encoded in a line of a public key file."""
    return hashlib.sha256(base64.b64decode(line.split()[1])).hexdigest()[:16]


def marked(authorized_keys: str) -> str:
    """The text of authorized_keys(5) with which each session carries the id of its key in `session.KEY`."""
    return "".join(f"{_mark(line)}{line}\n" for line in authorized_keys.splitlines())


def _mark(line: str) -> str:
    try:
        return f'environment="{session.KEY}={key_id(line)}" '
    except (binascii.Error, ValueError, IndexError):
        # No key opens anything by such a line.
        return ""


def arguments(tini: str, shell: str = session.SHELL) -> list[str]:
    """The command line of process 1; without a tini, sshd becomes process 1 itself and reaps what is left to it."""
    first = [shell, f"{CONFIG_DIRECTORY}/{boot_steps.FIRST}"]
    return [tini, "--", *first] if tini else first


def server(sshd: str) -> str:
    """The command line of the SSH server, as text of sh(1)."""
    return shlex.join([sshd, "-D", "-e", "-f", f"{CONFIG_DIRECTORY}/{CONFIG}"])


async def make_host_key(directory: Path, comment: str) -> str:
    """Make an ed25519 host key in `directory`; gives the public key.

    Raises:
        EngineError: ssh-keygen(1) is not there, or failed.
    """
    program = shutil.which("ssh-keygen", path=search_path())
    if program is None:
        raise EngineError("machine", "ssh-keygen is not installed", "see `irons doctor`: ssh")
    path = directory / HOST_KEY
    process = await asyncio.create_subprocess_exec(
        program,
        *("-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)),
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=PIPE,
    )
    try:
        _, complaint = await process.communicate()
    finally:
        # A cancelled call must not leave one behind that writes into the directory of the next.
        await asyncio.shield(end(process))
    if process.returncode:
        raise EngineError("failed", f"ssh-keygen: {complaint.decode(errors='replace').strip()}")
    return path.with_suffix(".pub").read_text(encoding="utf-8").strip()
