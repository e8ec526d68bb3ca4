# SPDX-License-Identifier: MIT
"""Debian packages the project needs, by purpose, and how they are installed."""
import os
import pathlib
import shutil
import subprocess
import sys
import textwrap

from . import download
from .project import CACHE, COLUMNS, Failure, run_quietly, say

GROUPS = {
    "build": ["clang-19", "lld-19", "llvm-19", "libc++-19-dev", "cmake", "ninja-build"],
    "image": ["grub-common", "grub-pc-bin", "grub-efi-amd64-bin", "xorriso", "mtools", "busybox-static"],
    "bochs": ["bochs", "bochsbios", "vgabios"],
    "qemu": ["qemu-system-x86", "ovmf"],
    "disk": ["mmdebstrap", "e2fsprogs", "debian-archive-keyring"],
    "disk-without-root": ["fakeroot", "uidmap"],
    "test": ["acpica-tools", "libclang-rt-19-dev", "libc++abi-19-dev", "googletest", "clang-format-19", "clang-tidy-19", "git"],
}
# The package itself would reconfigure this computer's console, and ask how.
FONT_PACKAGE = "console-setup-linux"
FONT = pathlib.Path("usr/share/consolefonts/Lat15-VGA16.psf.gz")
OS_RELEASE = pathlib.Path("/etc/os-release")
NAMES_OF_OTHERS = "clang 19, lld 19, llvm 19, libc++ 19 headers, cmake >= 3.25, ninja, GRUB 2 (grub-mkrescue for i386-pc and x86_64-efi), " \
                  "xorriso, mtools, a static busybox, Bochs >= 2.7 or QEMU >= 7.2, OVMF, Python >= 3.11, " \
                  "the console font Lat15-VGA16.psf.gz (or cmake -DCONSOLE_FONT=FILE: a PSF font, 8 pixels wide)"


def is_debian_like():
    fields = dict(line.split("=", 1) for line in OS_RELEASE.read_text().splitlines() if "=" in line) if OS_RELEASE.exists() else {}
    family = {fields.get("ID", "").strip('"'), *fields.get("ID_LIKE", "").strip('"').split()}
    return bool(family & {"debian", "ubuntu"}) and shutil.which("dpkg-query") and shutil.which("apt-get")


def missing(groups):
    wanted = list(dict.fromkeys(package for group in groups for package in GROUPS[group]))
    listing = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *wanted],
                             capture_output=True, text=True).stdout
    installed = {line.split()[0] for line in listing.splitlines() if line.endswith(" installed")}
    return [package for package in wanted if package not in installed]


def is_font_missing(groups):
    return "build" in groups and not pathlib.Path("/", FONT).exists() and not (CACHE / "font" / FONT.name).exists()


def install(groups, visible=True, ask=False):
    """Installs what is missing, and says what before it does. Says nothing when nothing is missing; on another distribution it
    lists what is needed. ask: whoever sits at a terminal may say no."""
    if not is_debian_like():
        raise_if_tools_missing()
        return
    needed = missing(groups)
    if needed:
        install_by_apt(needed, visible, ask)
    if is_font_missing(groups):
        make_known([FONT_PACKAGE], visible)
        download.file_of_package(FONT_PACKAGE, str(FONT), CACHE / "font", "a console font", visible)


def as_root():
    return [] if os.geteuid() == 0 else ["sudo"]


def install_by_apt(needed, visible, ask=False):
    prefix = as_root()
    if prefix and not shutil.which("sudo"):
        raise Failure("these packages are missing, and there is no sudo to install them with:\n  apt-get install " + " ".join(needed))
    command = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "--no-install-recommends", *needed]
    say(textwrap.fill("These packages are missing and are installed by " + " ".join([*prefix, "apt-get install"]) + ": " + " ".join(needed),
                      COLUMNS - 1, break_on_hyphens=False, break_long_words=False))
    if ask and sys.stdin.isatty() and sys.stderr.isatty():
        say("Enter goes on, n stops.")
        if input().strip().lower() not in ("", "y", "yes"):
            raise Failure("nothing was installed; ./scripts/setup --check lists all that is missing")
    if prefix:
        subprocess.run(["sudo", "-v"], check=False)
    make_known(needed, visible)
    run_quietly(f"Installing {len(needed)} packages", command, visible)


def make_known(needed, visible):
    """Reads the package lists if they are too old to name a package."""
    if not pathlib.Path("/var/lib/apt/lists").exists() or not known_to_apt(needed):
        run_quietly("Reading the package lists", [*as_root(), "apt-get", "update"], visible)
    unknown = [package for package in needed if not known_to_apt([package])]
    if unknown:
        raise Failure("this release has no package " + ", ".join(unknown) + "; Mullion is made on Debian 13 and 12. Needed: " + NAMES_OF_OTHERS)


def known_to_apt(packages):
    done = subprocess.run(["apt-cache", "show", "--no-all-versions", *packages], capture_output=True)
    return done.returncode == 0


def raise_if_tools_missing():
    tools = ["clang++-19", "ld.lld-19", "cmake", "ninja", "grub-mkrescue", "xorriso", "mformat"]
    absent = [tool for tool in tools if not shutil.which(tool)]
    if absent:
        raise Failure("this is neither Debian nor Ubuntu, so nothing is installed for you. Not found: " + ", ".join(absent)
                      + ".\nNeeded: " + NAMES_OF_OTHERS)
