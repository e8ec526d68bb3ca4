# SPDX-License-Identifier: MIT
"""What runs inside: Debian's cloud kernel and a small initramfs made of a static busybox."""
import lzma
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import zlib

from . import cpio, download
from .project import CACHE, SCRIPTS, Failure, run_quietly

BUSYBOX = pathlib.Path("/bin/busybox")
KERNEL_META_PACKAGE = "linux-image-cloud-amd64"
COMMAND_LINE = "console=ttyS0,115200 quiet panic=-1"
# What the guest needs to hear its power button. Debian's kernels have both as modules, others have them built in.
POWER_BUTTON_MODULES = ("kernel/drivers/acpi/button.ko", "kernel/drivers/input/evdev.ko")
# What it needs to use the device for random numbers, NICs, and disks with a file system.
VIRTIO_MODULES = ("kernel/drivers/virtio/virtio_ring.ko", "kernel/drivers/virtio/virtio.ko",
                  "kernel/drivers/virtio/virtio_pci_legacy_dev.ko", "kernel/drivers/virtio/virtio_pci_modern_dev.ko",
                  "kernel/drivers/virtio/virtio_pci.ko", "kernel/drivers/char/hw_random/virtio-rng.ko",
                  "kernel/net/core/failover.ko", "kernel/drivers/net/net_failover.ko", "kernel/drivers/net/virtio_net.ko",
                  "kernel/drivers/block/virtio_blk.ko", "kernel/lib/crc16.ko", "kernel/crypto/crc32c_generic.ko",
                  "kernel/fs/mbcache.ko", "kernel/fs/jbd2/jbd2.ko", "kernel/fs/ext4/ext4.ko")
MODULES = POWER_BUTTON_MODULES + VIRTIO_MODULES


def debian_kernel(visible=True):
    """Returns the path of Debian's newest cloud kernel, downloaded once through apt into .cache/kernel, with the
    modules named above beside it."""
    folder = CACHE / "kernel"
    cached = sorted(folder.glob("vmlinuz-*"))
    if cached and cached_modules(cached[-1]).is_dir():
        return cached[-1]
    for installed in sorted(pathlib.Path("/boot").glob("vmlinuz-*-cloud-amd64"), reverse=True):
        return installed
    try:
        package = kernel_package(visible)
        return download.file_of_package(package, "boot/vmlinuz-*", folder, f"the guest kernel {package}", visible, keep_modules)
    except Failure:
        if cached:  # by a version of this script that did not keep modules: all works but the power button and virtio
            return cached[-1]
        raise


def cached_modules(kernel):
    """The folder of this kernel's modules in the cache, another one for another list of modules; what is not in it is built in."""
    return CACHE / "kernel" / f"guest-modules-{zlib.crc32(' '.join(MODULES).encode()):08x}-{version_of(kernel)}"


def version_of(kernel):
    return kernel.name.removeprefix("vmlinuz-")


def keep_modules(tree):
    """Takes the modules named above out of an unpacked kernel package into the cache."""
    kernel = next(tree.glob("boot/vmlinuz-*"))
    wanted = cached_modules(kernel)
    with tempfile.TemporaryDirectory(dir=wanted.parent) as scratch:
        ready = pathlib.Path(scratch, "ready")
        ready.mkdir()
        folders = [folder for folder in tree.glob("**/modules/*") if folder.name == version_of(kernel)]
        for name, content in modules_in(folders):
            (ready / name).write_bytes(content)
        if not wanted.is_dir():
            os.replace(ready, wanted)


def modules_in(folders):
    """Yields name and content of the modules named above, uncompressed, from the first folder that has each."""
    for module in MODULES:
        name = module.rpartition("/")[2]
        for folder in folders:
            for path in (folder / module, folder / name):
                if path.is_file():
                    yield name, path.read_bytes()
                    break
                packed = path.with_name(path.name + ".xz")
                if packed.is_file():
                    yield name, lzma.decompress(packed.read_bytes())
                    break
            else:
                continue
            break


def modules_of(kernel):
    """Name and content of this kernel's modules named above; none if it is not known where they are, or not needed."""
    return list(modules_in([cached_modules(kernel), pathlib.Path("/lib/modules", version_of(kernel))]))


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


def initramfs(kernel=None, busybox=BUSYBOX):
    """Returns the initramfs as an uncompressed cpio archive: the emulated CPU copies faster than it decompresses.
    kernel: the one whose modules for the power button and virtio devices come along. Without them, Linux uses neither unless
    it has them built in. busybox: may be another architecture's."""
    if not BUSYBOX.exists():
        raise Failure("no /bin/busybox; install busybox-static")
    applets = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout.split()
    source = SCRIPTS / "lib/initramfs"
    archive = cpio.Archive()
    for name in ("dev", "proc", "sys", "tmp", "root", "etc", "bin", "sbin", "var", "mullion"):
        archive.directory(name)
    archive.character_device("dev/console", 5, 1)
    archive.file("bin/busybox", busybox.read_bytes(), 0o755)
    for applet in sorted(set(applets) - {"busybox", "resize"}):
        archive.symlink(f"bin/{applet}", "busybox")
    archive.symlink("sbin/init", "../bin/init")
    archive.file("init", (source / "init").read_bytes(), 0o755)
    for program in ("power-button", "load-drivers", "root-disk", "network", "resize"):
        archive.file(f"bin/{program}", (source / program).read_bytes(), 0o755)
    for name, content in modules_of(kernel) if kernel else ():
        archive.file(f"lib/modules/{version_of(kernel)}/{name}", content)
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
