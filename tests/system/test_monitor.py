# SPDX-License-Identifier: MIT
"""The operator's monitor on the serial line: Ctrl-A c enters and leaves it."""
import re
import time

from framework import PROMPT, ROOT, boot, boot_linux, check_clock, check_power_off, description, kind_of_emulator, linux_command_line, linux_files, system_test, usual_options, verdict

MONITOR = re.escape("mullion> ")
# The line is drawn so, and once more below each line of the log, with what was typed before the clearing of the rest.
CLEAR = r"\x1b\[K"
EMPTY_LINE = MONITOR + CLEAR
SWITCH = b"\x01c"


def ask(console, line, seconds=60):
    """Types one command and returns what it printed."""
    console.send(line + "\r")
    console.expect(f"(?:{CLEAR})?".join(map(re.escape, [*line, "\r\n"])), seconds)
    start = console._position
    found = console.expect(EMPTY_LINE, seconds)
    return bytes(console.seen[start:found.start()]).decode(errors="replace").replace("\r", "").strip()


def row(text, name):
    rows = [line.split() for line in text.splitlines() if line.split()[:1] == [name]]
    assert len(rows) == 1, text
    return rows[0]


def guest_seconds(console):
    return float(console.command("cut -d' ' -f1 /proc/uptime"))


def run_seconds(console):
    hours, minutes, seconds = row(ask(console, "vm list"), "linux")[-2].split(":")
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds)


def look_around(console):
    fields = row(ask(console, "vm list"), "linux")
    assert fields[1:5] == ["running", "1", "any", "256"] and fields[-1] == "console", fields
    assert 0 < float(fields[5]) <= 100 and int(fields[6]) > 0, fields
    memory = ask(console, "mem")
    assert re.search(r"memory of running VMs +256 MiB", memory), memory
    exits = ask(console, "exits linux")
    assert row(exits, "cpuid") and int(row(exits, "all")[1]) > 100, exits
    assert "mullion: " in ask(console, "log all") or "Mullion starts" in ask(console, "log all")
    assert len(ask(console, "log 3").splitlines()) == 3
    assert row(ask(console, "cpu"), "0")[3:] == ["linux", "vCPU", "0"]
    number = re.search(r'version = "([0-9.]+)"', (ROOT / "manage/include/manage/version.hpp").read_text()).group(1)
    said = re.search(rf"Mullion {re.escape(number)} \(([0-9a-f]{{12}}\+?|unknown commit)\)", ask(console, "version"))
    assert said and f"Mullion starts: version {number} ({said.group(1)})".encode() in console.seen


def list_pci(console):
    """The functions of Bochs' i440FX, by ports, and of QEMU's q35, by ECAM."""
    is_bochs = kind_of_emulator() == "bochs"
    found = ask(console, "pci list")
    for line in (["00:00.0  8086:1237  host bridge; Mullion's", "00:01.1  8086:7010  IDE controller; nobody's"] if is_bochs else
                 ["00:00.0  8086:29c0  host bridge; Mullion's", "00:1f.2  8086:2922  SATA controller; nobody's"]):
        assert line in found, found
    bar = r"BAR 4  0x[0-9a-f]+, 16 ports" if is_bochs else r"BAR 5  0x[0-9a-f]+, 4 KiB"
    assert re.search(bar, found), found
    said = re.search(rb"pci: (\d+) functions on (\d+) bus(?:es)?, reached by (ports|ECAM)", console.seen)
    assert said and int(said.group(1)) == len(re.findall(r"^[0-9a-f]{2}:", found, re.M)), found
    assert said.group(3) == (b"ports" if is_bochs else b"ECAM")
    # What firmware left running, and nobody uses, may not write to memory any more.
    stopped = re.findall(rb"pci: ([0-9a-f:.]+) \([^)]*\): bus mastering turned off", console.seen)
    assert sorted({each.decode() for each in stopped}) == sorted(re.findall(r"^([0-9a-f:.]+) .*stopped", found, re.M)), found


def make_mistakes(console):
    assert ask(console, "vn list") == "unknown command vn; try help (did you mean vm?)"
    assert ask(console, "vm strat linux").endswith("(did you mean vm start?)")
    assert ask(console, "vm start") == "vm start: expected: vm start NAME"
    assert ask(console, "vm start nobody") == "there is no VM nobody; there are: linux"
    assert ask(console, "vm start linux") == "linux runs already"
    assert ask(console, "vm resume linux") == "linux is not paused"


def pause_and_resume(console):
    assert ask(console, "vm pause linux") == "linux stands still"
    assert row(ask(console, "vm list"), "linux")[1] == "paused"
    assert ask(console, "vm pause linux") == "linux is paused already"
    console.send(SWITCH)
    console.expect("console of linux, which is paused: Ctrl-A c, then vm resume")
    time.sleep(1)  # the monitor prints a prompt only if it has seen that it lost the line
    console.send(SWITCH)
    console.expect(MONITOR)
    began = run_seconds(console)
    while (paused := run_seconds(console) - began) < 10:
        assert row(ask(console, "vm list"), "linux")[5] == "0.0"
    assert ask(console, "vm resume linux") == "linux goes on"
    return paused


