"""What runs inside: Debian's cloud kernel and a small initramfs made of a static busybox."""
import pathlib
import re
import shutil
import subprocess

from . import cpio, download
from .project import CACHE, SCRIPTS, Failure, run_quietly

BUSYBOX = pathlib.Path("/bin/busybox")
KERNEL_META_PACKAGE = "linux-image-cloud-amd64"
COMMAND_LINE = "console=ttyS0,115200 quiet panic=-1"


def debian_kernel(visible=True):
    """Returns the path of Debian's newest cloud kernel, downloaded once through apt into .cache/kernel."""
    folder = CACHE / "kernel"
    cached = sorted(folder.glob("vmlinuz-*"))
    if cached:
        return cached[-1]
    for installed in sorted(pathlib.Path("/boot").glob("vmlinuz-*-cloud-amd64"), reverse=True):
        return installed
    package = kernel_package(visible)
    return download.file_of_package(package, "boot/vmlinuz-*", folder, f"the guest kernel {package}", visible)


def kernel_package(visible):
    """The package that the meta package stands for; Ubuntu names it differently."""
    for meta in (KERNEL_META_PACKAGE, "linux-image-virtual"):
        for attempt in ("as it is", "after an update"):
            listing = subprocess.run(["apt-cache", "depends", "--important", meta], capture_output=True, text=True).stdout
            found = re.search(r"Depends: (linux-image-\d\S*)", listing)
            if found:
                return found.group(1)
            if attempt == "as it is" and not pathlib.Path("/var/cache/apt/pkgcache.bin").exists():
                prefix = [] if shutil.which("sudo") is None else ["sudo"]
                run_quietly("Reading the package lists", [*prefix, "apt-get", "update"], visible)
    raise Failure("apt knows no kernel to use as a guest; name one with --kernel FILE (and its --initrd)")


def initramfs():
    """Returns the initramfs as an uncompressed cpio archive: the emulated CPU copies faster than it decompresses."""
    if not BUSYBOX.exists():
        raise Failure("no /bin/busybox; install busybox-static")
    applets = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout.split()
    source = SCRIPTS / "lib/initramfs"
    archive = cpio.Archive()
    for name in ("dev", "proc", "sys", "tmp", "root", "etc", "bin", "sbin", "var", "mullion"):
        archive.directory(name)
    archive.character_device("dev/console", 5, 1)
    archive.file("bin/busybox", BUSYBOX.read_bytes(), 0o755)
    for applet in sorted(set(applets) - {"busybox"}):
        archive.symlink(f"bin/{applet}", "busybox")
    archive.symlink("sbin/init", "../bin/init")
    archive.file("init", (source / "init").read_bytes(), 0o755)
    archive.file("etc/profile", (source / "profile").read_bytes())
    archive.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    archive.file("etc/group", b"root:x:0:\n")
    return archive.finish()


def command_archive(script, token):
    """The second archive behind the initramfs that makes /init run one command and power off."""
    archive = cpio.Archive()
    archive.file("mullion/command", script.encode() + b"\n", 0o755)
    archive.file("mullion/token", token.encode() + b"\n")
    return archive.finish()


def terminal_archive(columns, rows):
    archive = cpio.Archive()
    archive.file("mullion/terminal", f"rows {rows} columns {columns}\n".encode())
    return archive.finish()
