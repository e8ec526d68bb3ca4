# SPDX-License-Identifier: MIT
"""vm save and vm restore: a Linux is paused, saved and destroyed, made again from its snapshot, and goes on."""
import re
import time

from framework import PROMPT, boot_linux, check_power_off, system_test
from test_monitor import MONITOR, SWITCH, ask, guest_seconds, row

# Counts in a shell and shows each number once; the file beside it is what memory must still hold.
COUNT = "while :; do echo count $((i+=1)); sleep 0.3; done"


def to_monitor(console):
    console.send(SWITCH)
    console.expect(MONITOR)


def to_guest(console):
    console.send(SWITCH)
    console.expect("console of linux")


def save(console):
    assert ask(console, "vm save linux") == "linux runs: pause it first"
    assert ask(console, "vm restore linux") == "linux exists: kill it first"
    assert ask(console, "vm pause linux") == "linux stands still"
    assert ask(console, "vm save linux") == "linux is being saved"
    console.expect(r"vm linux: saved, \d+ KiB")
    assert "snapshot" in row(ask(console, "vm list"), "linux")
    assert ask(console, "vm save linux") == "linux has a snapshot: discard it first"


def destroy(console):
    ask(console, "vm kill linux")
    console.expect("vm linux ended: killed")
    while row(ask(console, "vm list"), "linux")[1] != "off":
        pass
    assert re.search(r"  snapshots +25\d MiB", ask(console, "mem"))


def restore(console):
    assert ask(console, "vm restore linux") == "linux is being restored"
    console.expect("vm linux: restored")
    assert row(ask(console, "vm list"), "linux")[1] == "paused"
    assert ask(console, "vm resume linux") == "linux goes on"


def counted(console):
    return int(console.expect(r"count (\d+)\r", 120).group(1))


def live_again(vcpus, cpus):
    with boot_linux(vcpus=vcpus, cpus=cpus, machine_memory=768) as console:
        console.expect(PROMPT, 500)
        console.command(f"echo '{COUNT}' > /c")
        console.command("head -c 300000 /dev/urandom > /noise")
        noise = console.command("md5sum /noise")
        clock = "cat /sys/devices/system/clocksource/clocksource0/current_clocksource"
        source = console.command(clock)
        before, date = guest_seconds(console), int(console.command("date +%s"))
        began = time.monotonic()
        console.send("sh /c &\n")
        while counted(console) < 5:
            pass
        to_monitor(console)
        save(console)
        destroy(console)
        restore(console)
        # What it said while the monitor had the line came out when it ended.
        numbers = [int(each) for each in re.findall(rb"count (\d+)\r", bytes(console.seen))]
        to_guest(console)
        assert counted(console) in (numbers[-1] + 1, numbers[-1] + 2), numbers
        counted(console)
        console.send("kill $!; wait; echo qui''et\n")
        console.expect("quiet\r\n")
        console.expect(PROMPT)
        assert console.command("md5sum /noise") == noise
        assert console.command("grep -c ^processor /proc/cpuinfo") == str(vcpus)
        passed, wall = guest_seconds(console) - before, int(console.command("date +%s")) - date
        print(f"clock {source}: guest {passed:.1f} s and {wall} s, here {time.monotonic() - began:.1f} s")
        assert abs(passed - wall) < 3, (passed, wall)
        assert console.command("head -c 4 /dev/hwrng | wc -c") == "4"
        for cpu in range(vcpus):
            assert console.command(f"taskset {1 << cpu} sh -c 'sleep 0.2; echo awake'") == "awake"
        console.send("poweroff -f\n")
        check_power_off(console, 200)


@system_test(limit=700)
def a_linux_goes_on_from_its_snapshot():
    live_again(1, 1)


@system_test(limit=900, also=("amd-v/debug",))
def a_linux_of_two_cpus_goes_on_from_its_snapshot():
    live_again(2, 2)
