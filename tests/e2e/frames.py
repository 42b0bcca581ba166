"""Frames that no kernel sends by itself, sent by the root of a machine that has a network card of its own."""

from __future__ import annotations

MARK = "crafted-by-the-guest"
"""What the payload of each has, where it has room for it."""

_PROGRAM = r"""
import socket, struct, time
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind(("eth0", 0))
me = @MINE@ or open("/sys/class/net/eth0/address").read().strip()
mac, all_macs = bytes.fromhex(me.replace(":", "")), b"\xff" * 6
def total(data):
    data += bytes(len(data) % 2)
    number = sum(struct.unpack(f">{len(data) // 2}H", data))
    while number >> 16:
        number = (number & 0xFFFF) + (number >> 16)
    return ~number & 0xFFFF
def ip(protocol, source, target, payload, flags=0):
    head = struct.pack(">BBHHHBBH4s4s", 69, 0, 20 + len(payload), 7, flags, 64, protocol, 0, source, target)
    return head[:10] + struct.pack(">H", total(head)) + head[12:] + payload
def ip6(source, target, data):
    source, target = (socket.inet_pton(socket.AF_INET6, each) for each in (source, target))
    said = struct.pack(">HHHH", 4444, 9999, 8 + len(data), 0) + data
    check = total(source + target + struct.pack(">II", len(said), 17) + said) or 0xFFFF
    said = said[:6] + struct.pack(">H", check) + said[8:]
    return struct.pack(">IHBB", 6 << 28, len(said), 17, 64) + source + target + said
def udp(port, data):
    return struct.pack(">HHHH", 4444, port, 8 + len(data), 0) + data
def four(text):
    return socket.inet_aton(text)
evil, own, gateway = four("203.0.113.66"), four(@OWN@), four(@GATEWAY@)
mark = b"crafted-by-the-guest"
frames = {
    "spoofed": b"\x08\x00" + ip(17, four("198.51.100.77"), evil, udp(9999, mark)),
    "broadcast": b"\x08\x00" + ip(17, own, four("255.255.255.255"), udp(9999, mark)),
    "multicast": b"\x08\x00" + ip(17, own, four("224.0.0.251"), udp(5353, mark)),
    "icmp": b"\x08\x00" + ip(1, own, evil, b"\x08\x00" + struct.pack(">HHH", 0, 1, 1) + mark),
    "gre": b"\x08\x00" + ip(47, own, evil, mark),
    "fragment": b"\x08\x00" + ip(17, own, evil, udp(9999, mark), 0x2000),
    "last fragment": b"\x08\x00" + ip(17, own, evil, mark, 0x2001),
    "arp": b"\x08\x06" + struct.pack(">HHBBH6s4s6s4s", 1, 2048, 6, 4, 2, mac, gateway, all_macs, gateway),
    "tagged": b"\x81\x00\x00\x07\x08\x00" + ip(17, own, evil, udp(9999, mark)),
    "advertisement": b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, 16, 58, 255) + b"\xfe\x80" + bytes(13) + b"\1" + b"\xff\2" + bytes(13) + b"\1" + b"\x86\0\0\0" + bytes(12),
    "dhcp": b"\x08\x00" + ip(17, bytes(4), b"\xff" * 4, udp(67, b"\1\1\6\0" + bytes(296))),
    "unknown": b"\x88\xb5" + mark,
    "short": b"\x08\x00\x45",
    "lying length": b"\x08\x00" + ip(17, own, evil, udp(9999, mark))[:24],
    "oversized": b"\x08\x00" + ip(17, own, evil, udp(9999, mark * 70)),
}
if @OWN6@:
    frames |= {
        "spoofed v6": b"\x86\xdd" + ip6("2001:db8:51::77", "2001:db8:113::66", mark),
        "link-local v6": b"\x86\xdd" + ip6("fe80::77", "2001:db8:113::66", mark),
        "own v6": b"\x86\xdd" + ip6(@OWN6@, "2001:db8:113::66", mark),
        "all nodes": b"\x86\xdd" + ip6(@OWN6@, "ff02::1", mark),
        "to the host": b"\x08\x00" + ip(17, own, four("198.51.100.2"), udp(7000, mark)),
        "from the host": b"\x08\x00" + ip(17, four("198.51.100.2"), evil, udp(9999, mark)),
        "from the gateway": b"\x08\x00" + ip(17, gateway, evil, udp(9999, mark)),
        "to loopback": b"\x08\x00" + ip(17, own, four("127.0.0.1"), udp(7000, mark)),
        "twice tagged": b"\x88\xa8\x00\x07\x81\x00\x00\x07\x08\x00" + ip(17, own, evil, udp(9999, mark)),
        "tagged by priority": b"\x81\x00\x00\x00\x08\x00" + ip(17, own, evil, udp(9999, mark)),
    }
for name, rest in frames.items():
    for target in (all_macs, *(bytes.fromhex(each.replace(":", "")) for each in @MACS@)):
        try:
            out.send(target + mac + rest)
        except OSError as error:
            print("not sent:", name, error)
print("sent", len(frames))
"""


def program(own: str, gateway: str, *macs: str, own6: str | None = None, mine: str | None = None) -> str:
    """A Python program that sends each frame by eth0, to the broadcast address and to others.

    Args:
        own: the machine's own IPv4 address.
        gateway: that of its gateway.
        *macs: whom they are sent to besides, by hardware address.
        own6: its own IPv6 address; None leaves out those that need one.
        mine: its hardware address; None reads it of sysfs.
    """
    given = {"OWN": own, "GATEWAY": gateway, "OWN6": own6, "MINE": mine, "MACS": macs}
    text = _PROGRAM
    for name, value in given.items():
        text = text.replace(f"@{name}@", repr(value))
    return text
