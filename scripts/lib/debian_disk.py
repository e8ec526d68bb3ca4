# SPDX-License-Identifier: MIT
"""A disk with an installed Debian 13 that boots by BIOS and by UEFI, for tests of the package. Made once by mmdebstrap, without loop
devices and without a boot: partitions, file systems and GRUB's pieces are written into the file.

It has a shell of root's on the serial line. Needs what scripts/lib/debian_root.py needs."""
import hashlib
import pathlib
import struct
import subprocess
import tempfile

from . import debian_root, gpt
from .project import run_quietly

RELEASE = "trixie"
PACKAGES = ["linux-image-cloud-amd64", "systemd-sysv", "udev", "grub2-common", "grub-pc-bin", "grub-efi-amd64-bin", "mount", "kmod"]
SECTOR, MIB = 512, 1 << 20
DISK_MIB, BIOS_AT, EFI_AT, ROOT_AT = 1400, 1, 2, 36  # where the partitions begin, in MiB
TYPES = {"bios": "21686148-6449-6E6F-744E-656564454649", "efi": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
         "root": gpt.LINUX_ROOT}
ROOT_UUID = "6d756c6c-696f-6e00-8000-000000000001"
SETUP = r"""set -e
root=$1
cat >"$root/etc/fstab" <<END
UUID=UUID_OF_ROOT / ext4 errors=remount-ro 0 1
END
cat >"$root/etc/default/grub" <<END
GRUB_DEFAULT=0
GRUB_TIMEOUT=1
GRUB_CMDLINE_LINUX="console=ttyS0,115200 quiet"
GRUB_TERMINAL="console serial"
GRUB_DISABLE_OS_PROBER=true
END
mkdir -p "$root/etc/systemd/system/serial-getty@ttyS0.service.d" "$root/boot/grub"
cat >"$root/etc/systemd/system/serial-getty@ttyS0.service.d/login.conf" <<END
[Service]
Environment=HOME=/root
ExecStart=
ExecStart=-/sbin/agetty --skip-login --login-program /bin/bash --noclear %I 115200 dumb
END
echo 'PS1="debian:# "; PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; export PATH' >"$root/root/.bashrc"
echo debian >"$root/etc/hostname"
for target in i386-pc x86_64-efi; do cp -r "$root/usr/lib/grub/$target" "$root/boot/grub/"; done
chroot "$root" grub-editenv /boot/grub/grubenv create
kernel=$(cd "$root/boot" && ls vmlinuz-*) initrd=$(cd "$root/boot" && ls initrd.img-*)
cat >"$root/boot/grub/grub.cfg" <<END
serial --unit=0 --speed=115200
linux /boot/$kernel root=UUID=UUID_OF_ROOT console=ttyS0,115200 quiet
initrd /boot/$initrd
boot
END
""".replace("UUID_OF_ROOT", ROOT_UUID)


def path():
    content = SETUP + " ".join(PACKAGES) + str((DISK_MIB, BIOS_AT, EFI_AT, ROOT_AT))
    return debian_root.FOLDER / f"disk-{RELEASE}-{hashlib.sha256(content.encode()).hexdigest()[:8]}.img"


def make():
    """Makes the disk unless it is there, and returns its path."""
    debian_root.raise_if_unavailable(RELEASE, is_entered=False)
    disk = path()
    with debian_root.locked("disk"):
        if not disk.exists():
            for old in debian_root.FOLDER.glob(f"disk-{RELEASE}-*"):
                old.unlink()
            with tempfile.TemporaryDirectory(prefix="making-", dir=debian_root.FOLDER) as scratch:
                partial = pathlib.Path(scratch, "disk")
                fill(partial, pathlib.Path(scratch))
                partial.rename(disk)
    return disk


def fill(disk, scratch):
    root, setup = scratch / "root", scratch / "setup"
    setup.write_text(SETUP)
    debian_root.bootstrap(RELEASE, PACKAGES, root, "a disk with Debian 13", [f'--customize-hook=sh {setup} "$1"'])
    with open(disk, "wb") as file:
        file.truncate(DISK_MIB * MIB)
    parts = [("bios", BIOS_AT, EFI_AT), ("efi", EFI_AT, ROOT_AT), ("root", ROOT_AT, DISK_MIB - 1)]
    partitions = [gpt.Partition(TYPES[name], start * MIB // SECTOR, end * MIB // SECTOR - 1, "", f"6d756c6c-696f-6e00-8000-00000000001{i}")
                  for i, (name, start, end) in enumerate(parts)]
    with open(disk, "r+b") as file:
        gpt.write(file, DISK_MIB * MIB, partitions, "6d756c6c-696f-6e00-8000-000000000020")
    run_quietly("Writing its file system", ["mke2fs", "-q", "-t", "ext4", "-U", ROOT_UUID, "-d", root, "-E", f"offset={ROOT_AT * MIB}", disk,
                                            f"{DISK_MIB - 1 - ROOT_AT}M"])
    write_bios_grub(disk, root, scratch)
    write_efi_grub(disk, root, scratch)


def mkimage(root, target, modules, output):
    subprocess.run(["grub-mkimage", "--directory", root / "usr/lib/grub" / target, "-O", target, "-o", output, "-p", "(hd0,gpt3)/boot/grub", *modules.split()],
                   check=True)
    return output.read_bytes()


def write_bios_grub(disk, root, scratch):
    """What grub-bios-setup does: the boot sector knows the first sector of GRUB's core, and that one where the rest is."""
    core = bytearray(mkimage(root, "i386-pc", "biosdisk part_gpt ext2 normal", scratch / "core.img"))
    core += bytes(-len(core) % SECTOR)
    first = BIOS_AT * MIB // SECTOR
    struct.pack_into("<QH", core, SECTOR - 12, first + 1, len(core) // SECTOR - 1)
    boot = bytearray((root / "usr/lib/grub/i386-pc/boot.img").read_bytes()[:440])
    struct.pack_into("<Q", boot, 0x5C, first)
    with open(disk, "r+b") as file:
        file.write(boot)
        file.seek(BIOS_AT * MIB)
        file.write(core)


def write_efi_grub(disk, root, scratch):
    mkimage(root, "x86_64-efi", "part_gpt ext2 fat normal", scratch / "BOOTX64.EFI")
    system = scratch / "efi.img"
    with open(system, "wb") as file:
        file.truncate((ROOT_AT - EFI_AT) * MIB)
    for command in (["mformat", "-i", system, "-F", "::"], ["mmd", "-i", system, "::/EFI", "::/EFI/BOOT"],
                    ["mcopy", "-i", system, scratch / "BOOTX64.EFI", "::/EFI/BOOT/"]):
        subprocess.run(command, check=True, capture_output=True)
    with open(disk, "r+b") as file:
        file.seek(EFI_AT * MIB)
        file.write(system.read_bytes())
