"""What no answer opens: `never` of the settings and of policies."""

from __future__ import annotations

from pathlib import Path

from tests.local.control.asking import HOST, asking, in_json, tell, told
from tests.local.control.lab import KEY, ForwardLoop, control_plane, run, until

from irons_local.control.store import rules as rulebook
from irons_local.control.store import unasked
from irons_local.control.store.database import Store
from irons_policy.patterns import read_never
from irons_policy.rules import make_rule


def test_no_answer_opens_what_is_never_asked_about(tmp_path: Path) -> None:
    """The gateway gets the patterns, also when they change; a rule that overlaps one is refused, a deny rule is not."""
    loop = ForwardLoop()

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell, question = await asking(lab)
            assert "never" not in lab.policies[cell]
            config = lab.paths.state / "config.toml"
            config.write_text('[ask]\nnever = ["*.paste.new.example", "*:25"]\n')
            # The file is looked at from time to time.
            loop.skip(2)

            async def active() -> bool:
                return lab.policies[cell].get("never") == ["*.paste.new.example:*", "*:25"]

            await until(active)
            path = f"/questions/{question['id']}"
            for pattern in ("*:443", f"{HOST}:*"):
                wide = {"answer": "always", "pattern": pattern, "scope": "account"}
                refused = await in_json(lab, "POST", path, 400, json=wide)
                assert "[ask] never has" in str(refused)
            assert not lab.policies[cell]["rules"]
            await in_json(lab, "POST", path, json={"answer": "always"})
            (other,) = await tell(lab, cell, told("b.paste.new.example"))
            path = f"/questions/{other['id']}"
            await in_json(lab, "POST", path, 400, json={"answer": "hour"})
            await in_json(lab, "POST", path, json={"answer": "never"})
            assert {each["list"] for each in lab.policies[cell]["rules"]} == {"allow", "deny"}

    run(work(), loop)


def test_a_policy_says_what_no_answer_opens(tmp_path: Path) -> None:
    """`never` of a sandbox's policy or of all goes to the gateway; answers that overlap it are refused, and copies have it, too."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell, question = await asking(lab)
            path = f"/questions/{question['id']}"
            own = await in_json(lab, "GET", "/sandboxes/box/egress")
            body = {"rules": [], "never": [f"*.{HOST}"], "revision": own["revision"]}
            await in_json(lab, "PUT", "/sandboxes/box/egress", json=body)
            await in_json(lab, "PUT", "/egress", json={"rules": [], "never": ["*:25", f"*.{HOST}"]})
            assert lab.policies[cell]["never"] == [f"*.{HOST}:*", "*:25"]
            await in_json(lab, "PUT", "/sandboxes/box/egress", 409, json=body)
            await in_json(lab, "PUT", "/sandboxes/box/egress", 400, json={"rules": [], "never": ["a b"]})
            for pattern, scope in ((f"*.{HOST}", "sandbox"), (f"{HOST}:*", "account"), ("*:443", "account")):
                wide = {"answer": "always", "pattern": pattern, "scope": scope}
                assert (await lab.client.post(path, json=wide)).status_code == 400, pattern
            kept = {"rules": [{"pattern": "fine.example", "list": "allow"}]}
            await in_json(lab, "PUT", "/sandboxes/box/egress", json=kept)
            shown = await in_json(lab, "GET", "/sandboxes/box/egress")
            assert shown["never"] == [f"*.{HOST}:*"]
            await in_json(lab, "PUT", "/egress", json={"rules": [], "never": []})
            assert lab.policies[cell]["never"] == [f"*.{HOST}:*"]
            await in_json(lab, "POST", "/sandboxes/box/fork", 202, json={"names": ["copy"]})
            await lab.reaches("copy", "ready")
            copy = str((await lab.status("copy"))["id"])
            assert lab.policies[copy]["never"] == [f"*.{HOST}:*"]
            made = str((await lab.create("other", never=["*.other.example"]))["id"])
            assert lab.policies[made]["never"] == ["*.other.example:*"]
            await in_json(lab, "POST", "/sandboxes/box/snapshots", 201, json={"name": "kept"})
            for name in ("copy", "other", "box"):
                await in_json(lab, "PUT", f"/sandboxes/{name}/egress", json={"rules": [], "never": []})
            assert "never" not in lab.policies[cell]
            # The snapshot still has them, and answers nothing.
            wide = {"answer": "always", "pattern": "*:443", "scope": "account"}
            await in_json(lab, "POST", path, json=wide)

    run(work())


def test_a_policy_has_so_many_patterns_that_no_answer_opens(tmp_path: Path) -> None:
    """500 are taken and more are refused, also where a copy gets those of its snapshot too."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            many = [f"n{number}.example" for number in range(501)]
            await lab.create()
            for path in ("/egress", "/sandboxes/box/egress"):
                await in_json(lab, "PUT", path, 400, json={"rules": [], "never": many})
                await in_json(lab, "PUT", path, json={"rules": [], "never": many[:500]})
            await in_json(lab, "POST", "/sandboxes/box/snapshots", 201, json={"name": "kept"})
            copy = {"name": "copy", "public_key": KEY, "snapshot": "kept"}
            await in_json(lab, "POST", "/sandboxes", 400, json={**copy, "never": many[500:]})
            await in_json(lab, "POST", "/sandboxes", 202, json={**copy, "never": many[:1]})

    run(work())


def test_stored_patterns_are_parsed_once(tmp_path: Path) -> None:
    """A policy of many patterns that no answer opens costs no parsing at each look, nor does a rule of one of them."""
    store = Store(tmp_path / "irons.db")
    try:
        given = read_never(["*.paste.example", "*:25", "2001:db8::/32", "10.0.0.0/8"])
        store.write_now(lambda connection: unasked.replace(connection, "", given))
        first, second = (store.write_now(lambda connection: unasked.of(connection, "")) for _ in range(2))
        assert {*first} == {*given}
        assert all(one is other for one, other in zip(first, second, strict=True))
        rule = make_rule("*:25", "deny")
        store.write_now(lambda connection: rulebook.put(connection, "", rule))
        (put,) = store.write_now(lambda connection: rulebook.of(connection, ""))
        assert any(put.pattern is each for each in first)
    finally:
        store.close()
