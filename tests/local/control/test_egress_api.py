"""Rules and modes over HTTP: one spelling, one list, active at the gateway before the answer."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.local.control.lab import KEY, Lab, control_plane, run, until

from irons_local.control.egress import rules_and_modes


async def _json(lab: Lab, method: str, path: str, **more: Any) -> Any:
    answer = await lab.client.request(method, path, **more)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_new_account_warns(tmp_path: Path) -> None:
    """The mode of a new account is `warn`, with no rules."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            mode = await _json(lab, "GET", "/egress/mode")
            assert mode == {"mode": "warn", "differs": {}, "undecided": True}
            found = await _json(lab, "GET", "/egress")
            assert (found["allowed_domains"], found["denied_domains"]) == ([], [])

    run(work())


def test_a_rule_is_in_one_list_at_most(tmp_path: Path) -> None:
    """The later of allow and deny wins; the spelling is canonical; the answer says what it covers and what changed."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            first = await _json(lab, "POST", "/egress/allow", json={"domain": "EXAMPLE.test."})
            assert first["pattern"] == "example.test"
            assert first["list"] == "allow"
            assert first["changed"] is True
            assert first["mode"] == "warn"
            assert "example.test alone" in first["covers"]
            again = await _json(lab, "POST", "/egress/allow", json={"domain": "example.test"})
            assert again["changed"] is False
            await _json(lab, "POST", "/egress/deny", json={"domain": "example.test"})
            found = await _json(lab, "GET", "/egress")
            assert (found["allowed_domains"], found["denied_domains"]) == ([], ["example.test"])

    run(work())


def test_rules_know_more_than_their_pattern(tmp_path: Path) -> None:
    """Private addresses, notes and times are kept and shown."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            body = {
                "domain": "db.test:5432",
                "private": ["10.0.0.5", "192.168.0.0/16"],
                "note": "the database",
            }
            await _json(lab, "POST", "/egress/allow", json=body)
            rule = (await _json(lab, "GET", "/egress"))["rules"][0]
            assert rule["private"] == ["10.0.0.5", "192.168.0.0/16"]
            assert rule["note"] == "the database"
            assert rule["created_at"].endswith("Z")

    run(work())


def test_a_bad_pattern_is_refused_with_its_reason(tmp_path: Path) -> None:
    """Wildcards over public suffixes, spaces, empty texts and private addresses on deny rules are 400; nothing is stored."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            for body in (
                {"domain": ""},
                {"domain": "a b"},
                {"domain": "*.com"},
                {"domain": "https://a.test/"},
                {"domain": "a.test", "private": ["nonsense"]},
                {"domain": "a.test", "private": ["127.0.0.1"]},
                {"domain": "x" * 401},
                {"domain": "\ud800"},
                {},
            ):
                answer = await lab.client.post("/egress/allow", content=json.dumps(body))
                assert answer.status_code == 400, body
                assert answer.json()["error"]
            answer = await lab.client.post("/egress/deny", json={"domain": "a.test", "private": ["10.0.0.1"]})
            assert answer.status_code == 400
            assert (await _json(lab, "GET", "/egress"))["rules"] == []

    run(work())


def test_taking_away_a_pattern_that_is_none_is_refused(tmp_path: Path) -> None:
    """What can't be a rule is 400 with the reason; what could be one and is not there is 404."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            for domain, status in (("a b", 400), ("", 400), ("a.test:0", 400), ("a.test", 404)):
                answer = await lab.client.delete("/egress/rules", params={"domain": domain})
                assert answer.status_code == status, domain
                assert answer.json()["error"]

    run(work())


def test_a_policy_has_a_greatest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule with which the account's policy, or the one of a sandbox with it, is too large is refused, and nothing changes."""
    monkeypatch.setattr(rules_and_modes, "_LARGEST_POLICY", 1000)

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box"))["id"]
            account = await _fill(lab, "/egress", "a")
            assert 1 <= account < 20
            (last,) = (await _json(lab, "GET", "/egress"))["rules"][-1:]
            await _json(lab, "DELETE", "/egress/rules", params={"domain": last["pattern"]})
            own = await _fill(lab, "/sandboxes/box/egress", "b")
            # The room that one rule of the account leaves is taken, then a rule of the account would be too much for both.
            assert own == 1
            full = await lab.client.post("/egress/allow", json={"domain": last["pattern"]})
            assert full.status_code == 400
            assert "too many rules" in full.json()["error"]
            assert len((await _json(lab, "GET", "/egress"))["rules"]) == account - 1
            assert len(lab.policies[cell]["rules"]) == account

    run(work())


