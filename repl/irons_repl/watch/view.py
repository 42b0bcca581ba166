"""The live view's picture: styled lines for a width and a height, from the state alone."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

from irons.asking.question_line import question_line
from irons.terminal.cells import cut_middle
from irons.text import clean
from irons_policy.event import Event
from irons_repl.fragments import cut
from irons_repl.status.mode_line import Styles, mode_line
from irons_repl.watch.detail import about_event, about_keys
from irons_repl.watch.listing import SORT_TITLES
from irons_repl.watch.model import HostRow, LogEntry, VerdictTotals, lost, verdict_of
from irons_repl.watch.state import Drawn, ViewState

Fragments = list[tuple[str, str]]

TALL = 10
"""Lines from which the totals get a line of their own where the title has no room for them."""

LABELS = {"allowed": "ALLOWED", "denied": "DENIED", "warned": "WOULD-DENY"}
STYLES = {"allowed": "class:allowed", "denied": "class:denied", "warned": "class:warned"}
MARKS = {"allow": ("class:allowed", "+ "), "deny": ("class:denied", "- "), "": ("", "  ")}
MODE_STYLES = Styles("class:allowed", "class:denied", "class:dim")
UNDECIDED = ("class:warned", "? ")
BLOCK, NO_COLOUR = "█", {"allowed": "█", "denied": "░", "warned": "▒"}
KEYS = (
    "a allow  d deny  u undo  Enter details  / filter  s sort  Tab log  space hold  ? keys  q leave",
    "a allow  d deny  u undo  Enter details  / filter  Tab log  ? keys  q leave",
    "a allow  d deny  Tab log  ? keys  q leave",
    "a allow  d deny  ? keys  q leave",
    "? keys  q leave",
)
"""The line at the foot: the longest that fits."""

WIDE = 70
"""Columns from which the log's columns stay where they are."""
NAMED = 34
"""Columns from which the log of all sandboxes names them."""
LONGEST_LABEL, LONGEST_NAME = 10, 16
"""Columns of a verdict and of a sandbox's name in the log."""
_TIME = 11
"""Columns of the time in the log, with the blanks around it and after the verdict."""

NARROWEST = 12
"""Columns of a text next to its title at least; with fewer it goes below."""

MOST_FOOT = 6
"""Lines of a question at most: it is never cut where the terminal has them."""


