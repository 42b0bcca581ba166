"""Tell whether a line holds a secret: a password, a token, a key. Pure.

A line that is kept by mistake is a secret on the disk; one that is left out by mistake is typed again. So anything that looks like a
secret counts as one.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise
from typing import Final

from irons.record import NamedTuple

_LONG: Final = (
    r"(?:api|access|secret|private|ssh|auth|account|signing|encryption|license|service|master|session|client|deploy|storage)[-_ ]?keys?"
    r"|secret|token(?!iz)|passw(?:or)?d|passphrase|passcode|credential|bearer|cookie"
)
"""Names of things that are secret, also as a part of a longer word."""

_SHORT: Final = r"auth(?:orization)?|pass|pwd|creds|jwt|otp|pin"
"""Those that other words hold too: they count as a word of their own."""

# Case counts here: these are how tokens of known makers begin.
_PREFIX: Final = (
    r"-----BEGIN|(?<![A-Za-z0-9])(?:gh[a-z]_|github_pat_|gl[a-z]{2,6}-\w|xox[a-z]|xapp-|sk-|sk_|rk_|pk_live|whsec_|AKIA|ASIA|AIza"
    r"|ya29\.|npm_|pypi-\w|hf_|dop_v|SG\.\w|shp[a-z]{2}_|dckr_pat_|tskey-|gsk_|xai-|r8_|glsa_|lin_api_|figd_|ATATT|AGE-SECRET-KEY"
    r"|EAAC|ntn_|eyJ[\w-]{1,2000}\.)"
)

_HINT: Final = r"[=:%]|key|pass|pwd|secret|token|cred|auth|bearer|basic|digest|negotiate|cookie|jwt|otp|pin|redis|login|mysql|mariadb|plugins"
"""What each shape has at least one of: a line without it needs no further look."""

# Every repetition is bounded, so that no line takes long to read.
_SHAPES: Final = (
    # `--password hunter2`, `--client-secret=abc`, `-passin x`.
    rf"(?:^|[\s\"'=])--?(?!no-)[\w.-]{{0,40}}(?:{_LONG}|(?<![a-z0-9])(?:{_SHORT})(?![a-z0-9]))",
    # `DB_PASSWORD=x`, `dbPassword=x`, `"token": "x"`, `?access_token=x`; not a version (`token==1`) and not a port.
    rf"(?:{_LONG}|pass|(?<![a-z0-9])(?:{_SHORT})(?![a-z0-9]))[\w.-]{{0,40}}[\"']?[ \t]{{0,8}}(?:=(?!=)|:(?!\d))[ \t]{{0,8}}[\"']?[^\s\"'=]",
    r"(?<![a-z0-9])(?:[a-z0-9]{1,40}[_.-]){0,8}keys?[\"']?[ \t]{0,8}=(?!=)[ \t]{0,8}[\"']?[^\s\"'=]",
    # A variable that is set for programs, whatever its name.
    r"(?:^|[;&|(\n:'\"])\s{0,8}export\s[^;&|\n]{0,200}=",
    # The setting, however it is given: `config set api_key x`.
    r"api[-_ ]?key",
    # A setting of a plugin: only the plugin knows which are secret. `aws configure set aws_secret_access_key x`, `git config a.token x`.
    r"\bconfig\s{1,8}set\s[^|;&]{0,80}\bplugins\.",
    rf"\b(?:set|config)\s[^|;&]{{0,120}}(?:{_LONG})[\w.-]{{0,40}}[\"']?[ \t]{{1,8}}[^\s|;&>-]",
    # `Authorization: Bearer x`, and the schemes alone.
    r"\b(?:authorization|proxy-authorization|x-[\w-]{0,40}(?:key|token|auth)[\w-]{0,40}|(?:set-)?cookie)[\"']?[ \t]{0,8}:",
    r"\b(?:bearer|basic|digest|negotiate)\s{1,8}[\w.~+/=-]",
    # `https://me:pw@host`, `me:pw@host`.
    r"[^\s:/@\"']{0,64}:[^\s/@\"']{1,512}@[^\s@]",
    # `-u me:pw`, `-ume:pw`, `-su me:pw`, `--user=me:pw`, `-U me%pw`.
    r"(?:^|\s)(?:-[a-z]{0,8}u|--(?:[\w-]{1,20}-)?user(?:name)?)[\s=]{0,8}[\"']?[^\s:%/\"']{0,64}[:%][^\s\"']",
    # Programs with a short option that is a password.
    r"\b(?:sshpass|login|mysql\w{0,20}|mariadb\w{0,20})\b[^|;&]{0,200}\s-p\s{0,8}\S",
    r"\bredis-cli\b[^|;&]{0,200}\s-a\s{0,8}\S",
    r"\bhtpasswd\b[^|;&]{0,200}\s-\w{0,8}b",
    r"\bchpasswd\b",
    r"(?<!\w)(?:pass|env):[^\s/]",
)

_RUN: Final = r"[A-Za-z0-9+/=_-]{28,}"
_MADE: Final = (r"[0-9]", r"[a-z]", r"[A-Z]")
_SLASHED: Final = 40
"""Letters of a word with slashes that a generator of keys may have made; what is shorter is a path."""


def holds_secret(line: str) -> bool:
    """Tell whether a line holds what looks like a secret."""
    looks = _looks()
    if (looks.hint.search(line) and looks.shape.search(line)) or looks.prefix.search(line):
        return True
    return any(_looks_made(run[0]) for run in looks.run.finditer(line))


class _Looks(NamedTuple):
    """What to look for, compiled."""

    hint: re.Pattern[str]
    shape: re.Pattern[str]
    prefix: re.Pattern[str]
    run: re.Pattern[str]


@cache
def _looks() -> _Looks:
    """Compile what to look for when the first line is looked at: the prompt opens without it."""
    shape = "|".join(f"(?:{shape})" for shape in _SHAPES)
    return _Looks(
        re.compile(_HINT, re.IGNORECASE),
        re.compile(shape, re.IGNORECASE),
        re.compile(_PREFIX),
        re.compile(_RUN),
    )


def _looks_made(run: str) -> bool:
    """Tell whether a long run of letters looks as if a generator of keys had made it: letters of both cases and digits, as in base64."""
    if not all(re.search(kind, run) for kind in _MADE):
        return False
    if "/" not in run:
        return True
    turns = sum(_kind(one) != _kind(other) for one, other in pairwise(run))
    return len(run) >= _SLASHED and not run.startswith("/") and turns >= len(run) // 4


def _kind(letter: str) -> int:
    return next((at for at, kind in enumerate(_MADE) if re.match(kind, letter)), -1)
