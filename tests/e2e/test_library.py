"""`irons.sandbox` with a real sandbox."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.e2e.lab import Person

PROGRAM = r"""
import asyncio, json, os, pathlib, urllib.request
import irons
from irons import aio

os.chdir(os.environ["HOME"])
told = {}
with irons.sandbox("lib", allow=["allowed.test"], timeout=180) as box:
    told["ready"] = box.status().status
    told["mode"] = box.api.mode("lib").mode
    # The refusal is read: it is recorded by then.
    ask = r"exec 3<>/dev/tcp/denied.test/80; printf 'GET / HTTP/1.0\r\nHost: denied.test\r\n\r\n' >&3; cat <&3"
    fetch = f"({ask}) >/dev/null 2>&1; echo $A; exit 3"
    result = box.exec(["bash", "-c", fetch], env={"A": "it's"}, timeout=180)
    told["result"] = [result.exit, result.stdout]
    told["refused"] = [each.host for each in result.refused or ()]
    told["checked"] = box.check("denied.test:443").allowed
    box.write("d/a.txt", b"hello", mode=0o640)
    told["read"] = box.read_text("d/a.txt")
    told["listed"] = [(entry.name, entry.kind, entry.size, entry.mode) for entry in box.list("d")]
    box.upload("up", "d")
    box.download("d", ".")
    told["back"] = sorted(str(path) for path in pathlib.Path("d").rglob("*") if path.is_file())
    with box.popen(["perl", "-e", SERVER]) as server, box.forward(8000) as port:
        told["up"] = server.stdout.readline().decode()
        told["served"] = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=180).read().decode()
    told["denied"] = sorted({event.host for event in box.events(verdict="denied")})

    async def both():
        async with aio.sandbox("lib", attach=True) as same:
            return await asyncio.gather(same.exec(["echo", "1"]), same.exec(["cat"], stdin="2"))

    told["async"] = [each.stdout for each in asyncio.run(both())]
try:
    irons.connect().status("lib")
except irons.IronsError as error:
    told["gone"] = error.exit_code
print(json.dumps(told))
"""
SERVER = r"""
use IO::Socket::INET;
$| = 1;
my $server = IO::Socket::INET->new(Listen => 5, LocalAddr => "127.0.0.1", LocalPort => 8000, ReuseAddr => 1) or die;
print "up\n";
while (my $client = $server->accept) {
  while (<$client>) { last if /^\r?$/ }
  print $client "HTTP/1.0 200 OK\r\n\r\nserved";
  close $client;
}
"""


@pytest.mark.parametrize("person", ["root"], indirect=True)
def test_a_program_has_a_sandbox_for_a_while(person: Person) -> None:
    """It is made, used in every way and destroyed by a program that starts no irons command."""
    (person.home / "up").mkdir()
    (person.home / "up" / "b.txt").write_text("b")
    done = subprocess.run(
        [*person.lab.enter(user=person.user), sys.executable, "-c", f"SERVER = {SERVER!r}\n{PROGRAM}"],
        env=person.env,
        cwd=person.home,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "ready": "ready",
        "mode": "deny",
        "result": [3, "it's\n"],
        "refused": ["denied.test"],
        "checked": False,
        "read": "hello",
        "listed": [["a.txt", "file", 5, 0o640]],
        "back": ["d/a.txt", "d/up/b.txt"],
        "up": "up\n",
        "served": "served",
        "denied": ["denied.test"],
        "async": ["1\n", "2"],
        "gone": 3,
    }
