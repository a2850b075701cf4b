"""By which of its addresses a machine is seen by another: nodes have several networks, and names that mean
localhost on the node itself (Debian gives it 127.0.1.1)."""

import fcntl
import socket
import struct

_SIOCGIFADDR = 0x8915  # linux/sockios.h


def address_towards(peer: str) -> str:
    """This machine's IPv4 address on the way to another one; nothing is sent.

    :param peer: its name or address; one of this machine's own gives that address itself.
    :raises OSError: the name is unknown, or there is no way.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        way.connect((peer, 9))  # UDP: chooses the route, and no more
        return way.getsockname()[0]


def interface_with(address: str) -> str | None:
    """The network interface that has an IPv4 address as its first, or none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            question = struct.pack("256s", name.encode())
            try:
                found = fcntl.ioctl(any_socket, _SIOCGIFADDR, question)[20:24]
            except OSError:  # an interface without an address
                continue
            if socket.inet_ntoa(found) == address:
                return name
    return None