async def _fill(lab: Lab, path: str, letter: str) -> int:
    """Allow one name after another until one is refused; how many there were."""
    for number in range(20):
        answer = await lab.client.post(f"{path}/allow", json={"domain": f"{letter}{number:02}.test"})
        if answer.status_code != 200:
            assert answer.status_code == 400
            return number
    return 20


def test_changes_reach_the_gateway_before_the_answer(tmp_path: Path) -> None:
    """An account's rule is in the policy of every sandbox that may run, a sandbox's only in its own; cuts are counted."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            one, two = await lab.create("one"), await lab.create("two")
            lab.gateway.cut = 2
            done = await _json(lab, "POST", "/egress/deny", json={"domain": "bad.test"})
            assert done["cut"] == 4
            for cell in (one["id"], two["id"]):
                assert [rule["pattern"] for rule in lab.policies[cell]["rules"]] == ["bad.test"]
            own = await _json(lab, "POST", "/sandboxes/one/egress/allow", json={"domain": "own.test"})
            assert own["cut"] == 2
            assert [rule["scope"] for rule in lab.policies[one["id"]]["rules"]] == ["account", "sandbox"]
            assert len(lab.policies[two["id"]]["rules"]) == 1
            gone = await _json(lab, "DELETE", "/egress/rules", params={"domain": "BAD.test"})
            assert (gone["pattern"], gone["list"], gone["cut"]) == ("bad.test", "deny", 4)
            assert not lab.policies[two["id"]]["rules"]
            answer = await lab.client.delete("/egress/rules", params={"domain": "bad.test"})
            assert answer.status_code == 404
            assert "irons egress list" in answer.json()["hint"]

    run(work())


def test_a_sandbox_may_have_a_mode_of_its_own(tmp_path: Path) -> None:
    """A sandbox's mode overrides the account's until it is null again; the account names those that differ."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box"))["id"]
            assert await _json(lab, "GET", "/sandboxes/box/egress/mode") == {
                "mode": "warn",
                "source": "account",
            }
            await _json(lab, "PUT", "/sandboxes/box/egress/mode", json={"mode": "deny"})
            assert await _json(lab, "GET", "/sandboxes/box/egress/mode") == {
                "mode": "deny",
                "source": "sandbox",
            }
            assert await _json(lab, "GET", "/egress/mode") == {"mode": "warn", "differs": {"box": "deny"}}
            assert lab.policies[cell]["mode"] == "deny"
            await _json(lab, "PUT", "/egress/mode", json={"mode": "deny"})
            assert (await _json(lab, "GET", "/egress/mode"))["differs"] == {}
            await _json(lab, "PUT", "/egress/mode", json={"mode": "warn"})
            back = await _json(lab, "PUT", "/sandboxes/box/egress/mode", json={"mode": None})
            assert (back["mode"], back["changed"]) == ("warn", True)
            assert lab.policies[cell]["mode"] == "warn"
            await _json(lab, "PUT", "/egress/mode", json={"mode": "deny"})
            assert lab.policies[cell]["mode"] == "deny"
            for body in ({"mode": None}, {"mode": "open"}, {}, {"mode": 1}):
                assert (await lab.client.put("/egress/mode", json=body)).status_code == 400

    run(work())


