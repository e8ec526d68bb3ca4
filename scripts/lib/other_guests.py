# SPDX-License-Identifier: MIT
"""Guests that nobody here wrote: single files out of Debian's packages, downloaded through apt once into .cache/guests."""
import dataclasses
import os
import re
import subprocess

from . import debian_root, download
from .project import CACHE

FOLDER = CACHE / "guests"


@dataclasses.dataclass
class Source:
    """A file in a package. Architecture and release: this computer's unless they say otherwise."""
    package: str  # a regular expression, as the next one
    dependency: str | None  # the file is in the package that this one depends on
    file: str
    architecture: str = ""
    release: str = ""


KERNEL = r"linux-image-\d\S*"
# From Debian 14 on, that package is empty, and the kernel is in this one, which it depends on.
BINARY = r"linux-binary-\d\S*"
KERNEL_FILE = "*/vmlinuz*"  # in boot, or in this one beside its modules
FILES = {
    "linux": Source(r"linux-image-amd64", KERNEL, KERNEL_FILE),
    "linux-rt": Source(r"linux-image-rt-amd64", KERNEL, KERNEL_FILE),
    "linux-686-pae": Source(r"linux-image-686-pae", KERNEL, KERNEL_FILE, architecture="i386"),
    "linux-5.10": Source(r"linux-image-amd64", KERNEL, KERNEL_FILE, release="bullseye"),
    "linux-newest": Source(r"linux-image-amd64", KERNEL, KERNEL_FILE, release="testing"),
    "busybox-i386": Source(r"busybox-static", None, "*bin/busybox", architecture="i386"),
    "memtest86+": Source(r"memtest86\+", None, "boot/*[6x]64*.bin"),
    "gnumach": Source(r"gnumach-image-[0-9.]+-486", None, "boot/gnumach-*.gz"),
    "xen": Source(r"xen-system-amd64", r"xen-hypervisor-\d\S*-amd64", "boot/xen-*.gz"),
}


def file(name):
    """The path of the file; None where apt offers no such package."""
    folder = FOLDER / name
    cached = sorted(path for path in folder.glob("*") if path.is_file())
    if cached:
        return cached[-1]
    source = FILES[name]
    environment = foreign_apt(source.architecture, source.release) if source.architecture or source.release else None
    package = newest_package(source.package, environment)
    if package and source.dependency:
        package = dependency_of(package, source.dependency, environment)
    if not package:
        return None
    package = dependency_of(package, BINARY, environment) or package
    return download.file_of_package(package, source.file, folder, f"the guest {package}", environment=environment)


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


def foreign_apt(architecture, release):
    """The environment in which apt knows another architecture's or another release's packages, from lists of its own: the system's
    dpkg and apt stay as they are."""
    folder = FOLDER / "-".join(filter(None, ("apt", architecture, release)))
    (folder / "lists/partial").mkdir(parents=True, exist_ok=True)
    (folder / "cache/archives/partial").mkdir(parents=True, exist_ok=True)
    lines = ['APT::Sandbox::User "root";', f'Dir::State::Lists "{folder}/lists";', f'Dir::Cache "{folder}/cache";', 'Dir::State::status "/dev/null";']
    if architecture:
        lines += [f'APT::Architecture "{architecture}";', f'APT::Architectures {{ "{architecture}"; }};']
    if release:
        sources = folder / "sources.list"
        sources.write_text(f"deb [signed-by={debian_root.KEYRING}] {debian_root.mirror()} {release} main\n")
        # An old release's lists expire, and nobody renews them.
        lines += [f'Dir::Etc::SourceList "{sources}";', 'Dir::Etc::SourceParts "/dev/null";', 'Acquire::Check-Valid-Until "false";', 'Acquire::Languages "none";']
    configuration = folder / "apt.conf"
    configuration.write_text("\n".join(lines) + "\n")
    environment = {**os.environ, "APT_CONFIG": str(configuration)}
    if not list((folder / "lists").glob("*Packages*")):
        # Sources that have nothing for this architecture make it fail; what counts is whether the package is there then.
        subprocess.run(["apt-get", "update"], env=environment, capture_output=True, check=False)
    return environment
