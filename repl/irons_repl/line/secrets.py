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

_SHORT: Final = r"auth(?:orization)?|pass|pwd?|creds|jwt|otp|pin|psk"
"""Those that other words hold too: they count as a word of their own."""

# Case counts here: these are how tokens of known makers begin.
_PREFIX: Final = (
    r"-----BEGIN|(?<![A-Za-z0-9])(?:gh[a-z]_|github_pat_|gl[a-z]{2,6}-\w|xox[a-z]|xapp-|sk-|sk_|rk_|pk_live|whsec_|AKIA|ASIA|AIza"
    r"|ya29\.|npm_|pypi-\w|hf_|dop_v|SG\.\w|shp[a-z]{2}_|dckr_pat_|tskey-|gsk_|xai-|r8_|glsa_|lin_api_|figd_|ATATT|AGE-SECRET-KEY"
    r"|EAAC|ntn_|eyJ[\w-]{1,2000}\.)"
)

_HINT: Final = r"[=:%]|key|pass|pwd|secret|token|cred|auth|bearer|basic|digest|negotiate|cookie|jwt|otp|pin|pw|psk|plugins|identified"
"""What each shape has at least one of: a line without it needs no further look."""

# Every repetition is bounded, so that no line takes long to read.
_SHAPES: Final = (
    # `--password hunter2`, `--client-secret=abc`, `-passin x`, `-storepass x`.
    rf"(?:^|[\s\"'=])--?(?!no-)[\w.-]{{0,40}}(?:{_LONG}|(?<![a-z0-9])(?:{_SHORT})(?![a-z0-9])|(?<!by)pass(?![a-z0-9]))",
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
    r"\bchpasswd\b",
    r"(?<!\w)(?:pass|env):[^\s/]",
    # A user's password in SQL, and in a .netrc.
    r"\bidentified\s{1,8}(?:by|with)\b|\bpassword\s{0,8}\(?\s{0,8}\\?[\"'][^\s\"']",
    r"\blogin\s{1,8}\S{1,200}\s{1,8}password\s{1,8}\S",
)

# What follows is for programs whose arguments or standard input are secret, where neither looks like it: `useradd -p x`,
# `echo x | sudo -S ls`. Each is data: names of programs as one regular expression, and another for what follows them where
# it is secret. Case counts, as it does for short options.

_GAP: Final = r"(?>\"[^\"]{0,200}\"|'[^']{0,200}'|[^|;&]){0,200}?"
"""Other arguments of the same program; what is quoted may hold anything."""
_VALUE: Final = r"[\s=]{0,8}[^\s|;&]"
_NEXT: Final = r"[\s\"']{1,8}[^\s\"'-]"
"""The next argument, where it is not an option."""


def _short(letters: str) -> str:
    """Return what matches one of these options with its value, also behind other letters: `-p x`, `-px`, `-mp x`."""
    return rf"[\s\"']-[A-Za-z]{{0,6}}[{letters}]{_VALUE}"


