"""The rules of a cell: every TCP connection to the gateway's socket, every DNS question to its name server, the rest refused.

With the rules gone, still nothing leaves: there is no route and no device out. There are two texts: in most cells the packets
come of processes in the cell, and in a cell with a veth of the machine at its other end.
"""

from __future__ import annotations

import os

from irons_local.cell.layout import GATEWAY4, GATEWAY6, INNER, LOG_GROUP, SANDBOX4, SANDBOX6, Ports
from irons_local.linux.programs import program, search_path
from irons_local.problems import Problem

_NEIGHBOURS = 8


def rules(ports: Ports, *, fresh: bool = False) -> str:
    """The cell's nftables rules, in the language of nft(8).

    They replace all rules that were there; in a fresh network namespace there is nothing, and looking costs the kernel milliseconds.

    A packet that a process in the cell sends comes in again on the loopback device, so prerouting sees them all.
    """
    cleared = "" if fresh else "table inet irons {}\ndelete table inet irons\n"
    return f"""
{cleared}table inet irons {{
  set own4 {{ type ipv4_addr; flags interval; elements = {{ 127.0.0.0/8, {SANDBOX4} }} }}
  set own6 {{ type ipv6_addr; elements = {{ ::1, {SANDBOX6} }} }}
  set dns {{ type inet_service; elements = {{ {", ".join(str(port) for port in sorted({53, ports.dns}))} }} }}
  chain capture {{
    type filter hook prerouting priority mangle; policy accept;
    ip daddr @own4 accept
    ip6 daddr @own6 accept
    ip daddr {GATEWAY4} meta l4proto {{ tcp, udp }} th dport @dns accept
    ip6 daddr {GATEWAY6} meta l4proto {{ tcp, udp }} th dport @dns accept
    ip saddr {GATEWAY4} meta l4proto {{ tcp, udp }} th sport @dns accept
    ip6 saddr {GATEWAY6} meta l4proto {{ tcp, udp }} th sport @dns accept
    meta nfproto ipv4 meta l4proto tcp tproxy ip to :{ports.tcp} accept
    meta nfproto ipv6 meta l4proto tcp tproxy ip6 to :{ports.tcp} accept
  }}
  chain untracked_out {{
    type filter hook output priority raw; policy accept;
    meta l4proto {{ tcp, udp }} th dport @dns accept
    meta l4proto {{ tcp, udp }} th sport @dns accept
    notrack
  }}
  chain untracked_in {{
    type filter hook prerouting priority raw; policy accept;
    meta l4proto {{ tcp, udp }} th dport @dns accept
    meta l4proto {{ tcp, udp }} th sport @dns accept
    notrack
  }}
  chain names {{
    type nat hook output priority -100; policy accept;
    ip daddr != @own4 meta l4proto {{ tcp, udp }} th dport 53 dnat ip to {GATEWAY4}:{ports.dns}
    ip6 daddr != @own6 meta l4proto {{ tcp, udp }} th dport 53 dnat ip6 to [{GATEWAY6}]:{ports.dns}
  }}
  chain refuse {{
    type filter hook output priority filter; policy accept;
    ip daddr @own4 accept
    ip6 daddr @own6 accept
    ip daddr {GATEWAY4} meta l4proto {{ tcp, udp }} th dport @dns accept
    ip6 daddr {GATEWAY6} meta l4proto {{ tcp, udp }} th dport @dns accept
    ip saddr {GATEWAY4} meta l4proto {{ tcp, udp }} th sport @dns accept
    ip6 saddr {GATEWAY6} meta l4proto {{ tcp, udp }} th sport @dns accept
    meta l4proto tcp accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit }} accept
    icmp type {{ destination-unreachable, time-exceeded }} accept
    icmpv6 type {{ destination-unreachable, time-exceeded, packet-too-big }} accept
    log group {LOG_GROUP} snaplen 128
    meta l4proto udp reject with icmpx port-unreachable
    reject with icmpx admin-prohibited
  }}
}}
"""


