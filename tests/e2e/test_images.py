"""Images by the commands that people use, with real sandboxes on them; and what a sandbox changes on its host: nothing."""

from __future__ import annotations

import json
import subprocess

from tests.e2e.lab import Person


def sizes(person: Person) -> dict[str, int]:
    """Size of each image by its name."""
    return {row["name"]: row["size"] for row in json.loads(person.ok("local", "image", "list", "-o", "json"))}


def test_a_sandbox_becomes_an_image_and_goes_to_another_machine_by_file(person: Person, sandbox: str) -> None:
    """What was saved has the files and none of the keys; it is exported, imported, started from, and removed when nothing uses it."""
    script = "echo kept > note; sudo sh -c 'echo root > /etc/mine'; mkdir -p .ssh; echo ssh-ed25519 AAAA > .ssh/authorized_keys"
    assert person.inside(sandbox, script).returncode == 0
    # As the scripts of Java's packages do it; the image of this test may have no man pages at all.
    slave = "--slave /usr/share/man/man1/ours.1.gz ours.1.gz /etc/mine"
    linked = person.inside(
        sandbox, f"sudo update-alternatives --install /usr/bin/ours ours /bin/true 1 {slave}"
    )
    assert linked.returncode == 0, linked.stderr
    key = "cut -d' ' -f2 /run/irons/ssh_host_ed25519_key.pub"
    first = person.inside(sandbox, key).stdout
    running = person.run("local", "image", "save", sandbox, "--as", "mine")
    assert (running.returncode, "stop" in running.stderr) == (5, True)
    person.ok("stop", sandbox)
    person.ok("local", "image", "save", sandbox, "--as", "mine", timeout=180)
    file = person.home / "mine.tar"
    person.ok("local", "image", "export", str(file), "--image", "mine", timeout=180)
    listed = subprocess.run(["tar", "-tf", str(file)], capture_output=True, text=True, check=True).stdout
    names = {name.removeprefix("./").rstrip("/") for name in listed.splitlines()}
    assert {"etc/mine", "home/irons/note"} <= names
    assert not [name for name in names if "ssh_host_" in name or name.endswith("authorized_keys")]
    person.ok("local", "image", "import", str(file), "--as", "again", timeout=180)
    assert {"debian", "mine", "again"} <= set(sizes(person))
    try:
        person.ok("create", "copy", "--image", "again", timeout=180)
        assert person.inside("copy", "cat note /etc/mine").stdout == "kept\nroot\n"
        assert person.inside("copy", key).stdout != first
        used = person.run("local", "image", "remove", "again")
        assert (used.returncode, "copy" in used.stderr) == (5, True)
    finally:
        person.ok("destroy", "copy", "--force", timeout=180)
        for name in ("mine", "again"):
            person.ok("local", "image", "remove", name, timeout=180)
    assert not {"mine", "again"} & set(sizes(person))
    assert person.run("local", "image", "remove", "again").returncode == 3
    assert person.run("create", "copy", "--image", "again").returncode != 0


def test_nothing_changes_on_the_hosts_network(person: Person, sandbox: str) -> None:
    """With a sandbox at work the machine's devices, addresses, routes, rules, filters and settings are those that it has without."""

    def host() -> str:
        script = (
            "ip -o link | cut -d' ' -f2-; ip -o addr | sed 's/valid_lft.*//'; ip route show table all; ip -6 route show table all;"
            " ip rule; nft list ruleset; sysctl net.ipv4.ip_forward net.ipv4.ip_unprivileged_port_start net.ipv6.conf.all.forwarding;"
            " cut -d' ' -f2 /proc/mounts"
        )
        words = [*person.lab.enter(), "sh", "-c", script]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    assert person.inside(sandbox, "curl -s -m 60 http://web.example.test/").returncode == 0
    running = host()
    assert "sb_" not in running
    person.ok("stop", sandbox)
    person.ok("local", "down")
    assert host() == running
    person.ok("local", "up")


