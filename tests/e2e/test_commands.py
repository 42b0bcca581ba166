"""The commands that reach into a sandbox, and those that learn from its log, with real sandboxes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import clear_policy
from tests.e2e.lab import Person, eventually


@pytest.fixture(scope="module")
def box(person: Person) -> Iterator[str]:
    """One running sandbox for tests that leave it as it is."""
    clear_policy(person)
    person.ok("create", "box", timeout=180)
    yield "box"
    person.run("destroy", "box", "--force", timeout=180)
    clear_policy(person)


def processes(person: Person, name: str, token: str) -> str:
    """Return the processes inside whose command line has a token."""
    return person.run("exec", name, "--", "sh", "-c", f"pgrep -f '^sleep {token}' || true").stdout.strip()


def test_how_a_program_ended_is_told(person: Person, box: str) -> None:
    """A signal, and the memory limit where one is enforced, are the reason; what a killed call ran is ended."""
    for number, name in ((11, "SEGV"), (2, "INT"), (13, "PIPE")):
        done = person.run("exec", box, "--", "sh", "-c", f"kill -{name} $$")
        told = f"irons: killed by signal {number} ({name})\n"
        assert (done.returncode, done.stderr) == (128 + number, told)
    report = json.loads(person.run("exec", box, "-o", "json", "--", "sh", "-c", "kill -PIPE $$").stdout)
    assert (report["exit"], report["signal"]) == (141, 13)
    nap = "98122.5"
    with person.start(
        "exec", box, "-n", "--", "sh", "-c", f"setsid -f sleep {nap}; exec sleep {nap}"
    ) as call:
        eventually(lambda: len(processes(person, box, nap).splitlines()) == 2, what="the program to run")
        call.kill()
        call.wait()
        eventually(lambda: not processes(person, box, nap), what="all of it to end")
    if person.user is not None:
        return
    person.ok("create", "small", "--memory", "128M", timeout=180)
    try:
        if "memory_note" in json.loads(person.ok("status", "small", "-o", "json"))["metadata"]:
            return
        done = person.run("exec", "small", "--", "tail", "/dev/zero", timeout=180)
        assert (done.returncode, done.stderr) == (
            137,
            "irons: out of memory: the sandbox's limit is 128 MiB\n",
        )
        assert json.loads(person.ok("status", "small", "-o", "json"))["metadata"]["oom_kills"] in (1, "1")
    finally:
        person.run("destroy", "small", "--force", timeout=180)


def test_a_name_that_is_used_again_leads_to_the_new_machine(person: Person) -> None:
    """The connection that is kept to a destroyed sandbox serves nothing of the next one of its name."""
    try:
        person.ok("create", "again", timeout=180)
        assert person.ok("exec", "again", "--", "sh", "-c", "echo old >~/mark; cat ~/mark") == "old\n"
        person.ok("destroy", "again", "--force", timeout=180)
        person.ok("create", "again", timeout=180)
        done = person.run("exec", "again", "--", "sh", "-c", "ls ~/mark || echo new")
        assert (done.returncode, done.stdout) == (0, "new\n")
    finally:
        person.run("destroy", "again", "--force", timeout=180)


def test_exec_takes_words_variables_and_a_directory(person: Person, box: str) -> None:
    """`exec` hands words, variables, a directory, stdin and the exit code through."""
    secret = "it's $a\n `secret`"
    told = Person(person.lab, person.home, person.program, person.user, {"TOKEN": secret})
    script = 'printf "%s|%s|%s|" "$TOKEN" "$PWD" "$1"; cat; exit 9'
    done = told.run(
        *("exec", box, "--env", "TOKEN", "--workdir", "/usr/share", "--timeout", "300"),
        *("--", "sh", "-c", script, "sh", "a  b"),
        text="from stdin",
    )
    assert done.returncode == 9, done.stderr
    assert done.stdout == f"{secret}|/usr/share|a  b|from stdin"


def test_a_timeout_ends_daemons_and_what_sudo_started(person: Person, box: str) -> None:
    """On timeout nothing of it is left inside: neither daemons that left their session, nor what runs as root.

    What got away because it is root's and has forgotten who started it does not keep the call from ending.
    """
    nap = "98123.5"
    script = f"setsid -f sleep {nap}; sudo setsid -f sleep {nap}; sudo sleep {nap} & sleep {nap}"
    # What is left would go on for a day.
    done = person.run("exec", box, "--timeout", "2", "--", "sh", "-c", script, timeout=180)
    assert done.returncode == 124, done.stderr
    assert "timed out after 2 s" in done.stderr
    eventually(
        lambda: len(processes(person, box, nap).splitlines()) <= 1, what="all but root's own daemon to end"
    )


def test_what_was_refused_is_said_at_the_end(person: Person, sandbox: str) -> None:
    """`exec` ends with what egress refused while it ran; `audit why` tells the reason and the way."""
    person.ok("egress", "mode", "deny", "--sandbox", sandbox)
    person.run("exec", sandbox, "--", "curl", "-s", "-m", "60", "http://before.example.test/")
    done = person.run(
        "exec", sandbox, "--", "sh", "-c", "curl -s -m 60 http://other.example.test/ >&2; exit 3"
    )
    assert done.returncode == 3
    said = done.stderr.splitlines()
    assert any(line.startswith("egress denied 1 connection") for line in said), done.stderr
    assert any("other.example.test:80" in line for line in said)
    assert not any("before.example.test" in line for line in said)
    why = json.loads(person.ok("audit", "why", sandbox, "-o", "json"))
    assert (why["host"], why["port"]) == ("other.example.test", 80)
    assert why["fix"] == f"irons egress allow other.example.test --sandbox {sandbox}"
    assert why["now"] is None
    person.ok(*why["fix"].split()[1:])
    why = json.loads(person.ok("audit", "why", sandbox, "-o", "json"))
    assert (why["host"], why["fix"]) == ("other.example.test", "")
    assert why["now"] == {"verdict": "allowed", "rule": "other.example.test", "sandbox": sandbox}
    assert (
        person.run("exec", sandbox, "--", "curl", "-sf", "-m", "60", "http://other.example.test/").returncode
        == 0
    )


def test_all_that_was_refused_is_said_however_late(person: Person, sandbox: str) -> None:
    """Also what was refused at the moment in which the program ended is in the report after it."""
    person.ok("egress", "mode", "deny", "--sandbox", sandbox)
    hosts = [f"h{number}.example.test" for number in range(8)]
    script = "; ".join(f"curl -s -m 60 http://{host}/ >/dev/null" for host in hosts)
    done = person.run("exec", sandbox, "--", "sh", "-c", script)
    assert f"egress denied {len(hosts)} connections" in done.stderr
    assert [host for host in hosts if f"  {host}:80" not in done.stderr] == []
    line = "curl -s -m 60 http://late.example.test/ >/dev/null"
    assert "late.example.test" not in person.run("ssh", sandbox, "--", line).stderr
    said = person.run("ssh", sandbox, "--refused", "--", line).stderr
    assert "egress denied 1 connection" in said
    assert "  late.example.test:80" in said


def test_what_the_floor_refused_opens_by_the_command_that_why_tells(person: Person, sandbox: str) -> None:
    """`egress check` and the gateway agree about a private address; `audit why` tells the command that pins it, and that it is open by now."""
    person.ok("egress", "allow", "--sandbox", sandbox, "10.9.8.7", "rebind-private.example.test")
    for host in ("10.9.8.7", "rebind-private.example.test"):
        request = ("exec", sandbox, "--", "curl", "-sf", "-m", "60", f"http://{host}/")
        assert person.run(*request).returncode == 22
        assert (
            person.run("egress", "check", "10.9.8.7:80", "--sandbox", sandbox).returncode == 7
            or host != "10.9.8.7"
        )
        why = json.loads(person.ok("audit", "why", sandbox, host, "-o", "json"))
        assert why["fix"] == f"irons egress allow {host}:80 --private 10.9.8.7 --sandbox {sandbox}"
        assert why["now"] is None
        person.ok(*why["fix"].split()[1:])
        why = json.loads(person.ok("audit", "why", sandbox, host, "-o", "json"))
        opened = {"verdict": "allowed", "rule": f"{host}:80", "sandbox": sandbox, "private": "10.9.8.7"}
        assert (why["now"], why["fix"]) == (opened, "")
        done = person.run(*request)
        assert json.loads(done.stdout)["server"] == "10.9.8.7", done.stderr
    assert person.run("egress", "check", "10.9.8.7:80", "--sandbox", sandbox).returncode == 0
    person.run("exec", sandbox, "--", "curl", "-s", "-m", "60", "http://169.254.169.254/")
    assert json.loads(person.ok("audit", "why", sandbox, "169.254.169.254", "-o", "json"))["fix"] == ""


def test_a_sandbox_is_locked_to_what_it_tried(person: Person, sandbox: str) -> None:
    """`egress suggest` lists what was tried and has an address, `egress lock` allows that, and nothing else passes from then on."""
    script = (
        "for n in 1 2; do curl -s -m 60 http://web.example.test/; done; curl -s -m 60 http://other.example.test/;"
        " curl -s -m 60 http://nowhere.example.test/"
    )
    person.run("exec", sandbox, "--", "sh", "-c", script)
    found = json.loads(person.ok("egress", "suggest", sandbox, "-o", "json"))
    assert {row["pattern"]: row["marks"] for row in found} == {
        "web.example.test": [],
        "other.example.test": ["once"],
    }
    locked = person.run("egress", "lock", sandbox, "--yes")
    assert locked.stdout.splitlines() == ["mode: warn (inherited) -> deny", "+ allow web.example.test"]
    assert person.ok("egress", "mode") == f"warn (but {sandbox}: deny)\n"
    assert person.run("egress", "check", "web.example.test", "--sandbox", sandbox).returncode == 0
    assert person.run("egress", "check", "other.example.test", "--sandbox", sandbox).returncode == 7
    assert (
        person.run("exec", sandbox, "--", "curl", "-sf", "-m", "60", "http://web.example.test/").returncode
        == 0
    )
    assert (
        person.run("exec", sandbox, "--", "curl", "-sf", "-m", "60", "http://other.example.test/").returncode
        == 22
    )


def test_born_locked(person: Person) -> None:
    """A sandbox created with a mode and rules has them before its first packet."""
    try:
        done = person.run("create", "born", "--mode", "deny", "--allow", "web.example.test", timeout=180)
        assert done.returncode == 0, done.stderr
        assert "mode is warn" not in done.stderr
        assert (
            person.run("exec", "born", "--", "curl", "-sf", "-m", "60", "http://web.example.test/").returncode
            == 0
        )
        assert (
            person.run(
                "exec", "born", "--", "curl", "-sf", "-m", "60", "http://evil.example.test/"
            ).returncode
            == 22
        )
    finally:
        person.run("destroy", "born", "--force", timeout=180)


def test_a_policy_file_goes_round(person: Person, box: str) -> None:
    """What `export` prints is applied without a difference, to the account and to a sandbox."""
    policy = person.home / "policy.toml"
    policy.write_text(
        '[allow]\n"web.example.test" = "the web"\n"*.example.org:22" = ""\n[deny]\n"203.0.113.66" = "not that"\n'
    )
    for more in ([], ["--sandbox", box]):
        done = person.run("egress", "apply", str(policy), *more)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 3
        assert person.run("egress", "diff", str(policy), *more).returncode == 0
        copy = person.home / "copy.toml"
        copy.write_text(person.ok("egress", "export", *more))
        assert person.run("egress", "diff", str(copy), *more).returncode == 0
        policy_now = person.ok("egress", "export", *more)
        assert '"web.example.test" = "the web"' in policy_now


def test_files_go_in_and_come_out(person: Person, box: str) -> None:
    """`scp` copies both ways, by the cell's own descriptor."""
    sent, back = person.home / "sent", person.home / "back"
    sent.write_text("text")
    assert person.run("scp", str(sent), f"{box}:/tmp/there is").returncode == 0
    done = person.run("scp", f"{box}:/tmp/there is", str(back))
    assert done.returncode == 0, done.stderr
    assert back.read_text() == "text"


def test_plain_ssh_finds_it_by_name(person: Person, box: str) -> None:
    """Once `ssh-config` is installed, plain ssh leads there, its host key checked; uninstalled, it leaves nothing."""
    person.ok("ssh-config", "--install")
    config = person.home / ".ssh" / "config"
    done = subprocess.run(
        [*person.lab.enter(user=person.user), "ssh", "-F", str(config), f"{box}.irons", "id -un"],
        env=person.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "irons\n"), done.stderr
    person.ok("ssh-config", "--uninstall")
    assert not config.exists()


def test_below_local_it_is_always_this_machine(person: Person, box: str) -> None:
    """`irons local …` never turns to the server that the settings name."""
    away = {"IRONS_API_URL": "http://127.0.0.1:9", "IRONS_API_KEY": "other"}
    told = Person(person.lab, person.home, person.program, person.user, away)
    assert f"sandbox\t{box}\n" in told.ok("local", "uninstall", "--dry-run")
    assert told.ok("local", "key", "list") == person.ok("local", "key", "list")
