"""Programs whose connections wait for a person succeed on their first try: real ones, in a real sandbox, answered in a real terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.clients import HERE, PYTHON, WGET, pack_clients
from tests.e2e.lab import Person, eventually
from tests.e2e.test_ask import answer, answers, watched
from tests.repl.terminal import Terminal

SSH = "ssh -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -i ~/kit/key"
APT = (
    "-oDir::Etc::sourcelist=$HOME/kit/list -oDir::Etc::sourceparts=- -oDir::State::lists=$HOME/kit/lists "
    "-oDir::Cache=$HOME/kit/cache -oAcquire::Retries=0 -oAPT::Update::Error-Mode=any -oAcquire::http::Timeout=600"
)
PIP = "-m pip --isolated --retries 0 --timeout 600 --no-cache-dir download --no-deps -d ~/kit/wheels"
FETCHES = {
    "requests": "import sys, requests; requests.get(sys.argv[1], verify=sys.argv[2]).raise_for_status()",
    "httpx": "import ssl, sys, httpx; httpx.get(sys.argv[1], timeout=600, verify=ssl.create_default_context(cafile=sys.argv[2])).raise_for_status()",
    "aiohttp": """
import aiohttp, asyncio, sys
async def main():
    limits = aiohttp.ClientTimeout(total=600, sock_connect=600)
    async with aiohttp.ClientSession(raise_for_status=True) as session, session.get(sys.argv[1], timeout=limits): pass
asyncio.run(main())
""",
}
"""What Python runs, by the client that it uses, with a URL and the authority's certificate."""
ROUNDS = 10
"""How often those are tried that no one was asked about, because the machine stood still."""


class Try(NamedTuple):
    """A program, and the place that it is asked about, which is of no other program here. None tries again by itself."""

    place: str
    line: str


TRIES = (
    Try("files.example.test:80", "curl -sSf http://files.example.test/hello"),
    Try("web.example.test:443", "curl -sSf --cacert ~/kit/cert.pem https://web.example.test/hello"),
    Try(
        "other.example.test:443",
        "git -c http.sslCAInfo=$HOME/kit/cert.pem ls-remote --exit-code https://other.example.test/repo.git",
    ),
    Try(
        "git.example.test:22",
        f"GIT_SSH_COMMAND='{SSH}' git ls-remote --exit-code ssh://root@git.example.testLAB/repo.git",
    ),
    Try(
        "apt.example.test:80",
        "mkdir -p ~/kit/lists/partial ~/kit/cache/archives/partial && "
        f"echo 'deb [trusted=yes] http://apt.example.test/registry/debian ./' >~/kit/list && apt-get {APT} update",
    ),
)

PACKED = (
    Try(
        "files.example.test:443",
        f"{WGET} -nv -O - --tries 1 --ca-certificate $HOME/kit/cert.pem https://files.example.test/hello",
    ),
    *(
        Try(
            f"{host}:{443 if scheme == 'https' else 80}",
            f"{PYTHON} -c '{FETCHES[name]}' {scheme}://{host}/hello ~/kit/cert.pem",
        )
        for name, scheme, host in (
            ("requests", "http", "web.example.test"),
            ("httpx", "https", "apt.example.test"),
            ("aiohttp", "http", "other.example.test"),
        )
    ),
    Try(
        "git.example.test:80",
        f"{PYTHON} {PIP} --trusted-host git.example.test -i http://git.example.test/registry/simple thing",
    ),
)
"""Programs that the image has not."""


@pytest.fixture(scope="session")
def packed(place: Path) -> tuple[Path, list[Try]]:
    """The archive of those programs, and those that are in it."""
    tar = place / "clients.tar"
    has_wget = pack_clients(tar)
    tar.chmod(0o644)
    return tar, [each for each in PACKED if has_wget or WGET not in each.line]


@pytest.fixture
def patient(person: Person) -> Iterator[Person]:
    """A person whose sandboxes' connections wait as long as can be set: a machine may stand still before the answer is there."""
    config = person.home / ".config/irons/config.toml"
    before = config.read_text()
    config.write_text("[local]\nask_hold = 60\n")
    person.ok("local", "down")
    yield person
    config.write_text(before)
    person.ok("local", "down")


def test_programs_succeed_on_their_first_try(
    patient: Person, sandbox: str, packed: tuple[Path, list[Try]]
) -> None:
    """Each is asked about once, answered by a key in `irons ask --stay`, and succeeds; nothing was refused that a person was asked about in time."""
    patient.ok("egress", "mode", "ask", "--sandbox", sandbox)
    for name, file in (("cert.pem", "cert.pem"), ("key", "internet_key")):
        put = f"umask 077 && mkdir -p ~/kit && cat >~/kit/{name}"
        text = (patient.lab.directory / file).read_text()
        assert patient.run("exec", sandbox, "--", "sh", "-c", put, text=text).returncode == 0
    tar, more = packed
    unpack = f"mkdir {HERE} && tar -xf - -C {HERE}"
    with (
        tar.open() as archive,
        patient.start("exec", sandbox, "--", "sh", "-c", unpack, stdin=archive) as unpacking,
    ):
        _, said = unpacking.communicate(timeout=300)
        assert unpacking.returncode == 0, said
    words = [*patient.lab.enter(user=patient.user), *patient.program, "ask", "--stay"]
    env = {**patient.env, "TERM": "xterm-256color"}
    left, said = [*TRIES, *more], ""
    with Terminal(words, env, columns=120, cwd=str(patient.home)) as screen:
        for _ in range(ROUNDS):
            eventually(lambda: watched(patient))
            failed, said = tried(patient, sandbox, screen, left)
            assert not [each.place for each in failed if not unasked(patient, sandbox, each.place)], said
            left = failed
            if not left:
                break
        screen.send("q")
        assert screen.ended() == 0
    assert not left, said
    assert sorted(answers(patient, sandbox)) == [("stop", "cli")] * len([*TRIES, *more])


def tried(person: Person, sandbox: str, screen: Terminal, tries: list[Try]) -> tuple[list[Try], str]:
    """Run programs one after the other and answer what is asked; give those that failed, and what was printed."""
    script = "\n".join(
        f"( {each.line} ) >~/kit/said 2>&1 || {{ echo {each.place}; cat ~/kit/said >&2; }}" for each in tries
    ).replace("LAB", str(person.lab.directory))
    answered: set[str] = set()
    with person.start("exec", sandbox, "--", "sh", "-c", script) as programs:

        def asked() -> set[str]:
            return {*re.findall(r"^> (\S+:\d+)$", screen.text, re.MULTILINE)} - answered

        while programs.poll() is None:
            screen.until(lambda: bool(asked()) or programs.poll() is not None)
            for place in asked():
                answer(screen, "s", rf"{re.escape(place)} is allowed until it stops for {sandbox}")
                answered.add(place)
        failed, said = programs.communicate(timeout=300)
        assert programs.returncode == 0, said
    return [each for each in tries if each.place in failed.split()], said


def unasked(person: Person, sandbox: str, place: str) -> bool:
    """Whether the log has a refusal because no one counted as watching, or no one answered in time: no answer came to the program."""
    host, _, _ = place.partition(":")
    return any(
        each["cause"] == "uncovered" or "did not answer in time" in each["reason"]
        for each in person.events(sandbox)
        if each["host"] == host and each["verdict"] == "blocked"
    )