def test_a_line_is_tried_in_a_copy(person: Person, sandbox: str) -> None:
    """It runs as in the sandbox, under its policy; the files that it changed as root are shown, and nothing of the copy is left, nor anything in the original."""
    person.ok("egress", "mode", "deny", "--sandbox", sandbox)
    before = [row["name"] for row in json.loads(person.ok("list", "-o", "json"))]
    assert person.inside(sandbox, "echo then > note; mkdir deep; echo x > deep/er").returncode == 0
    line = (
        "sudo sh -c 'echo made >/etc/made; rm /etc/issue'; echo now > note; rm -r deep; hostname;"
        " curl -sf -m 60 http://other.example.test/ || exit 7"
    )
    done = person.run("fork", sandbox, "--try", line, "-o", "json", timeout=300)
    told = json.loads(done.stdout)
    assert (done.returncode, told["exit"], told["stdout"].strip(), told["kept"]) == (
        7,
        7,
        told["name"],
        False,
    )
    assert "other.example.test" in {each["host"] for each in told["refused"]}
    home = person.inside(sandbox, "pwd").stdout.strip()
    changed = {(each["change"], each["path"]) for each in told["changed"]}
    assert {
        *(("added", "/etc/made"), ("removed", "/etc/issue"), ("changed", f"{home}/note")),
        *(("removed", f"{home}/deep"), ("removed", f"{home}/deep/er")),
    } <= changed, sorted(changed)
    look = "cat note deep/er; ls /etc/made /etc/issue 2>/dev/null"
    assert person.inside(sandbox, look).stdout == "then\nx\n/etc/issue\n"
    assert [row["name"] for row in json.loads(person.ok("list", "-o", "json"))] == before
    assert json.loads(person.ok("snapshot", "list", "-o", "json")) == []


def test_a_sandbox_is_forked_and_restored(person: Person, sandbox: str) -> None:
    """A running sandbox goes on beside its copies, which are other machines with its policy; a restore brings its files back."""
    person.ok("egress", "mode", "deny", "--sandbox", sandbox)
    person.ok("egress", "allow", "web.example.test", "--sandbox", sandbox)
    assert person.inside(sandbox, "echo then > note; mkdir -p deep/er; echo x > deep/er/file").returncode == 0
    assert "paused for" in person.ok("snapshot", "create", sandbox, "--as", "then")
    assert person.inside(sandbox, "echo now > note; rm -r deep").returncode == 0
    try:
        person.ok("fork", sandbox, "copy-one", "copy-two", timeout=180)
        person.ok("create", "copy-three", "--from", "then", timeout=180)
        names = [sandbox, "copy-one", "copy-two", "copy-three"]
        look = "cat note; hostname; cat /etc/machine-id; cut -d' ' -f2 /run/irons/ssh_host_ed25519_key.pub"
        seen = [person.inside(name, look).stdout.split() for name in names]
        assert [lines[0] for lines in seen] == ["now", "now", "now", "then"]
        assert [lines[1] for lines in seen] == names
        assert (len({lines[2] for lines in seen}), len({lines[3] for lines in seen})) == (4, 4)
        for name in names[1:]:
            rules = json.loads(person.ok("egress", "list", "--sandbox", name, "-o", "json"))
            assert "web.example.test" in json.dumps(rules)
            assert person.inside(name, "curl -sf -m 60 http://web.example.test/").returncode == 0
            assert person.inside(name, "curl -sf -m 60 http://other.example.test/").returncode != 0
        person.ok("restore", sandbox, "then", "--yes", timeout=180)
        person.ok("start", sandbox, timeout=180)
        assert person.inside(sandbox, "cat note deep/er/file").stdout == "then\nx\n"
    finally:
        person.run("destroy", "copy-one", "copy-two", "copy-three", "--force", "--if-exists", timeout=180)
        for row in json.loads(person.ok("snapshot", "list", "-o", "json")):
            person.ok("snapshot", "remove", row["name"])
