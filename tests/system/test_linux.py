# SPDX-License-Identifier: MIT
"""A Linux guest, as a user meets it."""
import base64
import hashlib
import random

import framework
from framework import NATIVE, PROMPT, boot_linux, check_clock, check_power_off, emulator, system_test, verdict


@system_test(quick=True, guest_only=True, also=("vt-x/debug", "amd-v/debug", "vt-x/debian-13", "amd-v/debian-13"))
def shell_and_power_off():
    with boot_linux(like_the_users=framework.platform == "vt-x/bochs") as console:
        console.expect(PROMPT)
        assert "x86_64" in console.command("uname -a")
        check_clock(console)
        console.send("poweroff\n")
        check_power_off(console)
        if not NATIVE:
            (name, how, seconds), = verdict.ended_vms(bytes(console.seen))
            assert (name, how) == ("linux", "poweroff"), (name, how)
            assert 0 < seconds < 200, seconds  # a second has few instructions in Bochs


@system_test(guest_only=True)
def control_c_stops_a_command():
    with boot_linux() as console:
        console.expect(PROMPT)
        # Until cat answers, the shell may still edit its line, and Ctrl-C is a key like any other.
        console.send("echo run''ning; cat\n")
        console.expect("running\r\n")
        console.send("twice\n")
        console.expect("twice\r\ntwice\r\n")
        console.send(b"\x03")
        console.expect(PROMPT, 120)
        assert console.command("echo status $?") == "status 130"


@system_test(guest_only=True)
def input_of_100_kilobytes_arrives():
    lines = base64.encodebytes(random.Random(1).randbytes(75_000))
    assert len(lines) > 100_000
    with boot_linux() as console:
        console.expect(PROMPT)
        console.command("stty -echo; echo quiet")
        console.send("cat > f; echo; md5sum f\n")
        console.send(lines + b"\x04")
        found = console.expect(r"([0-9a-f]{32})  f", 300)
        assert found.group(1).decode() == hashlib.md5(lines).hexdigest()


@system_test(backend="bochs", limit=700, why="QEMU does not say how many instructions it ran")
def sleep_takes_its_time():
    """Two runs that differ in nothing but the sleep: the difference of their ticks is its length, and some ticks of Linux' timer."""
    ticks = {}
    for seconds in (1, 4):
        with boot_linux(command=f"sleep {seconds}") as console:
            console.expect(r"<mullion-status test 0>")
            ticks[seconds] = check_power_off(console).ticks
    took = (ticks[4] - ticks[1]) / emulator.BOCHS_TICKS_PER_SECOND
    assert abs(took - 3) < 0.1, f"sleeping 3 s longer took {took:.4f} s"


@system_test()
def pci_is_enumerated():
    """Both bridges are found by both ways to configuration space, and Linux has nothing to complain of."""
    command = r"""for d in /sys/bus/pci/devices/*; do echo "${d##*/} $(cat $d/vendor) $(cat $d/device) $(cat $d/class) $(wc -c <$d/config)"; done
dmesg | grep -c -e 'PCI: Fatal' -e 'ACPI.*Error' -e 'ACPI BIOS' -e 'ECAM.*not reserved' -e 'MMCONFIG.*not reserved'
dmesg | grep -e 'PCI: Using configuration type' -e 'PCI: MMCONFIG' -e 'PCI: ECAM' -e 'PCI: Using ACPI'
dmesg | grep 'pci_bus 0000:00: root bus resource'"""
    with boot_linux(command=command) as console:
        found = console.expect(r"<mullion-command test>\n((?:.|\n)*)<mullion-status test (\d+)>", 300)
        output, status = found.group(1).decode(), found.group(2)
        assert status == b"0", output
        bridges, rest = output.split("\n0\n", 1)
        assert bridges.split("\n")[0].split()[:4] == ["0000:00:00.0", "0x8086", "0x29c0", "0x060000"], output
        assert bridges.split("\n")[-1].split()[:4] == ["0000:00:1f.0", "0x8086", "0x2918", "0x060100"], output
        for expected in ("configuration type 1", "reserved", "[bus 00-3f]", "[mem 0xc0000000-0xdfffffff window]", "[io  0x0d00-0xffff window]"):
            assert expected in rest, output
        check_power_off(console)


