# SPDX-License-Identifier: MIT
"""Guests on a network whose router is Mullion's own: DHCP, names, NAT and forwarded ports. The outside is QEMU's user network (10.0.2.0/24), a
server of this test at the host, which guests see as 10.0.2.2, and a name server of this test in the same network (outside.NameServer)."""
import contextlib
import socket
import time

import outside
from framework import PROMPT, boot, check_power_off, description, guest, guest_kernel, linux_command_line, linux_files, system_test, usual_options
from test_disks import SECONDS, output_of
from test_monitor import SWITCH, ask, row
from test_networks import kill_between_rounds, nic
from test_uplinks import ADDRESS, DATA, SUM, server
from test_vms import expect_anywhere, open_monitor

NAME, ANSWER = "mullion.test", "10.0.2.2"
RESOLVER = "10.0.2.53"
# udhcpc's script, with the name server.
LEASE = ADDRESS.replace("ip route add", "echo nameserver $dns >/etc/resolv.conf && ip route add")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def machine_nic(forwarded, names):
    """An 82574L on a hub with QEMU's user network and the name server. The port of this computer leads to port 8080 of the router."""
    return ("-netdev", f"user,id=world,hostfwd=tcp:127.0.0.1:{forwarded}-10.0.2.15:8080",
            "-netdev", f"socket,id=names,udp=127.0.0.1:{names.port},localaddr=127.0.0.1:{names.peer}",
            "-netdev", "hubport,id=p0,hubid=0,netdev=world", "-netdev", "hubport,id=p1,hubid=0,netdev=names",
            "-netdev", "hubport,id=p2,hubid=0", "-device", "e1000e,netdev=p2,mac=52:54:00:aa:bb:cc,addr=5,romfile=")


@contextlib.contextmanager
def boot_with_router(command=None):
    """A VM `one` with Linux behind a router. Yields the console, the port of this computer that leads to the VM's port 80, and the server's."""
    with outside.NameServer(RESOLVER, {NAME: ANSWER}) as names, server() as (port, posted):
        forwarded = free_port()
        text = (f'[network.lan]\nuplink = "first"\nmode = "nat"\ndns = "{RESOLVER}"\nforward = ["tcp 8080 -> one:80"]\n'
                + description.default(144, 1, linux_command_line(), name="one") + nic("one", network="lan"))
        files = linux_files()
        if command:
            files["initrd.img"] += guest.command_archive(command(port), "test")
        with boot({"vms.toml": text.encode(), **files}, usual_options(), memory=512, extra=machine_nic(forwarded, names)) as console:
            yield console, forwarded, port, posted


def fetch(port):
    """What the guest's server at its port 80 sends before it closes, as soon as somebody serves it; what came last if nobody does."""
    deadline, data = time.monotonic() + SECONDS, b""
    while time.monotonic() < deadline and data != DATA:
        time.sleep(1)
        data = b""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            while part := connection.recv(65536):
                data += part
    return data


@system_test("qemu", why="the NIC and the user network are QEMU's", limit=600, also=("amd-v/debug",))
def a_guest_behind_the_router_reaches_the_outside_and_is_reached():
    """DHCP by Mullion's server, ping, a file, a name, and a connection from outside to a forwarded port.
    QEMU's network hears each question about a name too, and asks this computer's name server, which does not know it: when that is
    sooner, the guest asks again."""
    def command(port):
        return f"""set -e
{LEASE}
ip -4 -o addr show dev eth0 | grep -o '10.77.0.[0-9]*/24'
cat /etc/resolv.conf
ping -c 3 10.77.0.1 | grep -o '[0-9]* packets received'
ping -c 3 -s 1400 10.0.2.2 | grep -o '[0-9]* packets received'
until nslookup {NAME} | grep '{ANSWER}' >/tmp/named; do sleep 1; done
wc -l </tmp/named
until wget -q -O /tmp/data http://{NAME}:{port}/data 2>/dev/null; do sleep 1; done
sha256sum </tmp/data
{{ printf 'PUT /data HTTP/1.0\\r\\nContent-Length: {len(DATA)}\\r\\n\\r\\n'; cat /tmp/data; }} | nc 10.0.2.2 {port} | head -n 1 | cut -c 10-12
nc -l -p 80 </tmp/data >/dev/null
echo served"""
    with boot_with_router(command) as (console, forwarded, _, posted):
        # Not before the guest is about to listen: the emulator would try a connection again that was given up here, and that one would be served.
        console.expect(r"(?=<mullion-command test>\n(?:.|\n)*\n200\n)", SECONDS)
        assert fetch(forwarded) == DATA
        assert output_of(console) == ["10.77.0.2/24", "nameserver 10.77.0.1", "3 packets received", "3 packets received", "1",
                                      f"{SUM}  -", "200", "served"]
        check_power_off(console)
        assert posted == [SUM]


