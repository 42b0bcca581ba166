"""How busy a sandbox is, read from outside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from irons_local.engines.namespace import activity as measuring
from irons_local.engines.namespace.activity import activity, sessions
from irons_local.linux.cgroup import Groups

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
KEEPER, INSIDE = 1000, 100_001


def line(local: int, remote: int, state: str, uid: int) -> str:
    """One line of /proc/net/tcp, of loopback ports."""
    ends = f"0100007F:{local:04X} 0100007F:{remote:04X}"
    return f"   0: {ends} {state} 00000000:00000000 00:00000000 00000000 {uid:5d}        0 4711 1 0 20 4 12 18 -1\n"


def test_only_connections_from_outside_are_sessions(tmp_path: Path) -> None:
    """The keeper's ends of established connections count; listeners, what ended, and what something inside made do not."""
    lines = (
        line(22, 0, "0A", INSIDE),
        line(22, 40_000, "01", INSIDE),
        line(40_000, 22, "01", KEEPER),
        line(40_001, 22, "01", INSIDE),
        line(40_002, 22, "06", KEEPER),
        line(40_003, 80, "01", KEEPER),
    )
    (tmp_path / "tcp").write_text(HEAD + "".join(lines))
    assert sessions(tmp_path, KEEPER) == 1
    (tmp_path / "tcp6").write_text(HEAD + line(40_004, 22, "01", KEEPER))
    assert sessions(tmp_path, KEEPER) == 2


def test_processor_time_without_control_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none counts it, the time of all processes of the pid namespace, and of those they waited for, is it."""
    groups = Groups("none", {}, "none here")
    # Others of this machine come and go in between.
    monkeypatch.setattr(measuring, "in_namespace", lambda *_: iter([os.getpid()]))
    first = activity(groups, "sb_0", os.getpid()).processor
    began = sum(os.times()[:4])
    while sum(os.times()[:4]) - began < 0.1:
        pass
    assert activity(groups, "sb_0", os.getpid()).processor - first >= 90_000


def test_processor_time_by_control_groups(tmp_path: Path) -> None:
    """Either hierarchy's counter is read in microseconds."""
    (tmp_path / "sb_0").mkdir()
    (tmp_path / "sb_0" / "cpu.stat").write_text("usage_usec 4200\nuser_usec 1\n")
    (tmp_path / "sb_0" / "cpuacct.usage").write_text("4200000\n")
    assert Groups("v2", {"memory": tmp_path}).processor("sb_0") == 4200
    assert Groups("v1", {"cpu": tmp_path}).processor("sb_0") == 4200
    assert Groups("v1", {"memory": tmp_path}).processor("sb_0") is None
