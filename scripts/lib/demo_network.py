# SPDX-License-Identifier: MIT
"""What `run --net` shows: a machine with a NIC, and two guests on a network to which it leads. The outside is QEMU's user network, which needs
no rights: its DHCP and name servers, whatever this computer reaches by TCP and UDP, and one port of this computer that leads to a guest."""
import dataclasses
import errno
import socket

from . import description
from .project import Failure

PORT = 8080  # of this computer, usually
ROUTER, WEB_ADDRESS = "10.0.2.2", "10.0.2.100"  # DHCP gives others
WEB_MEMORY = 160  # MiB
WEB_INITRD = "web.img"
# On the kernels' command lines, which our initramfs reads.
DHCP = "network=dhcp"
WEB = f"hostname=web web network={WEB_ADDRESS}/24,{ROUTER}"


@dataclasses.dataclass
class Forward:
    """A port of this computer that leads to the guest with the web server."""
    port: int

    def raise_if_taken(self):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self.port))
            except OSError as error:
                why = {errno.EADDRINUSE: "is in use on this computer", errno.EACCES: "is for root only on this computer"}.get(error.errno, str(error))
                raise Failure(f"--net: port {self.port} {why}: name another, --net {self.port % 50000 + 10000} for example") from None

    def qemu_arguments(self):
        return ["-netdev", f"user,id=net0,hostfwd=tcp:127.0.0.1:{self.port}-{WEB_ADDRESS}:80", "-device", "e1000e,netdev=net0,romfile="]


def describe(first, command_line, physical):
    """The description of both VMs. first: that of the first one, `linux`."""
    web = description.default(WEB_MEMORY, 1, f"{command_line} {WEB}", initrd=WEB_INITRD, name="web", restart="on-reboot", physical=physical)
    web += 'console = "none"\n'  # the line is the other one's, whichever starts first
    return "[network.lan]\nuplink = \"first\"\n\n" + "\n".join(
        text + f'\n[[vm.{name}.nic]]\nnetwork = "lan"\n' for name, text in (("linux", first), ("web", web)))