def picture(state: ViewState, width: int, height: int, now: float, *, colour: bool = True) -> list[Fragments]:
    """Return the view's lines, exactly `height` of them, none wider than `width`; the state takes note of what they show."""
    said = _said(state, width, now)[: max(1, min(MOST_FOOT, height - 3))]
    foot = max(1, len(said))
    title = _title(state, width)[: 2 if height >= TALL else 1]
    head = len(title) + 1
    asked = _asked(state, width) if height - foot > head + 1 else []
    body = max(0, height - head - len(asked) - foot)
    # Half of the room is the hosts', and what they leave the log's.
    hosts = max(1, (body - 1) // 2)
    shown = min(hosts, max(1, len(state.view.hosts)))
    drawn = state.lay_out(hosts, max(0, body - 1 - shown), now)
    lines = [*title, _about_list(state, drawn, width), *asked]
    if state.shown == "lists":
        lines += _lists(state, drawn, width, max(0, body), colour=colour)
    else:
        lines += _text(state, width, body)
    lines = lines[: height - foot]
    lines += [[] for _ in range(height - foot - len(lines))]
    # Which keys there are depends on whether a page is shown whole.
    return [cut(line, width) for line in (*lines, *(said or [_keys(state, width)]))][:height]


def _title(state: ViewState, width: int) -> list[Fragments]:
    """The title with the totals, which get a line of their own where it has no room for them."""
    what = clean(state.sandbox, limit=30) if state.sandbox else "all sandboxes"
    right = _totals(state.view.totals)
    # What does not answer may have changed its mode since.
    facts = state.mode._replace(stale=bool(state.trouble))
    spare = width - len(what) - 4
    mode = mode_line(facts, max(0, spare - _columns(right)), MODE_STYLES)
    if _columns(mode) + _columns(right) > spare:
        # The totals get a line of their own.
        mode = mode_line(facts, max(0, spare), MODE_STYLES)
    if _columns(mode) > spare and not state.sandbox:
        what = "all"
    left: Fragments = [("bold", f" {what} ")]
    if mode:
        left += [("", " "), *mode, ("", " ")]
    if state.held is not None:
        left.append(("class:warned", " paused "))
    room = width - _columns((*left, *right))
    if room > 0:
        return [[*left, ("", " " * room), *right]]
    return [left, [("", " "), *right]]


def _asked(state: ViewState, width: int) -> list[Fragments]:
    """The questions of mode `ask` as a line, unless they are shown whole."""
    line = "" if state.shown == "asked" else question_line(state.asked.page, width - 1, "!")
    return [[("class:warned bold", f" {line}")]] if line else []


def _columns(fragments: Sequence[tuple[str, str]]) -> int:
    return sum(len(text) for _, text in fragments)


def _about_list(state: ViewState, drawn: Drawn, width: int) -> Fragments:
    """What the list shows: the most that fits; the filter always, and of a long one its end."""
    undecided: Fragments = [(UNDECIDED[0], f" {state.undecided} undecided")] if state.undecided else []
    between = " ·" if undecided else ""
    place = f"{between} {drawn.top + 1}-{drawn.top + len(drawn.hosts)} of {len(state.order)}"
    where: Fragments = [("class:dim", place)] if drawn.hosts else []
    sort: Fragments = [("class:dim", f" hosts, {SORT_TITLES[state.sort]}")] if drawn.hosts else []
    filtered: Fragments = []
    if state.wanted:
        filtered.append(("bold", f"  /{_tail(clean(state.wanted), max(1, width - 3))}"))
    shown = ([*undecided, *where, *sort], [*undecided, *where], undecided)
    return next(([*each, *filtered] for each in shown if _columns((*each, *filtered)) <= width), filtered)


def _totals(totals: VerdictTotals) -> Fragments:
    fragments: Fragments = [
        ("class:allowed", f"{totals.allowed} allowed"),
        ("class:denied", f"  {totals.denied} denied"),
    ]
    if totals.warned:
        fragments.append(("class:warned", f"  {totals.warned} would be denied"))
    return [*fragments, ("", " ")]


def _lists(state: ViewState, drawn: Drawn, width: int, room: int, *, colour: bool) -> list[Fragments]:
    hosts = [state.view.hosts[target] for target in drawn.hosts if target in state.view.hosts]
    if hosts:
        lines = _hosts(state, hosts, drawn, width, colour=colour)
    elif state.wanted:
        lines = [[("class:dim", " No host fits the filter.")]]
    else:
        lines = [[("class:dim", " No connections yet." if state.model.answered else " Asking the server …")]]
    lines.append(_log_title(state, drawn))
    columns = _log_columns(drawn.log, width, several=state.sandbox is None)
    chosen = drawn.entry.number if drawn.entry is not None and state.focus == "log" else None
    lines += [_event(entry, columns, width, chosen=entry.number == chosen) for entry in drawn.log]
    return lines[:room]


def _log_title(state: ViewState, drawn: Drawn) -> Fragments:
    """The line between hosts and log: what is missing of the log, and, where its end is not shown, where it stands."""
    line: Fragments = [("class:warned", f" {clean(state.view.rotated)}")] if state.view.rotated else []
    if state.focus != "log":
        return line
    at = next((place for place, each in enumerate(drawn.log) if each == drawn.entry), 0)
    where = f" log {drawn.log_top + at + 1 if drawn.log else 0}/{drawn.log_all} "
    mark: Fragments = [("bold", where)]
    if state.at is not None:
        mark.append(("class:warned", "paused, End goes on "))
    return [*mark, *line]


def _hosts(
    state: ViewState, hosts: list[HostRow], drawn: Drawn, width: int, *, colour: bool
) -> list[Fragments]:
    name = max(12, min(max(40, width // 3), width // 2 + 2))
    digits = max(len(str(host.total)) for host in hosts)
    room = width - name - digits - 6
    bar = max(1, min(room, max(4, room - 2)))
    most = max(1, *(host.total for host in hosts))
    lines: list[Fragments] = []
    for host in hosts:
        undecided = state.standing.undecided(host)
        mark = UNDECIDED if undecided else MARKS[state.standing.marks(host.last) or ""]
        chosen = host.target == drawn.host
        lines.append(
            _host(
                host,
                chosen,
                state.focus == "hosts",
                mark,
                name,
                digits,
                bar * host.total / most,
                colour=colour,
            )
        )
    return lines


def _host(
    host: HostRow,
    chosen: bool,
    focused: bool,
    mark: tuple[str, str],
    name: int,
    digits: int,
    bar: float,
    *,
    colour: bool,
) -> Fragments:
    style = "reverse" if chosen and focused else ""
    shown = _tail(clean(host.target), name)
    line: Fragments = [
        (style, "▸ " if chosen else "  "),
        (f"{style} {mark[0]}".strip(), mark[1]),
        (style, f"{shown:<{name}}"),
        ("", f" {host.total:>{digits}} "),
    ]
    cells = max(1, round(bar))
    for verdict in ("allowed", "warned", "denied"):
        share = round(cells * getattr(host, verdict) / max(1, host.total))
        line.append((STYLES[verdict], (BLOCK if colour else NO_COLOUR[verdict]) * share))
    return line


def _log_columns(log: Sequence[LogEntry], width: int, *, several: bool) -> tuple[int, int]:
    """Return the width of the verdicts, and of the sandboxes' names where there are several; on a narrow screen no more than they need."""
    if width >= WIDE:
        return LONGEST_LABEL, LONGEST_NAME if several else 0
    label = max((len(_label(entry.event)[0]) for entry in log), default=0)
    if width < NAMED or not several:
        return label, 0
    longest = max((len(clean(entry.event.sandbox)) for entry in log), default=0)
    # Two thirds of what is left are the host's.
    return label, min(LONGEST_NAME, longest, max(1, (width - label - _TIME) // 3))


def _label(event: Event) -> tuple[str, str]:
    """Return what became of an event, with its style."""
    if lost(event):
        return clean(event.outcome, limit=LONGEST_LABEL).upper(), STYLES["warned"]
    verdict = verdict_of(event)
    return LABELS[verdict], STYLES[verdict]


def _event(entry: LogEntry, columns: tuple[int, int], width: int, *, chosen: bool) -> Fragments:
    """One event; `columns` are the widths of the verdict and of the sandbox's name, 0 for none."""
    event = entry.event
    time = event.time.astimezone().strftime("%H:%M:%S") if event.time else "--:--:--"
    port = f":{event.port}" if event.port is not None else ""
    count = f" ({event.count} times)" if event.count > 1 else ""
    (label, style), (verdict, name) = _label(event), columns
    under = "reverse" if chosen else ""
    line: Fragments = [
        (under or "class:dim", f" {time} "),
        (f"{under} {style}".strip(), f"{label:<{verdict}} "),
    ]
    if name:
        line.append((under, f"{cut_middle(clean(event.sandbox), name):<{name}} "))
    why = event.ended if lost(event) else event.reason if verdict_of(event) != "allowed" else ""
    why = f"  {clean(why)}" if why else ""
    host, room = f"{clean(event.host)}{port}", width - _columns(line)
    if len(host) + len(count) + len(why) > room:
        # What follows the host is cut first, and the mark of that has a column.
        host = _tail(host, max(1, room - bool(count or why)))
    line += [(under, f"{host}{count}"), (under or "class:dim", why)]
    return line


def _text(state: ViewState, width: int, room: int) -> list[Fragments]:
    """An event as a whole, the questions of mode `ask`, or the keys."""
    if state.shown == "asked":
        return [[("", line)] for line in state.asked.lines(width, room)]
    if state.shown == "help" or state.event is None:
        told = about_keys()
    else:
        told = about_event(state.latest_of(state.event), state.standing)
    lines = _page(told, width)
    state.paging = state.paging.drawn(len(lines), room)
    return lines[state.paging.top : state.paging.top + room]


def _page(told: Sequence[tuple[str, str]], width: int) -> list[Fragments]:
    """Titles with their texts next to them, or below them where the screen is too narrow for that."""
    name = max(len(key) for key, _ in told) + 1
    room = width - name - 3
    lines: list[Fragments] = []
    if room < NARROWEST:
        for key, text in told:
            lines.append([("class:dim", f" {key}")])
            lines += [[("", f"   {each}")] for each in wrap(text, max(1, width - 4), break_on_hyphens=False)]
        return lines
    for key, text in told:
        for number, each in enumerate(wrap(text, room, break_on_hyphens=False) or [""]):
            lines.append([("class:dim", f" {key if not number else '':<{name}} "), ("", each)])
    return lines


def _said(state: ViewState, width: int, now: float) -> list[Fragments]:
    """What there is to ask or to say in the foot; none where it has room for the keys."""
    if state.question is not None:
        ask = " y/n" if state.armed(now) else ""
        return [
            [("bold", f" {line}")] for line in wrap(f"{clean(state.question.text)}?{ask}", max(8, width - 2))
        ]
    if state.typing:
        return [[("bold", f" /{_tail(clean(state.wanted), max(1, width - 4))}"), ("reverse", " ")]]
    if state.trouble:
        return [[("class:denied", f" {clean(state.trouble)} ")]]
    if state.said:
        return [[("bold", f" {line}")] for line in wrap(clean(state.said), max(8, width - 2))]
    return []


def _keys(state: ViewState, width: int) -> Fragments:
    """The keys that there are: the most that fits."""
    choices: tuple[str, ...] = KEYS
    if state.shown == "asked":
        choices = ("Esc goes back to the connections",)
    elif state.shown != "lists":
        more = state.paging.more
        decide = "a allow  d deny" if state.shown == "event" else ""
        if more:
            lead = " · ".join(filter(None, (f"{more} more", decide)))
            choices = (f"{lead} · other keys close", lead, f"{more} more")
        else:
            choices = (f"{decide}  any other key closes", decide) if decide else ("any key closes",)
    keys = next((each for each in choices if len(each) + 2 <= width), choices[-1])
    return [("class:dim", f" {keys} ")]


def _tail(text: str, room: int) -> str:
    """Cut a name on its left: what says who it belongs to is at its end."""
    return text if len(text) <= room else f"…{text[len(text) - room + 1 :]}"
