"""The built-in plugin `ssh`: ways into a sandbox, all of them through OpenSSH.

The commands as data are here; each way in is a folder (`connect`, `openssh`, `execute`, `keys`, `config`, `ending`).
Nothing here speaks SSH itself, makes a sandbox or imports the backend.
"""

from __future__ import annotations

from irons.command import FAILED_ITSELF, Arg, Column, Command, Flag, Opt, View
from irons.hookspecs import hookimpl
from irons_plugins.selection import ALL, LABEL, NAMES

_HERE = "irons_plugins.ssh"
_PATHS = f"{_HERE}.connect.remote_files:paths_like"

_NAME = Arg("name", "The sandbox's name.", kind="sandbox")
_STRICT = Flag(("--strict-hostkeys",), "Use ~/.ssh/known_hosts where the server sends no host key.")
_ENV = Opt(
    ("--env",),
    "Set a variable there, by its name here. May be repeated.",
    metavar="KEY",
    kind="variable",
    many=True,
)
_WORKDIR = Opt(("--workdir",), "Start in this directory; ~ is the home there.", metavar="DIR")


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
                Flag(
                    ("--forward-agent",),
                    "Forward your SSH agent; root in the sandbox can use it.",
                ),
                Flag(("--refused",), "Print at the end what egress refused."),
                _ENV,
                _WORKDIR,
                Arg("words", "A command to run there.", "remote", "--", metavar="CMD", paths=_PATHS),
            ),
            pace="terminal",
            about="""After --, a single word is run by the sandbox's shell; several words are one program with exactly those arguments.
Nothing of your own configuration is forwarded: no agent, no X11, no ports, and of the environment only what --env names.
An agent that --forward-agent forwards is not subject to egress rules.""",
            examples=(
                "irons ssh my-sandbox",
                "irons ssh my-sandbox --env ANTHROPIC_API_KEY --workdir ~/work -- claude",
                "irons ssh my-sandbox -- uname -a",
                "irons ssh my-sandbox -- 'cd /srv && make | tail'",
                "$(irons ssh my-sandbox --command)",
            ),
            exits=(3, 4, 6),
            failure=FAILED_ITSELF,
        ),
        Command(
            ("scp",),
            "Copy files into a sandbox, or out of it.",
            f"{_HERE}.handlers:scp",
            (
                Arg("source", "A path here, or NAME:path in a sandbox.", kind="remote", paths=_PATHS),
                Arg("target", "A path here, or NAME:path in a sandbox.", kind="remote", paths=_PATHS),
                Flag(("-r", "--recursive"), "Copy directories with all that is in them."),
                _STRICT,
            ),
            pace="terminal",
            examples=("irons scp notes.txt my-sandbox:", "irons scp -r my-sandbox:/srv/out ./out"),
            exits=(3, 4, 5, 6),
            aliases=(("cp",),),
        ),
        Command(
            ("forward",),
            "Forward local ports to a sandbox.",
            f"{_HERE}.forwarding:forward",
            (
                _NAME,
                Arg(
                    "ports",
                    "A port here, and the one there where that is another.",
                    takes="+",
                    metavar="LOCAL[:REMOTE]",
                ),
                _STRICT,
            ),
            pace="terminal",
            about="It listens on the loopback address only, and prints each port once it does. Stop it with Ctrl-C.",
            examples=("irons forward my-sandbox 8080", "irons forward my-sandbox 8080:80 5432"),
            failure=FAILED_ITSELF,
        ),
        Command(
            ("ssh-config",),
            "Print or install OpenSSH configuration for NAME.irons.",
            f"{_HERE}.config.handlers:ssh_config",
            (
                Arg(
                    "name",
                    "The sandbox; without one, all that can be reached now.",
                    kind="sandbox",
                    takes="?",
                    implied=False,
                ),
                Flag(("--install",), "Write it, and include it from ~/.ssh/config."),
                Flag(("--uninstall",), "Remove these entries."),
                _STRICT,
            ),
            view=View(line=f"{_HERE}.config.handlers:leads"),
            about="""Then ssh, scp, rsync, git, Ansible and editors that work over SSH find a sandbox by its name.
While it is installed, create adds a sandbox to it and destroy removes it.""",
            examples=("irons ssh-config --install", "ssh my-sandbox.irons", "irons ssh-config my-sandbox"),
            exits=(3, 4, 5, 6),
        ),
        Command(
            ("access",),
            "List, add or remove the public keys that open a sandbox.",
            f"{_HERE}.keys.access:access",
            (
                Arg("name", "The sandbox's name.", kind="sandbox", implied=False),
                Arg(
                    "action",
                    "What to do; without it the keys are listed.",
                    takes="?",
                    choices=("list", "add", "remove"),
                    kind="choice",
                ),
                Arg(
                    "file",
                    "A public key file; to remove, also an id or a fingerprint.",
                    kind="public-key",
                    takes="?",
                ),
            ),
            view=View((Column("id"), Column("type"), Column("fingerprint"), Column("comment"))),
            about="""Keys are changed at once in a running sandbox. A key that is removed loses its sessions; so does a session
whose key is not known. Keys in ~/.ssh/authorized_keys inside the sandbox are not changed.""",
            examples=(
                "irons access my-sandbox",
                "irons access my-sandbox add colleague.pub",
                "irons access my-sandbox remove colleague.pub",
            ),
            exits=(3, 4, 5, 6),
        ),
        Command(
            ("exec",),
            "Run a program in sandboxes and exit with its code.",
            f"{_HERE}.execute.handlers:execute",
            (
                NAMES,
                ALL,
                LABEL,
                Opt(
                    ("--timeout",),
                    "End it and its processes after this long, with code 124.",
                    metavar="DURATION",
                    type="seconds",
                ),
                _ENV,
                _WORKDIR,
                Flag(("-n", "--no-stdin"), "Give it no stdin: it reads end of file."),
                _STRICT,
                Arg("words", "The program and its arguments.", "remote", "--", metavar="CMD", paths=_PATHS),
            ),
            pace="terminal",
            about="""It reads the stdin of irons, so in a loop that reads a list (while read …) give -n.
Values of --env travel on stdin, never in an argument list.
When it has ended, stderr says what egress refused while it ran, where the server can tell.
In several sandboxes it runs at once, without stdin; each line begins with the sandbox's name.
With -o json or jsonl the answer is one object for each sandbox, with the output in it.""",
            examples=(
                "irons exec web db -- uname -r",
                "irons exec --all -o jsonl -- git status --short",
                "irons exec my-sandbox -- python3 -c 'print(1)'",
                "irons exec my-sandbox --timeout 10m --env TOKEN --workdir /srv -- make test",
            ),
            exits=(124,),
            failure=FAILED_ITSELF,
        ),
    ]
