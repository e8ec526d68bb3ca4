# SPDX-License-Identifier: MIT
"""Several CPUs: of the machine, and of its guests."""
import re
import struct

from framework import FAST, PROMPT, boot, boot_guest, boot_linux, check_power_off, description, guest, guest_kernel, hypervisor, kind_of_emulator, linux_files, system_test, verdict
from test_monitor import MONITOR, SWITCH, ask, run_seconds

LOAD_AND_HOTPLUG = r"""
work() { i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; set -- $(cat /proc/self/stat); eval "echo ran on \${39}"; }
nproc
for cpu in 0 1 2 3; do (taskset -p $((1 << cpu)) $(exec sh -c 'echo $PPID') >/dev/null; work) & done
wait
cd /sys/devices/system/cpu
echo 0 > cpu1/online; echo 0 > cpu3/online
echo online $(cat online), nproc $(nproc)
for round in 1 2 3 4 5; do echo 0 > cpu2/online; echo 1 > cpu2/online; done
echo 1 > cpu3/online; echo 1 > cpu1/online
echo online $(cat online), nproc $(nproc)
for cpu in 1 2 3; do (taskset -p $((1 << cpu)) $(exec sh -c 'echo $PPID') >/dev/null; work) & done
wait
"""


def run_smp(vcpus, cpus, **options):
    """The guest of tests/guest/smp: start by INIT and SIPI, IPIs of every kind, NMI, HLT, timers, TSCs."""
    with boot_guest("smp", f"cpus={vcpus}", vcpus=vcpus, cpus=cpus, **options) as console:
        console.expect(rf"cpus: {cpus} of {cpus} in use")
        status = int(console.expect(r"guest: done (\d+)", 300).group(1))
        failures = [line for line in console.tail(10_000).splitlines() if "guest: FAIL" in line]
        assert status == 0 and not failures, "\n".join(failures) or f"status {status}"
        assert console.seen.count(b"guest: ok ") == 8, console.tail()
        check_power_off(console)


@system_test(also=("vt-x/debug",))
def guest_of_four_cpus():
    run_smp(4, 4, deterministic=True)


@system_test()
def two_vcpus_on_eight_cpus():
    run_smp(2, 8, deterministic=True)


@system_test(backend="qemu", why="Bochs runs one CPU at a time", also=("amd-v/debug", "amd-v/debian-13"))
def guest_of_four_cpus_in_parallel():
    run_smp(4, 4, kind="qemu")


def madt(*apic_ids):
    """A MADT with these CPUs, all enabled, and the IOAPIC and timer override that both emulators have. [acpi/6.5] 5.2.12"""
    entries = b"".join(struct.pack("<BBBBI", 0, 8, number, apic_id, 1) for number, apic_id in enumerate(apic_ids))
    entries += struct.pack("<BBBBII", 1, 12, 0, 0, 0xfec00000, 0) + struct.pack("<BBBBIH", 2, 10, 0, 0, 2, 0)
    table = struct.pack("<4sIBB6s8sI4sI", b"APIC", 44 + len(entries), 1, 0, b"MULLIO", b"TESTMADT", 1, b"TEST", 1) \
        + struct.pack("<II", 0xfee00000, 1) + entries
    return table[:9] + bytes([-sum(table) & 0xff]) + table[10:]


@system_test()
def cpus_that_do_not_come_up_are_left_out():
    """The firmware names two CPUs that are not there, one of them between those that are: GRUB puts another MADT in place of the real one."""
    description_text = "".join(f'[vm.on{cpu}]\nmemory = "16M"\nkernel = "ticker.elf"\ncpus = "{cpu}"\n'
                               f'cmdline = "does=work interval=20 quit=2"\n' for cpu in (0, 1, 2, 3))
    modules = {"vms.toml": description_text.encode(), "ticker.elf": guest_kernel("ticker"), "madt.bin": madt(0, 1, 9, 2, 77),
               "mullion.elf": hypervisor()}
    commands = ["acpi --exclude=APIC /boot/modules/madt.bin", "multiboot2 /boot/modules/mullion.elf onfailure=poweroff",
                "module2 /boot/modules/vms.toml vms.toml", "module2 /boot/modules/ticker.elf ticker.elf"]
    with boot(modules, native_commands=commands, cpus=3, ignore_bad_msrs=False) as console:
        for apic_id in (9, 77):
            console.expect(rf"cpus: the CPU with APIC id {apic_id} is left out: it does not answer")
        console.expect("cpus: 3 of 5 in use, 3 cores")
        console.expect("cpus: expected processors of this machine, which has 0 to 2, found 3")
        check_power_off(console, status=1)  # one VM was refused
        ended = {name: how for name, how, _ in verdict.ended_vms(bytes(console.seen))}
        assert set(ended) == {"on0", "on1", "on2"}, ended


