# SPDX-License-Identifier: MIT
"""Several VMs on several CPUs: the example of the README, and what one VM's life may do to the others: nothing."""
import random
import re
import time

from framework import FAST, ROOT, boot, check_power_off, guest, guest_kernel, kind_of_emulator, linux_command_line, linux_files, system_test, usual_options, verdict
from test_monitor import MONITOR, SWITCH, ask, row

EXAMPLE = ROOT / "examples/two-linux.toml"


def example_modules():
    text = EXAMPLE.read_text().replace(guest.COMMAND_LINE, linux_command_line())
    return {"vms.toml": text.encode(), **linux_files(), "ticker.elf": guest_kernel("ticker")}


def prompt_of(name):
    return re.escape(f"{name}:~# ")


def shell(console, name, line, seconds=120):
    """Types a line at the prompt of the VM that has the console; returns what it printed."""
    console.send(line + "\n")
    console.expect(re.escape(line) + "\r\n", seconds)
    start = console._position
    found = console.expect(prompt_of(name), seconds)
    return bytes(console.seen[start:found.start()]).decode(errors="replace").replace("\r", "").replace("\x1b[6n", "").strip()


def open_monitor(console):
    console.send(SWITCH)
    console.expect(MONITOR)


def go_to(console, name):
    console.send(f"vm console {name}\r")
    console.expect(f"console of {name}")


def states(console):
    """Name -> state, by `vm list`."""
    lines = ask(console, "vm list").splitlines()[1:]
    return {line.split()[0]: line.split()[1] for line in lines}


@system_test(also=("amd-v/debug",))
def two_linuxes_and_a_ticker():
    """The README's example; in QEMU the CPUs truly run at the same time."""
    seconds = 300
    with boot(example_modules(), usual_options(), cpus=4) as console:
        console.expect(prompt_of("owner"), seconds)
        assert shell(console, "owner", "nproc") == "2"
        assert shell(console, "owner", "hostname") == "owner"
        open_monitor(console)
        assert states(console) == {"owner": "running", "shared": "running", "ticker": "running"}
        go_to(console, "shared")
        console.expect(prompt_of("shared"), seconds)  # what it printed meanwhile comes out
        assert shell(console, "shared", "nproc") == "2"
        assert shell(console, "shared", "hostname") == "shared"
        open_monitor(console)
        go_to(console, "ticker")
        console.expect(r"ticker: \d+ ms, [1-9]\d* rounds in \d+ ms\r?\n", seconds)
        open_monitor(console)
        go_to(console, "shared")  # who is quiet: the ticker's lines would stand among the monitor's
        open_monitor(console)
        rows = ask(console, "cpu")
        assert [row(rows, cpu)[3] for cpu in "123"][:2] == ["owner", "owner"], rows
        assert row(rows, "3")[3] in ("shared", "ticker"), rows
        go_to(console, "owner")
        console.send("poweroff\n")
        console.expect("vm owner ended: poweroff", seconds)
        open_monitor(console)
        assert states(console) == {"owner": "off", "shared": "running", "ticker": "running"}
        go_to(console, "shared")
        console.send("poweroff\n")
        console.expect("vm shared ended: poweroff", seconds)
        open_monitor(console)
        console.send("vm stop ticker\r")
        console.expect("vm ticker ended: poweroff", seconds)
        console.send(SWITCH)
        check_power_off(console, seconds)


def expect_anywhere(console, pattern, seconds=60):
    """Also before what was seen last: log lines of several VMs come in any order."""
    console._position = 0
    return console.expect(pattern, seconds)


def small(name, cmdline="", **keys):
    """The description of a ticker."""
    values = {"memory": '"16M"', "kernel": '"ticker.elf"', "cmdline": f'"{cmdline}"', **keys}
    return f"[vm.{name}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())


def boot_small(description, cpus=4, **options):
    modules = {"vms.toml": description.encode(), "ticker.elf": guest_kernel("ticker")}
    return boot(modules, cpus=cpus, **options)


def tell(console, line):
    """Like ask(), where the log may come in between at any place: what was printed then is among it, and not all in one piece."""
    tell.count += 1
    console.send(f"{line}\rnonsense-{tell.count}\r")
    start = console._position
    console.expect(rf"unknown command nonsense-{tell.count};", 60)
    text = bytes(console.seen[start:console._position]).decode(errors="replace").replace("\r", "")
    return re.sub(r"\x1b\[\d*[A-Z]", "", text)


