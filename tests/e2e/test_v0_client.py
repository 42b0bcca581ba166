"""What a client of the v0 API does with our answers, with a real sandbox at the other end."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.lab import Person


def v0_words(answer: dict[str, Any], *, strict: bool) -> list[str]:
    """The arguments of ssh as a v0 client builds them: port, options, destination, then `command` where there is one."""
    words = ["-p", str(answer["port"])]
    if not strict:
        words += [
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "LogLevel=ERROR",
        ]
    words.append(f"{answer['username']}@{answer['host']}")
    return [*words, answer["command"]] if answer.get("command") else words


def personal_ssh(person: Person, answer: dict[str, Any]) -> Path:
    """A directory whose `ssh` is OpenSSH with this person's key and known hosts, as it is with a home in passwd(5)."""
    directory = person.home / "bin"
    directory.mkdir(exist_ok=True)
    known, config = directory / "known_hosts", directory / "config"
    known.write_text("".join(f"[{answer['host']}]:{answer['port']} {key}\n" for key in answer["host_keys"]))
    config.write_text(
        f"IdentityFile {person.home}/.ssh/id_ed25519\nUserKnownHostsFile {known}\nBatchMode yes\n"
    )
    program = directory / "ssh"
    program.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {config} "$@"\n')
    program.chmod(0o755)
    for made in (directory, known, config):
        made.chmod(0o755)
    return directory


@pytest.mark.parametrize("strict", [False, True], ids=["ssh", "strict-hostkeys"])
@pytest.mark.parametrize("printed", [False, True], ids=["run", "command"])
def test_ssh_of_a_v0_client_is_a_shell(person: Person, sandbox: str, *, strict: bool, printed: bool) -> None:
    """`ssh` of a v0 client, and the line that its `--command` prints, lead to a shell, host keys checked or not."""
    transport = httpx.HTTPTransport(uds=str(person.home / "run/irons/api.sock"), verify=False)
    with httpx.Client(transport=transport, base_url="http://irons", timeout=60) as client:
        answer = client.get(f"/sandboxes/{sandbox}/ssh").raise_for_status().json()
    words = ["ssh", *v0_words(answer, strict=strict)]
    # The line is printed with spaces between the words, unquoted.
    line = " ".join(words) if printed else shlex.join(words)
    path = personal_ssh(person, answer)
    done = subprocess.run(
        [*person.lab.enter(user=person.user), "sh", "-c", line],
        env={**person.env, "PATH": f"{path}:{person.env['PATH']}"},
        input="id -un\nexit 7\n",
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert (done.stdout.splitlines()[-1:], done.returncode) == (["irons"], 7), done.stderr