ARGUMENTS: Final = (
    # Users, remote shells, registries.
    (r"useradd|usermod|adduser|groupadd|groupmod|sshpass|rdesktop|twine", _short("p")),
    (r"login", _short("p")),
    (r"plink|pscp|psftp|kinit|kadmin(?:\.local)?", r"\s-p?w\s{1,8}\S"),
    (r"[xw]?l?freerdp\w{0,4}", r"\s/p:"),
    (r"(?:cargo|wandb|vault|bw|op|snyk)\s{1,8}(?:login|auth|unlock)", _NEXT),
    (r"ngrok\s{1,8}(?:config\s{1,8}add-)?authtoken", _NEXT),
    (r"doctl|codecov|influx", _short("t")),
    # HTTP and file transfer.
    (r"https?|xhs?|httpie", _short("a")),
    (r"curl", r"[\s\"']-[A-Za-z#]{0,8}b\s{0,8}[\"']?[\w.-]{1,80}="),
    (r"curl", r"\s(?:-[A-Za-z]{0,8}E\s{0,8}|--(?:proxy-)?cert[\s=]{1,8})[\"']?[^\s:]{1,200}:\S"),
    (r"lftp|ncftp\w{0,8}", r"\s-u\s{0,8}[^\s,]{1,64},\S"),
    (r"ncftp\w{0,8}", _short("p")),
    (r"smbclient|rpcclient", r"\s//\S{1,200}\s{1,8}[^\s-]"),
    # Databases and brokers.
    (
        r"mysql\w{0,20}|mariadb[\w-]{0,20}|mycli|mongo\w{0,20}|cqlsh|cypher-shell|clickhouse-client",
        _short("p"),
    ),
    (r"mysqladmin|mariadb-admin", rf"\s(?:old-)?password{_NEXT}"),
    (r"sqlcmd|bcp|tsql|mssql-cli|mosquitto_\w{1,8}", _short("P")),
    (r"sqlplus|expdp|impdp|sqlldr|rman", r"[\s\"'][^\s/@\"'-]{1,64}/[^\s@/]"),
    (
        r"redis-cli|valkey-cli|keydb-cli|iredis",
        rf"(?:{_short('a')}|\s(?i:auth|requirepass|masterauth){_NEXT})",
    ),
    (r"rabbitmqadmin|couchbase-cli|couchbase", _short("p")),
    (r"rabbitmqctl\s{1,8}(?:add_user|change_password|authenticate_user)", r"\s\S{1,200}\s{1,8}\S"),
    (r"ldap\w{3,10}", _short("w")),
    (r"ldappasswd", _short("as")),
    # Keys, archives, documents.
    (r"openssl", r"\s-(?:k|K|hmac|macopt|kdfopt)\s{1,8}\S"),
    (r"openssl\s{1,8}passwd|mkpasswd", _NEXT),
    (r"htpasswd|mosquitto_passwd", _short("b")),
    (r"ssh-keygen", _short("NP")),
    (r"ykman|pkcs11-tool|pkcs15-\w{1,10}", _short("Ppn")),
    (r"7z[ar]?|rar|unrar", _short("p")),
    (r"zip|unzip|zipcloak", _short("P")),
    (r"pdftk", r"\s\w{0,8}_pw\s{1,8}\S"),
    (r"pdf\w{2,10}", r"\s-[uo]pw\s{1,8}\S"),
    (r"rclone", r"\s(?:obscure|pass)\s{1,8}\S"),
    (r"ansible-vault\s{1,8}encrypt_string", _NEXT),
    # Networks.
    (r"wpa_passphrase", r"\s\S{1,200}\s{1,8}\S"),
    (r"nmcli|iwctl", r"\s(?:password|[\w.-]{0,40}(?:psk|wep-key\d?))\s{1,8}\S"),
    (r"snmp\w{2,12}", _short("AXc")),
    (r"ipmitool", rf"(?:{_short('P')}|\spassword\s{{1,8}}\S)"),
    (r"samba-tool\s{1,8}user\s{1,8}(?:create|add)", r"\s\S{1,200}\s{1,8}[^\s-]"),
    # Secrets of services.
    (r"(?:heroku|netlify|scalingo)\s{1,8}(?:config|env):(?:set|add)", _NEXT),
    (
        r"secrets?\s{1,8}(?:set|put|add|create|import)",
        r"(?:\s(?:-b|--body|--value|--from-literal)[\s=]|[\w\"']=)",
    ),
    (r"create\s{1,8}secret|put-parameter", r"\s--(?:from-literal|value)[\s=]"),
    (r"vault\s{1,8}(?:kv\s{1,8}(?:put|patch)|write)", r"\s[\w.-]{1,80}=[^\s@]"),
    # What is typed in a person's place.
    (r"expect(?=[^|&]{1,400}[\s\"';]send\s)", ""),
)
"""Programs with a secret among their arguments."""

READERS: Final = (
    r"(?:ch|smb|vnc|mk|ht|openssl\s{1,8})?passwd",
    r"sudo\s(?:[^|;&]{0,80}\s)?(?:-[A-Za-z]{0,6}S|--stdin)",
    r"su|doas|kinit|ssh-add|cryptsetup|veracrypt|keyctl|secret-tool|systemd-creds|wpa_passphrase|ansible-vault",
    r"pass\s{1,8}insert|vault\s{1,8}(?:kv\s{1,8}put|write|login)|(?:wandb|cargo|snyk)\s{1,8}(?:login|auth)",
    r"secrets?\s{1,8}(?:set|put|add|create|import|versions)",
)
"""Programs that read a secret from standard input."""

_RUN: Final = r"[A-Za-z0-9+/=_-]{28,}"
_MADE: Final = (r"[0-9]", r"[a-z]", r"[A-Z]")
_SLASHED: Final = 40
"""Letters of a word with slashes that a generator of keys may have made; what is shorter is a path."""


def holds_secret(line: str) -> bool:
    """Tell whether a line holds what looks like a secret."""
    looks = _looks()
    if (looks.hint.search(line) and looks.shape.search(line)) or looks.prefix.search(line):
        return True
    return looks.program.search(line) is not None or any(
        _looks_made(run[0]) for run in looks.run.finditer(line)
    )


class _Looks(NamedTuple):
    """What to look for, compiled."""

    hint: re.Pattern[str]
    shape: re.Pattern[str]
    program: re.Pattern[str]
    prefix: re.Pattern[str]
    run: re.Pattern[str]


@cache
def _looks() -> _Looks:
    """Compile what to look for when the first line is looked at: the prompt opens without it."""
    shape = "|".join(f"(?:{shape})" for shape in _SHAPES)
    return _Looks(
        re.compile(_HINT, re.IGNORECASE),
        re.compile(shape, re.IGNORECASE),
        re.compile(_programs()),
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


def _programs() -> str:
    """What matches a line that gives a program a secret."""
    reader = rf"(?<![\w/.-])(?:(?:/usr)?/s?bin/)?(?:{'|'.join(READERS)})(?![\w./@=-])"
    given = (rf"(?<![\w.-])(?:{programs})(?![\w.:@-]){_GAP}{follows}" for programs, follows in ARGUMENTS)
    piped = rf"\|[^|;]{{0,200}}?{reader}"
    # A here-document, a here-string, and what a program prints in place of a file.
    here = rf"{reader}{_GAP}<(?:\s{{0,4}}<|\(\s{{0,4}}(?:echo|printf))"
    return "|".join(f"(?:{each})" for each in (*given, piped, here))