tell.count = 0


@system_test()
def mistakes_refuse_only_the_vms_that_make_them():
    description = (small("good", "interval=3000") + small("missing_cpu", cpus='"2,4"') + small("own", cpus='"1-2"', vcpus="2", exclusive="true")
                   + small("overlaps", cpus='"2-3"', exclusive="true") + small("mullions", cpus='"0"', exclusive="true")
                   + small("too_many", cpus='"3"', vcpus="2", exclusive="true") + small("all_that_is_left", vcpus="2", exclusive="true")
                   + small("nowhere", cpus='"1"') + small("huge", memory='"900G"') + small("good") + small("typo", vcpu="1"))
    with boot_small(description) as console:
        for name, what in (("missing_cpu", "cpus: expected processors of this machine, which has 0 to 3, found 4"),
                           ("overlaps", r"cpus: expected processors that no other VM has to itself, found 2, which \[vm.own\] of line 10 has"),
                           ("mullions", "cpus: expected processors other than 0, where Mullion"),
                           ("too_many", "cpus: expected at least 2 processors"),
                           ("all_that_is_left", "exclusive: expected at most 1 vcpus"),
                           ("nowhere", "cpus: expected a processor of a core that no other VM has to itself"),
                           ("huge", r"memory: expected at most \d+ MiB"),
                           ("second good", r"\[vm.good\]: expected a new name"),
                           ("typo", r"vcpu: expected a known key, .*did you mean vcpus\?")):
            expect_anywhere(console, r"vms.toml:\d+: " + what)
        console.expect(r"ticker: \d+ ms, \d+ rounds in \d+ ms\r?\n", 60)
        open_monitor(console)
        found = states(console)
        assert found == {"good": "running", "own": "running", "huge": "off", **dict.fromkeys(
            ("missing_cpu", "overlaps", "mullions", "too_many", "all_that_is_left", "nowhere", "typo"), "refused")}, found
        assert ask(console, "vm start overlaps") == "overlaps has a mistake in its description: the log says which"
        assert ask(console, "vm start huge") .endswith("huge cannot be started; the log says why")
        console.send("poweroff now\r")
        check_power_off(console, status=1)


@system_test()
def interrupts_wait_while_another_vm_has_its_turns():
    """A guest with its interrupts off gets none, whatever the machine's own do to its CPU meanwhile."""
    text = small("behave", "test=flag", kernel='"behave.elf"') + small("other", "does=work interval=100", console='"none"')
    modules = {"vms.toml": text.encode(), "behave.elf": guest_kernel("behave"), "ticker.elf": guest_kernel("ticker")}
    with boot(modules, usual_options()) as console:
        console.expect(r"guest: ok flag\r?\n")
        exits = console.expect(r"vm behave: \d+ exits: .*external-interrupt (\d+)")
        assert int(exits.group(1)) > 0, "nobody else had a turn"
        open_monitor(console)
        console.send("poweroff now\r")
        check_power_off(console, status=1)


@system_test(also=("amd-v/debug",))
def a_crash_stops_that_vm_alone():
    description = small("steady", "interval=3000") + small("once", "crash=1 interval=100") + \
        small("again", "crash=0", restart='"always"', console='"none"')
    with boot_small(description) as console:
        expect_anywhere(console, r"vm once ended: crash: triple fault on vCPU 0")
        expect_anywhere(console, r"vm again: ended within 10 s of its start; is started again in 1 s")
        expect_anywhere(console, r"vm again: ended within 10 s of its start; is started again in 4 s")
        console.expect(r"ticker: \d+ ms, \d+ rounds in \d+ ms\r?\n", 60)
        open_monitor(console)
        tell(console, "vm kill again")  # what is logged of its starts would stand among the answers
        assert states(console) == {"steady": "running", "once": "off", "again": "off"}
        text = ask(console, "vm show once")
        assert re.search(r"ended last: crash: triple fault on vCPU 0", text) and re.search(r"rip", text, re.I), text
        assert int(re.search(r"started (\d+) times", ask(console, "vm show again")).group(1)) >= 3
        assert ask(console, "vm stop again").startswith("again is off")
        console.send("vm start once\r")
        console.expect(r"vm once: started", 60)
        console.send("poweroff now\r")
        check_power_off(console, status=1)


def exits_of(console, name, reason):
    return int(row(ask(console, f"exits {name}").split("measured")[0], reason)[1])


