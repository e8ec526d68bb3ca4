# SPDX-License-Identifier: MIT
"""scripts/run as its user sees it, in a terminal. Mostly the guest boots without Mullion in QEMU: here the script is under test."""
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import tempfile
import termios
import time
import unittest.mock

from framework import NATIVE, ROOT, guest_kernel, image, iso, kind_of_emulator, project, system_test

RUN = [str(ROOT / "scripts/run"), "--native", "--emulator", "qemu"]


class Terminal:
    """scripts/run on a pseudo terminal."""

    def __init__(self, *arguments, command=RUN):
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.seen = b""
        self.process = subprocess.Popen([*command, *arguments], stdin=self.slave, stdout=self.slave, stderr=self.slave, start_new_session=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind:
            print("---- terminal:\n" + self.seen.decode(errors="replace")[-3000:])
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)
        os.close(self.master)
        os.close(self.slave)

    def expect(self, pattern, seconds=120):
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen)):
            ended = self.process.poll() is not None
            if select.select([self.master], [], [], 0 if ended else 0.2)[0]:
                self.seen += os.read(self.master, 65536)
                continue
            assert not ended, f"the script ended with status {self.process.returncode} before {pattern!r} appeared"
            assert time.monotonic() < deadline, f"{pattern!r} did not appear"
        self.seen = self.seen[found.end():]
        return found

    def type(self, keys):
        os.write(self.master, keys)

    def wait(self, seconds=60):
        """Waits for the end, reading what is still printed; the terminal must be as it was."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "it does not end"
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 65536)
        assert termios.tcgetattr(self.slave) == self.before, "the terminal was not restored"
        return self.process.returncode


@system_test(backend="qemu", guest_only=True, why="the script is under test")
def keys_reach_the_guest_and_the_script():
    with Terminal() as terminal:
        terminal.expect(rb"guest:~# ")
        # Until cat answers, the shell may still edit its line, and Ctrl-C is a key like any other.
        terminal.type(b"echo run''ning; cat\n")
        terminal.expect(rb"running\r\n")
        terminal.type(b"twice\n")
        terminal.expect(rb"twice\r\ntwice\r\n")
        terminal.type(b"\x03")
        terminal.expect(rb"guest:~# ")
        terminal.type(b"\x01h")
        terminal.expect(rb"Ctrl-A x")
        terminal.type(b"\x01x")
        assert terminal.wait() == 0


@system_test(backend="qemu", guest_only=True, why="the script is under test")
def power_off_ends_it():
    with Terminal() as terminal:
        terminal.expect(rb"guest:~# ")
        terminal.type(b"poweroff\n")
        assert terminal.wait() == 0


@system_test(backend="qemu", guest_only=True, why="the script is under test")
def a_signal_leaves_nothing_behind():
    with Terminal() as terminal:
        terminal.expect(rb"guest:~# ")
        children = subprocess.run(["pgrep", "-P", str(terminal.process.pid)], capture_output=True, text=True).stdout.split()
        assert children, "no emulator?"
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.wait() == 128 + signal.SIGTERM
        for child in children:
            assert not os.path.exists(f"/proc/{child}"), "the emulator runs on"


@system_test(backend="qemu", guest_only=True, why="the script is under test")
def a_command_gives_its_output_and_status():
    done = subprocess.run([*RUN, "--", "seq 5; printf 'no newline\\t\\r\\377'; exit 3"], stdin=subprocess.DEVNULL, capture_output=True)
    assert done.stdout == b"1\n2\n3\n4\n5\nno newline\t\r\xff", done
    assert done.returncode == 3, done
    # A slow computer's progress alone.
    assert all(line.startswith(b"Starting the machine in qemu (") and len(line) <= 80 for line in done.stderr.splitlines()), done


@system_test(backend="qemu", guest_only=True, why="the script is under test")
def time_limit():
    done = subprocess.run([*RUN, "--timeout", "8", "--", "sleep 1000000"], stdin=subprocess.DEVNULL, capture_output=True)
    assert done.returncode == 124, done


@system_test(backend="qemu", why="the script is under test")
def without_options_it_takes_qemu_and_says_why():
    with Terminal(command=RUN[:1]) as terminal:
        terminal.expect(rb"Emulator: qemu \(AMD-V in software, many times as fast as Bochs; --emulator\s+bochs has Intel VT-x\)")
        terminal.expect(rb"Starting the machine in qemu")
        terminal.expect(rb"AMD-V: NPT")
        terminal.expect(rb"guest:~# ")
        terminal.type(b"poweroff\n")
        assert terminal.wait() == 0


@system_test(backend="qemu", guest_only=True, why="the script is under test")
def verbose_shows_a_commands_output_once():
    done = subprocess.run([*RUN, "--verbose", "--", "echo on''ce"], stdin=subprocess.DEVNULL, capture_output=True)
    assert done.stdout == b"once\n", done
    assert b"once" not in done.stderr and done.returncode == 0, done


def boot_as_run_does(path, kind):
    """The part of scripts/run that boots an image and waits for a command, with an image that a test has made."""
    run = type(project)("run")
    source = (ROOT / "scripts/run").read_text().removesuffix("\nmain_wrapper(main)\n")
    exec(compile(source, "run", "exec"), run.__dict__)  # noqa: S102
    options, command = run.parse(["--emulator", kind, *(["--native"] if NATIVE else []), "--", "true"])
    return run.Session(options, kind, "as asked for", path, command, "token").run()


def ends_with_reason(path, kind, reason):
    """In a process of its own, because it writes to the standard streams."""
    program = ("import pathlib, sys; sys.path[:0] = sys.argv[1:3]; import test_run_script as test\n"
               "sys.exit(test.boot_as_run_does(pathlib.Path(sys.argv[3]), sys.argv[4]))")
    done = subprocess.run(["python3", "-c", program, ROOT / "tests/system", ROOT / "scripts", path, kind], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=380)
    assert done.returncode == 125 and re.search(reason, done.stderr), done
    return done.stderr


@system_test(guest_only=("amd-v/qemu",))
def a_machine_that_stops_before_mullion_ends_the_script():
    kind = kind_of_emulator()
    with image({}, native_commands=["no_such_command"]) as path:
        shown = ends_with_reason(path, kind, "GRUB could not load what it was to boot")
        assert "no_such_command" in shown and "part_" not in shown, shown
    with unittest.mock.patch.object(iso, "grub_config", lambda _: iso.PREAMBLE), image({}, native_commands=["true"]) as path:
        ends_with_reason(path, kind, "stands at GRUB's prompt")
    with project.scratch_folder("test") as folder:
        empty = folder / "empty.iso"
        empty.write_bytes(bytes(1 << 20))
        ends_with_reason(empty, kind, "stopped in the firmware|No bootable device")


@system_test(backend="qemu", why="the script is under test")
def files_of_a_description_may_be_in_folders():
    with tempfile.TemporaryDirectory() as folder:
        kernel = pathlib.Path(folder, "sub", "kernel.elf")
        kernel.parent.mkdir()
        kernel.write_bytes(guest_kernel("ticker").read_bytes())
        config = pathlib.Path(folder, "vms.toml")
        config.write_text(f'[vm.a]\nmemory = "16M"\nkernel = "sub/kernel.elf"\ncmdline = "quit=1"\n'
                          f'[vm.b]\nmemory = "16M"\nkernel = "{kernel}"\ncmdline = "quit=1"\n')
        done = subprocess.run([RUN[0], "--elf", ROOT / "build/release/mullion.elf", "--config", config, "--timeout", "200"],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert done.returncode == 0, done
        assert re.search("vm a ended: poweroff", done.stdout) and re.search("vm b ended: poweroff", done.stdout), done.stdout
        assert "not found" not in done.stdout, done.stdout
