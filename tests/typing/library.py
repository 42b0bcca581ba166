"""A program of 40 lines as a reader of docs/library.md writes it: checked by mypy and pyright, both strict, and never run."""
# pyright: strict

from __future__ import annotations

import asyncio
from pathlib import Path

import irons
from irons import aio


def build(project: Path) -> str:
    """Build a project where it can reach one host, and fetch what came of it."""
    with irons.sandbox(image="debian", allow=["pypi.org:443"], memory="2G", labels={"job": "build"}) as box:
        box.upload(project, "~")
        made = box.exec(["make", "-j2"], cwd=f"~/{project.name}", env={"CI": "1"}, timeout=600)
        for tried in made.refused or ():
            print(tried.host, tried.port, tried.count)
        made.check()
        placed = box.download(f"{project.name}/dist", "out")
        print(placed.files, [entry.name for entry in box.list() if entry.kind == "file"])
        with box.popen(["python3", "-m", "http.server"]) as server, box.forward(8000) as port:
            print(f"http://127.0.0.1:{port}", server.poll())
        box.write("notes.txt", "done\n", mode=0o600)
        return box.read_text("notes.txt")


async def follow(name: str) -> int:
    """Run two programs at once, and print what is refused."""
    async with aio.sandbox(name, attach=True) as box:
        first, second = await asyncio.gather(
            box.exec(["true"]), box.exec(["cat"], stdin="in", on_stdout=print, timeout=5)
        )
        process = await box.popen(["sh", "-c", "echo one"])
        async with process, box.forward(80) as port:
            async for line in process.stdout:
                print(port, line.decode())
        async for event in box.events(follow=True, verdict="denied"):
            print(event.host, (await box.check(event.host)).reason)
            return first.exit + second.exit
    return (await process.wait()).exit