@system_test(also=("amd-v/debug",))
def vms_move_between_cpus_while_they_run():
    quiet = {"console": '"none"'}  # what they print would stand in the middle of the monitor's lines
    description = small("a", "does=work interval=100", cpus='"1"', **quiet) + small("b", "does=work interval=100", cpus='"1"', **quiet) + \
        small("c", "does=work interval=100", cpus='"2"', **quiet)
    with boot_small(description) as console:
        expect_anywhere(console, "vm c: started")
        open_monitor(console)
        assert "cpus: expected to leave [vm.b] of line 7 a processor" in ask(console, "vm set a exclusive=true")
        assert ask(console, "vm set a cpus=3 exclusive=true").split() == ["a:", "3", "own"]
        assert ask(console, "vm set b cpus=1-2 weight=300 cap=50").split() == ["b:", "1-2", "w300", "c50"]
        assert "found 9" in ask(console, "vm set c cpus=9")
        began = row(ask(console, "vm list"), "a")[-1]
        seen = []  # caps are held over some time, and a list is made in no time
        while row(text := ask(console, "vm list"), "a")[-1] == began or len(seen) < 20:
            seen.append((float(row(text, "a")[6]), float(row(text, "b")[7])))
        assert row(text, "a")[3:5] == ["3", "own"] and row(text, "b")[3:6] == ["1-2", "w300", "c50"], text
        assert sum(own for own, _ in seen) / len(seen) > 80, seen
        assert row(ask(console, "cpu"), "3")[3] == "a"
        # While every VM is somewhere else than it began, all of them still work.
        for name in "abc":
            assert ask(console, f"exits {name} on") == f"how long exits of {name} take is measured from now on"
            before = exits_of(console, name, "port-io")
            while exits_of(console, name, "port-io") == before:
                pass
        assert re.search(r"port-io +\d+ +\d+ +\d+", ask(console, "exits b").split("measured")[1])
        assert ask(console, "vm set a cpus=any exclusive=false").split() == ["a:", "any"]
        before = exits_of(console, "a", "port-io")
        while exits_of(console, "a", "port-io") == before:
            pass
        console.send("poweroff now\r")
        check_power_off(console, status=1)


@system_test(also=("amd-v/debug",))
def lives_and_deaths_leave_the_memory_as_it_was():
    """Starts, kills, resets, pauses and stops of two VMs in a random order while a third runs: at the end nothing is lost."""
    description = small("witness", "interval=100", console='"none"') + small("a", autostart="false", console='"none"') + \
        small("b", "does=work", autostart="false", vcpus="2", console='"none"')
    rng = random.Random(7)
    with boot_small(description) as console:
        console.expect("vm witness: started", 60)
        open_monitor(console)

        def kill_all():
            for name in "ab":
                while not re.search(rf"^{name} +off ", tell(console, "vm list"), re.M):
                    tell(console, f"vm kill {name}")

        def rest():
            found = []
            while not found:
                found = re.findall(r"^ +(?:small objects.* (\d+) bytes|(?:tables, stacks|free).* (\d+) [KM]iB$)", tell(console, "mem"), re.M)
            return found

        def starts():
            return bytes(console.seen).count(b": started, ")

        def live_and_die(enough):
            end = time.monotonic() + 300
            steps = 0
            while starts() < enough and time.monotonic() < end:
                what = rng.choice(["start", "start", "start", "kill", "kill", "reset", "pause", "resume", "stop"])
                console.send(f"vm {what} {rng.choice('ab')}\r")
                steps += 1
                if steps % 20 == 0:
                    tell(console, "version")  # the line editor shall not be buried
            kill_all()
            return steps

        live_and_die(20)  # what is kept for ever, such as how each VM ended last, is there afterwards
        before = rest()
        assert len(before) == 3, before
        steps = live_and_die(150)
        after = rest()
        assert after == before, (before, after)
        ends = bytes(console.seen).count(b" ended: ")
        print(f"{steps} commands, {starts()} starts, {ends} ends")
        assert starts() >= 150 and starts() == ends + 1, (starts(), ends)
        assert b" ended: crash" not in console.seen
        before = exits_of(console, "witness", "port-io")
        while exits_of(console, "witness", "port-io") == before:
            pass
        console.send("poweroff now\r")
        check_power_off(console, status=1)


