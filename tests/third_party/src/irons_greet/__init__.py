"""Greet a sandbox. The plugin itself: its command as data, and a backend of its own."""

from __future__ import annotations

from irons import Arg, Backend, Column, Command, Flag, View, hookimpl


@hookimpl
def irons_commands() -> list[Command]:
    """Bring `greet`."""
    return [
        Command(
            path=("greet",),
            help="Greet sandboxes.",
            run="irons_greet.handlers:greet",
            params=(
                Arg("names", "Whom to greet.", kind="sandbox", takes="+"),
                Flag(("--loud",), "Shout."),
            ),
            view=View((Column("name"), Column("words", "said"))),
            examples=("irons greet one two --loud",),
            exits=(3, 4, 6),
        )
    ]


@hookimpl
def irons_backend(url: str) -> Backend | None:
    """Answer for `greet:PORT`, a server on this machine."""
    scheme, _, port = url.partition(":")
    return Backend(f"http://127.0.0.1:{port}") if scheme == "greet" and port.isdigit() else None
