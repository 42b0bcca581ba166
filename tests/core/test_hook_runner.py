"""The hooks for events and steps of sandboxes: what comes in as lines, and what plugins are called with."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.core.test_hooks import third_party

from irons import Event, LifecycleChange, hookimpl
from irons.hook_runner import LONGEST, HookRunner
from irons.host import PluginHost
from irons.settings.settings import load


class Hears:
    """A plugin that keeps what it hears, and does `then` with it."""

    def __init__(self, then: Callable[[Any], object] = lambda _: None) -> None:
        self.heard: list[Any] = []
        self._then = then

    @hookimpl
    def irons_event(self, event: Event) -> None:
        """Keep an event."""
        self.heard.append(event)
        self._then(event)

    @hookimpl
    def irons_lifecycle(self, change: LifecycleChange) -> None:
        """Keep a step."""
        self.heard.append(change)


def lines(*messages: object) -> list[bytes]:
    """Messages as they come in."""
    return [json.dumps(message).encode() + b"\n" for message in messages]


def event(number: int, host: str = "a.example", **more: object) -> dict[str, object]:
    """An event as the audit log has it."""
    return {
        "event": {
            "id": number,
            "sandbox_name": "one",
            "host": host,
            "port": 443,
            "verdict": "blocked",
            **more,
        }
    }


@pytest.fixture(autouse=True)
def _alarm() -> Iterator[None]:
    """What the process did with its alarm before is what it does afterwards."""
    before = signal.getsignal(signal.SIGALRM)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def told() -> list[str]:
    """The warnings of the host."""
    return []


@pytest.fixture
def host(irons_env: dict[str, str], told: list[str]) -> PluginHost:
    """A host without plugins."""
    return PluginHost(irons_env, told.append, built_in=())


def test_plugins_hear_events_and_steps(host: PluginHost, irons_env: dict[str, str]) -> None:
    """Each line is one call with typed data, in order; the id is told before; what is not a message is passed over."""
    plugin, begun = Hears(), list[int]()
    host.register(plugin, "hears")
    runner = HookRunner(host, load({}, irons_env), begun.append)
    assert runner.hooks == ("irons_event", "irons_lifecycle")
    runner.prepare()
    runner.run(
        [
            *lines(event(7), {"change": {"kind": "ready", "sandbox": "one", "id": "sb_1", "at": "then"}}),
            b"not json\n",
            b"[1]\n",
            *lines({"lost": 3}, {"unknown": 1}, event(9, "b.example")),
        ]
    )
    first, ready, lost, last = plugin.heard
    assert (first.host, first.port, first.verdict, first.sandbox) == ("a.example", 443, "blocked", "one")
    assert ready == LifecycleChange("ready", "one", "sb_1", "then")
    assert (lost.kind, lost.lost) == ("lost", 3)
    assert last.host == "b.example"
    assert begun == [7, 9]


class Answers:
    """A plugin that has an answer to each question."""

    def __init__(self, answer: object) -> None:
        self._answer = answer

    @hookimpl
    def irons_ask(self) -> object:
        """Answer."""
        return self._answer


class Speechless:
    """What can't be made a text."""

    def __str__(self) -> str:
        raise ValueError


def test_what_is_not_a_text_is_no_answer(host: PluginHost, irons_env: dict[str, str]) -> None:
    """Of a plugin that returns something else, or an empty text, nothing is passed on, and those after it are asked."""
    for number, answer in enumerate((Speechless(), "", 7, "once")):
        host.register(Answers(answer), f"plugin{number}")
    answers: list[tuple[str, str, str]] = []
    runner = HookRunner(
        host,
        load({}, irons_env),
        lambda _: None,
        answered=lambda question, by, said: answers.append((question, by, said)),
    )
    runner.run(lines({"question": {"id": "q_1", "may": ["once"]}}))
    assert answers == [("q_1", "plugin3", "once"), ("q_1", "", "")]


def test_a_plugin_that_fails_costs_one_warning(
    host: PluginHost, irons_env: dict[str, str], told: list[str]
) -> None:
    """The other plugins hear every event, and the same fault is not told again and again."""

    def fails(_: object) -> None:
        raise ValueError("no network")

    bad, good = Hears(fails), Hears()
    host.register(bad, "bad")
    host.register(good, "good")
    HookRunner(host, load({}, irons_env), lambda _: None).run(lines(event(1), event(2)))
    assert len(good.heard) == 2
    assert told == ["irons: plugin bad, irons_event: ValueError: no network"]


def test_a_plugin_that_takes_too_long_is_interrupted(
    host: PluginHost, irons_env: dict[str, str], told: list[str]
) -> None:
    """The timer is set in each call; a call that does not return gets a `TimeoutError`, and the next plugin is called."""
    timers: list[tuple[float, float]] = []
    read, write = os.pipe()

    def blocks(_: object) -> None:
        timers.append(signal.getitimer(signal.ITIMER_REAL))
        # The alarm itself, not its 30 seconds.
        signal.raise_signal(signal.SIGALRM)
        os.read(read, 1)

    try:
        good = Hears(lambda _: timers.append(signal.getitimer(signal.ITIMER_REAL)))
        host.register(Hears(blocks), "slow")
        host.register(good, "good")
        HookRunner(host, load({}, irons_env), lambda _: None).run(lines(event(1)))
        assert len(good.heard) == 1
        assert told == ["irons: plugin slow, irons_event: TimeoutError: it took longer than 30 s"]
    finally:
        os.close(read)
        os.close(write)
    assert [every for _, every in timers] == [LONGEST, LONGEST]
    assert all(0 < left <= LONGEST for left, _ in timers)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_an_alarm_outside_of_a_plugin_interrupts_nothing(irons_env: dict[str, str]) -> None:
    """The time may run out between two plugins, after the last one or between two messages: each is called all the same."""
    told: list[str] = []

    def warn(line: str) -> None:
        signal.raise_signal(signal.SIGALRM)
        told.append(line)

    def fails(_: object) -> None:
        raise ValueError("no network")

    def begun(_: int) -> None:
        signal.raise_signal(signal.SIGALRM)

    host = PluginHost(irons_env, warn, built_in=())
    first, last = Hears(), Hears(fails)
    host.register(Hears(fails), "bad")
    host.register(first, "first")
    host.register(last, "last")
    HookRunner(host, load({}, irons_env), begun).run(lines(event(1), event(2)))
    assert (len(first.heard), len(last.heard)) == (2, 2)
    assert told == [f"irons: plugin {name}, irons_event: ValueError: no network" for name in ("bad", "last")]


def test_the_example_notifies_on_denial(
    host: PluginHost, irons_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plugin `notify` of tests/third_party shows the first denial of a sandbox, no allowed connection, and a ready sandbox."""
    shown: list[list[str]] = []
    notify = third_party("irons_notify")
    monkeypatch.setattr(notify.subprocess, "run", lambda words, **_: shown.append(words))
    monkeypatch.setattr(notify, "_last", {})
    host.register(notify, "notify")
    HookRunner(host, load({}, irons_env), lambda _: None).run(
        lines(
            event(1, "ok.example", verdict="allowed"),
            event(2, "evil.example"),
            event(3, "evil.example"),
            {"change": {"kind": "ready", "sandbox": "one"}},
            {"change": {"kind": "stopped", "sandbox": "one"}},
        )
    )
    assert shown == [
        ["notify-send", "one: denied", "evil.example:443"],
        ["notify-send", "one", "is ready"],
    ]
