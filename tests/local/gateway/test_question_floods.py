"""Ten thousand questions of one cell, next to another cell that asks once and does what it may."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any

from dnslib import DNSRecord
from tests.local.gateway.stand import CELL, GATEWAY, CellNet, Program, Stand, policy
from tests.local.gateway.test_held import GET, LONG, OK, OTHER, asked

from irons_local.gateway.ask.asking import MOST_COUNTED, MOST_HELD, MOST_OPEN

SECOND = "sb_00000000000000bb"
WEB = "web.example.test"
PLACES = 10_000
FLOOD = """
import socket, sys
address, count, held = sys.argv[1], int(sys.argv[2]), []
for number in range(count):
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex((address, 2_000 + number))
    held.append(sock)
    if len(held) > 300:
        held.pop(0).close()
    if number == count // 2:
        print("half", flush=True)
        sys.stdin.readline()
print("over", flush=True)
sys.stdin.readline()
"""


def ask(stand: Stand, cell: str, *allow: str) -> None:
    """Put a policy of mode ask active for a cell."""
    body = {**policy("deny", allow), "ask": True}
    stand.ask("policy", cell=cell, sandbox={"id": cell, "name": cell}, policy=body)


def connect(net: CellNet, host: str) -> Program:
    """Connect to a host's port 80 in a cell."""
    with net.socket(kind=socket.SOCK_DGRAM) as sock:
        sock.sendto(DNSRecord.question(host).pack(), (GATEWAY, 53))
        address = str(DNSRecord.parse(sock.recv(4096)).rr[0].rdata)
    return Program(net.socket(), address, 80)


def notice(stand: Stand, cell: str) -> dict[str, Any]:
    """The next notice of what is asked of a cell."""
    assert stand.server is not None
    while True:
        body: dict[str, Any] = stand.server.recv().body
        if body.get("op") == "questions" and body["cell"] == cell:
            return body


def test_ten_thousand_questions_of_one_cell_leave_the_other_its_own(patient: Stand) -> None:
    """The other's question is reported with the flood under way, its allowed requests all pass, and what the flood may take is bounded."""
    stand, second = patient, CellNet()
    try:
        stand.attach(SECOND, second)
        ask(stand, CELL)
        ask(stand, SECOND, WEB)
        stand.ask("questions.watch", lease=LONG, hold=LONG, keys=1)
        address = stand.resolve("evil.example.test")
        words = ["nsenter", "-t", str(stand.net.pid), "-n", sys.executable, "-c", FLOOD, address, str(PLACES)]
        pipe = subprocess.PIPE
        with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as flood:
            assert flood.stdin is not None
            assert flood.stdout is not None
            assert flood.stdout.readline() == "half\n"
            with connect(second, OTHER).send(GET % OTHER.encode()) as program:
                while not (told := notice(stand, SECOND)["questions"]):
                    pass
                assert [(each["host"], each["port"], each["waiting"]) for each in told] == [(OTHER, 80, 1)]
                for _ in range(100):
                    with connect(second, WEB).send(GET % WEB.encode()) as fetch:
                        assert fetch.read(12) == OK
                done = stand.ask("questions.reply", cell=SECOND, host=OTHER, port=80, reply="once")
                assert done["waited"] == 1
                assert program.read(12) == OK
            flood.stdin.write("\n")
            flood.stdin.flush()
            assert flood.stdout.readline() == "over\n"
            asked(stand, MOST_OPEN + 1)
            while (told := notice(stand, CELL))["others"] < MOST_COUNTED:
                pass
            assert len(told["questions"]) == MOST_OPEN
            assert told["others"] == MOST_COUNTED
            assert sum(each["waiting"] for each in told["questions"]) <= MOST_HELD
            flood.kill()
    finally:
        second.close()