@system_test("qemu", why="the NIC and the user network are QEMU's", limit=600, also=("amd-v/debug",))
def connections_go_on_while_the_service_dies():
    """The router's table outlives an instance: TCP to the outside goes on, and so does what is forwarded."""
    deaths = 3
    with boot_with_router() as (console, forwarded, port, _):
        console.expect(PROMPT, SECONDS)
        console.send(f"({LEASE}\n) && wget -q -O /tmp/data http://10.0.2.2:{port}/data; sha256sum </tmp/data\n")
        console.expect(SUM, SECONDS)
        work = (f"i=0; while [ ! -e /tmp/end ]; do i=$((i+1)); echo $i >/tmp/round; "
                f"wget -q -O - http://10.0.2.2:{port}/data | cmp - /tmp/data || echo bad receive; done; echo rounds $i")
        console.send(f"(while [ ! -e /tmp/end ]; do nc -l -p 80 </tmp/data >/dev/null; done) & echo 0 >/tmp/round; ({work}) </dev/null >/tmp/out 2>&1 & echo goes on\n")
        console.expect(r"\r\ngoes on\r?\n", SECONDS)
        open_monitor(console)
        def is_reached():
            assert fetch(forwarded) == DATA
        kill_between_rounds(console, deaths, 2, "service network: .*the link is up", is_reached)
        listed = ask(console, "net list")
        assert f"nat: router 10.77.0.1/24, outside 10.0.2.15/24, gateway 10.0.2.2, name server {RESOLVER}" in listed, listed
        assert "vm one, nic 0, running, 10.77.0.2" in listed, listed
        shown = ask(console, "net show lan")
        assert "nat: 1 addresses given" in shown, shown
        assert int(row(shown, "one")[3]) > 0 and int(row(shown, "one")[5]) > 0, shown
        console.send(SWITCH)
        console.send("touch /tmp/end; killall nc; until grep rounds /tmp/out; do sleep 1; done; cat /tmp/out\n")
        console.expect(r"rounds (\d+)\r?\n", SECONDS)
        assert b"\nbad " not in console.seen
        console.expect(PROMPT, SECONDS)
        console.send("poweroff\n")
        check_power_off(console)


@system_test("qemu", why="the same code on both vendors")
def a_mistake_in_a_router_refuses_the_vms_of_its_network_only():
    texts = [description.default(32, 1, "", kernel="ticker.elf", initrd=None, name=name) + tables
             for name, tables in (("bad", nic("bad", network="wan")), ("good", nic("good", network="lan")))]
    text = "[network.lan]\n[network.wan]\nmode = 'nat'\nuplink = 'first'\nforward = ['tcp 80 -> god:80']\n" + "".join(texts)
    with boot({"vms.toml": text.encode(), "ticker.elf": guest_kernel("ticker")}) as console:
        expect_anywhere(console, r'vms.toml:5: forward: expected the name of a VM, found "god"')
        expect_anywhere(console, r"ticker: \d+ ms")
