# SPDX-License-Identifier: MIT
"""Whole machines under test: boot an image in an emulator, talk to its serial line, look at how it ends.

A test is a function in test_*.py with the decorator @system_test; it gets no arguments and fails by an exception. It runs once
on each platform that it is for: boot() takes the emulator and the CPU from there.
Run one by hand:  python3 tests/system/framework.py test_linux shell_and_power_off amd-v/qemu
With MULLION_NATIVE=1, tests of the guest boot its kernel directly: that tests the test.
"""
import contextlib
import dataclasses
import importlib
import os
import pathlib
import re
import select
import signal
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from lib import description, emulator, guest, iso, project, stall, verdict  # noqa: E402

NATIVE = os.environ.get("MULLION_NATIVE") == "1"
PROMPT = re.escape("guest:~# ")
# Bochs' instructions in a second, for tests of what Mullion does in microseconds.
FAST = 100_000_000
STATUS_SKIP = 77
# Three quarters of what Linux executes from its start to a shell tests its cryptography, checks its certificates and prepares its tracing.
# Nothing of that concerns the machine, and in Bochs it takes half a minute. In QEMU all of it runs, and once in Bochs.
LESS_TO_COMPUTE = "cryptomgr.notests " \
    "initcall_blacklist=load_system_certificate_list,trace_eval_init,tracer_init_tracefs,ftrace_check_for_weak_functions"


# Where a test can run: its options for boot(). Tests run on the first and the last unless they say otherwise.
PLATFORMS = {"vt-x/bochs": {"kind": "bochs"}, "amd-v/bochs": {"kind": "bochs", "cpu_model": "ryzen"}, "amd-v/qemu": {"kind": "qemu"}}
# Tests run on the following too that name them in `also`. The debug image checks what it assumes, the order of locks above all.
DEBUG = {"vt-x/debug": "bochs", "amd-v/debug": "qemu"}
PLATFORMS |= {name: {"kind": kind} for name, kind in DEBUG.items()}
# Other releases of Debian, with their GRUB: Bochs 3.0 and QEMU 10, and Bochs 3.1, which has posted interrupts and UEFI as well.
# scripts/in-debian makes the release's folder.
NEWER = {"vt-x/debian-13": ("trixie", "bochs"), "amd-v/debian-13": ("trixie", "qemu"), "vt-x/testing": ("testing", "bochs")}
PLATFORMS |= {name: {"kind": kind} for name, (_, kind) in NEWER.items()}
SHORT = {None: ("vt-x/bochs", "amd-v/qemu"), "bochs": ("vt-x/bochs",), "qemu": ("amd-v/qemu",)}
# Why most tests are not on the second one.
AMD_IN_BOCHS = "amd-v/bochs: only what fits; its AMD-V holds the machine's interrupts back while a guest has its own off (docs/CAVEATS.md)"
platform = "vt-x/bochs"  # the one of this process


def hypervisor():
    """The image of this platform."""
    return ROOT / "build" / ("debug" if platform in DEBUG else "release") / "mullion.elf"


class Skip(Exception):
    """This test cannot run here; the text says why."""


@dataclasses.dataclass
class Case:
    file: str
    name: str
    platform: str
    limit: int
    quick: bool
    why: str  # not on every platform
    function: object


def system_test(backend=None, limit=400, quick=False, guest_only=False, why="", also=()):
    """backend: None for VT-x in Bochs and AMD-V in QEMU, "bochs" or "qemu" for one of them, or names of platforms; what is left
    out needs a why. also: the names in DEBUG and NEWER where it runs too. guest_only: the test makes sense without Mullion, so --native runs it (on these platforms only, if named)."""
    assert backend is None or why, "say why it does not run on every backend"

    def mark(function):
        platforms = SHORT[backend] if backend in SHORT else (backend,) if isinstance(backend, str) else tuple(backend)
        native = platforms if guest_only is True else tuple(guest_only or ())
        function.case = ((*platforms, *also), limit, quick, native, why)
        return function
    return mark


def cases_of(file):
    module = importlib.import_module(file)
    for name, function in vars(module).items():
        if callable(function) and hasattr(function, "case"):
            platforms, limit, quick, native, why = function.case
            for each in platforms:
                if each in native or not NATIVE:
                    yield Case(file, name, each, limit, quick, why, function)


def discover():
    files = sorted(path.stem for path in pathlib.Path(__file__).parent.glob("test_*.py"))
    return [case for file in files for case in cases_of(file)]


class Timeout(AssertionError):
    pass