@system_test()
def linux_uses_and_unplugs_its_cpus():
    with boot_linux(command=LOAD_AND_HOTPLUG, vcpus=4, cpus=4, deterministic=True, memory=256) as console:
        console.expect(r"<mullion-command test>\n4\n")
        first = sorted(console.expect(r"ran on (\d)\r?\n").group(1) for _ in range(4))
        assert first == [b"0", b"1", b"2", b"3"], first
        console.expect(r"online 0,2, nproc 2\n")
        console.expect(r"online 0-3, nproc 4\n")
        again = sorted(console.expect(r"ran on (\d)\r?\n").group(1) for _ in range(3))
        assert again == [b"1", b"2", b"3"], again
        console.expect(r"<mullion-status test 0>")
        check_power_off(console)


@system_test(backend="qemu", why="Bochs has at most eight CPUs")
def linux_on_sixteen_cpus():
    with boot_linux(command="nproc", vcpus=16, cpus=16, kind="qemu", deterministic=True) as console:
        console.expect(r"cpus: 16 of 16 in use, 16 cores")
        console.expect(r"<mullion-command test>\n16\n<mullion-status test 0>")
        check_power_off(console)


def spinners(*machines, cpus=1):
    """Boots VMs that count down and switch themselves off: (name, keys, how many seconds of a CPU's work). Both emulators take the
    same time for each instruction. Returns name -> (seconds that it ran, its exits, the log's time of its end)."""
    per_second = FAST if kind_of_emulator() == "bochs" else 1_000_000_000
    text = "".join(f'[vm.{name}]\nmemory = "64M"\nkernel = "bench.elf"\ncmdline = "spin={int(work * per_second) // 2}"\n{keys}\n'
                   for name, keys, work in machines)
    modules = {"vms.toml": text.encode(), "bench.elf": guest_kernel("bench")}
    with boot(modules, deterministic=True, cpus=cpus, memory=1024, ticks_per_second=FAST) as console:
        check_power_off(console)
        exits = {name.decode(): int(count) for name, count in re.findall(rb"vm (\w+): (\d+) exits:", console.seen)}
        ends = {name.decode(): float(time) for time, name in re.findall(rb"\[ *(\d+\.\d+)\] mullion: vm (\w+) ended", console.seen)}
        return {name: (seconds, exits[name], ends[name]) for name, _, seconds in verdict.ended_vms(bytes(console.seen))}


@system_test()
def weights_divide_a_cpu():
    """Who has twice the weight has twice the work: all end together."""
    found = spinners(*[(name, f"share = {{ weight = {weight} }}", weight / 250)
                       for name, weight in (("light", 100), ("middle", 200), ("heavy", 400))])
    times = [seconds for seconds, *_ in found.values()]
    assert len(times) == 3 and min(times) > 2.5, found
    assert (max(times) - min(times)) / max(times) < 0.02, found


@system_test()
def nobody_starves_among_eight():
    """Eight busy VMs of the same weight on one CPU: each has an eighth of it all the time, so that all end together, whoever started
    some slices earlier."""
    found = spinners(*[(f"vm{i}", "", 1 / 8) for i in range(8)])
    times = [seconds for seconds, *_ in found.values()]
    ends = [end for *_, end in found.values()]
    assert len(times) == 8 and min(times) > 0.9, found
    assert max(ends) - min(ends) < 0.02 * max(times) + 0.01, found


@system_test()
def caps_are_held():
    found = spinners(("capped", "share = { cap = 25 }", 1 / 4))
    assert abs(found["capped"][0] - 1) < 0.02, found


@system_test()
def busy_guest_on_its_own_cpu_never_exits():
    """A second more of work, not one exit more."""
    exits = [spinners(("own", "exclusive = true\ncpus = [1]", work), cpus=2)["own"] for work in (0.1, 1.1)]
    assert exits[1][0] > exits[0][0] + 0.9, exits
    assert exits[1][1] == exits[0][1], exits


@system_test(backend="qemu", why="needs the exact time of -icount, and seconds of work")
def clock_is_right_after_a_pause():
    """A minute of the machine's time; a second VM whose timer ticks makes it pass, as an idle machine's clock jumps from event to event."""
    text = description.default(256, 2, guest.COMMAND_LINE) + \
        '[vm.ticker]\nmemory = "64M"\nkernel = "bench.elf"\ncmdline = "idle=10000000"\nconsole = "none"\n'
    modules = {"vms.toml": text.encode(), **linux_files(),
               "bench.elf": guest_kernel("bench")}
    with boot(modules, kind="qemu", deterministic=True, cpus=2) as console:
        def now():
            return int(console.command("date +%s"))

        def switch(to):
            console.send(SWITCH)
            console.expect(to)
        console.expect(PROMPT)
        before = now()
        switch(MONITOR)
        began = run_seconds(console)
        assert ask(console, "vm pause linux") == "linux stands still"
        while run_seconds(console) < began + 60:
            pass
        assert ask(console, "vm resume linux") == "linux goes on"
        switch("console of linux")
        after = now()
        assert "backwards" not in console.command("dmesg | grep -i backwards")
        switch(MONITOR)
        passed = run_seconds(console) - began
        assert passed >= 60 and abs(after - before - passed) <= 3, (before, after, passed)
        ask(console, "vm kill ticker")
        ask(console, "vm kill linux")
        console.send(SWITCH)
        console.until_end()
