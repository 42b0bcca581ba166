"""What completion has on hand, asked for again."""

from __future__ import annotations

import os
import threading

import pytest

from irons.client import refreshing
from irons.client.names import NameCache
from irons.ending import ENDS, told
from irons.errors import LocalError
from irons.host import PluginHost
from irons.settings.settings import Settings, load
from irons.testing import FakeApi, faults


@pytest.fixture
def settings(irons_env: dict[str, str], own_api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of this process, which choose the fake."""
    for key, value in {**irons_env, "IRONS_API_URL": own_api.url}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("IRONS_API_KEY", raising=False)
    return load()


def held(settings: Settings, what: str) -> dict[str, str]:
    """What a cache holds."""
    return NameCache.of(settings, what=what).read()


def test_everything_is_asked_for_and_kept(settings: Settings, own_api: FakeApi) -> None:
    """Names with states, labels, what ends soon, domains with what is known of them, and the mode."""
    own_api.add("one", labels={"team": "web", "ci": "1"}, terms={"ends_in": 200, "ends_with": "destroy"})
    own_api.add("two", "stopped", mode="deny", labels={"team": "web"})
    own_api.rules += [{"pattern": "a.example", "list": "allow"}, {"pattern": "b.example", "list": "deny"}]
    own_api.sandboxes["two"].rules.append({"pattern": "c.example", "list": "allow"})
    own_api.record("c.example", allowed=False, verdict="blocked")
    own_api.record("a.example", verdict="allowed")
    own_api.images += [{"name": "debian", "os": "Debian 13"}, {"name": "mine"}]
    assert refreshing.main() == 0
    assert held(settings, "names") == {"one": "ready", "two": "stopped"}
    assert held(settings, "domains") == {
        "a.example": "allowed",
        "b.example": "denied",
        "c.example": "seen: denied",
    }
    assert held(settings, "facts") == {"mode": "warn", "mode/two": "deny"}
    assert told(held(settings, ENDS), "one").startswith("is destroyed in 3 min")
    assert held(settings, "labels") == {"team=web": "2 sandboxes", "ci=1": "1 sandbox"}
    assert held(settings, "rules") == {
        " a.example": "allowed",
        " b.example": "denied",
        "two c.example": "allowed",
    }
    assert held(settings, "images") == {"debian": "Debian 13", "mine": "image"}


def test_the_mode_on_hand_is_that_of_the_sandbox_in_use(
    settings: Settings, own_api: FakeApi, irons_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the one that applies, also to a sandbox without one of its own; what is not known is never taken from all."""
    own_api.mode = "deny"
    for name, mode in (("one", None), ("two", "warn"), ("used", None)):
        own_api.add(name, mode=mode)

    def on_hand(sandbox: str | None) -> str | None:
        chosen = {} if sandbox is None else {"IRONS_SANDBOX": sandbox}
        return refreshing.mode_on_hand(load({}, {**settings.env, **chosen}))[0]

    assert on_hand("one") is None, "nothing was asked for yet"
    monkeypatch.setenv("IRONS_SANDBOX", "used")
    assert refreshing.main() == 0
    found = {name: on_hand(name) for name in (None, "one", "two", "used", "new")}
    assert found == {None: "deny", "one": "deny", "two": "warn", "used": "deny", "new": None}
    # One that was made since may have any mode.
    names = NameCache.of(settings)
    names.put("new", "ready")
    os.utime(names.path, (2**31, 2**31))
    assert (on_hand("new"), on_hand("used"), on_hand("two")) == (None, "deny", "warn")
    monkeypatch.setenv("IRONS_SANDBOX", "gone")
    assert refreshing.main() == 0
    assert on_hand("gone") == ""


def test_a_plain_server_gives_what_it_has(settings: Settings, own_api: FakeApi) -> None:
    """Without a log of all sandboxes each is asked; without a list of sandboxes the rules are known all the same."""
    own_api.extensions = ()
    own_api.add("one")
    own_api.rules.append({"pattern": "a.example", "list": "allow"})
    own_api.record("c.example", "one")
    assert refreshing.main() == 0
    assert set(held(settings, "domains")) == {"a.example", "c.example"}
    own_api.has_list = False
    assert refreshing.main() == 0
    assert held(settings, "names") == {"one": "ready"}, "what can't be had stays as it was"


def test_what_cannot_be_typed_is_not_kept(settings: Settings, own_api: FakeApi) -> None:
    """Hostile names from a server never reach a menu."""
    own_api.add("good")
    own_api.add("bad\x1b[2J")
    own_api.add("two words")
    refreshing.main()
    assert held(settings, "names") == {"good": "ready"}


@pytest.mark.parametrize("fault", [faults.error(401), faults.dropped()])
def test_a_server_that_refuses_or_is_away_leaves_the_cache_alone(
    settings: Settings, own_api: FakeApi, fault: faults.Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old names are better than none."""
    monkeypatch.setattr("irons.client.transport.BACK_OFF", 0.001)
    own_api.add("one")
    refreshing.main()
    own_api.fail(fault, times=100)
    assert refreshing.main() == 0
    assert held(settings, "names") == {"one": "ready"}


def test_events_that_cannot_be_had_are_done_without(settings: Settings, own_api: FakeApi) -> None:
    """The rules are offered all the same, where the log of all sandboxes fails and where that of one does."""
    own_api.rules.append({"pattern": "a.example", "list": "allow"})
    own_api.add("one")
    own_api.fail(faults.error(400), on="GET /audit")
    refreshing.main()
    assert held(settings, "domains") == {"a.example": "allowed"}
    own_api.extensions = ()
    own_api.fail(faults.error(400), on="GET /sandboxes/one/audit")
    refreshing.main()
    assert held(settings, "domains") == {"a.example": "allowed"}


def test_what_is_still_true_is_not_written_again(settings: Settings, own_api: FakeApi) -> None:
    """The file stays and only its age begins again."""
    own_api.add("one")
    refreshing.main()
    path = NameCache.of(settings).path
    before = path.stat().st_ino
    os.utime(path, (1, 1))
    refreshing.main()
    assert path.stat().st_ino == before
    assert NameCache.of(settings).age() < 3600


@pytest.mark.process
def test_a_process_of_its_own_refreshes_what_is_old(settings: Settings, own_api: FakeApi) -> None:
    """One process for however many that ask, with the backend of these settings; then the caches hold what there is."""
    names = NameCache.of(settings)
    names.replace({"gone": "ready"})
    os.utime(names.path, (1, 1))
    own_api.add("one")
    for _ in range(3):
        refreshing.refresh_detached(settings)
    # It may be over by now.
    for waits in [thread for thread in threading.enumerate() if thread.name == "irons-refreshing"]:
        waits.join(60)
        assert not waits.is_alive()
    assert own_api.lines()[-1] == "GET /keys"
    assert held(settings, "names") == {"one": "ready"}
    assert own_api.lines().count("GET /sandboxes") == 1


def test_a_configuration_that_makes_no_sense_is_nothing_to_refresh(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends with 1, and without a traceback."""
    monkeypatch.setenv("IRONS_PROFILE", "nobody")
    assert refreshing.main() == 1


def test_a_local_backend_that_is_down_stays_down(irons_env: dict[str, str]) -> None:
    """IRONS_NO_START makes a look in passing fail instead of starting anything."""
    env = {**irons_env, "IRONS_API_URL": "local", "IRONS_NO_START": "1"}
    host = PluginHost(env=env)
    with pytest.raises(LocalError, match="is down"):
        host.backend("local", load({}, env))


def test_no_rule_of_a_destroyed_sandbox_stays_on_hand(
    settings: Settings, own_api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the server has no such sandbox, its rules and their ends are gone from what is on hand."""
    own_api.add("one")
    own_api.sandboxes["one"].rules.append({"pattern": "c.example", "list": "allow", "until": "stop"})
    monkeypatch.setenv("IRONS_SANDBOX", "one")
    assert refreshing.main() == 0
    assert held(settings, "rules") == {"one c.example": "allowed"}
    del own_api.sandboxes["one"]
    assert refreshing.main() == 0
    assert held(settings, "rules") == {}
