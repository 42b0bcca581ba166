"""The built-in plugin `ssh`: ways into a sandbox, all of them through OpenSSH."""

from __future__ import annotations

from irons.command import Arg, Command, Flag, Opt
from irons.hookspecs import hookimpl

_HERE = "irons_plugins.ssh"

_NAME = Arg("name", "The sandbox's name.", kind="sandbox")
_STRICT = Flag(
    ("--strict-hostkeys",), "Check the host key against ~/.ssh/known_hosts where the server tells none."
)


@hookimpl
def irons_commands() -> list[Command]:
    """Bring the ways into a sandbox."""
    return [
        Command(
            ("ssh",),
            "Open a shell in a sandbox, or run a command there.",
            f"{_HERE}.handlers:ssh",
            (
                _NAME,
                Flag(("-c", "--command"), "Print the ssh command instead of running it.", name="printed"),
                _STRICT,
                Arg("words", "A command to run there.", takes="--", metavar="CMD"),
            ),
            pace="terminal",
            about="""One word behind the -- is a line for the sandbox's shell; several are a program and its arguments, as they are.
Nothing of your own configuration is forwarded: no agent, no X11, no ports, no environment.""",
            examples=(
                "irons ssh my-sandbox",
                "irons ssh my-sandbox -- uname -a",
                "irons ssh my-sandbox -- 'cd /srv && make | tail'",
                "$(irons ssh my-sandbox --command)",
            ),
            exits=(3, 4, 6, 125),
        ),
        Command(
            ("exec",),
            "Run a program in a sandbox, without a terminal, and exit with its code.",
            f"{_HERE}.running:execute",
            (
                _NAME,
                Opt(
                    ("--timeout",),
                    "End it, and all that it started, after this long; the exit code is 124.",
                    metavar="DURATION",
                    type="seconds",
                ),
                Opt(
                    ("--env",),
                    "A variable of this environment that it gets; may be given again.",
                    metavar="KEY",
                    many=True,
                ),
                Opt(("--workdir",), "The directory it starts in.", metavar="DIR"),
                _STRICT,
                Arg("words", "The program and its arguments.", takes="--", metavar="CMD"),
            ),
            pace="terminal",
            about="""Values of --env travel on stdin, never in an argument list.
When it has ended, stderr says what egress refused while it ran, where the server can tell.""",
            examples=(
                "irons exec my-sandbox -- python3 -c 'print(1)'",
                "irons exec my-sandbox --timeout 10m --env TOKEN --workdir /srv -- make test",
            ),
            exits=(124, 125),
        ),
    ]
