"""Mode `ask` from end to end: a program waits, a question is answered in another terminal, and nothing waits once nobody is there."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.e2e.lab import Person, eventually
from tests.repl.terminal import Terminal

HOST = "other.example.test"
AGENTS = "web.example.test"
FETCH = f"until curl -sf -m 30 http://{HOST}/hello; do sleep 0.2; done"


PROGRAMS = {
    "curl.example.test": "curl -s -m 60 http://curl.example.test/",
    "shell.example.test": "(exec 3<>/dev/tcp/shell.example.test/80; "
    r'printf "GET / HTTP/1.1\r\nHost: shell.example.test\r\n\r\n" >&3; sleep 60 <&3; :)',
    "liar.example.test": r'(exec -a "$(printf "\033[2Jirons: allowed")" curl -s -m 60 http://liar.example.test/)',
}
SHOWN = {
    "curl.example.test": "curl -s -m 60 http://curl.example.test/",
    "shell.example.test": "sleep 60",
    "liar.example.test": r"\x1b[2Jirons: allowed -s -m 60 http://liar.example.test/",
}
"""What is shown of the programs: of a shell and its child that both have the connection, the child."""


def watched(person: Person, **query: int) -> bool:
    """Whether the server counts somebody as watching."""
    transport = httpx.HTTPTransport(uds=str(person.home / "run/irons/api.sock"), verify=False)
    with httpx.Client(transport=transport, base_url="http://irons", timeout=60) as client:
        return bool(client.get("/questions", params=query).raise_for_status().json()["watched"])


def test_a_program_waits_for_a_person(person: Person, sandbox: str) -> None:
    """The question comes to who runs `irons ask`; the answer lets the program through, and is in both logs."""
    person.ok("egress", "mode", "ask", "--sandbox", sandbox)
    assert person.run("egress", "check", HOST, "--sandbox", sandbox).returncode == 7
    with person.start("ask", "--stay", "-o", "jsonl", stdout=subprocess.PIPE) as asker:
        assert asker.stdout is not None
        with person.start("exec", sandbox, "--", "sh", "-c", FETCH, stdout=subprocess.PIPE) as program:
            question = json.loads(asker.stdout.readline())
            assert (question["sandbox"], question["pattern"]) == (sandbox, f"{HOST}:80")
            listed = json.loads(person.ok("ask", "--list", "-o", "json"))
            assert question["id"] in {each["id"] for each in listed}
            said = person.ok("ask", "answer", question["id"], "always")
            assert said.startswith(f"{HOST}:80 is allowed for {sandbox}")
            assert program.wait(180) == 0
        asker.kill()
    # The lease of who was killed is over in seconds; then it is refused at once, and no question is put.
    eventually(lambda: not watched(person))
    refused = person.inside(sandbox, "curl -s -m 60 http://new.example.test/").stdout
    assert "egress denied: new.example.test:80" in refused
    assert "person" not in refused
    causes = {(each["host"], each["verdict"]) for each in person.events(sandbox)}
    assert (HOST, "allowed") in causes
    changes = json.loads(person.ok("audit", "changes", sandbox, "-o", "json"))
    (answered,) = [each for each in changes if each["what"] == "question-answered"]
    assert answered["after"]["answer"] == "always"


def test_the_program_that_waits_is_shown(person: Person, sandbox: str) -> None:
    """Each question gets the words of its program, and its number inside; what a sandbox makes of them has no control characters."""
    person.ok("egress", "mode", "ask", "--sandbox", sandbox)
    tries = " & ".join(f"(while :; do {each}; sleep 0.2; done) 2>/dev/null" for each in PROGRAMS.values())
    found: dict[str, tuple[str, int]] = {}

    def known() -> bool:
        # As a person who has just pressed a key.
        assert watched(person, watch=1, idle=0)
        for each in json.loads(person.ok("ask", "--list", "-o", "json")):
            if each["program"] == SHOWN[each["host"]]:
                found[each["host"]] = (each["program"], each["pid"])
        return len(found) == len(PROGRAMS)

    eventually(lambda: watched(person, watch=1, idle=0))
    with person.start("exec", sandbox, "--", "bash", "-c", tries, stdout=subprocess.DEVNULL) as programs:
        eventually(known, within=300)
        ids = person.inside(sandbox, "cat /proc/sys/kernel/pid_max").stdout
        assert all(1 < pid < int(ids) for _, pid in found.values())
        programs.kill()


def test_the_agent_asks_before_it_tries(person: Person, sandbox: str) -> None:
    """Its request comes to the person with its words, waits for the answer, and what was let pass once then passes."""
    person.ok("egress", "mode", "ask", "--sandbox", sandbox)
    wanted = json.dumps({"host": AGENTS, "port": 80, "reason": "to read \x1b[2J a page", "wait": 300})
    post = f"curl -s -m 400 http://irons.internal/ask -H 'Content-Type: application/json' -d '{wanted}'"
    with person.start("ask", "--stay", "-o", "jsonl", stdout=subprocess.PIPE) as asker:
        assert asker.stdout is not None
        eventually(lambda: watched(person))
        with person.start("exec", sandbox, "--", "sh", "-c", post, stdout=subprocess.PIPE) as program:
            question = json.loads(asker.stdout.readline())
            assert (question["pattern"], question["count"], question["requests"]) == (f"{AGENTS}:80", 0, 1)
            assert question["reason"] == "to read \\x1b[2J a page"
            person.ok("ask", "answer", question["id"], "once")
            assert program.stdout is not None
            assert json.loads(program.stdout.read())["state"] == "allowed"
            assert program.wait(180) == 0
        assert person.inside(sandbox, f"curl -sf -m 60 http://{AGENTS}/hello").returncode == 0
        asker.kill()


def answer(screen: Terminal, key: str, said: str) -> None:
    """Press a key in an open list until it counts."""
    while not re.search(said, screen.text):
        screen.send(key)
        screen.until(rf"too\s+soon|{said}")
        if re.search(r"too\s+soon", screen.text):
            # With one question it chooses the same.
            screen.send("j")
            screen.until(lambda: not re.search(r"too\s+soon", screen.text))


def answers(person: Person, sandbox: str) -> list[tuple[str, str]]:
    """The answers in the change log, with the face that gave each."""
    changes = json.loads(person.ok("audit", "changes", sandbox, "-o", "json"))
    asked = [each for each in changes if each["what"] == "question-answered"]
    return [(each["after"]["answer"], each["claimed_face"]) for each in asked]


def test_the_live_view_answers(person: Person, sandbox: str) -> None:
    """`watch` counts as watching: the question is above its hosts, `!` and one letter let the program through, and the view shows it."""
    person.ok("egress", "mode", "ask", "--sandbox", sandbox)
    words = [*person.lab.enter(user=person.user), *person.program, "audit", "watch", sandbox]
    env = {**person.env, "TERM": "xterm-256color"}
    with Terminal(words, env, columns=120, cwd=str(person.home)) as screen:
        eventually(lambda: watched(person))
        with person.start("exec", sandbox, "--", "sh", "-c", FETCH, stdout=subprocess.PIPE) as program:
            screen.until(rf"\? {sandbox}: {HOST}:80 \[!\]")
            screen.send("!")
            screen.until(rf"irons ask: 1 open, of all sandboxes\n> {HOST}:80")
            answer(screen, "h", rf"{HOST}:80 is allowed for an hour for {sandbox}")
            assert program.wait(180) == 0
        screen.send("q")
        screen.until(rf"ALLOWED +{HOST}:80")
        screen.send("q")
        assert screen.ended() == 0
    assert answers(person, sandbox) == [("hour", "watch")]


def test_xonsh_answers(person: Person, sandbox: str) -> None:
    """The shell counts as watching: the question is above the line that is typed, the chord and one letter let the program through."""
    person.ok("egress", "mode", "ask", "--sandbox", sandbox)
    (person.home / ".xonshrc").write_text("$PROMPT = 'here> '\n$XONSH_HISTORY_BACKEND = 'dummy'\n")
    # It is installed with irons: next to the person's program, or to the interpreter that runs it.
    words = [*person.lab.enter(user=person.user), str(Path(person.program[0]).parent / "xonsh")]
    env = {**person.env, "TERM": "xterm-256color"}
    with Terminal(words, env, columns=120, cwd=str(person.home)) as screen:
        screen.until("here>")
        eventually(lambda: watched(person))
        screen.send("1000 + 7")
        screen.until(r"here> 1000 \+ 7")
        with person.start("exec", sandbox, "--", "sh", "-c", FETCH, stdout=subprocess.PIPE) as program:
            screen.until(rf"\? {sandbox}: {HOST}:80 \[Alt-Q\]")
            screen.send("\x1bq")
            screen.until(rf"> {HOST}:80")
            answer(screen, "s", rf"{HOST}:80 is allowed until it stops for {sandbox}")
            assert program.wait(180) == 0
        screen.send("q")
        screen.until(lambda: screen.line_of_cursor().endswith("here> 1000 + 7"))
        screen.send("\r")
        screen.until(r"\n1007\n")
    assert [said for said, _ in answers(person, sandbox)] == ["stop"]


def test_the_prompt_answers(person: Person, sandbox: str) -> None:
    """An open prompt counts as watching; the chord and one letter let the program through, while a line is being typed."""
    person.ok("egress", "mode", "ask", "--sandbox", sandbox)
    host = "other.example.test:80"
    words = [*person.lab.enter(user=person.user), *person.program]
    env = {**person.env, "TERM": "xterm-256color"}
    with Terminal(words, env, columns=120, cwd=str(person.home)) as screen:
        screen.until(rf"{sandbox}: ask")
        eventually(lambda: watched(person))
        screen.send("status oshan")
        with person.start("exec", sandbox, "--", "sh", "-c", FETCH, stdout=subprocess.PIPE) as program:
            screen.until(rf"\? {sandbox}: {host}")
            screen.send("\x1bOQ")
            screen.until(rf"> {host}")
            answer(screen, "s", rf"irons: {host} is allowed until it stops for {sandbox}")
            assert program.wait(180) == 0
        screen.until(lambda: screen.line_of_cursor() == "irons> status oshan")
    assert answers(person, sandbox) == [("stop", "prompt")]


@pytest.mark.parametrize("person", ["root"], indirect=True)
def test_a_prompt_that_no_one_reads_holds_little(person: Person, sandbox: str) -> None:
    """With an open prompt and no key, 1,000 new hosts wait three times and no more: a run takes three holds longer than in mode `deny`.

    A machine that stands still for seconds has a key look later than it was, and then three more wait.
    """
    person.ok("egress", "mode", "ask", "--sandbox", sandbox)
    words = [*person.lab.enter(user=person.user), *person.program]
    env = {**person.env, "TERM": "xterm-256color"}
    with Terminal(words, env, columns=120, cwd=str(person.home)) as screen:
        screen.until(rf"{sandbox}: ask")
        eventually(lambda: watched(person))
        tries = "curl -s -m 600 -o /dev/null -w '%{http_code}\\n' 'http://h[0-999].new.example.test/'"
        with person.start("exec", sandbox, "--", "sh", "-c", tries) as program:
            said, _ = program.communicate(timeout=1000)
        screen.until(rf"\? {sandbox}: ")
    assert said.split() == ["403"] * 1000
    found = person.events(sandbox)
    held = [each["host"] for each in found if "did not answer in time" in each["reason"]]
    assert 1 <= len(held) <= 9
    # So many hosts in so short a time are folded, and counted.
    assert sum(each["count"] for each in found if each["verdict"] == "blocked") == 1000
