# SPDX-License-Identifier: MIT
"""Guests that nobody here wrote, from Debian's packages: each must come as far as it does without Mullion.

GRUB invaders is not among them: it draws in the text memory of a VGA, and a VM has none.
"""
import gzip
import re

from framework import NATIVE, PROMPT, Skip, boot, check_clock, check_power_off, description, guest, iso, linux_command_line, system_test, usual_options, verdict
from lib import other_guests

SLOW = "VT-x in Bochs takes minutes for it"


def packaged(name):
    """The file; where the packages of this release have none, the test is skipped."""
    path = other_guests.file(name)
    if path is None:
        raise Skip(f"apt offers no package for {name}")
    return path


def boot_debian_kernel(name, release, busybox=guest.BUSYBOX):
    """To the shell of the usual initramfs. Without Mullion (MULLION_NATIVE=1) too."""
    command_line = linux_command_line()
    modules = {"vmlinuz": packaged(name), "initrd.img": guest.initramfs(busybox=busybox)}
    if not NATIVE:
        modules["vms.toml"] = description.default(256, 1, command_line).encode()
    with boot(modules, usual_options(), iso.linux_config(command_line) if NATIVE else None, memory=512) as console:
        console.expect(PROMPT)
        found = console.command("uname -rv")
        assert re.search(release, found), found
        check_clock(console)
        console.send("poweroff\n")
        check_power_off(console)
        if not NATIVE:
            (_, how, _), = verdict.ended_vms(bytes(console.seen))
            assert how == "poweroff", how


@system_test(backend="qemu", why=f"{SLOW}: XZ alone, which unpacks it, takes more than a minute", guest_only=True)
def debian_generic_kernel():
    boot_debian_kernel("linux", "-amd64 ")


@system_test(backend="qemu", why=SLOW, guest_only=True)
def debian_11_kernel():
    boot_debian_kernel("linux-5.10", r"^5\.10\.")


@system_test(guest_only=True)
def newest_kernel_of_debian():
    """Testing's generic one, at the time when it was downloaded."""
    boot_debian_kernel("linux-newest", r"^([7-9]|6\.1[2-9])")


@system_test(backend="qemu", why=SLOW, guest_only=True)
def debian_real_time_kernel():
    boot_debian_kernel("linux-rt", "PREEMPT_RT")


@system_test(backend="qemu", why=SLOW, guest_only=True)
def debian_32_bit_kernel():
    boot_debian_kernel("linux-686-pae", "-686-pae ", packaged("busybox-i386"))


@system_test(backend="qemu", why=SLOW)
def memtest86_tests_its_memory():
    """A kernel without any operating system: real hardware's timers, APIC, page tables of its own."""
    text = description.default(16, 1, "console=ttyS0,115200", kernel="memtest", initrd=None, name="memtest")
    with boot({"vms.toml": text.encode(), "memtest": packaged("memtest86+")}, usual_options()) as console:
        console.expect(r"Memtest86\+ v\d")
        console.expect(r"#[3-9] +\[[A-Z]")  # some tests are over


@system_test()
def gnu_mach_wants_its_servers():
    """Multiboot 1. It must find its modules with their command lines, in their order, and read the first, which is no program."""
    kernel = gzip.decompress(packaged("gnumach").read_bytes())
    text = description.default(64, 1, "gnumach console=com0", kernel="gnumach", initrd=None, name="mach")
    text += 'modules = ["server --first $(task-create) $(task-resume)", "library --second"]\n'
    modules = {"vms.toml": text.encode(), "gnumach": kernel, "server": b"no program" * 100, "library": b"nor this"}
    with boot(modules, usual_options()) as console:
        console.expect(r"GNU Mach \d")
        console.expect(r"module 0: server --first \$\(task-create\) \$\(task-resume\)\s")
        console.expect(r"module 1: library --second\s+2 multiboot modules")
        console.expect(r"Cannot load user executable module \(error code 6000\): server")


@system_test(backend="qemu", why=SLOW)
def xen_builds_its_first_domain():
    """Multiboot 2 with two modules, the first with a command line. What Linux does in the domain then differs by emulator: in QEMU
    7.2 it dies at once, without Mullion too."""
    kernel = gzip.decompress(packaged("xen").read_bytes())
    text = description.default(384, 1, "xen com1=115200,8n1 console=com1 dom0_mem=200M loglvl=all", kernel="xen", initrd=None, name="xen")
    text += 'modules = ["dom0 console=hvc0 panic=-1", "dom0-initrd"]\n'
    modules = {"vms.toml": text.encode(), "xen": kernel, "dom0": guest.debian_kernel(), "dom0-initrd": guest.initramfs()}
    with boot(modules, usual_options(), memory=640) as console:
        console.expect(r"Xen version \d")
        console.expect(r"Init\. ramdisk: *[0-9a-f]+->")
        console.expect(r"Freed \d+kB init memory")
