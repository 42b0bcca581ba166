"""The names that keys are completed from."""

from __future__ import annotations

from pathlib import Path

from irons.client.names import NameCache


def test_what_is_shared_is_the_same_until_it_changes(tmp_path: Path) -> None:
    """Readers that look at each key get one mapping, also where the file was written again as it was, or only touched."""
    cache, other = NameCache(tmp_path / "names.json"), NameCache(tmp_path / "names.json")
    assert cache.shared() == {}
    other.replace({"a": "ready"})
    first = cache.shared()
    other.touch()
    other.replace({"a": "ready"})
    assert cache.shared() is first
    other.replace({"a": "stopped"})
    assert cache.shared() == {"a": "stopped"}
    (tmp_path / "names.json").unlink()
    assert cache.shared() == {}
