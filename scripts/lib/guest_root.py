# SPDX-License-Identifier: MIT
"""The small Debian on the disk of the guest that comes with Mullion: an archive, made once by mmdebstrap and kept for later disks."""
import hashlib
import os
import pathlib
import pwd
import textwrap

from . import debian_root, packages
from .project import COLUMNS, Failure, replacing

RELEASE_ELSEWHERE = "bookworm"  # on another distribution: every debian-archive-keyring of today knows its keys
PACKAGES = ["mount", "procps", "less"]
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")
# The initramfs puts its own programs there (scripts/lib/initramfs/root-disk).
OWN_PROGRAMS = "/run/mullion/bin"
# What belongs to this computer goes away: its name, its settings for downloads, its mirror.
SETUP = f"""set -e
root=$1
rm -f "$root/etc/resolv.conf" "$root/etc/apt/apt.conf.d/99mmdebstrap"
echo guest >"$root/etc/hostname"
chmod 644 "$root/etc/hostname"
echo "127.0.0.1 localhost guest" >"$root/etc/hosts"
echo "/dev/vda / ext4 defaults 0 1" >"$root/etc/fstab"
for name in poweroff reboot halt resize; do ln -s {OWN_PROGRAMS}/$name "$root/usr/local/sbin/$name"; done
chroot "$root" passwd --delete root
"""


def release():
    system = debian_root.os_release()
    return system.get("VERSION_CODENAME", RELEASE_ELSEWHERE) if system.get("ID") == "debian" else RELEASE_ELSEWHERE


def path():
    """A change of what is in it makes another archive."""
    content = SETUP + " ".join((*PACKAGES, *LEFT_OUT))
    return debian_root.FOLDER / f"guest-{release()}-{hashlib.sha256(content.encode()).hexdigest()[:8]}.tar"


def raise_if_it_cannot_be_made():
    """Says, before anything is installed, what is needed when the user is not root."""
    if os.geteuid() == 0 or path().exists():
        return
    user = pwd.getpwuid(os.geteuid())
    for file in ("/etc/subuid", "/etc/subgid"):
        lines = pathlib.Path(file).read_text().splitlines() if pathlib.Path(file).exists() else []
        if not any(line.split(":")[0] in (user.pw_name, str(user.pw_uid)) for line in lines):
            raise Failure(f"--disk: to make a Debian without root's rights, you need user IDs of your own, and {file} names none: "
                          f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user.pw_name}")


def make():
    """Makes the archive unless it is there, and returns its path."""
    archive, name = path(), release()
    with debian_root.locked("guest"):
        if not archive.exists():
            if not packages.is_debian_like():
                raise Failure("--disk: a Debian is made on Debian or Ubuntu only; name the image of a disk that has one")
            for old in debian_root.FOLDER.glob("guest-*.tar"):
                old.unlink()
            try:
                with replacing(archive) as partial:
                    debian_root.bootstrap(name, PACKAGES, partial, f"a small Debian ({name})", options())
            except Failure as failure:
                if os.geteuid() == 0:
                    raise
                raise Failure(f"{failure}\n" + textwrap.fill("Without root's rights, mmdebstrap needs user namespaces, which some computers give to root "
                                                             "alone. The Debian is kept: it is enough to make one disk as root.", COLUMNS - 1)) from None
    return archive


def options():
    # A variant without apt's own recommendations; the last one counts.
    return ["--variant=minbase", "--format=tar", f"--customize-hook={SETUP}", *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT)]
