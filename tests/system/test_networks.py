# SPDX-License-Identifier: MIT
"""Guests that talk to each other over internal networks: virtio-net devices whose queues the network service serves in ring 3."""
import contextlib
import hashlib

from framework import (PROMPT, boot, check_power_off, description, guest, guest_kernel, kind_of_emulator, linux_command_line, linux_files,
                       system_test, usual_options)
from lib import cpio
from test_disks import SECONDS, output_of
from test_monitor import SWITCH, ask, row
from test_vms import expect_anywhere, open_monitor

NETWORKS = "[network.lan]\n[network.other]\n"
MAC = "52:54:00:12:34:56"
# A megabyte of which no two places are alike. Both guests have it.
DATA = b"".join(b"%d\n" % i for i in range(1, 200001))[:1 << 20]
SUM = hashlib.sha256(DATA).hexdigest()
# The VM `two`: it sends the data, tells the checksum of what it gets, says how many frames its second NIC has received, and ends when
# it is told to. It has its address last, so it can do all that when it answers.
SERVE = f"""ip link set lo up; ip link set eth0 up; ip link set eth1 up
nc -ll -p 1001 -e cat /data &
nc -ll -p 1002 -e sha256sum &
nc -ll -p 1003 -e cat /sys/class/net/eth1/statistics/rx_packets &
ip addr add 10.1.0.2/24 dev eth1
ip addr add 10.0.0.2/24 dev eth0
nc -l -p 1004"""
SET_UP = "ip link set lo up; ip link set eth0 up; ip addr add 10.0.0.1/24 dev eth0; until ping -c 1 -W 2 10.0.0.2 >/dev/null 2>&1; do sleep 1; done"


def nic(name, **keys):
    return f"[[vm.{name}.nic]]\n" + "".join(f'{key} = "{value}"\n' for key, value in keys.items())


def kill_between_rounds(console, deaths, rounds, last_line, after_each=lambda: None):
    """Kills the network service from the open monitor again and again, while work in the guest counts its rounds in /tmp/round: a death
    meets another moment of a round only if so many rounds go by between deaths. last_line: of what an instance logs at its start."""
    for number in range(2, deaths + 2):
        console.send("service kill network\r")
        console.expect(f"service network: instance {number} starts", 60)
        console.expect(last_line, 60)  # else the log would come between what is typed
        console.send(SWITCH)
        console.send(f"n=$(cat /tmp/round); until [ $(cat /tmp/round) -ge $((n+{rounds})) ]; do sleep 1; done; echo ne''xt\n")
        console.expect(r"\r\nnext\r?\n", SECONDS)
        after_each()
        open_monitor(console)
    assert row(ask(console, "service list"), "network")[1:4] == ["runs", str(deaths + 1), "0"]


@contextlib.contextmanager
def boot_two(command=None, **options):
    """Two VMs with Linux on one network. `one` has the serial line; with a command, it runs that and powers off. `two` has a NIC on another
    network too."""
    line = linux_command_line()
    text = NETWORKS + "".join(
        description.default(144, 1, f"{line} hostname={name}", name=name, initrd=f"{name}.img") + nic(name, network="lan", **keys)
        for name, keys in (("one", {"mac": MAC}), ("two", {}))) + nic("two", network="other")
    files = linux_files()
    archive = cpio.Archive()
    archive.file("data", DATA)
    initrd = files.pop("initrd.img") + archive.finish()
    modules = {"vms.toml": text.encode(), **files, "one.img": initrd + (guest.command_archive(command, "test") if command else b""),
               "two.img": initrd + guest.command_archive(SERVE, "two")}
    with boot(modules, usual_options(), memory=512, **options) as console:
        yield console


@system_test(also=("amd-v/debug",), limit=600)
def two_guests_talk_and_another_network_hears_nothing():
    """Frames of all sizes, whole packets and fragments, TCP both ways with contents compared."""
    command = rf"""set -e
{SET_UP}
cat /sys/class/net/eth0/address /sys/class/net/eth0/carrier
for size in 0 1 56 1400 1472 1473 4000; do ping -c 3 -s $size 10.0.0.2 | grep -o '[0-9]* packets received'; done
nc 10.0.0.2 1001 | sha256sum
nc 10.0.0.2 1002 </data
nc 10.0.0.2 1003
dmesg | grep -c -i 'virtio.*\(fail\|needs reset\)' || true
nc 10.0.0.2 1004 </dev/null"""
    with boot_two(command) as console:
        said = [line for line in output_of(console) if not line.startswith("[")]  # the log tells of the end of `two`
        assert said == [MAC, "1", *["3 packets received"] * 7, *[f"{SUM}  -"] * 2, "0", "0"]
        check_power_off(console)


@system_test(also=("amd-v/debug",), limit=600)
def tcp_goes_on_while_the_service_dies():
    deaths = 5 if kind_of_emulator() == "qemu" else 2  # a round takes ten seconds in Bochs
    work = ("i=0; while [ ! -e /tmp/end ]; do i=$((i+1)); echo $i >/tmp/round; nc 10.0.0.2 1001 | cmp - /data || echo bad receive; "
            f"[ \"$(nc 10.0.0.2 1002 </data)\" = '{SUM}  -' ] || echo bad send; done; echo rounds $i")
    prompt = PROMPT.replace("guest", "one")
    with boot_two() as console:
        console.expect(prompt, SECONDS)
        console.send(f"{SET_UP}; echo 0 >/tmp/round; ({work}) </dev/null >/tmp/out 2>&1 & echo goes on\n")
        console.expect(r"\r\ngoes on\r?\n", SECONDS)
        open_monitor(console)
        listed = ask(console, "net list")
        assert f"lan: internal\r\n  {MAC}  vm one, nic 0, running".replace("\r", "") in listed, listed
        assert "vm two, nic 1, running" in listed.partition("other: internal")[2], listed
        assert f"nic 0: network lan, mac {MAC}" in ask(console, "vm show one")
        kill_between_rounds(console, deaths, 1, "service network: NIC 2: .* in network 1")
        console.send(SWITCH)
        console.send("touch /tmp/end; wait; cat /tmp/out\n")
        assert int(console.expect(r"rounds (\d+)\r?\n", SECONDS).group(1)) > 0
        assert b"\nbad " not in console.seen
        console.expect(prompt, SECONDS)
        console.send("nc 10.0.0.2 1004 </dev/null; poweroff\n")
        check_power_off(console)


@system_test("qemu", why="the same code on both vendors")
def a_mistake_in_a_network_refuses_its_vms_only():
    texts = [description.default(32, 1, "", kernel="ticker.elf", initrd=None, name=name) + tables
             for name, tables in (("bad", nic("bad", network="wan")), ("lost", nic("lost", network="la")), ("good", nic("good", network="lan")))]
    text = "[network.lan]\n[network.wan]\nmode = 'nat'\n" + "".join(texts)
    with boot({"vms.toml": text.encode(), "ticker.elf": guest_kernel("ticker")}) as console:
        expect_anywhere(console, r'vms.toml:3: mode: expected uplink = ... with "nat", found none')
        expect_anywhere(console, r'vms.toml:\d+: network: expected the name of a \[network.NAME\], found "la"')
        expect_anywhere(console, r"ticker: \d+ ms")