def test_a_change_for_all_says_how_many_follow_it(tmp_path: Path) -> None:
    """Rules for all count every sandbox, a mode for all those without one of their own; a change of one counts none."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            for name, mode in (("one", None), ("two", None), ("own", "warn")):
                await lab.create(name, mode=mode)
            changes: tuple[tuple[str, str, dict[str, Any], int], ...] = (
                ("POST", "/allow", {"domain": "a.test"}, 3),
                ("POST", "/deny", {"domain": "b.test"}, 3),
                ("POST", "/remove", {"domains": ["a.test"]}, 3),
                ("PUT", "", {"rules": []}, 3),
                ("PUT", "/mode", {"mode": "deny"}, 2),
            )
            for method, path, body, followers in changes:
                assert (await _json(lab, method, f"/egress{path}", json=body))["followers"] == followers
                answer = await _json(lab, method, f"/sandboxes/one/egress{path}", json=body)
                assert "followers" not in answer

    run(work())


def test_a_sandbox_that_does_not_exist_has_no_policy(tmp_path: Path) -> None:
    """Every route of a sandbox's rules, and a check for one, is 404 for a name that nothing has; nothing is stored."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            before = await _json(lab, "GET", "/egress")
            for method, path, body in (
                ("GET", "", None),
                ("PUT", "", {"mode": "deny", "rules": []}),
                ("POST", "/allow", {"domain": "a.test"}),
                ("POST", "/deny", {"domain": "a.test"}),
                ("POST", "/remove", {"domains": ["a.test"]}),
                ("DELETE", "/rules?domain=a.test", None),
                ("GET", "/mode", None),
                ("PUT", "/mode", {"mode": "deny"}),
            ):
                answer = await lab.client.request(method, f"/sandboxes/gone/egress{path}", json=body)
                assert answer.status_code == 404, path
                assert "gone" in answer.json()["error"]
            for path in ("/egress/check?host=a.test&sandbox=gone", "/sandboxes/gone/audit/egress"):
                assert (await lab.client.get(path)).status_code == 404, path
            assert await _json(lab, "GET", "/egress") == before

    run(work())


def test_a_policy_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    """PUT says what it adds, removes and changes; a dry run says the same and changes nothing; one bad entry stops all."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box"))["id"]
            for name in ("stays.test", "goes.test", "turns.test"):
                await _json(lab, "POST", "/egress/allow", json={"domain": name})
            new = {
                "mode": "deny",
                "rules": [
                    {"pattern": "stays.test", "list": "allow"},
                    {"pattern": "turns.test", "list": "deny"},
                    {"pattern": "comes.test", "list": "allow", "note": "new"},
                ],
            }
            before = dict(lab.policies[cell])
            lab.gateway.cut = 3
            dry = await _json(lab, "PUT", "/egress?dry_run=true", json=new)
            assert lab.policies[cell] == before
            assert lab.gateway.asked[-1] == "impact"
            assert (await _json(lab, "GET", "/egress"))["mode"] == "warn"
            done = await _json(lab, "PUT", "/egress", json=new)
            for found in (dry, done):
                assert [rule["pattern"] for rule in found["added"]] == ["comes.test"]
                assert [rule["pattern"] for rule in found["removed"]] == ["goes.test"]
                assert [rule["pattern"] for rule in found["changed"]] == ["turns.test"]
                assert found["cut"] == 3
            assert lab.policies[cell]["mode"] == "deny"
            bad = {"rules": [{"pattern": "ok.test", "list": "allow"}, {"pattern": "not ok", "list": "allow"}]}
            answer = await lab.client.put("/egress", json=bad)
            assert answer.status_code == 400
            assert answer.json()["error"].startswith("rules[1]: ")
            assert len((await _json(lab, "GET", "/egress"))["rules"]) == 3

    run(work())


def test_check_answers_as_the_gateway_would(tmp_path: Path) -> None:
    """Check names verdict, mode, rule, list, scope and reason, in the account and in a sandbox."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create("box", mode="deny")
            await _json(lab, "POST", "/egress/allow", json={"domain": "good.test:22"})
            found = await _json(
                lab, "GET", "/egress/check", params={"host": "GOOD.test:22", "sandbox": "box"}
            )
            assert found["allowed"] is True
            assert (found["host"], found["port"], found["verdict"]) == ("good.test", 22, "allowed")
            assert (found["rule"], found["list"], found["scope"]) == ("good.test:22", "allow", "account")
            found = await _json(lab, "GET", "/egress/check", params={"host": "good.test", "sandbox": "box"})
            assert (found["allowed"], found["verdict"], found["port"]) == (False, "blocked", 443)
            found = await _json(lab, "GET", "/egress/check", params={"host": "[2001:db8::1]:80"})
            assert (found["host"], found["port"], found["verdict"]) == ("2001:db8::1", 80, "warn")
            assert (await _json(lab, "GET", "/egress/check", params={"host": "2001:db8::1"}))["port"] == 443
            for host in ("", "a.test:0", "a.test:65536", "a.test:x", "a b", "a..b", "[::1"):
                assert (await lab.client.get("/egress/check", params={"host": host})).status_code == 400, host
            missing = await lab.client.get("/egress/check", params={"host": "a.test", "sandbox": "nobody"})
            assert missing.status_code == 404

    run(work())


