"""The plugin of the local backend: its commands as data, and the hook that answers for the URL `local`.

The backend itself is `irons_local`: the keeper, the control plane and the gateway, processes of one user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from irons.command import Arg, Column, Command, Flag, Opt, View
from irons.hookspecs import Backend, hookimpl
from irons.wire_values import KEY_ROLES

if TYPE_CHECKING:
    from irons.context import Context
    from irons.settings.settings import Settings

_HANDLERS = "irons_plugins.local.handlers"
_IMAGES = "irons_plugins.local.image_handlers"
_KEYS = "irons_plugins.local.key_handlers"


@hookimpl
def irons_backend(url: str, settings: Settings) -> Backend | None:
    """Answer for `local`: bring the daemon up where it is not, and send requests to its socket."""
    if url != "local":
        return None
    from irons_plugins.local.backend import local_backend

    return local_backend(settings)._replace(before_create=_fetch_image, after_create=_note_trust)


def _fetch_image(ctx: Context, name: str) -> None:
    from irons_plugins.local.image_handlers import pull_missing

    pull_missing(ctx, name)


def _note_trust(ctx: Context) -> None:
    from irons_plugins.local.trusted import say_trusted

    say_trusted(ctx)


@hookimpl
def irons_commands() -> list[Command]:
    """Bring `doctor` and the commands below `local`."""
    return [_DOCTOR, *_DAEMON, *_IMAGE, *_KEY]


_DOCTOR = Command(
    ("doctor",),
    "Check whether this machine can run sandboxes, with fixes.",
    f"{_HANDLERS}:doctor",
    view=View((Column("name", "check"), Column("ok"), Column("what"), Column("fix"))),
    examples=("irons doctor", "irons doctor -o json"),
)

_DAEMON = [
    Command(
        ("local", "up"),
        "Start the local backend, which first use starts too.",
        f"{_HANDLERS}:up",
        (
            Flag(("--foreground",), "Stay, show the logs, and end with Ctrl-C.", pace="waiting"),
            Opt(
                ("--listen",),
                "Serve the API at this TCP address too; off ends it.",
                metavar="HOST:PORT",
            ),
            Opt(("--tls-cert",), "The certificate chain, PEM.", metavar="FILE", kind="file"),
            Opt(("--tls-key",), "Its private key, PEM.", metavar="FILE", kind="file"),
            Opt(
                ("--ssh-listen",), "The address on which sandboxes' SSH ports are reachable.", metavar="ADDR"
            ),
        ),
        view=View((Column("process"), Column("pid"), Column("version"), Column("state"))),
        about="It starts no sandbox: irons start does. An older daemon is replaced by this version; running sandboxes and SSH sessions live on. Beyond loopback --listen "
        "needs TLS.",
        examples=("irons local up", "irons local up --listen 127.0.0.1:7411"),
    ),
    Command(
        ("local", "down"),
        "End the backend's processes; sandboxes keep running.",
        f"{_HANDLERS}:down",
        about="It stops no sandbox: irons stop does. Sandboxes have no way out until the backend is up again. The next command brings it up, and so does one that is open elsewhere and waits or follows, such as irons ask.",
        examples=("irons local down",),
    ),
    Command(
        ("local", "status"),
        "Show the backend's processes, memory and sandboxes.",
        f"{_HANDLERS}:status",
        view=View(
            (
                Column("process"),
                Column("pid"),
                Column("version"),
                Column("state"),
                Column("memory", text="irons_plugins.local.handlers:bytes_text"),
                Column("sandboxes", "running"),
                Column("worker"),
                Column("failures"),
                Column("listens", text="irons_plugins.local.handlers:listens_text", cut="end"),
            )
        ),
        examples=("irons local status", "irons local status -o json"),
    ),
    Command(
        ("local", "logs"),
        "Show what the backend's processes wrote.",
        f"{_HANDLERS}:logs",
        (
            Arg(
                "process",
                "The process; without one, all of them.",
                takes="?",
                choices=("keeper", "server", "gateway"),
                kind="choice",
            ),
            Opt(("-n", "--lines"), "How many lines of each.", type="int", default=50, metavar="N"),
            Opt(
                ("--sandbox",),
                "Show what its boot printed, and the lines about it.",
                metavar="NAME",
                kind="sandbox",
            ),
            Flag(("--console",), "With --sandbox: what its boot or its console printed, alone."),
            Opt(("--request",), "Show the lines about a request, of all processes.", metavar="ID"),
        ),
        view=View((Column("process"), Column("line"))),
        about="Each command has an id, which `--debug` shows. IRONS_LOG=debug, in the environment of what starts the daemon, "
        "adds lines about each request and connection.",
        examples=(
            "irons local logs",
            "irons local logs gateway -n 200",
            "irons local logs --sandbox my-sandbox",
            "irons local logs --sandbox my-machine --console -n 200",
            "irons local logs --request 8f14e45fceea167a",
        ),
    ),
    Command(
        ("local", "service", "install"),
        "Write a systemd user unit that keeps the backend up.",
        f"{_HANDLERS}:install",
        (Flag(("--print",), "Print the unit and write nothing.", name="print_only"),),
        examples=("irons local service install", "irons local service install --print"),
        old=(("local", "install"),),
    ),
    Command(
        ("local", "uninstall"),
        "Remove sandboxes, unit and SSH include, after a list.",
        f"{_HANDLERS}:uninstall",
        (
            Flag(
                ("--purge",),
                "Remove everything that irons keeps on this machine.",
            ),
            Flag(("--dry-run",), "Only list."),
            Flag(("--yes", "-y"), "Do not ask."),
        ),
        view=View((Column("what"), Column("path"))),
        about="Images, rules and the audit log stay, unless --purge is given.",
        examples=("irons local uninstall --dry-run", "irons local uninstall --purge --yes"),
    ),
    Command(
        ("local", "connect"),
        "Hand a connected descriptor to ssh, as its ProxyCommand.",
        f"{_HANDLERS}:connect",
        (Arg("cell", "The sandbox's id."), Arg("port", "The port inside.", takes="?")),
        hidden=True,
    ),
]

_IMAGE_ROWS = View(
    (
        Column("name"),
        Column("created_at", "created"),
        Column("size", text=f"{_HANDLERS}:bytes_text"),
        Column("source"),
        Column("kind"),
    ),
    empty="There are no images yet.",
)

_IMAGE = [
    Command(
        ("image", "list"),
        "List the images that the server in use has.",
        f"{_IMAGES}:list_of_server",
        view=_IMAGE_ROWS,
        about="irons local image list lists those of this machine.",
        examples=("irons image list",),
        exits=(4, 6),
    ),
    Command(
        ("local", "image", "build"),
        "Build the default image: a lean Debian with an SSH server.",
        f"{_IMAGES}:build",
        (
            Arg("name", "What to call it.", takes="?"),
            Opt(("--mirror",), "The Debian mirror to build from.", metavar="URL"),
            Opt(("--include",), "A package to add.", metavar="PACKAGE", many=True),
            Opt(
                ("--for",),
                "What boots it; vm adds a kernel and an init.",
                name="kind",
                choices=("namespace", "vm"),
                default="namespace",
            ),
        ),
        pace="waiting",
        view=_IMAGE_ROWS,
        about="It takes 20 to 60 seconds, once; the first `irons create` does it by itself. For virtual machines it takes up to three"
        " minutes, and is called debian-vm.",
        examples=(
            "irons local image build",
            "irons local image build --for vm",
            "irons local image build python --include python3 --include git",
        ),
    ),
    Command(
        ("local", "image", "list"),
        "List the images.",
        f"{_IMAGES}:list_images",
        view=_IMAGE_ROWS,
        examples=("irons local image list",),
    ),
    Command(
        ("local", "image", "import"),
        "Make an image from a tar file.",
        f"{_IMAGES}:import_image",
        (
            Arg("tar", "The file.", kind="file"),
            Opt(("--as",), "What to call it.", name="name", metavar="NAME"),
        ),
        pace="waiting",
        view=_IMAGE_ROWS,
        about="The file is a root file system, or an OCI or Docker archive.",
        examples=("irons local image import python.tar --as python",),
    ),
    Command(
        ("local", "image", "pull"),
        "Make an image from one at a registry.",
        f"{_IMAGES}:pull",
        (
            Arg("reference", "Which image, by tag or digest.", metavar="REF"),
            Opt(("--as",), "What to call it. [default: REF]", name="name", metavar="NAME"),
        ),
        pace="waiting",
        view=_IMAGE_ROWS,
        about="skopeo fetches it, with the credentials that `skopeo login` or `docker login` keeps. `irons create --image REF` pulls"
        " what is missing.",
        examples=(
            "irons local image pull python:3.12",
            "irons local image pull registry.example/team/app:2 --as app",
        ),
        exits=(3,),
    ),
    Command(
        ("local", "image", "export"),
        "Write an image to a tar file.",
        f"{_IMAGES}:export_image",
        (
            Arg("file", "The file.", kind="file"),
            Opt(("--image",), "Which one.", name="name", kind="image", metavar="NAME", default="debian"),
        ),
        pace="waiting",
        examples=("irons local image export debian.tar",),
    ),
    Command(
        ("local", "image", "save"),
        "Make an image of a stopped sandbox.",
        f"{_IMAGES}:save",
        (
            Arg("name", "The sandbox.", kind="sandbox"),
            Opt(("--as",), "What to call the image.", name="image", metavar="IMAGE"),
        ),
        pace="waiting",
        view=_IMAGE_ROWS,
        about="Its keys are left out, but for those in the files of a virtual machine, of which the image is the whole disk.",
        examples=("irons local image save my-sandbox --as prepared",),
        exits=(3, 5),
    ),
    Command(
        ("local", "image", "remove"),
        "Remove an image that no sandbox uses.",
        f"{_IMAGES}:remove",
        (Arg("name", "The image.", kind="image"),),
        examples=("irons local image remove prepared",),
        exits=(3, 5),
    ),
]

_KEY_ROWS = View(
    (Column("id"), Column("label"), Column("created_at", "created"), Column("key"), Column("role")),
    empty="There are no keys.",
)

_KEY = [
    Command(
        ("local", "key", "create"),
        "Make an API key for `local up --listen`; it is shown once.",
        f"{_KEYS}:create",
        (
            Arg("label", "A name for its owner or its use."),
            Opt(("--role",), "What it may do.", kind="choice", choices=KEY_ROLES),
        ),
        view=_KEY_ROWS,
        about=(
            "An admin may do all, and is the default. A user works with the sandboxes that the key creates, and sees no others. "
            "An auditor reads."
        ),
        examples=("irons local key create laptop", "irons local key create ci --role user"),
    ),
    Command(
        ("local", "key", "list"),
        "List the API keys.",
        f"{_KEYS}:list_keys",
        view=_KEY_ROWS,
        examples=("irons local key list",),
    ),
    Command(
        ("local", "key", "revoke"),
        "Revoke an API key, at once.",
        f"{_KEYS}:revoke",
        (Arg("id", "Its id or label.", kind="key"),),
        examples=("irons local key revoke laptop",),
        exits=(3,),
    ),
]

__all__ = ["irons_backend", "irons_commands"]