def work_beside(habit):
    """Rounds that a VM with a CPU of its own makes in each of ten intervals while another on its own CPU does `habit`."""
    description = small("neighbour", f"does={habit} interval=10000", cpus='"2"', exclusive="true", console='"none"') + \
        small("worker", "does=work interval=50 quit=12", cpus='"1"', exclusive="true")
    with boot_small(description, cpus=3) as console:
        console.expect(r"guest: done 0", 200)
        rounds = [int(number) for number in re.findall(rb"ms, (\d+) rounds in 50 ms", bytes(console.seen))]
        assert len(rounds) >= 10, rounds
        open_monitor(console)
        exits = int(row(ask(console, "exits neighbour"), "all")[1])
        assert (exits > 10_000) == (habit == "flood"), exits
        return rounds[1:11]  # the first one is still being built up around


@system_test(backend="bochs", limit=200, why="QEMU does not say how many instructions it ran")
def a_flood_next_door_costs_nothing():
    """In instruction counts, which Bochs knows: exits, port I/O, device accesses and IPIs of another VM take nothing away."""
    quiet, flooded = work_beside("idle"), work_beside("flood")
    print(quiet, flooded)
    assert flooded == quiet, (quiet, flooded)


@system_test(limit=300)
def a_storm_of_timers_is_bounded_and_paid_by_its_owner():
    """The PIT at its highest rate under a guest that sleeps with interrupts off: the one beside it keeps its work and the monitor answers."""
    modules = {"vms.toml": (small("worker", "does=work interval=500") + small("storm", "does=storm", console='"none"')).encode(),
               "ticker.elf": guest_kernel("ticker")}

    def rounds():
        """Of three whole intervals, the median, without those that began before."""
        for _ in range(4):
            console.expect(r"rounds in \d+ ms", 60)
        return sorted(int(console.expect(r"ms, (\d+) rounds in \d+ ms", 60).group(1)) for _ in range(3))[1]
    # QEMU's own clock: its exits take many times what a CPU's take, and the storm's share of real time says nothing.
    with boot(modules, cpus=1, deterministic=kind_of_emulator() == "qemu", ticks_per_second=FAST) as console:
        stormy = rounds()
        open_monitor(console)
        usage = row(tell(console, "vm list"), "storm")
        tell(console, "vm pause storm")
        go_to(console, "worker")
        quiet = rounds()
        print(usage, stormy, quiet)
        assert stormy >= 0.8 * quiet, (stormy, quiet)
        assert float(usage[5]) >= 0.5, usage  # it pays for what it costs
        open_monitor(console)
        tell(console, "vm kill storm")
        console.send("poweroff now\r")
        check_power_off(console, status=1)


@system_test(backend=("vt-x/bochs", "amd-v/bochs"), limit=300, why="QEMU 7.2 aborts when a data breakpoint is hit in a delivery")
def a_guest_without_an_instruction_gives_its_cpu_back():
    """Each delivery of its #DB raises the next: no interrupt would ever be taken while it runs."""
    stuck = small("stuck", "test=stuck", kernel='"hostile.elf"', console='"none"', memory='"64M"')
    modules = {"vms.toml": (small("worker", "does=work interval=500") + stuck).encode(),
               "ticker.elf": guest_kernel("ticker"), "hostile.elf": guest_kernel("hostile")}
    with boot(modules, cpus=1) as console:
        for _ in range(6):
            console.expect(r"rounds in \d+ ms", 60)
        open_monitor(console)
        assert exits_of(console, "stuck", "exception") > 1000
        shares = {name: float(row(tell(console, "vm list"), name)[5]) for name in ("worker", "stuck")}
        assert all(30 <= share <= 70 for share in shares.values()), shares
        tell(console, "vm pause stuck")
        assert row(tell(console, "vm list"), "stuck")[1] == "paused"
        tell(console, "vm kill stuck")
        console.send("poweroff now\r")
        check_power_off(console, status=1)


THREADS = ("-smp", "4,sockets=1,cores=2,threads=2")


def use_of_threads(first_line):
    """Percent of a CPU's time that two busy VMs get, each with one thread of the same core, over three seconds."""
    text = first_line + small("clock", "interval=1000", cpus='"1"') + \
        "".join(small(name, "does=work interval=1000", cpus=f'"{cpu}"', console='"none"') for name, cpu in (("two", 2), ("three", 3)))
    with boot_small(text, extra=THREADS) as console:
        console.expect(r"cpus: 4 of 4 in use, 2 cores")
        for _ in range(3):
            console.expect(r"ticker: \d+ ms, ", 60)
        open_monitor(console)
        rows = ask(console, "vm list")
        console.send("poweroff now\r")
        console.until_end(60)
        return [float(row(rows, name)[5]) for name in ("two", "three")]