@system_test()
def random_numbers_come_from_the_host():
    """Linux finds the virtio device on its PCI bus and uses its BARs and MSI-X. 128 requests more raise the interrupt's count."""
    command = r"""cat /sys/class/misc/hw_random/rng_current
interrupts() { awk '/PCI-MSI.*virtio0-input/ { print $2 }' /proc/interrupts; }
before=$(interrupts)
dd if=/dev/hwrng bs=64 count=1 2>/dev/null >/tmp/a && dd if=/dev/hwrng bs=64 count=1 2>/dev/null >/tmp/b || exit 4
cmp -s /tmp/a /tmp/b; differ=$?; echo "sizes $(wc -c </tmp/a) $(wc -c </tmp/b) differ $differ"
dd if=/dev/hwrng bs=64 count=128 2>/dev/null >/tmp/c || exit 5
echo "bytes $(wc -c </tmp/c) compressed $(gzip </tmp/c | wc -c)"
echo "interrupts $before $(interrupts)"
echo "bars $(head -n 5 /sys/bus/pci/devices/0000:00:01.0/resource | cut -d ' ' -f 3 | tr '\n' ' ')"
dmesg | grep -v 'module verification failed' | grep -i -c -e 'virtio.*\(error\|fail\|needs reset\)'"""
    with boot_linux(command=command) as console:
        found = console.expect(r"<mullion-command test>\n((?:.|\n)*)<mullion-status test (\d+)>", 300)
        output = found.group(1).decode()
        lines = output.split("\n")
        assert lines[0] == "virtio_rng.0", output
        assert lines[1] == "sizes 64 64 differ 1", output
        size, compressed = map(int, lines[2].split()[1::2])
        assert size == 8192 and compressed > 8000, f"random bytes do not compress: {output}"
        before, after = map(int, lines[3].split()[1:])
        assert after >= before + 64, output  # Linux asks for at most 64 bytes at a time, and keeps what a reader left
        flags = [int(flag, 16) & 0x300 for flag in lines[4].split()[1:]]
        assert flags == [0x200, 0, 0x200, 0, 0x100], f"memory, MSI-X and doorbells: {output}"
        assert lines[5] == "0", output
        check_power_off(console)


@system_test()
def a_reboot_starts_the_vm_again():
    with boot_linux(restart="on-reboot") as console:
        console.expect(PROMPT)
        assert console.command("touch trace; ls") == "trace"
        console.send("reboot\n")
        console.expect("vm linux ended: reset")
        console.expect("vm linux: started")
        console.expect(PROMPT)
        assert console.command("ls") == "", "the same system goes on"
        console.send("poweroff\n")
        check_power_off(console)


@system_test()
def a_reboot_ends_the_vm_whose_description_says_so():
    with boot_linux() as console:
        console.expect(PROMPT)
        console.send("reboot\n")
        end = console.until_end()
        assert end.orderly, end.reason
        ended = verdict.ended_vms(bytes(console.seen))
        assert ended and ended[-1][1] == "reset", ended
        assert verdict.mullion_status(bytes(console.seen)) not in (None, 0)


@system_test(backend="bochs", why="it is about VT-x")
def without_optional_features_of_vt_x():
    """The oldest CPU that can run a guest: APIC by emulation, small pages, no VPID."""
    with boot_linux(command="grep -c processor /proc/cpuinfo", append="vmx-disable=all") as console:
        console.expect(r"EPT, unrestricted guest; optional:( RDTSCP)?(; iTLB multihit: code is mapped in 4K-pages)?\r")
        console.expect(r"<mullion-command test>\n1\n<mullion-status test 0>")
        check_power_off(console)


@system_test(backend="bochs", why="it is about VT-x")
def with_every_optional_feature_of_vt_x():
    """The other tests do without what Bochs gets wrong now and then. Nothing is typed here, and little happens at one time."""
    with boot_linux(command="grep -c processor /proc/cpuinfo", all_features=True) as console:
        console.expect(r"EPT, unrestricted guest; optional:[^\r]* virtual-interrupts ")
        console.expect(r"<mullion-command test>\n1\n<mullion-status test 0>")
        check_power_off(console)


@system_test(guest_only=True)
def command_gives_its_output_and_status():
    with boot_linux(command="grep -c processor /proc/cpuinfo") as console:
        console.expect(r"<mullion-command test>\n1\n<mullion-status test 0>")
        check_power_off(console)


@system_test()
def suspend_to_idle_ends_with_the_alarm_of_the_rtc():
    """As a fixed event of ACPI: Linux turns the RTC's own interrupt off meanwhile."""
    command = """dmesg | grep 'ACPI Error' && exit 3
echo +3 > /sys/class/rtc/rtc0/wakealarm && echo freeze > /sys/power/state && dmesg | grep -c 'PM: suspend exit'"""
    with boot_linux(command=command) as console:
        console.expect(r"<mullion-command test>\n1\n<mullion-status test 0>")
        check_power_off(console)


@system_test(backend="qemu", why="zeroing so much takes Bochs minutes")
def a_guest_with_memory_above_4_gibibytes():
    with boot_linux(command="free -m", memory=4224, machine_memory=5120) as console:
        mebibytes = int(console.expect(r"Mem: +(\d+) ", 300).group(1))
        assert 4000 < mebibytes <= 4224, mebibytes
        console.expect(r"<mullion-status test 0>")
        check_power_off(console)


@system_test()
def a_guest_panic_is_no_success():
    with boot_linux(command="echo c > /proc/sysrq-trigger") as console:
        end = console.until_end()
        assert end.orderly, end.reason
        ended = verdict.ended_vms(bytes(console.seen))
        assert len(ended) == 1 and ended[0][1] == "reset", ended
        assert verdict.mullion_status(bytes(console.seen)) not in (None, 0)
