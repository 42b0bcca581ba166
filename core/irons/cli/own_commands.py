"""The host's own commands: help, plugins, config, completion; a plugin like any other."""

from __future__ import annotations

from irons.command import Arg, Column, Command, View
from irons.hookspecs import hookimpl

_HANDLERS = "irons.cli.own_handlers"


@hookimpl
def irons_commands() -> list[Command]:
    """Return the commands for help, plugins, config and completion."""
    return [
        Command(
            ("help",),
            "Show help for a command or a topic.",
            f"{_HANDLERS}:show_help",
            (Arg("words", "A command's words, or a topic.", kind="topic", takes="*", metavar="TOPIC"),),
            examples=("irons help", "irons help egress allow", "irons help exit-codes"),
            tolerant=True,
        ),
        Command(
            ("plugins",),
            "List the plugins, and why one failed.",
            f"{_HANDLERS}:plugins",
            view=View(
                (
                    Column("name"),
                    Column("distribution"),
                    Column("version"),
                    Column("hooks"),
                    Column("status"),
                    Column("error"),
                )
            ),
            about="""IRONS_PLUGINS=a,b loads exactly those third-party plugins (empty: none); IRONS_TRACE_PLUGINS=1 prints every
            hook call to stderr.""",
            examples=("irons plugins", "IRONS_PLUGINS= irons plugins"),
            tolerant=True,
        ),
        Command(
            ("config", "show"),
            "Show every setting and where it came from.",
            f"{_HANDLERS}:config_show",
            view=View((Column("key"), Column("value"), Column("source"))),
            examples=("irons config show", "irons config show -o json"),
        ),
        Command(
            ("config", "set"),
            "Set a value in the profile of the configuration file.",
            f"{_HANDLERS}:config_set",
            (Arg("key", "The setting."), Arg("value", "Its value; an empty one removes it.")),
            examples=(
                "irons config set api_url local",
                "irons config set --profile work api_url https://sandboxes.example.com",
            ),
            tolerant=True,
        ),
        Command(
            ("config", "use"),
            "Choose the profile that is used from now on.",
            f"{_HANDLERS}:config_use",
            (Arg("profile", "Its name."),),
            examples=("irons config use work",),
            exits=(3,),
            tolerant=True,
        ),
        Command(
            ("config", "init"),
            "Write a configuration file that explains every setting.",
            f"{_HANDLERS}:config_init",
            about="""The file sets nothing: each setting is in a comment, at its default or as an example. A file that is
            there is never changed.""",
            examples=("irons config init",),
            exits=(5,),
            tolerant=True,
        ),
        Command(
            ("config", "path"),
            "Print where the configuration file is.",
            f"{_HANDLERS}:config_path",
            examples=("irons config path",),
            tolerant=True,
        ),
        Command(
            ("completion",),
            "Print a completion script for a shell.",
            f"{_HANDLERS}:completion",
            (Arg("shell", "The shell.", choices=("bash", "zsh", "fish"), kind="choice"),),
            examples=('eval "$(irons completion bash)"', "irons completion fish | source"),
            tolerant=True,
        ),
    ]