class Console:
    """A machine's serial line: expect() waits for text until a deadline, send() types."""

    def __init__(self, machine):
        self.machine = machine
        self.serial = machine.serial
        self.seen = bytearray()  # everything since power-on
        self._position = 0  # what expect() has consumed
        self.closed = False
        self.may_panic = False  # else a panic of Mullion ends every wait

    def expect(self, pattern, seconds=300):
        """Waits for the regular expression; returns the match. Everything up to its end is consumed."""
        compiled = re.compile(pattern.encode() if isinstance(pattern, str) else pattern)
        deadline = time.monotonic() + seconds
        while True:
            found = compiled.search(self.seen, self._position)
            if found:
                self._position = found.end()
                return found
            if self.closed:
                raise AssertionError(f"the machine ended before {pattern!r} appeared: {self.machine.end().reason}")
            if not self._read(deadline - time.monotonic()):
                raise Timeout(f"{pattern!r} did not appear within {seconds} s")

    def send(self, data):
        """Sends all of it, reading meanwhile so that neither side blocks the other."""
        data = data.encode() if isinstance(data, str) else data
        view = memoryview(data)
        deadline = time.monotonic() + 600
        while view:
            readable, writable, _ = select.select([self.serial], [self.serial], [], max(0, deadline - time.monotonic()))
            if not readable and not writable:
                raise Timeout("the machine does not take its input")
            if readable and not self._read(0.1):
                raise AssertionError("the machine ended while it was given input")
            if writable:
                view = view[self.serial.send(view[:512]):]

    def until_end(self, seconds=300):
        """Reads until the machine is off; returns how it ended."""
        deadline = time.monotonic() + seconds
        while not self.closed:
            if not self._read(deadline - time.monotonic()):
                raise Timeout(f"the machine did not end within {seconds} s")
        return self.machine.end()

    def command(self, line, seconds=120):
        """Types one line at the shell's prompt and returns what it printed."""
        self.send(line + "\n")
        self.expect(re.escape(line) + "\r\n", seconds)
        start = self._position
        found = self.expect(PROMPT, seconds)
        return bytes(self.seen[start:found.start()]).decode(errors="replace").replace("\r", "").replace("\x1b[6n", "").strip()

    def ask_the_monitor(self):
        """After a wait in vain: what Mullion says of its VMs, or how far it still answers. Whoever has the line now."""
        start = len(self.seen)
        try:
            for _ in range(2):  # the second time, if the monitor had the line already
                self.send(b"\x01c")
                self._read_for(3)
                if b"mullion> " in self.seen[start:].rpartition(b"console of ")[2]:
                    break
            names = []
            for line in ("vm list", "cpu", "service list"):
                before = len(self.seen)
                self.send(f"{line}\r")
                self._read_for(3)
                if line == "vm list":
                    names = re.findall(rb"^(\w+) +(?:running|paused) ", self.seen[before:], re.M)
            for name in names:
                for line in (b"vm show ", b"exits "):
                    self.send(line + name + b"\r")
                    self._read_for(3)
            self.send("vm list\r")
            self._read_for(3)
        except (AssertionError, OSError) as error:
            return f"{self.seen[start:].decode(errors='replace')}\n{error}"
        return self.seen[start:].decode(errors="replace").replace("\r", "")

    def _read_for(self, seconds):
        deadline = time.monotonic() + seconds
        while self._read(deadline - time.monotonic()) and not self.closed:
            pass

    def tail(self, count=40):
        return "\n".join(self.seen.decode(errors="replace").replace("\r", "").splitlines()[-count:])

    def _read(self, wait):
        if wait <= 0 or not select.select([self.serial], [], [], wait)[0]:
            return False
        try:
            data = self.serial.recv(65536)
        except ConnectionError:
            data = b""
        self.closed = not data
        self.seen += data
        if not self.may_panic and verdict.STOPPED in self.seen[-len(data) - 64:]:
            raise AssertionError("Mullion stopped with a panic")
        return True


@contextlib.contextmanager
def image(modules, append="", native_commands=None):
    """A boot image in a temporary folder. modules: name -> path or bytes; native_commands: GRUB's, instead of Mullion."""
    files = iso.files(modules)
    commands = native_commands
    if not commands:
        elf = hypervisor()
        if not elf.is_file():
            raise Skip(f"there is no {elf.relative_to(ROOT)}")
        files["boot/mullion.elf"] = elf
        # Whatever goes wrong, the run ends.
        commands = iso.mullion_config(f"onfailure=poweroff {append}".rstrip(), modules)
    with project.scratch_folder("test") as folder:
        path = folder / "boot.iso"
        iso.build(path, commands, files)
        yield path


@contextlib.contextmanager
def boot(modules, append="", native_commands=None, **options):
    """Boots modules under Mullion (or natively); yields the Console. On failure the serial line's tail is printed."""
    if "kind" not in options:
        options = {**PLATFORMS[platform], **options}
    if native_commands:
        options.setdefault("ignore_bad_msrs", True)
    elif "vmlinuz" in modules and emulator.loses_linux(options["kind"], options.get("cpus", 1)):
        raise Skip("this Bochs loses Linux in VMs on a machine with several CPUs (docs/CAVEATS.md)")
    with image(modules, append, native_commands) as path, emulator.Machine(path, emulator.Options(**options)) as machine:
        console = Console(machine)
        try:
            yield console
        except BaseException as error:
            print(f"---- serial line, {len(console.seen)} bytes, its tail:\n{console.tail()}\n----", flush=True)
            if isinstance(error, Timeout) and not native_commands:
                print(f"---- what the monitor says:\n{console.ask_the_monitor()}\n----", flush=True)
            raise


