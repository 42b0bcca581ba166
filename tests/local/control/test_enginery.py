"""Engines: the built-in one, those that plugins bring, and what a broken one costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.local.control.lab import PretendEngine, control_plane, run, until

from irons.hookspecs import hookimpl
from irons.host import PluginHost
from irons_local.control.sandbox import engine_registry
from irons_local.engines.protocol import Kit


class Brings:
    """A plugin with an engine."""

    def __init__(self, **makers: Any) -> None:
        self._makers = makers

    @hookimpl
    def irons_engines(self) -> dict[str, Any]:
        return self._makers


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    """What engines work with, in a directory of the test."""
    return Kit(cells=Any, images=tmp_path / "images", sandboxes=tmp_path / "sandboxes")  # type: ignore[arg-type]


def _raise(_: Kit) -> Any:
    raise OSError("no such hardware")


def test_engines_of_plugins_stand_beside_the_built_in(kit: Kit, caplog: pytest.LogCaptureFixture) -> None:
    """A plugin's engine is made with the same kit; one that cannot be made is a line in the log."""
    host = PluginHost(env={"IRONS_PLUGINS": ""}, built_in=())
    host.register(Brings(vm=lambda kit: PretendEngine(kit.cells, "vm")), "first")
    host.register(Brings(broken=_raise, vm=_raise, namespace=_raise), "second")
    made = engine_registry.make_engines(kit, host.engines())
    assert sorted(made) == ["incus", "namespace", "vm"]
    assert made["vm"].name == "vm"
    assert made["namespace"].name == "namespace"
    assert "engine broken cannot be made" in caplog.text


def test_a_built_in_that_cannot_be_loaded_is_left_out(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When a part is missing, the others serve."""
    monkeypatch.setattr(engine_registry, "BUILT_IN", {"gone": "irons_local.engines.protocol.gone:Gone"})
    assert engine_registry.make_engines(kit, {"vm": lambda kit: PretendEngine(kit.cells)}).keys() == {"vm"}
    assert "engine gone cannot be loaded" in caplog.text


class Listening(PretendEngine):
    """An engine whose machines are made by something that listens on the network."""

    def listening(self) -> list[tuple[str, int]]:
        return [("10.89.0.1", 8443)]


def test_what_an_engine_listens_on_is_closed_to_sandboxes(tmp_path: Path) -> None:
    """The gateway is told of it as of the ports of irons itself."""

    async def story() -> None:
        async with control_plane(tmp_path, Listening()) as lab:

            async def told() -> bool:
                return ["10.89.0.1", 8443] in lab.gateway.listeners

            await until(told)

    run(story())
