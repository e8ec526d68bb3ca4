# SPDX-License-Identifier: MIT
"""scripts/run --disk: the guest's root is on a disk of the machine. Without Mullion the guest drives the machine's disk itself: there the
script and the guest's start are under test."""
import contextlib
import os
import subprocess
import tempfile

from framework import ROOT, kind_of_emulator, system_test
from test_run_script import RUN, Terminal

WHY = "the script is under test"
SIZE = "512"
ROOT_IS_ON_THE_DISK = "grep -q ' / ext4 rw' /proc/mounts"


@contextlib.contextmanager
def new_image():
    """A name for an image in a folder that holds nothing else at the end."""
    with tempfile.TemporaryDirectory() as folder:
        yield os.path.join(folder, "disk.img")
        assert os.listdir(folder) in ([], ["disk.img"]), os.listdir(folder)


def run(image, command, *options, script=RUN):
    return subprocess.run([*script, "--disk", image, *options, "--", command], stdin=subprocess.DEVNULL, capture_output=True)


def keeps_what_is_written(script, *options):
    """Two runs: the first makes the image."""
    with new_image() as image:
        first = run(image, f"{ROOT_IS_ON_THE_DISK} && dd if=/dev/urandom of=/root/kept bs=64k count=64 2>/dev/null; md5sum /root/kept; exit 3",
                    "--disk-size", SIZE, *options, script=script)
        assert first.returncode == 3 and first.stdout.endswith(b"  /root/kept\n"), first
        assert all(len(line) <= 80 for line in first.stderr.splitlines()), first
        second = run(image, "md5sum /root/kept; cat /etc/hostname; apt-cache --version", *options, script=script)
        assert second.returncode == 0 and second.stdout.startswith(first.stdout + b"guest\napt "), (first, second)


@system_test(backend="qemu", guest_only=True, why=WHY, limit=600)
def a_command_finds_what_the_last_run_wrote():
    keeps_what_is_written(RUN)


@system_test(backend="qemu", guest_only=True, why=WHY, limit=600)
def a_shell_runs_on_the_disk_and_what_is_synced_outlives_ctrl_a_x():
    with new_image() as image:
        with Terminal("--disk", image, "--disk-size", SIZE) as terminal:
            terminal.expect(rb"guest:~# ", 500)
            terminal.type(b"cat /etc/debian_version; tty; cat\n")
            terminal.expect(rb"\d+\.\d+\r\n/dev/ttyS0\r\n")
            # Before cat answers, Ctrl-C may reach the shell too, which then forgets what is typed next.
            terminal.type(b"twice\n")
            terminal.expect(rb"twice\r\ntwice\r\n")
            terminal.type(b"\x03")
            terminal.expect(rb"guest:~# ")
            terminal.type(b"echo syn''ced >/root/kept; sync; echo do''ne\n")
            terminal.expect(rb"done\r\n")
            terminal.type(b"\x01x")
            assert terminal.wait() == 0
        with Terminal("--disk", image) as terminal:
            terminal.expect(rb"guest:~# ")
            second = run(image, "true")
            assert second.returncode == 1 and b"is in use by another run" in second.stderr, second
            # A program that still writes does not keep the root from being left whole.
            terminal.type(b"cat /root/kept; (sleep 100000 >/root/open &); poweroff\n")
            terminal.expect(rb"synced\r\n")
            assert terminal.wait() == 0
        done = run(image, "dmesg | grep -c -i -e recovery -e orphan", "--verbose")
        assert done.stdout == b"0\n", done


@system_test(backend="qemu", guest_only=True, why=WHY, limit=600)
def a_command_does_not_run_without_its_root():
    with new_image() as image:
        done = run(image, "echo it ra''n", "--disk-size", SIZE, "--cmdline", "console=ttyS0,115200 quiet panic=-1 root=/dev/vdz")
        assert done.returncode == 125 and done.stdout == b"" and b"init: there is no disk /dev/vdz" in done.stderr, done
        subprocess.run(["dd", "if=/dev/zero", f"of={image}", "bs=1M", "seek=1", "count=1", "conv=notrunc"], check=True, capture_output=True)
        done = run(image, "echo it ra''n")
        assert done.returncode == 125 and done.stdout == b"" and b"has no ext4 that can be mounted" in done.stderr, done


def under_mullion(controller):
    keeps_what_is_written(RUN[:1], "--emulator", kind_of_emulator(), "--elf", str(ROOT / "build/release/mullion.elf"), "--disk-controller", controller)


@system_test(backend="qemu", why="Bochs has IDE disks only", limit=900)
def the_root_is_on_an_nvme_disk():
    under_mullion("nvme")


@system_test(limit=1200)
def the_root_is_on_an_ide_disk():
    under_mullion("ide")
