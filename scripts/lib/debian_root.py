# SPDX-License-Identifier: MIT
"""Other releases of Debian, for their GRUB and emulators: a root folder for each, made once by mmdebstrap.

What is built stays as it is; inside a root only boot images are made and emulators started. The packages come from the mirror
that this computer's own apt uses. A folder needs root's rights, a Debian and its package lists.
"""
import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile

from . import packages
from .project import CACHE, ROOT, Failure, run_quietly

# The releases by the names that apt knows.
RELEASES = {"trixie": "Debian 13", "testing": "Debian testing"}
PACKAGES = ["ca-certificates", "python3", *packages.GROUPS["image"], *packages.GROUPS["bochs"], *packages.GROUPS["qemu"]]
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
ANY_MIRROR = "http://deb.debian.org/debian"
FOLDER = pathlib.Path(os.environ.get("MULLION_ROOTS", CACHE / "roots"))
MOUNTED = ("proc", "sys", "dev")
# Runs in a mount namespace of its own: what is mounted here goes away with the command.
ENTER = 'root=$1 project=$2; shift 2; for f in proc sys dev; do mount --rbind "/$f" "$root/$f" || exit; done; ' \
        'mkdir -p "$root$project" && mount --bind "$project" "$root$project" && exec chroot "$root" sh -c \'cd "$0" && exec "$@"\' "$project" "$@"'


class Unavailable(Exception):
    """This computer cannot have such a root; the text says why."""


def path(release):
    """A change of the packages makes another root."""
    return FOLDER / f"{release}-{hashlib.sha256(' '.join(PACKAGES).encode()).hexdigest()[:8]}"


def os_release():
    lines = pathlib.Path("/etc/os-release").read_text().splitlines()
    return {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines)}


def in_namespace():
    """Returns how a command begins whose mounts go away with it.
    In a chroot, / need not be a mount point, and then it cannot be made private. A mount tells whether it is private already: what
    leaked out of a root would be deleted together with the root."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0:
        return ["unshare", "--mount"]
    as_it_is = ["unshare", "--mount", "--propagation", "unchanged"]
    with tempfile.TemporaryDirectory(prefix="mullion-mount-") as folder:
        tried = subprocess.run([*as_it_is, "mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True)
        if os.path.ismount(folder):
            subprocess.run(["umount", folder], check=True)
            raise Unavailable("this computer shares mounts between namespaces")
    if tried.returncode != 0:
        raise Unavailable("this computer allows no mount namespaces")
    return as_it_is


def raise_if_unavailable(release, is_entered=True):
    if os.geteuid() != 0:
        raise Unavailable(f"only root can make a folder with {RELEASES[release]} and change into it")
    in_namespace()
    system = os_release()
    if system.get("ID") != "debian":
        raise Unavailable(f"this computer's apt has no mirror of Debian ({system.get('PRETTY_NAME', 'not a Debian')})")
    if is_entered and system.get("VERSION_CODENAME") == release:
        raise Unavailable(f"this computer runs {RELEASES[release]} itself")


def mirror():
    """Returns the address of the Debian mirror that this computer's apt uses; on another distribution, of the one for everybody."""
    if os_release().get("ID") != "debian":
        return ANY_MIRROR
    codename = os_release().get("VERSION_CODENAME", "")
    template = "$(REPO_URI)|$(CODENAME)|$(LABEL)"
    for attempt in ("as it is", "after an update"):
        lines = subprocess.run(["apt-get", "indextargets", "--format", template], capture_output=True, text=True).stdout.splitlines()
        found = [uri for uri, name, label in (line.split("|") for line in lines) if (name, label) == (codename, "Debian")]
        if found:
            return found[0]
        if attempt == "as it is":
            run_quietly("Reading the package lists", [*packages.as_root(), "apt-get", "update"])
    raise Failure(f"apt-get indextargets names no mirror of Debian {codename}")


def apt_options():
    """This computer's settings for downloads, proxies among them. The roots need no newer lists than there are: on a computer whose
    clock is ahead of its mirror, testing's would count as expired."""
    dump = subprocess.run(["apt-config", "dump", "--format", '%F "%v";%n'], capture_output=True, text=True, check=True).stdout
    wanted = ("Acquire::http", "Acquire::https", "Acquire::Retries", "Acquire::Check-")
    return [line for line in dump.splitlines() if line.startswith(wanted) and "::" in line] + ['Acquire::Check-Valid-Until "false";']


@contextlib.contextmanager
def locked(what):
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open(FOLDER / f"lock-{what}", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def bootstrap(release, wanted, target, what, options=()):
    """Has mmdebstrap unpack and configure these packages and what they need in a folder, or in what the options say."""
    if not shutil.which("mmdebstrap"):
        packages.install_by_apt(["mmdebstrap"], visible=True)
    # In a mount namespace of its own, where there can be one: if it is stopped, what it has mounted in the folder must be gone before that is removed.
    # Without root's rights, mmdebstrap makes namespaces itself.
    namespace = []
    if os.geteuid() == 0:
        with contextlib.suppress(Unavailable):
            namespace = in_namespace()
    command = [*namespace, "mmdebstrap", "--variant=apt", "--include=" + ",".join(wanted), *(f"--aptopt={option}" for option in apt_options()), *options,
               release, target, f"deb [signed-by={KEYRING}] {mirror()} {release} main"]
    run_quietly(f"Making {what}", command)


def make(release):
    """Makes the root unless it is there, and returns its path."""
    raise_if_unavailable(release)
    root = path(release)
    with locked(release):
        if not root.exists():
            for old in FOLDER.glob(f"{release}-*"):
                shutil.rmtree(old)
            with tempfile.TemporaryDirectory(prefix="making-", dir=FOLDER) as scratch:
                partial = pathlib.Path(scratch, "root")
                bootstrap(release, PACKAGES, partial, f"a folder with {RELEASES[release]}")
                for name in MOUNTED:
                    (partial / name).mkdir(exist_ok=True)
                partial.rename(root)
    return root


def command_in(release, command):
    """Returns the command that runs `command` in the root, in the project's folder, which has the same path there."""
    root = path(release)
    if not root.exists():
        raise Unavailable(f"there is no folder with {RELEASES[release]}")
    return [*in_namespace(), "sh", "-c", ENTER, "sh", str(root), str(ROOT), *command]
