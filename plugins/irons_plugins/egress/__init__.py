"""The built-in plugin `egress`: what sandboxes may reach.

The commands as data are here; handlers change rules and modes through the client, and read and write policy files.
The language of rules itself is `irons_policy`; the backend is not imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from irons.command import ALL_SANDBOXES, ONE_SANDBOX, Arg, Column, Command, Flag, Opt, View
from irons.hookspecs import hookimpl
from irons_policy.modes import MODE_SYNONYMS, MODES

if TYPE_CHECKING:
    from irons.plugin.hook_data import CompletionState

_HERE = "irons_plugins.egress"

_SCOPE = (ONE_SANDBOX, ALL_SANDBOXES)
_NAME = (Arg("name", "The sandbox; by default the one in use.", kind="sandbox"), ALL_SANDBOXES)
_FILE = Arg("file", "The policy file.", kind="file")
_DOMAINS = Arg("domains", "Names, wildcards or addresses.", kind="domain", takes="+", metavar="DOMAIN")
_BROAD = Flag(("--broad",), "Accept a wildcard over a shared suffix such as *.github.io.")
_NOTE = Opt(("--note",), "A note kept with the rule.", metavar="TEXT")
_PRESET = Arg("name", "The preset.", kind="preset")
_FOR = Opt(
    ("--for",), "End the rule by itself after this time.", metavar="DURATION", type="seconds", name="seconds"
)
_UNTIL = Opt(("--until",), "End it at this time, or stop: when its sandbox stops.", metavar="TIME")
_CHANGE = View(line=f"{_HERE}.views:change")


@hookimpl
def irons_completions() -> dict[str, Callable[[CompletionState], Mapping[str, str]]]:
    """Complete the names of irons' own presets."""
    return {"preset": _presets}


def _presets(_: CompletionState) -> Mapping[str, str]:
    from irons.presets.known_sets import OURS

    return {preset.name: preset.what for preset in OURS}


