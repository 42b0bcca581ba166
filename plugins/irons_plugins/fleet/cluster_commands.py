"""The commands that join a cluster of Incus and leave it, as data."""

from __future__ import annotations

from irons.command import Arg, Column, Command, Flag, View

_HANDLERS = "irons_plugins.fleet.cluster_handlers"

COMMANDS = (
    Command(
        ("fleet", "join"),
        "Use an Incus cluster, by a token on standard input.",
        f"{_HANDLERS}:join",
        (Arg("url", "A member, such as https://n1.example.com:8443.", metavar="URL"),),
        view=View((Column("url"), Column("fingerprint", "certificate"), Column("until"))),
        about="The token is what incus config trust add irons prints there. At a terminal it is asked for. It is never given as an "
        "argument: others see those. It goes only to whoever has the certificate that it names. From then on --engine incus makes "
        "its sandboxes in that cluster. It needs irons[fleet] and root.",
        examples=(
            "irons fleet join https://n1.example.com:8443",
            "ssh n1 incus config trust add --quiet irons | irons fleet join n1",
        ),
        exits=(2, 5),
    ),
    Command(
        ("fleet", "takeover"),
        "Take the sandboxes at Incus over from another server.",
        f"{_HANDLERS}:takeover",
        (Flag(("--yes",), "Do not ask."),),
        view=View((Column("server"), Column("epoch"))),
        about="One server uses the project irons of an Incus. Another one, or an older copy of this one's state, is refused while there "
        "are sandboxes, so that no two of them start the same ones. This makes the project this server's, and refuses the other.",
        examples=("irons fleet takeover", "irons fleet takeover --yes"),
        exits=(3,),
    ),
    Command(
        ("fleet", "leave"),
        "Stop using the Incus cluster that was joined.",
        f"{_HANDLERS}:leave",
        about="It is refused while there are sandboxes of the engine incus. The cluster forgets the certificate of this machine; "
        "where it does not answer, it is asked for by name to do so by hand.",
        examples=("irons fleet leave",),
        exits=(5,),
    ),
)
