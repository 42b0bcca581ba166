"""Labels of sandboxes over HTTP: filters, and what a label may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.local.control.lab import KEY, control_plane, run


def test_labels_filter_a_list(tmp_path: Path) -> None:
    """Labels are kept, shown, and a list is narrowed by all that are named; a key alone is met by any value."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create("one", labels={"team": "web", "ci": "7"})
            await lab.create("two", labels={"team": "data"})
            await lab.create("three")
            assert (await lab.status("one"))["labels"] == {"ci": "7", "team": "web"}
            assert (await lab.status("three"))["labels"] == {}
            for asked, names in (
                ("team", ["one", "two"]),
                ("team=web", ["one"]),
                ("team,ci=7", ["one"]),
                ("team=web,ci=8", []),
                ("team=", []),
            ):
                answer = await lab.client.get("/sandboxes", params={"label": asked})
                assert [each["name"] for each in answer.json()["sandboxes"]] == names

    run(work())


BAD_LABELS: tuple[Any, ...] = (
    {"": "x"},
    {"a b": "x"},
    {"a,b": "x"},
    {"-a": "x"},
    {"a": "x,y"},
    {"a": "x\n"},
    {"a": "\x1b[31m"},
    {"a": 1},
    {"a": "x" * 64},
    {"a" * 64: "x"},
    {f"k{number}": "x" for number in range(17)},
    ["a=b"],
)


@pytest.mark.parametrize("labels", BAD_LABELS, ids=lambda labels: repr(labels)[:30])
def test_labels_are_bounded(tmp_path: Path, labels: Any) -> None:
    """Labels that are too many, too long or not plain text are refused, and no name is taken."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            body = {"name": "box", "public_key": KEY, "labels": labels}
            assert (await lab.client.post("/sandboxes", json=body)).status_code == 400
            assert (await lab.client.get("/sandboxes/box")).status_code == 404

    run(work())


@pytest.mark.parametrize(
    "asked", ["", ",", "a,", "a b", "=x", "a=x\x7f", ",".join(f"k{n}" for n in range(17))]
)
def test_a_filter_by_labels_is_checked(tmp_path: Path, asked: str) -> None:
    """A filter that is not one is refused, not read as everything."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            assert (await lab.client.get("/sandboxes", params={"label": asked})).status_code == 400

    run(work())
