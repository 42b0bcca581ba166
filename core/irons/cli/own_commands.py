"""The host's own commands: help, plugins, config, completion; a plugin like any other."""

from __future__ import annotations

from irons.command import Arg, Column, Command, Opt, View
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
            hook call to stderr. A Python file in the directory plugins next to the configuration file is a plugin too, if it and the
            directories above it are yours alone to write.""",
            examples=("irons plugins", "irons --no-plugins plugins"),
            tolerant=True,
            leads=True,
        ),
        Command(
            ("plugins", "new"),
            "Write a package with a working plugin and its tests.",
            "irons.cli.authoring.plugin_package:new",
            (
                Arg("name", "The plugin's name, which becomes its command."),
                Opt(("--into",), "The directory to put it in.", metavar="DIR", kind="file", default="."),
            ),
            examples=("irons plugins new greet",),
            exits=(5,),
            tolerant=True,
        ),
        Command(
            ("plugins", "check"),
            "Check what a release of a plugin should pass.",
            "irons.cli.authoring.plugin_check:check",
            (Arg("path", "Its directory, or its only file; by default here.", kind="file", takes="?"),),
            pace="waiting",
            view=View((Column("check"), Column("ok"), Column("what"), Column("fix", hide="empty"))),
            about="""It loads the plugin, compares its hooks with those of this irons, looks at names, help texts and the functions that
            strings name, and runs its tests.""",
            examples=("irons plugins check", "irons plugins check ./irons-greet"),
            exits=(3,),
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
            ("config", "get"),
            "Print the value of a setting; nothing where it has none.",
            f"{_HANDLERS}:config_get",
            (Arg("key", "The setting.", kind="setting"),),
            view=View(line=f"{_HANDLERS}:value_alone"),
            about="The value of api_key is never printed.",
            examples=("irons config get api_url", "irons config get sandbox --profile work"),
        ),
        Command(
            ("config", "set"),
            "Set a value in the profile of the configuration file.",
            f"{_HANDLERS}:config_set",
            (Arg("key", "The setting.", kind="setting"), Arg("value", "Its value; an empty one removes it.")),
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
            (Arg("profile", "The profile.", kind="profile"),),
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
            ("schema",),
            "Print the parameters of a command as JSON Schema.",
            f"{_HANDLERS}:schema",
            (Arg("words", "The command's words.", kind="topic", takes="+", metavar="COMMAND"),),
            about="Properties have the names by which the command's handler gets them. The tools of irons mcp are made of the same data.",
            examples=("irons schema create", "irons schema egress check"),
            exits=(3,),
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
