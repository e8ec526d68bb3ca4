# SPDX-License-Identifier: MIT
"""The Debian package on an installed Debian 13: its menu entry, Mullion once, and Debian again."""
import contextlib
import re
import subprocess

from framework import PROMPT, ROOT, Console, Skip, emulator, guest, iso, system_test, verdict
from lib import debian_disk, debian_root, project
from test_monitor import MONITOR, SWITCH

DEBIAN = "debian:# "
DESCRIPTION = """[vm.linux]
memory = "192M"
kernel = "$(basename /boot/vmlinuz-*)"
initrd = "initrd.img"
cmdline = "console=ttyS0,115200 quiet panic=-1"
restart = "never"
"""


@contextlib.contextmanager
def power_on(disk, cd, uefi, extra=()):
    options = emulator.Options(kind="qemu", memory=1024, cpus=2, uefi=uefi, extra=("-drive", f"file={disk},format=raw,if=virtio", *extra))
    with emulator.Machine(cd, options) as machine:
        console = Console(machine)
        try:
            yield console
        except BaseException:
            print(f"---- serial line, its tail:\n{console.tail()}\n----", flush=True)
            raise


def debian_shell(console):
    console.expect(re.escape(DEBIAN), 600)


def run(console, line, seconds=300):
    """One command in Debian; it must succeed."""
    console.send(line + "; echo status:$?\n")
    status = console.expect(r"status:(\d+)\r?\n", seconds).group(1)
    assert status == b"0", f"{line}: status {status.decode()}\n{console.tail()}"
    debian_shell(console)


def wait_for_mullion(console):
    """The disk is to start Mullion this time, and its guest works."""
    console.expect("Mullion starts", 200)
    console.expect(PROMPT, 300)
    assert "x86_64" in console.command("uname -a")


def panic(console):
    console.send(SWITCH)
    console.expect(MONITOR)
    console.may_panic = True
    console.send("crash now\r")
    console.expect("mullion: PANIC on CPU")


def restart_into_mullion(console):
    console.send("mullion-try\n")
    console.expect("Restarting into Mullion")
    assert console.until_end(300).orderly


@system_test(backend="qemu", limit=1500, why="a whole Debian is too slow in Bochs")
def installs_starts_once_and_debian_is_back():
    """By BIOS first, then the same disk by UEFI. It is back after a power-off and after a panic, which resets the machine. A reset by
    its button was tried by hand: it costs one more start of Debian."""
    try:
        installed = debian_disk.make()
    except debian_root.Unavailable as reason:
        raise Skip(str(reason)) from None
    with project.scratch_folder("package-test") as folder:
        disk, cd = folder / "disk.img", folder / "cd.iso"
        subprocess.run(["cp", "--sparse=always", installed, disk], check=True)
        subprocess.run([ROOT / "scripts/package", folder], check=True)
        package = next(folder.glob("*.deb"))
        iso.build_data(cd, {"mullion.deb": package, "initrd.img": guest.initramfs(), "vms.toml": DESCRIPTION.encode()})
        with power_on(disk, cd, uefi=False) as console:
            debian_shell(console)
            run(console, "mount -r /dev/sr0 /mnt && cp /mnt/mullion.deb /tmp && apt-get install -y --no-install-recommends /tmp/mullion.deb")
            run(console, "modprobe msr; mullion-check")
            # A description that is wrong gets no entry and does no harm.
            run(console, "echo oops >/etc/mullion/bad.toml")
            run(console, 'cp /mnt/initrd.img /var/lib/mullion/; sed "s/\\$(.*)/$(basename /boot/vmlinuz-*)/" /mnt/vms.toml >/etc/mullion/vms.toml')
            run(console, "update-grub; ! grep mullion-bad /boot/grub/grub.cfg && rm /etc/mullion/bad.toml")
            run(console, "mullion-check --folder /var/lib/mullion --folder /boot /etc/mullion/vms.toml")
            restart_into_mullion(console)
        with power_on(disk, cd, uefi=False) as console:
            wait_for_mullion(console)
            console.send("poweroff\n")
            assert console.until_end(300).orderly
            assert verdict.mullion_status(bytes(console.seen)) == 0
        with power_on(disk, cd, uefi=True) as console:
            debian_shell(console)
            assert b"Mullion starts" not in console.seen
            run(console, "! grub-editenv - list | grep onfailure")
            restart_into_mullion(console)
        # Elsewhere here, a machine ends at a reset; this one starts again.
        with power_on(disk, cd, uefi=True, extra=("-action", "reboot=reset")) as console:
            wait_for_mullion(console)
            panic(console)
            debian_shell(console)
            assert console.seen.count(b"Mullion starts") == 1
            # Removed, it leaves no entry.
            run(console, "apt-get remove -y mullion && ! grep -e '--id mullion' /boot/grub/grub.cfg")
