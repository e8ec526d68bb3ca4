"""Several VMs on several CPUs: the example of the README, and what one VM's life may do to the others: nothing."""
import re

from framework import ROOT, Skip, boot, check_power_off, guest, system_test
from test_monitor import MONITOR, SWITCH, ask, row

EXAMPLE = ROOT / "examples/two-linux.toml"
TICKER = ROOT / "build/release/tests/guest/ticker.elf"


def ticker():
    if not TICKER.is_file():
        raise Skip(f"there is no {TICKER.relative_to(ROOT)}")
    return TICKER


def example_modules():
    return {"vms.toml": EXAMPLE, "vmlinuz": guest.debian_kernel(), "initrd.img": guest.initramfs(), "ticker.elf": ticker()}


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


def example(seconds, **options):
    with boot(example_modules(), cpus=4, **options) as console:
        console.expect(prompt_of("owner"), seconds)
        assert shell(console, "owner", "nproc") == "2"
        assert shell(console, "owner", "hostname") == "owner"
        open_monitor(console)
        assert states(console) == {"owner": "running", "shared": "running", "ticker": "running"}
        go_to(console, "shared")
        console.send("\n")
        console.expect(prompt_of("shared"), seconds)
        assert shell(console, "shared", "nproc") == "2"
        assert shell(console, "shared", "hostname") == "shared"
        open_monitor(console)
        go_to(console, "ticker")
        console.expect(r"ticker: \d+ ms, [1-9]\d* rounds", seconds)
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
        ask(console, "vm stop ticker")
        console.expect("vm ticker ended: poweroff", seconds)
        console.send(SWITCH)
        check_power_off(console, seconds)


@system_test(backend="qemu")
def two_linuxes_and_a_ticker():
    example(120, kind="qemu")


@system_test(limit=900)
def two_linuxes_and_a_ticker_on_vmx():
    example(500)
