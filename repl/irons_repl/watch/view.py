"""The live view's picture: styled lines for a width and a height, from the model alone."""

from __future__ import annotations

from collections.abc import Iterable

from irons.text import clean
from irons_policy.event import Event
from irons_repl.watch.model import HostRow, Model, VerdictTotals, lost, verdict_of

Fragments = list[tuple[str, str]]

HEAD = 2
"""Lines above the hosts: title and gap."""

LABELS = {"allowed": "ALLOWED", "denied": "DENIED", "warned": "WOULD-DENY"}
STYLES = {"allowed": "class:allowed", "denied": "class:denied", "warned": "class:warned"}
BLOCK, NO_COLOUR = "█", {"allowed": "█", "denied": "░", "warned": "▒"}
KEYS = "a allow  d deny  ↑↓ choose  space pause  q leave"


def hosts_shown(height: int) -> int:
    """Return how many hosts a view of this height shows."""
    return max(1, min(12, (height - HEAD - 3) // 2))


def picture(model: Model, width: int, height: int, *, colour: bool = True) -> list[Fragments]:
    """Return the view's lines, exactly `height` of them, none wider than `width`."""
    most = hosts_shown(height)
    lines = _head(model, width)
    hosts = model.shown(most)
    if hosts:
        lines += _hosts(hosts, model.selected, width, colour=colour)
    else:
        lines.append([("class:dim", " No connections yet." if model.answered else " Asking the server …")])
    lines.append([("class:warned", f" {clean(model.rotated)}")] if model.rotated else [])
    room = max(0, height - len(lines) - 1)
    latest = list(model.latest)[-room:] if room else []
    name = 16 if model.sandbox is None and width >= 70 else 0
    lines += [_event(event, name) for event in latest]
    lines += [[] for _ in range(height - 1 - len(lines))]
    lines.append(_foot(model, width))
    return [_cut(line, width) for line in lines[: height - 1] + lines[-1:]]


def _head(model: Model, width: int) -> list[Fragments]:
    """The title and the totals, on one line where there is room."""
    what = clean(model.sandbox, limit=30) if model.sandbox else "all sandboxes"
    left: Fragments = [("bold", f" {what} ")]
    if model.mode:
        style = "class:denied" if model.mode == "warn" else "class:allowed"
        left.append((style, f" mode {clean(model.mode, limit=8)} "))
    if model.paused:
        left.append(("class:warned", " paused "))
    right = _totals(model.totals)
    room = width - sum(len(text) for _, text in (*left, *right))
    return [[*left, ("", " " * room), *right], []] if room > 0 else [left, [("", " "), *right]]


def _totals(totals: VerdictTotals) -> Fragments:
    fragments: Fragments = [
        ("class:allowed", f"{totals.allowed} allowed"),
        ("class:denied", f"  {totals.denied} denied"),
    ]
    if totals.warned:
        fragments.append(("class:warned", f"  {totals.warned} would be denied"))
    return [*fragments, ("", " ")]


def _hosts(hosts: list[HostRow], selected: str | None, width: int, *, colour: bool) -> list[Fragments]:
    name = max(12, min(40, width // 2 - 4))
    digits = max(len(str(host.total)) for host in hosts)
    bar = max(4, width - name - digits - 6)
    most = max(host.total for host in hosts)
    return [
        _host(host, host.target == selected, name, digits, bar * host.total / most, colour=colour)
        for host in hosts
    ]


def _host(host: HostRow, selected: bool, name: int, digits: int, bar: float, *, colour: bool) -> Fragments:
    style = "reverse" if selected else ""
    shown = clean(host.target)
    shown = shown if len(shown) <= name else f"{shown[: name - 1]}…"
    line: Fragments = [
        (style, f"{'▸' if selected else ' '} {shown:<{name}}"),
        ("", f" {host.total:>{digits}} "),
    ]
    cells = max(1, round(bar))
    for verdict in ("allowed", "warned", "denied"):
        part = round(cells * getattr(host, verdict) / host.total)
        line.append((STYLES[verdict], (BLOCK if colour else NO_COLOUR[verdict]) * part))
    return line


def _event(event: Event, name: int) -> Fragments:
    """One event; `name` is the width of the column that names its sandbox, 0 for none."""
    verdict = verdict_of(event)
    time = event.time.astimezone().strftime("%H:%M:%S") if event.time else "--:--:--"
    port = f":{event.port}" if event.port is not None else ""
    count = f" ({event.count} times)" if event.count > 1 else ""
    label, style = LABELS[verdict], STYLES[verdict]
    if lost(event):
        label, style = clean(event.outcome, limit=10).upper(), STYLES["warned"]
    line: Fragments = [("class:dim", f" {time} "), (style, f"{label:<10} ")]
    if name:
        line.append(("", f"{clean(event.sandbox, limit=name):<{name}} "))
    line.append(("", f"{clean(event.host)}{port}{count}"))
    why = event.ended if lost(event) else event.reason if verdict != "allowed" else ""
    if why:
        line.append(("class:dim", f"  {clean(why)}"))
    return line


def _foot(model: Model, width: int) -> Fragments:
    if model.trouble:
        return [("class:denied", f" {clean(model.trouble)} ")]
    if model.said:
        return [("bold", f" {clean(model.said)} ")]
    keys = KEYS if len(KEYS) + 2 <= width else "a allow  d deny  q leave"
    return [("class:dim", f" {keys} ")]


def _cut(line: Iterable[tuple[str, str]], width: int) -> Fragments:
    cut: Fragments = []
    for style, text in line:
        cut.append((style, text[:width]))
        width = max(0, width - len(text))
    return [part for part in cut if part[1]]