@system_test(also=("amd-v/debug",))
def whole_tour():
    with boot_linux() as console:
        console.expect(PROMPT)
        console.send(SWITCH)
        console.expect(MONITOR)
        assert "vm start NAME" in ask(console, "help")
        look_around(console)
        list_pci(console)
        make_mistakes(console)

        console.send(SWITCH)
        console.expect("console of linux")
        assert console.command("echo still $((40 + 2))") == "still 42"
        before = guest_seconds(console)
        console.send(SWITCH)
        console.expect(MONITOR)
        began = run_seconds(console)
        paused = pause_and_resume(console)
        console.send("vm con\tli\t\r")
        console.expect("console of linux")
        assert console.command("sleep 1; echo awake") == "awake"
        took = guest_seconds(console) - before
        check_clock(console)
        console.send(SWITCH)
        console.expect(MONITOR)
        passed = run_seconds(console) - began
        # The guest's clock has gone on. Run times are whole seconds: `paused` may be one too much.
        assert paused <= took <= passed + 3, (took, passed, paused)
        console.send("vm reset linux\r")
        console.expect("vm linux: started")
        console.send("vm kill linux\r")
        console.expect("when you leave the monitor")
        assert row(ask(console, "vm list"), "linux")[1] == "off"
        assert ask(console, "vm kill linux") == "linux is off: start it first"
        console.send(SWITCH)
        check_power_off(console, status=1)
        assert [how for _, how, _ in verdict.ended_vms(bytes(console.seen))] == ["reset: by the monitor", "killed: by the monitor"]


@system_test()
def the_power_button_switches_linux_off():
    """vm stop: the guest switches itself off, long before the 30 s after which it would be killed."""
    with boot_linux() as console:
        console.expect(PROMPT)
        console.send(SWITCH)
        console.expect(MONITOR)
        ask(console, "vm stop linux")
        console.expect("vm linux ended: poweroff")
        console.send(SWITCH)
        check_power_off(console, status=0)


@system_test(backend="qemu", guest_only=("amd-v/qemu",), why="about programs of the guest")
def the_guest_asks_the_terminal_for_its_size():
    with boot_linux() as console:
        console.expect(PROMPT)
        console.send("resize\n")
        console.expect(re.escape("\x1b[999;999H\x1b[6n"))
        console.send("\x1b[43;132R")
        console.expect("43 rows, 132 columns\r\n")
        console.expect(PROMPT)
        assert console.command("stty size") == "43 132"


@system_test(limit=700)
def poweroff_waits_for_guests_but_not_for_ever():
    """On two CPUs, with a guest of two, which does not hear the power button: the kernel's modules for it are missing."""
    modules = {"vms.toml": description.default(256, 2, linux_command_line()).encode(), **linux_files(hears_power_button=False)}
    with boot(modules, usual_options(), cpus=2) as console:
        console.expect(PROMPT, 500)
        console.send("while :; do :; done & echo bu''sy\n")
        console.expect("busy")
        console.send(SWITCH)
        console.expect(MONITOR)
        assert len(re.findall(r"linux vCPU [01]", ask(console, "cpu"))) == 2
        assert ask(console, "vm pause linux") == "linux stands still"
        while row(ask(console, "vm list"), "linux")[5] != "0.0":  # its CPUs have been kicked, and on a busy computer have yet to notice
            pass
        assert ask(console, "vm stop linux") == "linux is paused: resume or kill it"
        assert ask(console, "vm resume linux") == "linux goes on"
        ask(console, "vm list")
        assert float(row(ask(console, "vm list"), "linux")[5]) > 50
        console.send(SWITCH)
        console.expect("console of linux")
        console.command("kill $!")  # idle, half a minute is soon over
        console.send(SWITCH)
        console.expect(MONITOR)
        assert "waiting for every VM" in ask(console, "poweroff")
        assert "kill does not wait" in ask(console, "vm stop linux")
        check_power_off(console, 500, status=1)
        (_, how, _), = verdict.ended_vms(bytes(console.seen))
        assert how == "killed: did not switch itself off in time", how


@system_test()
def the_serial_interrupt_moves():
    """To another CPU and back, while a guest of one CPU keeps one of the two busy: what is typed arrives by that interrupt."""
    modules = {"vms.toml": description.default(256, 1, linux_command_line()).encode(), **linux_files()}
    with boot(modules, usual_options(), cpus=2) as console:
        console.expect(PROMPT, 500)
        console.send("while :; do :; done & echo bu''sy\n")
        console.expect("busy")
        console.send(SWITCH)
        console.expect(MONITOR)
        assert row(ask(console, "irq list"), "serial")[1] == "0"
        for cpu in ("1", "0", "1"):
            assert ask(console, f"irq move serial {cpu}") == f"serial: CPU {cpu}"
            seen = [row(ask(console, "irq list"), "serial") for _ in range(8)]  # one interrupt may serve several lines
            assert {each[1] for each in seen} == {cpu} and int(seen[0][3]) < int(seen[-1][3]), seen
        assert ask(console, "irq move serial 2") == "irq move: expected a CPU from 0 to 1, found 2"
        # A CPU that a VM has for itself is kept free of it.
        ask(console, "vm set linux cpus=1 exclusive=true")
        console.expect("interrupt serial: moved to CPU 0, because a VM has CPU 1 for itself")
        assert row(ask(console, "irq list"), "serial")[1] == "0"
        console.send("vm kill linux\r")
        console.expect("when you leave the monitor")
        console.send(SWITCH)
        check_power_off(console, status=1)


@system_test()
def a_bug_is_reported():
    """The report of an exception in Mullion itself: registers, the way there by name, and an end that is not taken for success."""
    with boot_linux() as console:
        console.expect(PROMPT)
        console.send(SWITCH)
        console.expect(MONITOR)
        console.may_panic = True
        console.send("crash now\r")
        console.expect(r"invalid opcode")
        console.expect(r"rip [0-9a-f]{16}")
        console.expect(r"0x[0-9a-f]+ boot::Machine::crash\+0x")
        console.expect(r"kernel::RunLoop::run\+0x")
        end = console.until_end(60)
        assert end.orderly, end.reason
        assert verdict.mullion_status(bytes(console.seen)) not in (None, 0)
