"""A sandbox to make, as the control plane asks an engine for it, and what every machine has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from irons_local.limits import Limits

SSH_PORT = 22
"""The port on which a machine's SSH server listens, inside."""
USERNAME = "irons"
"""The ordinary user of a machine whose image has sudo."""


@dataclass(frozen=True, slots=True)
class Spec:
    """A sandbox to make.

    Attributes:
        id: `sb_` and 16 lower-case hexadecimal digits; never used again; the name of its cell too.
        name: a DNS label; the machine's host name.
        image: name of the image it starts from; "" is the engine's default one, made if there is none.
        public_key: text of an OpenSSH public key file.
        limits: what it may use.
        environment: variables of its sessions and its boot; their values are secrets.
        entrypoint: run the image's entrypoint at each start; an image that names none is refused.
        snapshot: id of the snapshot whose files it starts with, in place of an image; "" for none. Only an engine that
            `Copies` is given one.
        member: the machine of a fleet that it is to be on; "" leaves it to the engine. Only an engine of a fleet is given one.
    """

    id: str
    name: str
    public_key: str
    image: str = ""
    limits: Limits = field(default_factory=Limits)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    entrypoint: bool = False
    snapshot: str = ""
    member: str = ""
