"""Which network the ranks of several nodes talk over, where a host's own name leads to nobody but itself.

gloo tells the others the address that the own host name resolves to, which Debian's /etc/hosts makes 127.0.1.1.
"""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from contextlib import suppress

SIOCGIFADDR = 0x8915
SOME_PORT = 9
"""Nothing is sent there."""


def leads_elsewhere(host: str) -> bool:
    """Whether a name has an address by which other machines may be meant."""
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return False
    return any(not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


def own_address(other: str) -> str:
    """The IPv4 address of this machine from which packets to another one leave; empty where they would not."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way, suppress(OSError):
        way.connect((other, SOME_PORT))
        address = str(way.getsockname()[0])
        return "" if ipaddress.ip_address(address).is_loopback else address
    return ""


def interface_of(address: str) -> str | None:
    """The network interface that has this IPv4 address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # one without an address
                answer = fcntl.ioctl(asked, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                if socket.inet_ntoa(answer[20:24]) == address:
                    return name
    return None