def test_check_says_what_no_rule_opens(tmp_path: Path) -> None:
    """A literal address beneath the floor, and this backend's own port, are blocked no matter what the rules say, in warn too."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create("box")
            port = (await _json(lab, "GET", "/sandboxes/box/ssh"))["port"]
            everything = [
                {"pattern": "*:*", "list": "allow"},
                {"pattern": f"127.0.0.1:{port}", "list": "allow", "private": ["127.0.0.1"]},
            ]
            # While it is stopped its port belongs to no one, and a rule may name it; once it runs the rule opens nothing.
            await lab.client.post("/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            await _json(lab, "PUT", "/egress", json={"rules": everything})
            await lab.client.post("/sandboxes/box/start")
            await lab.reaches("box", "ready")
            assert (await _json(lab, "GET", "/sandboxes/box/ssh"))["port"] == port
            for mode in ("warn", "deny"):
                await _json(lab, "PUT", "/egress/mode", json={"mode": mode})
                for host, why in (
                    ("169.254.169.254", "metadata"),
                    ("0x7f000001", "this machine's own"),
                    ("10.1.2.3:22", "private"),
                    ("[::ffff:10.1.2.3]:22", "private"),
                    ("[64:ff9b::a9fe:a9fe]:80", "metadata"),
                    (f"127.0.0.1:{port}", "a port of irons itself"),
                ):
                    found = await _json(lab, "GET", "/egress/check", params={"host": host, "sandbox": "box"})
                    assert (found["allowed"], found["verdict"], found["mode"]) == (False, "blocked", mode)
                    assert why in found["reason"]
                assert (await _json(lab, "GET", "/egress/check", params={"host": "203.0.113.1"}))["allowed"]

    run(work())


def test_no_rule_is_pinned_to_a_port_of_irons(tmp_path: Path) -> None:
    """A rule that would lead to a port that irons itself listens on is refused when it is made, by any way."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create("box")
            port = (await _json(lab, "GET", "/sandboxes/box/ssh"))["port"]
            rule = {"pattern": f"a.test:{port}", "list": "allow", "private": ["127.0.0.1"]}
            for method, path, body in (
                ("POST", "/egress/allow", {"domain": rule["pattern"], "private": rule["private"]}),
                (
                    "POST",
                    "/sandboxes/box/egress/allow",
                    {"domain": rule["pattern"], "private": rule["private"]},
                ),
                ("PUT", "/egress", {"rules": [rule]}),
                ("POST", "/sandboxes", {"name": "other", "public_key": KEY, "rules": [rule]}),
            ):
                answer = await lab.client.request(method, path, json=body)
                assert answer.status_code == 400, path
                assert f"127.0.0.1 port {port} is a port of irons itself" in answer.json()["error"]
            body = {"domain": f"a.test:{port + 1}", "private": ["127.0.0.1"]}
            assert (await _json(lab, "POST", "/egress/allow", json=body))["changed"]
            assert (await lab.client.get("/sandboxes/other")).status_code == 404

    run(work())


