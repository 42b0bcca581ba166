"""A control plane with API keys of each role, each user with a sandbox of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from tests.local.control.asking import tell, told
from tests.local.control.lab import KEY, Lab, by_tcp, control_plane
from tests.local.control.test_keys import free_port


class Team(NamedTuple):
    """A control plane that a user, another user and an auditor reach by TCP, each with a sandbox of its own where it may have one.

    Attributes:
        lab: the control plane; its client is the owner's.
        user: a client with a key of the role `user`, which created the sandbox `mine`.
        other: another such client, which created `theirs`.
        auditor: a client with a key of the role `auditor`.
        admin: a client with a key of the role `admin`.
        named: what there is of each: the id of its sandbox, of its snapshot and of its question, by its name.
    """

    lab: Lab
    user: httpx.AsyncClient
    other: httpx.AsyncClient
    auditor: httpx.AsyncClient
    admin: httpx.AsyncClient
    named: Mapping[str, Mapping[str, str]]


async def made(client: httpx.AsyncClient, lab: Lab, name: str, **more: Any) -> str:
    """Create a sandbox with a client's key, wait until it is ready, and give its id."""
    answer = await client.post("/sandboxes", json={"name": name, "public_key": KEY, **more})
    assert answer.status_code == 202, answer.text
    await lab.reaches(name, "ready")
    return str(answer.json()["id"])


@contextlib.asynccontextmanager
async def team(directory: Path, **config: Any) -> AsyncIterator[Team]:
    """Make a team, of which each sandbox in mode `ask` has a snapshot and a question; `config` is the server's."""
    port = free_port()
    async with contextlib.AsyncExitStack() as stack:
        lab = await stack.enter_async_context(control_plane(directory, host="127.0.0.1", port=port, **config))
        clients = []
        for label, role in (("user", "user"), ("other", "user"), ("auditor", "auditor"), ("admin", "admin")):
            key = (await lab.client.post("/keys", json={"label": label, "role": role})).json()
            assert key["role"] == role
            clients.append(await stack.enter_async_context(by_tcp(port, key["key"])))
        user, other, auditor, admin = clients
        named: dict[str, dict[str, str]] = {}
        for client, name in ((user, "mine"), (other, "theirs")):
            cell = await made(client, lab, name, mode="ask")
            kept = await client.post(f"/sandboxes/{name}/snapshots", json={"name": f"{name}-kept"})
            assert kept.status_code == 201, kept.text
            listed = await tell(lab, cell, told(f"{name}.example"))
            question = next(each["id"] for each in listed if each["sandbox_id"] == cell)
            named[name] = {"cell": cell, "snapshot": f"{name}-kept", "question": question}
        yield Team(lab, user, other, auditor, admin, named)


def is_refusal(answer: httpx.Response) -> bool:
    """Whether it is a 403 in the form of the contract."""
    told = answer.json() if answer.status_code == 403 else {}
    return bool(told.get("error")) and {*told} <= {"error", "hint"}
