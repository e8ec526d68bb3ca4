# SPDX-License-Identifier: MIT
"""A stock Debian on a disk of the machine: systemd, its own kernel and its own initrd, as scripts/run --disk-system full starts it."""
import contextlib
import os
import re
import subprocess
import tempfile

from framework import ROOT, kind_of_emulator, system_test
from lib import gpt
from test_run_script import RUN, Terminal

WHY = "to the login are about 10,000 million instructions, twice: too long in Bochs for every run"
SECONDS = 900
PROMPT = rb"root@debian:~# (?:\x1b\[\?2004\w)?$"
# Escape sequences of a terminal: bash and systemd write some.
ESCAPE = re.compile(rb"\x1b(?:\[[0-9;?]*[A-Za-z]|\].*?(?:\x07|\x1b\\))")


@contextlib.contextmanager
def debian(image, *options):
    """A terminal at which root has logged in."""
    with Terminal("--emulator", kind_of_emulator(), "--elf", str(ROOT / "build/release/mullion.elf"), "--disk", image, "--disk-system", "full", *options,
                  command=RUN[:1]) as terminal:
        terminal.expect(rb"debian login: ", SECONDS)
        terminal.type(b"root\n")
        terminal.expect(PROMPT, SECONDS)
        yield terminal


def output_of(terminal, command):
    """The lines that a command writes."""
    terminal.type(f"echo be''gin; {command}; echo en''d\n".encode())
    found = terminal.expect(rb"(?s)begin\r\n(.*?)end\r\n", SECONDS).group(1)
    terminal.expect(PROMPT, SECONDS)
    return [line.strip() for line in ESCAPE.sub(b"", found).decode(errors="replace").replace("\r", "").split("\n") if line.strip()]


def complaints_of_fsck(image):
    with open(image, "rb") as file:
        root, = gpt.read(file)
    done = subprocess.run(["e2fsck", "-f", "-n", f"{image}?offset={root.offset}"], capture_output=True, text=True)
    return None if done.returncode == 0 else done.stdout + done.stderr


@system_test(backend="qemu", why=WHY, limit=2400)
def systemd_starts_from_the_disk_and_what_is_written_stays():
    with tempfile.TemporaryDirectory(prefix="mullion-debian-") as folder:
        image = os.path.join(folder, "disk.img")
        with debian(image, "--disk-size", "1024") as terminal:
            healthy(terminal)
            output_of(terminal, "seq 100000 >/root/kept; sync")
            terminal.type(b"systemctl poweroff\n")
            assert terminal.wait(SECONDS) == 0, terminal.seen[-2000:]
        assert complaints_of_fsck(image) is None, complaints_of_fsck(image)
        with debian(image) as terminal:
            assert output_of(terminal, "seq 100000 | cmp - /root/kept && echo same") == ["same"]
            # The file system was left in order.
            assert output_of(terminal, "dmesg | grep -c -i -e 'recovering journal' -e orphan") == ["0"]
            # The power button, which logind hears.
            terminal.type(b"\x01c")
            terminal.expect(rb"mullion> ")
            terminal.type(b"vm stop linux\r")
            terminal.expect(rb"switches itself off when you leave the monitor", SECONDS)
            terminal.type(b"\x01c")
            assert terminal.wait(SECONDS) == 0, terminal.seen[-2000:]
        assert complaints_of_fsck(image) is None, complaints_of_fsck(image)


def healthy(terminal):
    """No unit has failed, the root is the disk's, and neither the kernel nor a service complains of the machine."""
    state = output_of(terminal, "systemctl is-system-running --wait; systemctl --failed --no-legend --plain --no-pager")
    assert state == ["running"], state
    assert output_of(terminal, "findmnt -n -o SOURCE,FSTYPE /; lsblk -n -d -o NAME,SERIAL") == ["/dev/vda ext4", "vda  mullion-0"]
    running = output_of(terminal, "uname -r; ls -1 /boot")
    assert f"vmlinuz-{running[0]}" in running, running
    errors = output_of(terminal, "journalctl --no-pager -b -o cat -p err")
    assert errors == [], errors