@pytest.mark.parametrize(
    ("private", "said"),
    [
        ("0" * 60, "private '0000"),
        ("169.254.169.254", "private '169.254.169.254' of 'a.test'"),
        ("127.0.0.0/8", "private '127.0.0.0/8' of 'a.test'"),
    ],
)
def test_a_bad_private_address_is_named(tmp_path: Path, private: str, said: str) -> None:
    """A fault of `private` is reported for it, not for the pattern."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            answer = await lab.client.post("/egress/allow", json={"domain": "a.test", "private": [private]})
            assert answer.status_code == 400
            assert answer.json()["error"].startswith(said)

    run(work())


def test_rules_go_with_their_sandbox(tmp_path: Path) -> None:
    """A sandbox with the name of one that was removed has neither its rules nor its mode."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create("box", mode="deny", rules=[{"pattern": "old.test", "list": "allow"}])
            await lab.client.post("/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            await lab.client.delete("/sandboxes/box")
            await lab.create("box")
            found = await _json(lab, "GET", "/sandboxes/box/egress")
            assert (found["rules"], found["mode"]) == ([], "warn")

    run(work())


def test_a_new_gateway_gets_every_policy(tmp_path: Path) -> None:
    """When the gateway was restarted, what is active is sent to the new one unasked."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box", mode="deny"))["id"]
            lab.gateway.link.close()
            lab.policies.clear()
            changing = asyncio.ensure_future(lab.client.post("/egress/allow", json={"domain": "a.test"}))
            await lab.start_gateway()

            async def told() -> bool:
                return cell in lab.policies

            await until(told)
            assert (await changing).status_code == 200
            assert [rule["pattern"] for rule in lab.policies[cell]["rules"]] == ["a.test"]

    run(work())


def test_the_upstream_proxy_goes_to_the_gateway_and_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed setting reaches the gateway; a check and a pin say that the proxy is closed; the password is nowhere else."""
    monkeypatch.setattr("irons_local.control.server._HOSTS_EVERY", 0.05)

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create("box")
            settings = lab.paths.state / "config.toml"
            settings.write_text('[local]\nupstream_proxy = "http://me:s3cr3t@10.0.0.9:3128"\n')

            async def told(host: str = "10.0.0.9") -> bool:
                return (lab.gateway.upstream or {}).get("host") == host

            await until(told)
            answer = await lab.client.get("/egress/check", params={"host": "10.0.0.9:3128"})
            assert (answer.json()["allowed"], answer.json()["cause"]) == (False, "never")
            rule = {"domain": "proxy.test:3128", "private": ["10.0.0.9"]}
            assert (await lab.client.post("/egress/allow", json=rule)).status_code == 400
            settings.write_text('[local]\nupstream_proxy = "http://me:s3cr3t@proxy.test:3128"\n')
            await until(lambda: told("proxy.test"))
            answer = await lab.client.get("/egress/check", params={"host": "proxy.test:3128"})
            assert "upstream proxy" in answer.json()["reason"]
            assert "s3cr3t" not in json.dumps(lab.policies)

    run(work())
    found = [path for path in tmp_path.rglob("*") if path.is_file() and b"s3cr3t" in path.read_bytes()]
    assert [path.name for path in found] == ["config.toml"]


def test_hosts_of_the_settings_are_in_the_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`[local.hosts]` reaches the gateway, also when the file changes while sandboxes run; a broken file changes nothing."""
    monkeypatch.setattr("irons_local.control.server._HOSTS_EVERY", 0.05)

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box"))["id"]
            settings = lab.paths.state / "config.toml"
            settings.write_text('[local.hosts]\n"Stand.test" = ["192.0.2.7"]\n')

            async def told() -> bool:
                return bool(lab.policies[cell]["hosts"] == {"stand.test": ["192.0.2.7"]})

            await until(told)
            settings.write_text("[local.hosts\n")
            await _json(lab, "POST", "/egress/allow", json={"domain": "a.test"})
            assert lab.policies[cell]["hosts"] == {"stand.test": ["192.0.2.7"]}

    run(work())


@pytest.mark.slow
def test_a_policy_made_of_another_one_is_refused(tmp_path: Path) -> None:
    """With its revision a policy replaces just what it was made of: after any change of rules, notes or mode it is 409, dry or not."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create("box")
            for scope, mode in (("", "deny"), ("/sandboxes/box", "warn")):
                path = f"{scope}/egress"
                read = (await _json(lab, "GET", path))["revision"]
                body = {"rules": [{"pattern": "one.test", "list": "allow"}], "revision": read}
                changes: list[tuple[str, str, dict[str, Any]]] = [
                    ("POST", f"{path}/allow", {"domain": "theirs.test"}),
                    ("POST", f"{path}/allow", {"domain": "theirs.test", "note": "why"}),
                    ("POST", f"{path}/deny", {"domain": "theirs.test"}),
                    ("PUT", f"{path}/mode", {"mode": mode}),
                ]
                for method, where, change in changes:
                    await _json(lab, method, where, json=change)
                    for dry in ({}, {"dry_run": "true"}):
                        answer = await lab.client.put(path, json=body, params=dry)
                        assert answer.status_code == 409, change
                        assert "changed" in answer.json()["error"]
                    now = (await _json(lab, "GET", path))["revision"]
                    assert now != body["revision"]
                    body["revision"] = now
                await _json(lab, "PUT", path, json=body, params={"dry_run": "true"})
                await _json(lab, "PUT", path, json=body)
                assert (await lab.client.put(path, json=body)).status_code == 409
                assert (await _json(lab, "GET", path))["allowed_domains"] == ["one.test"]
                await _json(lab, "PUT", path, json={"rules": [], "revision": None})

    run(work())


@pytest.mark.slow
def test_nothing_is_lost_among_many_writers(tmp_path: Path) -> None:
    """Writers that read, add and replace at the same time, each again where it is refused, leave every rule in the end."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:

            async def add(pattern: str) -> None:
                while True:
                    found = await _json(lab, "GET", "/egress")
                    kept = [{"pattern": rule["pattern"], "list": rule["list"]} for rule in found["rules"]]
                    rules = [*kept, {"pattern": pattern, "list": "allow"}]
                    body = {"rules": rules, "revision": found["revision"]}
                    answer = await lab.client.put("/egress", json=body)
                    if answer.status_code == 200:
                        return
                    assert answer.status_code == 409, answer.text

            names = [f"name{number}.test" for number in range(8)]
            await asyncio.gather(*map(add, names))
            found = await _json(lab, "GET", "/egress")
            assert sorted(found["allowed_domains"]) == names

    run(work())


def test_nobody_waits_for_the_worker_of_another_sandbox(tmp_path: Path) -> None:
    """While one sandbox's worker does not confirm a change, others are changed and started; the change is answered once it has."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            hung, well = (await lab.create("hung"))["id"], (await lab.create("well"))["id"]
            lab.gateway.mute.add(hung)
            asked = {"mode": "deny", "rules": []}
            changing = asyncio.ensure_future(_json(lab, "PUT", "/egress", json=asked))
            await until(lambda: _has_mode(lab, hung, "deny"))
            await until(lambda: _has_mode(lab, well, "deny"))
            await _json(lab, "POST", "/sandboxes/well/egress/allow", json={"domain": "example.test"})
            await lab.create("new")
            assert not changing.done()
            # The keeper has ended it, and there is another.
            lab.gateway.link.close()
            await lab.start_gateway()
            await changing
            assert lab.policies[hung]["mode"] == "deny"
            assert lab.policies[well]["rules"] != []

    run(work())


def test_the_last_change_holds_whatever_order_they_are_confirmed_in(tmp_path: Path) -> None:
    """Changes that wait for one worker reach it in the order in which they were written, and an older one never after a newer one."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box"))["id"]
            lab.gateway.mute.add(cell)
            changes = []
            for number in range(5):
                asked = {"domain": f"{number}.example.test"}
                path = "/egress/allow" if number % 2 else "/sandboxes/box/egress/allow"
                changes.append(asyncio.ensure_future(_json(lab, "POST", path, json=asked)))
                await until(lambda number=number: _has_rules(lab, number + 1))  # type: ignore[misc]
            lab.gateway.link.close()
            await lab.start_gateway()
            await asyncio.gather(*changes)
            assert len(lab.policies[cell]["rules"]) == 5

    run(work())


async def _has_mode(lab: Lab, cell: str, mode: str) -> bool:
    return bool(lab.policies[cell]["mode"] == mode)


async def _has_rules(lab: Lab, count: int) -> bool:
    own = await _json(lab, "GET", "/sandboxes/box/egress")
    return len(own["allowed_domains"]) + len((await _json(lab, "GET", "/egress"))["allowed_domains"]) == count
