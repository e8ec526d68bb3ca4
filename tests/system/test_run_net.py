# SPDX-License-Identifier: MIT
"""scripts/run --net: two guests on a network, and the emulator's outside."""
import contextlib
import socket
import subprocess
import time
import urllib.request

import outside
from framework import ROOT, system_test

SECONDS = 300
PAGE = b"This is web, a VM of Mullion.\n"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fetch(port):
    """The page that the port leads to, as soon as somebody serves it; what came last if nobody does."""
    deadline, found = time.monotonic() + SECONDS, b""
    while time.monotonic() < deadline and found != PAGE:
        time.sleep(1)
        with contextlib.suppress(OSError):
            found = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).read()
    return found


@contextlib.contextmanager
def server(web_port):
    """A server outside: its answer to a guest is what this computer gets from the guests' web server. Yields its port."""
    class Handler(outside.Handler):
        def do_GET(self):
            self.answer(fetch(web_port))

    with outside.serving(Handler) as port:
        yield port


@system_test(backend="qemu", why="Bochs lets nothing in from outside", limit=900)
def guests_reach_each_other_and_the_outside_and_it_reaches_one():
    web = free_port()
    with server(web) as port:
        command = f"""set -e
ip -4 -o addr show dev eth0 | grep -o '10.0.2.[0-9]*/24'
cat /etc/resolv.conf
until ping -c 1 -W 2 10.0.2.100 >/dev/null; do sleep 1; done
wget -q -O - http://10.0.2.100/
wget -q -O - http://10.0.2.2:{port}/; exit 3"""
        done = subprocess.run([ROOT / "scripts/run", "--net", str(web), "--elf", ROOT / "build/release/mullion.elf", "--emulator", "qemu",
                               "--timeout", str(2 * SECONDS), "--", command], stdin=subprocess.DEVNULL, capture_output=True)
    # Status 3 is the command's: the other VM was ended too, in order.
    assert done.returncode == 3 and done.stdout == b"10.0.2.15/24\nnameserver 10.0.2.3\n" + PAGE * 2, done