def veth_rules(ports: Ports, *, fresh: bool = False) -> str:
    """The rules of a cell with a veth, as `rules`: its packets arrive on a device, from a machine whose root makes them as it likes.

    What has another source than the machine's own addresses is dropped before anything looks at it. A link-local address
    may ask who has the gateway's; a few, since each is an entry in a table of neighbours that the whole machine shares.
    """
    cleared = "" if fresh else "table inet irons {}\ndelete table inet irons\n"
    return f"""
{cleared}table inet irons {{
  set neighbours {{ type ipv6_addr; size {_NEIGHBOURS}; flags dynamic; }}
  chain own {{
    type filter hook prerouting priority -310; policy accept;
    iifname != "{INNER}" accept
    ip saddr {SANDBOX4} accept
    ip6 saddr {SANDBOX6} accept
    ip6 saddr :: icmpv6 type nd-neighbor-solicit accept
    ip6 saddr fe80::/10 icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} add @neighbours {{ ip6 saddr }} accept
    drop
  }}
  chain untracked_in {{
    type filter hook prerouting priority raw; policy accept;
    meta l4proto {{ tcp, udp }} th dport 53 accept
    notrack
  }}
  chain untracked_out {{
    type filter hook output priority raw; policy accept;
    meta l4proto {{ tcp, udp }} th sport {ports.dns} accept
    notrack
  }}
  chain capture {{
    type filter hook prerouting priority mangle; policy accept;
    iifname != "{INNER}" accept
    meta l4proto {{ tcp, udp }} th dport 53 accept
    meta nfproto ipv4 meta l4proto tcp tproxy ip to :{ports.tcp} accept
    meta nfproto ipv6 meta l4proto tcp tproxy ip6 to :{ports.tcp} accept
    meta l4proto tcp accept
    icmp type {{ destination-unreachable, time-exceeded }} accept
    icmpv6 type {{ destination-unreachable, time-exceeded, packet-too-big }} accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
    icmpv6 type {{ nd-router-solicit, mld-listener-report, mld-listener-done, mld2-listener-report }} drop
    ip protocol igmp drop
    log group {LOG_GROUP} snaplen 128
  }}
  chain names {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname != "{INNER}" accept
    meta nfproto ipv4 meta l4proto {{ tcp, udp }} th dport 53 dnat ip to {GATEWAY4}:{ports.dns}
    meta nfproto ipv6 meta l4proto {{ tcp, udp }} th dport 53 dnat ip6 to [{GATEWAY6}]:{ports.dns}
  }}
  chain refuse {{
    type filter hook input priority filter; policy accept;
    iifname != "{INNER}" accept
    meta l4proto tcp accept
    ip daddr {GATEWAY4} udp dport {ports.dns} accept
    ip6 daddr {GATEWAY6} udp dport {ports.dns} accept
    icmp type {{ destination-unreachable, time-exceeded }} accept
    icmpv6 type {{ destination-unreachable, time-exceeded, packet-too-big }} accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
    meta l4proto udp reject with icmpx port-unreachable
    reject with icmpx admin-prohibited
  }}
  chain onward {{ type filter hook forward priority filter; policy drop; }}
}}
"""


def apply_rules(ports: Ports, *, fresh: bool = False, veth: bool = False) -> None:
    """Put the rules active in this process's network namespace, all at once; `fresh` as for `rules`.

    Raises:
        Problem: nft is missing, or the kernel refuses.
    """
    run(veth_rules(ports, fresh=fresh) if veth else rules(ports, fresh=fresh), "the cell's rules")


def run(commands: str, what: str) -> str:
    """Give commands to nft(8) in this process's network namespace, all or none of which are carried out.

    Args:
        commands: what it reads.
        what: what they are, for an error.

    Returns:
        What it printed.

    Raises:
        Problem: nft is missing, or the kernel refuses.
    """
    nft = program("nft", "nftables")
    said = os.memfd_create("said")
    text = os.memfd_create("rules")
    try:
        os.write(text, commands.encode())
        os.lseek(text, 0, os.SEEK_SET)
        actions = [
            (os.POSIX_SPAWN_DUP2, text, 0),
            (os.POSIX_SPAWN_DUP2, said, 1),
            (os.POSIX_SPAWN_DUP2, said, 2),
        ]
        pid = os.posix_spawn(
            nft, [nft, "-f", "-"], {"PATH": search_path(), "LC_ALL": "C"}, file_actions=actions
        )
        _, status = os.waitpid(pid, 0)
        os.lseek(said, 0, os.SEEK_SET)
        with os.fdopen(os.dup(said), "rb") as file:
            printed = file.read().decode("utf-8", "replace")
        if status:
            lines = printed.strip().splitlines()
            raise Problem(f"nft refused {what}: {lines[0] if lines else status}", "nftables")
        return printed
    finally:
        os.close(said)
        os.close(text)