@system_test(backend="qemu", why="Bochs shows no threads of a core")
def threads_of_a_core_are_for_one_vm():
    text = small("own", "interval=3000", cpus='"2"', exclusive="true") + small("beside", cpus='"3"', exclusive="true")
    with boot_small(text, extra=THREADS) as console:
        console.expect(r"vms.toml:\d+: cpus: expected processors of cores that no other VM has to itself, found a thread of the core of 2, "
                       r"which \[vm.own\] of line 1 has")
        console.expect("vm own: started")
        open_monitor(console)
        assert states(console) == {"own": "running", "beside": "refused"}
        console.send("poweroff now\r")
        console.until_end(60)
    turns = use_of_threads("")
    assert all(35 < use < 65 for use in turns) and sum(turns) < 102, turns
    together = use_of_threads("[mullion]\nshare_cores = true\n")
    assert all(use > 90 for use in together), together


NUMA = ("-object", "memory-backend-ram,id=m0,size=3G", "-object", "memory-backend-ram,id=m1,size=3G",
        "-numa", "node,nodeid=0,cpus=0-1,memdev=m0", "-numa", "node,nodeid=1,cpus=2-3,memdev=m1")


def free_of_nodes(console):
    """Node -> MiB that are free there."""
    return {int(node): int(free) for node, free in re.findall(r"of NUMA node (\d+) +(\d+) MiB", ask(console, "mem"))}


@system_test(backend="qemu", why="Bochs has no NUMA nodes")
def memory_is_of_the_node_of_the_cores():
    """The nodes meet above 4 GiB in the middle of a range of RAM."""
    names = {"near": "1", "far": "2-3", "both": "1-2"}
    text = "".join(small(name, memory='"128M"', cpus=f'"{cpus}"', autostart="false", console='"none"') for name, cpus in names.items())
    with boot_small(text, memory=6144, extra=NUMA) as console:
        console.expect(r"cpus: 4 of 4 in use, .* 2 NUMA nodes")
        open_monitor(console)
        before = free_of_nodes(console)
        assert set(before) == {0, 1} and min(before.values()) > 2500, before
        for name, node in (("far", 1), ("near", 0)):
            console.send(f"vm start {name}\r")
            console.expect(f"vm {name}: started")
            console.expect(MONITOR)
            after = free_of_nodes(console)
            assert 128 <= before[node] - after[node] <= 130 and abs(before[1 - node] - after[1 - node]) <= 2, (name, before, after)
            before = after
        ask(console, "vm kill far")
        console.expect("vm far ended")
        console.send("poweroff now\r")
        console.until_end(60)


@system_test(backend="qemu", why="ten minutes of the machine's time pass at once only where -icount skips what is idle")
def clocks_of_guests_do_not_drift():
    """Each ends after ten minutes by its own clock, which it looks at 18 times a second; the second shares its CPU with one that is busy."""
    text = (small("alone", "interval=60000 quit=10", cpus='"0"', console='"none"') + small("crowded", "interval=60000 quit=10", cpus='"1"', console='"none"')
            + small("busy", "interval=60000 does=work quit=1", cpus='"1"', console='"none"'))
    with boot_small(text, cpus=2, deterministic=True) as console:
        check_power_off(console, 380)
        ran = {name: seconds for name, _, seconds in verdict.ended_vms(bytes(console.seen))}
        assert set(ran) == {"alone", "crowded", "busy"}, ran
        # A line is late by less than one look.
        assert 600 <= ran["alone"] < 600 + 10 / 18.2 and abs(ran["crowded"] - ran["alone"]) < 0.005, ran


@system_test(backend="qemu", why="the fault that it keeps clear of is QEMU's")
def x87_of_one_vm_beside_exits_of_another():
    """On CPUs 1 and 2: on the first one the second VM would not live for these 20 s (docs/CAVEATS.md)."""
    text = (small("floats", "does=x87 interval=1000 quit=20", cpus='"1"', console='"none"')
            + small("exits", "does=flood interval=1000 quit=20", cpus='"2"', console='"none"'))
    with boot_small(text, cpus=3) as console:
        check_power_off(console, 200)
        assert [how for _, how, _ in verdict.ended_vms(bytes(console.seen))] == ["poweroff"] * 2
