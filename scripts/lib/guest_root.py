# SPDX-License-Identifier: MIT
"""The Debians for disks of guests: archives, made once by mmdebstrap and kept for later disks."""
import dataclasses
import hashlib
import os
import pathlib
import pwd
import textwrap

from . import debian_root, packages
from .project import COLUMNS, Failure, replacing

RELEASE_ELSEWHERE = "bookworm"  # on another distribution: every debian-archive-keyring of today knows its keys
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")
# The initramfs puts its own programs there (scripts/lib/initramfs/root-disk).
OWN_PROGRAMS = "/run/mullion/bin"
# What belongs to this computer goes away: its name, its settings for downloads, its mirror.
SETUP_OF_SMALL = f"""set -e
root=$1
rm -f "$root/etc/resolv.conf" "$root/etc/apt/apt.conf.d/99mmdebstrap"
echo guest >"$root/etc/hostname"
chmod 644 "$root/etc/hostname"
echo "127.0.0.1 localhost guest" >"$root/etc/hosts"
echo "/dev/vda / ext4 defaults 0 1" >"$root/etc/fstab"
for name in poweroff reboot halt resize; do ln -s {OWN_PROGRAMS}/$name "$root/usr/local/sbin/$name"; done
chroot "$root" passwd --delete root
"""
# Before most packages: the one that makes the initrd looks there for what must check the root. A new disk's file system has the label "root".
FSTAB_OF_FULL = """echo "LABEL=root / ext4 errors=remount-ro 0 1" >"$1/etc/fstab"
"""
# Nothing here is for Mullion: it is what an installer writes.
SETUP_OF_FULL = """set -e
root=$1
rm -f "$root/etc/resolv.conf" "$root/etc/apt/apt.conf.d/99mmdebstrap"
echo debian >"$root/etc/hostname"
chmod 644 "$root/etc/hostname"
echo "127.0.0.1 localhost debian" >"$root/etc/hosts"
echo "LANG=C.UTF-8" >"$root/etc/default/locale"
chroot "$root" passwd --delete root
"""


@dataclasses.dataclass(frozen=True)
class System:
    """What is installed on a disk."""
    archive: str  # how the names of its archives begin
    title: str
    variant: str  # of mmdebstrap
    packages: tuple
    setup: str  # a script that gets the root's folder
    least_size: int  # of its disk, MiB
    early_setup: str = ""  # the same, when only the essential packages are installed


SMALL = System("guest", "a small Debian", "minbase", ("mount", "procps", "less"), SETUP_OF_SMALL, 512)
# Debian's packages of priority "important" and what its installer always adds: a kernel, and what logind needs to hear the power button.
FULL = System("full", "a Debian with systemd", "important", ("linux-image-cloud-amd64", "initramfs-tools", "zstd", "dbus", "libpam-systemd"), SETUP_OF_FULL,
              1024, FSTAB_OF_FULL)
SYSTEMS = {"small": SMALL, "full": FULL}


def release():
    system = debian_root.os_release()
    return system.get("VERSION_CODENAME", RELEASE_ELSEWHERE) if system.get("ID") == "debian" else RELEASE_ELSEWHERE


def path(system=SMALL, name=None):
    """A change of what is in it makes another archive. name: of the release, if not the usual one."""
    content = system.early_setup + system.setup + " ".join((*system.packages, *LEFT_OUT))
    return debian_root.FOLDER / f"{system.archive}-{name or release()}-{hashlib.sha256(content.encode()).hexdigest()[:8]}.tar"


def raise_if_it_cannot_be_made(system=SMALL):
    """Says, before anything is installed, what is needed when the user is not root."""
    if os.geteuid() == 0 or path(system).exists():
        return
    user = pwd.getpwuid(os.geteuid())
    for file in ("/etc/subuid", "/etc/subgid"):
        lines = pathlib.Path(file).read_text().splitlines() if pathlib.Path(file).exists() else []
        if not any(line.split(":")[0] in (user.pw_name, str(user.pw_uid)) for line in lines):
            raise Failure(f"--disk: to make a Debian without root's rights, you need user IDs of your own, and {file} names none: "
                          f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user.pw_name}")


def make(system=SMALL, name=None):
    """Makes the archive unless it is there, and returns its path."""
    name = name or release()
    archive = path(system, name)
    with debian_root.locked(system.archive):
        if not archive.exists():
            if not packages.is_debian_like():
                raise Failure("--disk: a Debian is made on Debian or Ubuntu only; name the image of a disk that has one")
            for old in debian_root.FOLDER.glob(f"{system.archive}-{name}-*.tar"):
                old.unlink()
            try:
                with replacing(archive) as partial:
                    debian_root.bootstrap(name, system.packages, partial, f"{system.title} ({name})", options(system))
            except Failure as failure:
                if os.geteuid() == 0:
                    raise
                raise Failure(f"{failure}\n" + textwrap.fill("Without root's rights, mmdebstrap needs user namespaces, which some computers give to root "
                                                             "alone. The Debian is kept: it is enough to make one disk as root.", COLUMNS - 1)) from None
    return archive


def options(system):
    # A variant without apt's own recommendations; the last one counts.
    early = [f"--essential-hook={system.early_setup}"] if system.early_setup else []
    return [f"--variant={system.variant}", "--format=tar", *early, f"--customize-hook={system.setup}",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT)]
