# SPDX-License-Identifier: MIT
"""Guests that nobody here wrote: single files out of Debian's packages, downloaded through apt once into .cache/guests."""
import os
import re
import subprocess

from . import download
from .project import CACHE

FOLDER = CACHE / "guests"
# name: (the package, or a package that depends on it, as a regular expression; the file in it; its architecture)
FILES = {
    "linux": (r"linux-image-amd64", r"linux-image-\d\S*", "boot/vmlinuz-*", None),
    "linux-rt": (r"linux-image-rt-amd64", r"linux-image-\d\S*", "boot/vmlinuz-*", None),
    "linux-686-pae": (r"linux-image-686-pae", r"linux-image-\d\S*", "boot/vmlinuz-*", "i386"),
    "busybox-i386": (r"busybox-static", None, "*bin/busybox", "i386"),
    "memtest86+": (r"memtest86\+", None, "boot/*[6x]64*.bin", None),
    "gnumach": (r"gnumach-image-[0-9.]+-486", None, "boot/gnumach-*.gz", None),
    "xen": (r"xen-system-amd64", r"xen-hypervisor-\d\S*-amd64", "boot/xen-*.gz", None),
}


def file(name):
    """The path of the file; None where apt offers no such package."""
    folder = FOLDER / name
    cached = sorted(path for path in folder.glob("*") if path.is_file())
    if cached:
        return cached[-1]
    pattern, dependency, inside, architecture = FILES[name]
    environment = foreign_apt(architecture) if architecture else None
    package = newest_package(pattern, environment)
    if package and dependency:
        package = dependency_of(package, dependency, environment)
    if not package:
        return None
    return download.file_of_package(package, inside, folder, f"the guest {package}", environment=environment)


def newest_package(pattern, environment):
    """By the length of its name and the name, that is, by version."""
    listing = apt_cache(["pkgnames"], environment)
    found = [name for name in listing.split() if re.fullmatch(pattern, name)]
    return max(found, key=lambda name: (len(name), name), default=None)


def dependency_of(package, pattern, environment):
    listing = apt_cache(["depends", "--important", package], environment)
    found = re.search(rf"Depends: ({pattern})", listing)
    return found.group(1) if found else None


def apt_cache(arguments, environment):
    return subprocess.run(["apt-cache", *arguments], capture_output=True, text=True, env=environment, check=False).stdout


def foreign_apt(architecture):
    """The environment in which apt knows another architecture's packages, from lists of its own: the system's dpkg and apt stay as
    they are."""
    folder = FOLDER / f"apt-{architecture}"
    (folder / "lists/partial").mkdir(parents=True, exist_ok=True)
    (folder / "cache/archives/partial").mkdir(parents=True, exist_ok=True)
    configuration = folder / "apt.conf"
    configuration.write_text(f'APT::Architecture "{architecture}";\nAPT::Architectures {{ "{architecture}"; }};\n'
                             f'APT::Sandbox::User "root";\nDir::State::Lists "{folder}/lists";\nDir::Cache "{folder}/cache";\n'
                             'Dir::State::status "/dev/null";\n')
    environment = {**os.environ, "APT_CONFIG": str(configuration)}
    if not list((folder / "lists").glob("*Packages*")):
        # Sources that have nothing for this architecture make it fail; what counts is whether the package is there then.
        subprocess.run(["apt-get", "update"], env=environment, capture_output=True, check=False)
    return environment
