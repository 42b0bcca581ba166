"""The built-in plugin `egress`: what sandboxes may reach."""

from __future__ import annotations

from irons.command import Arg, Column, Command, Flag, Opt, View
from irons.hookspecs import hookimpl

_HERE = "irons_plugins.egress"

_SANDBOX = Opt(
    ("--sandbox",), "This sandbox's own rules instead of the account's.", metavar="NAME", kind="sandbox"
)
_DOMAINS = Arg("domains", "Names, wildcards or addresses.", kind="domain", takes="+", metavar="DOMAIN")
_BROAD = Flag(
    ("--broad",), "Take a wildcard over a suffix that strangers register names under, such as *.github.io."
)
_NOTE = Opt(("--note",), "A note kept beside the rule.", metavar="TEXT")
_CHANGE = View(line=f"{_HERE}.views:change")


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
                _SANDBOX,
                Opt(
                    ("--private",),
                    "An address or block on this machine's networks that the name may lead to; may be given again.",
                    metavar="ADDR",
                    many=True,
                ),
                _BROAD,
                _NOTE,
            ),
            view=_CHANGE,
            about="A pattern is in one list at most: allowing it takes it off the deny list. irons help egress tells what patterns cover.",
            examples=(
                "irons egress allow example.com '*.example.org'",
                "irons egress allow github.com:22 --sandbox my-sandbox",
                "irons egress allow db.example.com:5432 --private 10.0.0.5",
            ),
            exits=(3, 4, 6),
        ),
        Command(
            ("egress", "deny"),
            "Deny domains.",
            f"{_HERE}.handlers:deny",
            (_DOMAINS, _SANDBOX, _BROAD, _NOTE),
            view=_CHANGE,
            about="Any deny wins over every allow. In mode warn nothing is blocked, only written down.",
            examples=("irons egress deny example.com", "irons egress deny '*' --sandbox my-sandbox"),
            exits=(3, 4, 6),
        ),
        Command(
            ("egress", "list"),
            "List the rules.",
            f"{_HERE}.handlers:list_rules",
            (_SANDBOX,),
            view=View(
                (
                    Column("list"),
                    Column("pattern"),
                    Column("private"),
                    Column("note"),
                ),
                empty="There are no rules.",
            ),
            examples=("irons egress list", "irons egress list --sandbox my-sandbox -o json"),
            exits=(3, 4, 6),
        ),
        Command(
            ("egress", "mode"),
            "Show the egress mode, or set it.",
            f"{_HERE}.handlers:mode",
            (
                Arg(
                    "mode",
                    "deny blocks what no rule allows; warn lets it pass and writes it down; "
                    "account makes a sandbox follow the account again.",
                    choices=("deny", "warn", "account"),
                    kind="choice",
                    takes="?",
                ),
                _SANDBOX,
            ),
            view=View(line=f"{_HERE}.views:mode"),
            examples=(
                "irons egress mode",
                "irons egress mode deny",
                "irons egress mode account --sandbox my-sandbox",
            ),
            exits=(3, 4, 6),
        ),
    ]
