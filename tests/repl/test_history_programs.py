"""Programs that are given a secret in a way of their own: lines with them are not kept in the history."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons_repl.line.history import worth_keeping
from irons_repl.line.secrets import ARGUMENTS, holds_secret

GIVEN = [
    "useradd -p {} bob",
    "useradd -mp {} bob",
    "/usr/sbin/usermod -p{} bob",
    "http -a me:{} x.example",
    "https --auth me:{} x.example",
    "xh -A bearer -a {} x.example",
    "mongo -u me -p {} db",
    "mongosh --quiet -p{}",
    "mongodump --host db -p {}",
    "mysqladmin -p{} status",
    "mysqladmin -u root -pold password {}",
    "mysqladmin -u root password {}",
    "mysql -u root -e 'select 1; select 2' -p{}",
    "mariadb-dump -u root -p{} db",
    "openssl enc -aes-256-cbc -k {} -in a",
    "openssl enc -pass pass:{} -in a",
    "openssl enc -K {} -iv 0 -in a",
    "openssl dgst -sha256 -hmac {} a",
    "openssl passwd -6 {}",
    "sshpass -p{} ssh x",
    "docker login -u me -p {} registry.example",
    "podman login -p{} registry.example",
    "cargo login {}",
    "vault login {}",
    "vault kv put kv/x field={}",
    "doctl auth init -t {}",
    "influx -t {} query",
    "ncftpget -u me -p {} x.example . a",
    "rabbitmqadmin -u me -p {} list queues",
    "ngrok config add-authtoken {}",
    "gh secret set NAME -b {}",
    "gh secret set NAME --body={}",
    "flyctl secrets set NAME={}",
    "heroku config:set NAME={}",
    "kubectl create secret generic x --from-literal=name={}",
    "aws ssm put-parameter --name x --type SecureString --value {}",
    "curl -b sid={} x.example",
    "curl -sb 'sid={}' x.example",
    "curl -E cert.pem:{} x.example",
    "lftp -u me,{} x.example",
    "smbclient //files.example/share {}",
    "smbclient -U me%{} //files.example/share",
    "redis-cli -a {} ping",
    "redis-cli AUTH {}",
    "redis-cli config set requirepass {}",
    "sqlplus me/{}@db",
    "sqlcmd -S db -U me -P {}",
    "cqlsh -u me -p {} db",
    "rabbitmqctl add_user me {}",
    "mosquitto_pub -u me -P {} -t x -m y",
    "mosquitto_passwd -b file me {}",
    "htpasswd -nb me {}",
    "ldapsearch -x -D cn=me -w {}",
    "ldappasswd -x -s {} cn=me",
    "keytool -list -storepass {}",
    "jarsigner -keypass {} a.jar me",
    "ssh-keygen -t ed25519 -N {} -f key",
    "ssh-keygen -p -P {} -f key",
    "ykman piv access change-pin -P {}",
    "7z a -p{} a.7z b",
    "zip -P {} a.zip b",
    "unzip -qP {} a.zip",
    "pdftk a.pdf output b.pdf user_pw {}",
    "pdftotext -upw {} a.pdf",
    "rclone obscure {}",
    "ansible-vault encrypt_string {}",
    "wpa_passphrase home {}",
    "nmcli device wifi connect home password {}",
    "nmcli connection modify home wifi-sec.psk {}",
    "plink -pw {} me@x.example",
    "kinit -w {} me",
    "xfreerdp /u:me /p:{} /v:x.example",
    "snmpget -v3 -u me -A {} x.example",
    "ipmitool -H x.example -P {} power on",
    "samba-tool user create bob {}",
    "expect -c 'spawn ssh x; send \"{}\\r\"'",
    "mysql -e \"CREATE USER a IDENTIFIED BY '{}'\"",
    "psql -c \"ALTER ROLE a PASSWORD '{}'\"",
    "sh -c 'echo machine x login me password {} > ~/.netrc'",
    "sh -c 'echo {} | passwd --stdin bob'",
    "sh -c 'printf %s {} | passwd bob'",
    "sh -c 'echo {} | sudo -S apt update'",
    "sh -c 'echo {} | sudo -u bob -kS apt update'",
    "sh -c 'echo {} | sudo --stdin apt update'",
    "sh -c 'echo {} | ssh x.example sudo -S apt update'",
    "sh -c 'echo {} | su -c id bob'",
    "sh -c 'echo bob:{} | /usr/sbin/chpasswd'",
    "sh -c 'echo {} | openssl passwd -stdin'",
    "sh -c 'echo {} | cryptsetup open disk name -'",
    "sh -c 'echo {} | docker secret create name -'",
    "sh -c 'echo {} | gh secret set name'",
    "sh -c 'echo {} | pass insert -e name'",
    "sh -c 'echo {} | kinit me'",
    "bash -c 'sudo -S apt update <<< {}'",
    "bash -c 'passwd bob <<< {}'",
    "bash -c 'cryptsetup open disk name --key-file <(echo {})'",
]
"""Lines with a place for a secret."""

VALUES = ["hunter2", "x", "0000", "$(cat)", "swordfish", "correct-horse-battery"]
AROUND = [
    "exec a -- {}",
    "!{}",
    "a: {}",
    "list; {}",
    "use a && !{}",
    "exec a -- sudo {}",
    'exec a -- env A="b c" {}',
    "exec a --  {} ",
]


@pytest.mark.parametrize("shape", GIVEN)
def test_no_secret_of_a_program_is_kept(shape: str) -> None:
    """Whatever the value is, and wherever the program stands in the line, the line is left out."""
    for value in VALUES:
        for around in AROUND:
            line = around.format(shape.format(value))
            assert not worth_keeping(line, None), line


def test_each_program_has_a_line() -> None:
    """No row is without a line above that needs it."""
    for programs, follows in ARGUMENTS:
        row = re.compile(rf"(?<![\w.-])(?:{programs})(?![\w.:@-]).*{follows}")
        assert any(row.search(shape.format("hunter2")) for shape in GIVEN), programs


@pytest.mark.parametrize(
    "line",
    [
        "exec a -- useradd -m -s /bin/bash bob",
        "exec a -- usermod -aG docker bob",
        "exec a -- passwd --status bob",
        "exec a -- sh -c 'cat /etc/passwd | grep bob'",
        "exec a -- sh -c 'cat x | grep bob /etc/passwd'",
        "exec a -- sudo apt-get update",
        "exec a -- sh -c 'ls | sudo tee x'",
        "exec a -- http x.example a=b",
        "exec a -- python3 -m http.server 8080",
        "exec a -- curl -sSf https://x.example -o a",
        "exec a -- curl -L x.example/login",
        "exec a -- mongosh --port 27017",
        "exec a -- mysql -u root -p",
        "exec a -- mysql -u root -P 3306 db",
        "exec a -- sh -c 'mysqldump db > x; mkdir -p y'",
        "exec a -- openssl rand -hex 16",
        "exec a -- openssl s_client -connect x.example:443",
        "exec a -- openssl req -new -keyout k.pem -out c.pem",
        "exec a -- ssh-keygen -t ed25519 -f id",
        "exec a -- ssh-keygen -lf id.pub",
        "exec a -- zip -r a.zip b",
        "exec a -- unzip -p a.zip b",
        "exec a -- 7z x a.7z",
        "exec a -- redis-cli -p 6379 ping",
        "exec a -- docker run -p 8080:80 web",
        "exec a -- sh -c 'docker login && docker run -p 8080:80 web'",
        "exec a -- cargo login",
        "exec a -- gh auth login",
        "exec a -- gh secret list",
        "exec a -- kubectl get secret x",
        "exec a -- ldapsearch -x -W -b dc=x",
        "exec a -- pip install passlib",
        "exec a -- mkdir -p a/b",
        "exec a -- ssh -p 2222 login@x.example",
        "exec a -- nmcli device wifi list",
        "exec a -- pdftotext a.pdf",
        "exec a -- git commit -m 'ask for a password in the dialog'",
        "ssh alpha",
        "egress allow login.example:8443 --sandbox alpha",
    ],
)
def test_these_programs_are_kept_without_a_secret(line: str) -> None:
    """Their other options, prompts for a password, and names like theirs are ordinary."""
    assert worth_keeping(line, None)


@given(
    st.lists(
        st.sampled_from(
            [*"\"'|<- ;", "mysql", "-p", "sudo ", "passwd", "x ", "<<", "secret set", "openssl passwd"]
        ),
        max_size=300,
    )
)
def test_no_line_breaks_the_search(parts: list[str]) -> None:
    """Quotes that are not closed, and programs one after the other, are text like any other."""
    holds_secret("".join(parts))