@hookimpl
def irons_commands() -> list[Command]:
    """Bring the egress commands."""
    return [
        Command(
            ("egress", "allow"),
            "Allow domains.",
            f"{_HERE}.handlers:allow",
            (
                _DOMAINS,
                *_SCOPE,
                Opt(
                    ("--private",),
                    "Open this private address or block. May be repeated.",
                    metavar="ADDR",
                    many=True,
                ),
                _BROAD,
                _NOTE,
                _FOR,
                _UNTIL,
            ),
            view=_CHANGE,
            about="A pattern is in one list at most: allowing it removes it from the deny list. irons help egress explains what patterns cover. "
            "--private lets the name lead to an address on this machine's networks.",
            examples=(
                "irons egress allow example.com '*.example.org'",
                "irons egress allow github.com:22 --sandbox my-sandbox",
                "irons egress allow db.example.com:5432 --private 10.0.0.5",
                "irons egress allow example.com --sandbox my-sandbox --for 1h",
                "irons egress allow example.com --until 18:00",
            ),
            exits=(3, 4, 6),
            scope="sandbox",
        ),
        Command(
            ("egress", "deny"),
            "Deny domains.",
            f"{_HERE}.handlers:deny",
            (_DOMAINS, *_SCOPE, _BROAD, _NOTE, _FOR, _UNTIL),
            view=_CHANGE,
            about="Any deny wins over every allow. In mode warn nothing is blocked, only logged.",
            examples=("irons egress deny example.com", "irons egress deny '*' --sandbox my-sandbox"),
            exits=(3, 4, 6),
            scope="sandbox",
        ),
        Command(
            ("egress", "remove"),
            "Remove rules from the list they are on.",
            f"{_HERE}.handlers:remove",
            (Arg("patterns", "The rules' patterns.", kind="rule", takes="+", metavar="PATTERN"), *_SCOPE),
            view=_CHANGE,
            examples=(
                "irons egress remove example.com",
                "irons egress remove '*.example.org' --sandbox my-sandbox",
            ),
            exits=(3, 4, 6),
            scope="sandbox",
        ),
        Command(
            ("egress", "list"),
            "List the rules.",
            f"{_HERE}.handlers:list_rules",
            _SCOPE,
            view=View(
                (
                    Column("list"),
                    Column("pattern"),
                    Column("private", hide="empty"),
                    Column("note", hide="empty", cut="end"),
                    Column("", "until", f"{_HERE}.views:end", table=f"{_HERE}.views:left", hide="empty"),
                ),
                empty="There are no rules.",
            ),
            examples=("irons egress list", "irons egress list --sandbox my-sandbox -o json"),
            exits=(3, 4, 6),
            scope="sandbox",
        ),
        Command(
            ("egress", "mode"),
            "Show the egress mode, or set it.",
            f"{_HERE}.handlers:mode",
            (
                Arg(
                    "mode",
                    "The mode to set; without one it is shown.",
                    choices=(*MODES, "account"),
                    kind="choice",
                    takes="?",
                    synonyms=MODE_SYNONYMS,
                ),
                *_SCOPE,
            ),
            view=View(line=f"{_HERE}.views:mode"),
            about="deny blocks what no rule allows; warn only logs it; ask asks a person who runs irons ask, and else blocks it; account makes a sandbox follow the mode of all sandboxes again.",
            examples=(
                "irons egress mode",
                "irons egress mode deny --all",
                "irons egress mode account --sandbox my-sandbox",
            ),
            exits=(3, 4, 6),
            scope="sandbox",
        ),
        Command(
            ("egress", "check"),
            "Show whether a connection would pass, and by which rule.",
            f"{_HERE}.handlers:check",
            (
                Arg(
                    "host", "A name or an address; without a port, 443.", kind="domain", metavar="HOST[:PORT]"
                ),
                *_SCOPE,
                Flag(("--live",), "Also resolve and connect, as the gateway would."),
            ),
            view=View(
                (
                    Column("host"),
                    Column("port"),
                    Column("verdict", "", "irons.terminal.words:verdict_word"),
                    Column("mode", "", "irons.terminal.words:mode_word"),
                    Column("rule"),
                    Column("scope", table=f"{_HERE}.views:scope"),
                    Column("reason"),
                    Column("", "note", f"{_HERE}.views:check_note"),
                    Column("live", "", f"{_HERE}.views:live"),
                ),
                record=True,
            ),
            about="A bare address, and a name of [local.hosts], is judged by the floor too. Where any other name leads is judged when it is dialled. With --live the gateway resolves the name, judges its addresses and connects to one, then closes at once. For a sandbox that is in its audit log, with the protocol check; without one only in the gateway's own log.",
            examples=(
                "irons egress check example.com",
                "irons egress check github.com:22 --sandbox my-sandbox",
                "irons egress check --live api.example.com:443",
            ),
            exits=(3, 4, 6, 7),
            scope="sandbox",
        ),
        Command(
            ("egress", "suggest"),
            "List the hosts that were tried and that no rule covers.",
            f"{_HERE}.lock_handlers:suggest",
            _NAME,
            view=View(
                (
                    Column("pattern", cut="start"),
                    Column("hits"),
                    Column("first", cut="end"),
                    Column("last"),
                    Column("ports", cut="end"),
                    Column("marks", cut="end"),
                    Column("note", hide="empty", cut="end"),
                ),
                empty="Rules cover all that was tried.",
            ),
            about="Marked are hosts tried once or never reached, names that look random, and bare addresses: egress lock leaves them out unless asked. "
            "Names that were never resolved are not suggested.",
            examples=("irons egress suggest my-sandbox",),
            exits=(3, 4, 6),
            scope="name",
        ),
        Command(
            ("egress", "lock"),
            "Allow what was tried so far, and nothing else.",
            f"{_HERE}.lock_handlers:lock",
            (
                *_NAME,
                Opt(
                    ("--also",),
                    "Allow this too, such as a marked one. May be repeated.",
                    metavar="PATTERN",
                    kind="domain",
                    many=True,
                ),
                Opt(
                    ("--skip",),
                    "Leave this suggestion out. May be repeated.",
                    metavar="PATTERN",
                    kind="domain",
                    many=True,
                ),
                Flag(("-y", "--yes"), "Do not ask."),
            ),
            view=View(line=f"{_HERE}.views:drift"),
            about="It shows the difference, asks, allows what egress suggest lists unmarked, and sets the mode to deny: of the sandbox, or with --all of all that have no mode of their own. "
            "Rules that others change in between are kept: with --yes it starts again from the new ones.",
            examples=(
                "irons egress lock my-sandbox",
                "irons egress lock my-sandbox --also 203.0.113.7 --skip example.net --yes",
            ),
            exits=(3, 4, 5, 6),
            scope="name",
        ),
        Command(
            ("egress", "preset", "list"),
            "List the known sets of hosts.",
            f"{_HERE}.preset_handlers:list_presets",
            view=View(
                (Column("name"), Column("hosts"), Column("version", "as of"), Column("what"), Column("sends"))
            ),
            about="None is allowed until you allow it.",
            examples=("irons egress preset list",),
        ),
        Command(
            ("egress", "preset", "show"),
            "Show the hosts of a preset.",
            f"{_HERE}.preset_handlers:show",
            (_PRESET,),
            view=View((Column("pattern"), Column("what", cut="end"), Column("source", hide="same"))),
            examples=("irons egress preset show pypi",),
            exits=(3,),
        ),
        Command(
            ("egress", "preset", "allow"),
            "Allow the hosts of a preset, a rule each.",
            f"{_HERE}.preset_handlers:allow",
            (_PRESET, *_SCOPE, _FOR, _UNTIL),
            view=_CHANGE,
            about="A host that has a rule of this scope keeps it, a deny rule too. A later version of the preset changes nothing by itself: egress preset diff shows what it would add.",
            examples=(
                "irons egress preset allow pypi --sandbox my-sandbox",
                "irons egress preset allow debian --for 1h",
            ),
            exits=(3, 4, 6),
            scope="sandbox",
        ),
        Command(
            ("egress", "preset", "diff"),
            "Show what the rules lack of a preset.",
            f"{_HERE}.preset_handlers:diff",
            (_PRESET, *_SCOPE),
            view=View(line=f"{_HERE}.views:drift"),
            about="+ is in the preset and not allowed, - was allowed by an earlier version of it that had it.",
            examples=("irons egress preset diff github --sandbox my-sandbox",),
            exits=(3, 4, 6),
            scope="sandbox",
        ),
        Command(
            ("egress", "export"),
            "Print the whole policy as a TOML file.",
            f"{_HERE}.policy_handlers:export",
            (Flag(("--temporary",), "Also print rules that end by themselves."), *_SCOPE),
            view=View(line=f"{_HERE}.views:policy"),
            about="Rules that end by themselves are left out unless asked for.",
            examples=("irons egress export > policy.toml", "irons egress export --sandbox my-sandbox"),
            exits=(3, 4, 6),
            scope="sandbox",
        ),
        Command(
            ("egress", "diff"),
            "Show how the active policy differs from a file.",
            f"{_HERE}.policy_handlers:diff",
            (_FILE, *_SCOPE),
            view=View(line=f"{_HERE}.views:drift"),
            about="+ is in the file alone, - is active alone, ~ is in both but not the same. The exit code is 1 where they differ.",
            examples=("irons egress diff policy.toml",),
            exits=(3, 4, 6),
            scope="sandbox",
        ),
        Command(
            ("egress", "apply"),
            "Apply a policy file, all or nothing.",
            f"{_HERE}.policy_handlers:apply",
            (_FILE, Flag(("--dry-run",), "Show what would change, and change nothing."), *_SCOPE),
            view=View(line=f"{_HERE}.views:drift"),
            about="Where others change the rules in between, they are read again, so that the difference shown is the one that was made. "
            "Rules that end by themselves stay, but those whose pattern the file has, too.",
            examples=(
                "irons egress apply policy.toml --dry-run",
                "irons egress apply policy.toml --sandbox my-sandbox",
            ),
            exits=(3, 4, 5, 6),
            scope="sandbox",
        ),
    ]
