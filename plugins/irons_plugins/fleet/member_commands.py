"""The commands for members of a fleet, as data."""

from __future__ import annotations

from irons.command import Arg, Column, Command, Flag, Opt, View

_HANDLERS = "irons_plugins.fleet.member_handlers"

COMMANDS = (
    Command(
        ("fleet", "add"),
        "Let a machine join as a member, by a token shown once.",
        f"{_HANDLERS}:add",
        (
            Arg("name", "The member's name, as Incus has it."),
            Opt(("--address",), "Where the member reaches this server.", metavar="HOST:PORT"),
        ),
        view=View((Column("token"),)),
        about="The token is for one name, once, within 10 minutes. Give it to `irons member join` on that machine. "
        "A member of that name that has joined goes on until the token is used, and is then replaced.",
        examples=("irons fleet add n2",),
    ),
    Command(
        ("fleet", "remove"),
        "Remove a member, and cut its connections at once.",
        f"{_HANDLERS}:remove",
        (Arg("name", "The member's name."),),
        about="Its gateway goes on with the rules that it has. Its certificate opens nothing any more.",
        examples=("irons fleet remove n2",),
        exits=(3,),
    ),
    Command(
        ("fleet", "status"),
        "Show the members, their policies and their backlog.",
        f"{_HANDLERS}:status",
        view=View(
            (
                Column("name"),
                Column("state"),
                Column("version"),
                Column("workers"),
                Column("sandboxes"),
                Column("revision"),
                Column("pending"),
                Column("backlog", text="irons_plugins.local.handlers:bytes_text"),
                Column("skew"),
            ),
            empty="There are no members.",
        ),
        about="revision counts the policies that were sent to the member, pending its sandboxes that do not have theirs yet. backlog is the "
        "part of its audit log that is not here yet, skew how many seconds its clock is ahead. A member is ahead where it has "
        "policies that this server does not know, such as after an old database was put back: it gets no policy until it is "
        "removed and joins again.",
        examples=("irons fleet status", "irons fleet status -o json"),
    ),
    Command(
        ("member", "join"),
        "Join a fleet, by a token on standard input.",
        f"{_HANDLERS}:join",
        (Opt(("--token-file",), "Read the token from this file.", metavar="FILE", kind="file"),),
        about="The token is what irons fleet add shows on the server. At a terminal it is asked for. It is never given as an argument: "
        "others see those. It needs irons[fleet] and root.",
        examples=("irons member join", "irons member join --token-file token.txt"),
    ),
    Command(
        ("member", "run"),
        "Run this member: its gateway, and the agent.",
        f"{_HANDLERS}:run",
        about="It stays in the foreground, for a service manager. The agent dials the server and listens on nothing. While the server "
        "is away the rules that the member has go on, the ends of timed ones included.",
        examples=("irons member run",),
    ),
    Command(
        ("member", "service", "install"),
        "Write a systemd unit that keeps this member up.",
        f"{_HANDLERS}:install",
        (Flag(("--print",), "Print the unit and write nothing.", name="print_only"),),
        about="It is /etc/systemd/system/irons-member.service, and runs irons member run with the state and settings of who writes it.",
        examples=("irons member service install", "irons member service install --print"),
    ),
)
