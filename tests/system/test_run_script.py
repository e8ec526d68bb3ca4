"""scripts/run as its user sees it, in a terminal. Mostly the guest boots without Mullion in QEMU: here the script is under test."""
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time

from framework import ROOT, system_test

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
            wait = deadline - time.monotonic()
            assert wait > 0 and select.select([self.master], [], [], wait)[0], f"{pattern!r} did not appear"
            self.seen += os.read(self.master, 65536)
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
    assert done.stderr == b"", done


@system_test(backend="qemu", guest_only=True, why="the script is under test")
def time_limit():
    done = subprocess.run([*RUN, "--timeout", "8", "--", "sleep 1000000"], stdin=subprocess.DEVNULL, capture_output=True)
    assert done.returncode == 124, done


@system_test(backend="qemu", why="the script is under test")
def without_options_it_takes_qemu_and_says_why():
    with Terminal(command=RUN[:1]) as terminal:
        terminal.expect(rb"Starting the machine in qemu \(AMD-V in software, [^\r\n]*--emulator bochs has Intel VT-x\)")
        terminal.expect(rb"AMD-V: NPT")
        terminal.expect(rb"guest:~# ")
        terminal.type(b"poweroff\n")
        assert terminal.wait() == 0