def kind_of_emulator():
    return PLATFORMS[platform]["kind"]


def usual_options(own="", kind=None):
    """Options for Mullion under a guest that runs for long."""
    return emulator.hypervisor_options(kind or kind_of_emulator(), own)


def guest_kernel(name):
    """One of tests/guest."""
    elf = ROOT / f"build/release/tests/guest/{name}.elf"
    if not elf.is_file():
        raise Skip(f"there is no {elf.relative_to(ROOT)}")
    return elf


def linux_command_line(like_the_users=False):
    """For Linux in tests: as ./scripts/run gives it, and in Bochs without what only computes."""
    return guest.COMMAND_LINE if like_the_users or kind_of_emulator() != "bochs" else f"{guest.COMMAND_LINE} {LESS_TO_COMPUTE}"


def linux_files(hears_power_button=True):
    """The modules of the guest that comes with Mullion, by the names that descriptions have for them."""
    kernel = guest.debian_kernel()
    return {"vmlinuz": kernel, "initrd.img": guest.initramfs(kernel if hears_power_button else None)}


@contextlib.contextmanager
def boot_linux(command=None, like_the_users=False, memory=256, vcpus=1, append="", machine_memory=512, all_features=False,
               hears_power_button=True, restart="never", keys="", files=None, **options):
    """Boots the guest that comes with Mullion. With a command, it runs that and powers off. `cpus` are the machine's.
    keys: more lines for its description. files: boot modules that these name.
    all_features: also those that this emulator gets wrong now and then. like_the_users: all that Linux computes at its start."""
    command_line = linux_command_line(like_the_users)
    modules = linux_files(hears_power_button)
    if command:
        modules["initrd.img"] += guest.command_archive(command, "test")
    if not NATIVE:
        text = description.default(memory, vcpus, command_line, restart=restart) + keys
        modules = {"vms.toml": text.encode(), **modules, **(files or {})}
    if not all_features:
        append = usual_options(append, options.get("kind"))
    with boot(modules, append, iso.linux_config(command_line) if NATIVE else None, memory=machine_memory, **options) as console:
        yield console


@contextlib.contextmanager
def boot_guest(name, command_line="", guest_memory=64, vcpus=1, native=NATIVE, append="", keys="", restart="never", **options):
    """Boots a guest kernel of tests/guest; keys: more lines for its description. `cpus` are the machine's."""
    modules = {f"{name}.elf": guest_kernel(name)}
    if options.get("kind", PLATFORMS[platform]["kind"]) == "bochs" and "cpu_model" not in PLATFORMS[platform]:
        options.setdefault("cpu_model", emulator.BOCHS_MODEL_WITH_MOST_FEATURES)
    if not native:
        text = description.default(guest_memory, vcpus, command_line, kernel=f"{name}.elf", initrd=None, name=name, restart=restart) + keys
        modules = {"vms.toml": text.encode(), **modules}
    with boot(modules, append, iso.multiboot_config(f"{name}.elf", command_line) if native else None, **options) as console:
        yield console


def check_power_off(console, seconds=120, status=0):
    """The machine must switch itself off and, under Mullion, say so with this status."""
    end = console.until_end(seconds)
    assert end.orderly, f"the machine did not switch itself off: {end.reason}"
    if not NATIVE:
        found = verdict.mullion_status(bytes(console.seen))
        assert found == status, f"Mullion's status is {found}, expected {status}"
    return end


def check_clock(console):
    """At a Linux guest's prompt: it had its TSC's rate from Mullion, without any calibration, and counts time by the TSC since."""
    if NATIVE:
        return
    clock = console.command("cat /sys/devices/system/clocksource/*0/current_clocksource")
    # kvm-clock is the TSC, with the rate that Mullion says.
    assert clock in ("tsc", "kvm-clock"), clock
    said = console.command("dmesg | grep -i -e tsc -e calibra -e kvm-clock -e unstable")
    for expected in ("kvm-clock: Using msrs", "tsc: Detected ", "Calibrating delay loop (skipped)"):
        assert expected in said, said
    found = re.search(r"(?i)tsc.*calibrat|calibration (failed|matches)|unable to calibrate|unstable", said)
    assert not found, f"{found.group()} in:\n{said}"


def main():
    def unwind(number, _frame):
        raise SystemExit(128 + number)
    signal.signal(signal.SIGTERM, unwind)
    file, name = sys.argv[1:3]
    global platform
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    # The tests import this module by its name; one copy of it must hold the exceptions.
    sys.modules["framework"] = sys.modules["__main__"]
    chosen = [case for case in cases_of(file) if case.name == name and case.platform in (*sys.argv[3:], case.platform)[:1]]
    if not chosen:
        sys.exit(f"no such test: {' '.join(sys.argv[1:])}")
    platform = chosen[0].platform
    try:
        chosen[0].function()
    except Skip as skip:
        print(f"skipped: {skip}")
        sys.exit(STATUS_SKIP)


if __name__ == "__main__":
    main()
