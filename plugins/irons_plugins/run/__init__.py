"""The built-in plugin `run`: one program in a sandbox of its own, from create to destroy.

Files are chosen, packed, transferred and placed here; the program itself runs through `ssh.execute`.
What comes back from a sandbox is hostile: `tar_reader` and `placing` are the only modules that read it.
"""

from __future__ import annotations

from irons.command import FAILED_ITSELF, Arg, Command, Flag, Opt
from irons.hookspecs import hookimpl
from irons_policy.modes import MODE_SYNONYMS, MODES


@hookimpl
def irons_commands() -> list[Command]:
    """Bring `run`."""
    return [
        Command(
            ("run",),
            "Run a program in a new sandbox, then destroy it.",
            "irons_plugins.run.handlers:run",
            (
                Flag(("--keep",), "Keep the sandbox."),
                Opt(("--image",), "The image it starts from.", metavar="IMAGE", kind="image"),
                Opt(
                    ("--mode",),
                    "Its egress mode. [default: deny with --allow]",
                    choices=MODES,
                    kind="choice",
                    synonyms=MODE_SYNONYMS,
                ),
                Opt(
                    ("--allow",),
                    "Allow a host. May be repeated.",
                    metavar="HOST",
                    kind="domain",
                    many=True,
                ),
                Opt(
                    ("--env",),
                    "Set a variable there, by its name here. May be repeated.",
                    metavar="KEY",
                    kind="variable",
                    many=True,
                ),
                Opt(
                    ("--timeout",),
                    "End the program after this long, with exit code 124.",
                    metavar="DURATION",
                    type="seconds",
                ),
                Opt(
                    ("--with",),
                    "Send what git tracks or would add, to ~/work.",
                    metavar="DIR",
                    kind="file",
                    name="directory",
                ),
                Opt(
                    ("--with-all",),
                    "Send all of a directory, to ~/work.",
                    metavar="DIR",
                    kind="file",
                    name="everything",
                ),
                Opt(
                    ("--bring",),
                    "Fetch a result at the end. May be repeated.",
                    metavar="PATH",
                    many=True,
                    name="results",
                ),
                Opt(
                    ("--into",),
                    "Put results into this directory. [default: .]",
                    metavar="DIR",
                    kind="file",
                    default=".",
                ),
                Opt(
                    ("--bring-limit",),
                    "Fetch at most this much for each --bring. [default: 4G]",
                    metavar="SIZE",
                    type="size",
                    name="limit",
                ),
                Arg("words", "The program and its arguments.", takes="--", metavar="CMD", kind="file"),
            ),
            pace="terminal",
            about="""The sandbox is destroyed when the program has ended, also after Ctrl-C or where this process is killed.
Where the program failed and files were sent, it is kept for an hour. With --allow and no --mode the mode is deny;
without a terminal (in CI) ask is deny, too.
The program starts in ~/work where files were sent. A relative PATH of --bring is below where the program started.""",
            examples=(
                "irons run -- python3 -c 'print(1)'",
                "irons run --image python:3.12 --allow pypi.org --allow files.pythonhosted.org -- pip download requests",
                "irons run --with . --bring dist --timeout 10m -- ./build.sh",
            ),
            exits=(124,),
            failure=FAILED_ITSELF,
        )
    ]
