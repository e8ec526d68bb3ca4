# SPDX-License-Identifier: MIT
"""Guests that reach the outside by a NIC of the machine, which the network service drives in ring 3. The outside is QEMU's user network: its
DHCP server, and a server of this test at the host, which guests see as 10.0.2.2. In Bochs it is a host that Bochs itself plays, 192.168.10.1, with
DHCP and TFTP."""
import contextlib
import hashlib

import outside
from framework import PROMPT, boot, check_power_off, description, guest, linux_command_line, linux_files, project, system_test, usual_options
from test_disks import SECONDS, output_of
from test_monitor import SWITCH, ask, row
from test_networks import kill_between_rounds, nic
from test_vms import open_monitor

DATA = b"".join(b"%d\n" % i for i in range(1, 400001))[:2 << 20]
SUM = hashlib.sha256(DATA).hexdigest()
MAC = "52:54:00:12:34:57"
ADDRESS = """cat >/tmp/dhcp <<'END'
#!/bin/sh
[ "$1" = bound ] && ip addr add $ip/24 dev $interface && ip route add default via $router
exit 0
END
chmod +x /tmp/dhcp; ip link set lo up; ip link set eth0 up
udhcpc -i eth0 -s /tmp/dhcp -q -n -t 20 >/tmp/udhcpc 2>&1 || { cat /tmp/udhcpc; exit 1; }"""


@contextlib.contextmanager
def server():
    """Serves DATA; yields the port, and the checksums of what was posted."""
    posted = []

    class Handler(outside.Handler):
        def do_GET(self):
            self.answer(DATA)

        def do_PUT(self):
            posted.append(hashlib.sha256(self.rfile.read(int(self.headers["Content-Length"]))).hexdigest())
            self.answer(b"")

    with outside.serving(Handler) as port:
        yield port, posted


def put(port):
    return f"{{ printf 'PUT /data HTTP/1.0\\r\\nContent-Length: {len(DATA)}\\r\\n\\r\\n'; cat /tmp/data; }} | nc 10.0.2.2 {port} | head -n 1 | cut -c 10-12"


@contextlib.contextmanager
def boot_with_uplink(uplink, extra, command=None):
    """A VM with Linux on a network whose uplink is a NIC of the machine."""
    text = f'[network.lan]\nuplink = "{uplink}"\n' + description.default(144, 1, linux_command_line(), name="one") \
        + nic("one", network="lan", mac=MAC)
    files = linux_files()
    if command:
        files["initrd.img"] += guest.command_archive(command, "test")
    with boot({"vms.toml": text.encode(), **files}, usual_options(), memory=512, extra=extra) as console:
        yield console


def qemu_nic(device, slot):
    return "-netdev", "user,id=net0", "-device", f"{device},netdev=net0,mac=52:54:00:aa:bb:cc,addr={slot},romfile="


def check_uplink(device, uplink, slot):
    with server() as (port, posted):
        command = f"""set -e
{ADDRESS}
ip -4 -o addr show dev eth0 | grep -o '10.0.2.[0-9]*/24'
wget -q -O - http://10.0.2.2:{port}/data >/tmp/data
sha256sum </tmp/data
{put(port)}
ping -c 3 -s 1400 10.0.2.2 | grep -o '[0-9]* packets received'"""
        with boot_with_uplink(uplink, qemu_nic(device, slot), command) as console:
            assert output_of(console) == ["10.0.2.15/24", f"{SUM}  -", "200", "3 packets received"]
            check_power_off(console)
        assert posted == [SUM]


@system_test("qemu", why="the NIC and the user network are QEMU's", limit=600, also=("amd-v/debug",))
def a_guest_reaches_the_outside_by_an_82574l():
    check_uplink("e1000e", "pci:00:05.0", 5)


@system_test("qemu", why="the NIC and the user network are QEMU's", limit=600)
def a_guest_reaches_the_outside_by_an_82540em_that_is_polled():
    check_uplink("e1000", "first", 6)


@system_test("bochs", why="the NIC and the host outside are Bochs'", limit=900)
def a_guest_reaches_the_outside_by_the_82540em_of_bochs():
    """A NIC that ignores its reset, under VT-x."""
    data = DATA[:64 << 10]
    command = f"""set -e
{ADDRESS}
ip -4 -o addr show dev eth0 | grep -o '192.168.10.[0-9]*/24'
tftp -g -r data -l /tmp/data 192.168.10.1 2>/dev/null
sha256sum </tmp/data
tftp -p -l /tmp/data -r back 192.168.10.1 2>/dev/null
ping -c 3 192.168.10.1 | grep -o '[0-9]* packets received'"""
    with project.scratch_folder("tftp") as folder:
        (folder / "data").write_bytes(data)
        # The host that Bochs plays hears one station only, that with the NIC's own address: the VM gets it.
        extra = ("pci: enabled=1, chipset=i440fx, slot1=e1000", f"e1000: card=0, enabled=1, mac={MAC}, ethmod=vnet, ethdev={folder}")
        with boot_with_uplink("first", extra, command) as console:
            assert output_of(console) == ["192.168.10.15/24", f"{hashlib.sha256(data).hexdigest()}  -", "3 packets received"]
            check_power_off(console)
        assert (folder / "back").read_bytes() == data


@system_test("qemu", why="the NIC and the user network are QEMU's", limit=600, also=("amd-v/debug",))
def tcp_to_the_outside_goes_on_while_the_service_dies():
    """Each instance resets the NIC and starts it, while frames come and go."""
    deaths = 3
    with server() as (port, posted), boot_with_uplink("first", qemu_nic("e1000e", 5)) as console:
        work = (f"i=0; while [ ! -e /tmp/end ]; do i=$((i+1)); echo $i >/tmp/round; "
                f"wget -q -O - http://10.0.2.2:{port}/data | cmp - /tmp/data || echo bad receive; "
                f"[ \"$({put(port)})\" = 200 ] || echo bad send; done; echo rounds $i")
        console.expect(PROMPT, SECONDS)
        console.send(f"({ADDRESS}\n) && wget -q -O /tmp/data http://10.0.2.2:{port}/data; sha256sum </tmp/data\n")
        console.expect(SUM, SECONDS)
        console.send(f"echo 0 >/tmp/round; ({work}) </dev/null >/tmp/out 2>&1 & echo goes on\n")
        console.expect(r"\r\ngoes on\r?\n", SECONDS)
        open_monitor(console)
        kill_between_rounds(console, deaths, 2, "service network: .*the link is up")
        assert "lan: uplink first, link up" in ask(console, "net list")
        shown = ask(console, "net show lan")
        _, from_outside, kib_in, to_outside, kib_out, dropped = row(shown, "outside")
        # Each round moves the data both ways, and what was counted before a death still counts.
        data_kib = len(DATA) // 1024 * (2 * deaths - 1)
        assert int(kib_in) > data_kib and int(kib_out) > data_kib and int(from_outside) > 0 and int(to_outside) > 0, shown
        *_, kib_sent, _, kib_received, _ = row(shown, "one")
        assert int(kib_sent) > data_kib and int(kib_received) > data_kib, shown
        console.send(SWITCH)
        console.send("touch /tmp/end; wait; cat /tmp/out\n")
        rounds = int(console.expect(r"rounds (\d+)\r?\n", SECONDS).group(1))
        assert b"\nbad " not in console.seen
        assert posted == [SUM] * rounds
        console.expect(PROMPT, SECONDS)
        console.send("poweroff\n")
        check_power_off(console)
