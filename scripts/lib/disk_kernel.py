# SPDX-License-Identifier: MIT
"""The kernel and the initrd that the system on a disk has installed in its own /boot, read out of the image without mounting it."""
import re
import subprocess
import uuid

from . import gpt
from .project import Failure

# Of the superblock of ext2 to ext4, which begins 1024 bytes into the partition. [linux] Documentation/filesystems/ext4/super.rst
SUPERBLOCK, MAGIC_AT, MAGIC, UUID_AT, UUID_BYTES = 1024, 0x38, b"\x53\xef", 0x68, 16


class Source:
    """The file system of the partition with this label."""

    def __init__(self, image, label):
        self._image = image
        with open(image, "rb") as file:
            part = next(part for part in gpt.read(file) if part.label == label)
            file.seek(part.offset + SUPERBLOCK)
            block = file.read(SUPERBLOCK)
        if block[MAGIC_AT:MAGIC_AT + len(MAGIC)] != MAGIC:
            raise Failure(f"--disk: partition {label!r} of {image} has no ext2, ext3 or ext4, which its kernel could be read from")
        self._offset = part.offset
        self.uuid = str(uuid.UUID(bytes=block[UUID_AT:UUID_AT + UUID_BYTES]))
        self.version = self._newest_kernel()

    def _newest_kernel(self):
        names = set(self._debugfs("ls -p /boot").split("/"))
        versions = [name.removeprefix("vmlinuz-") for name in names if name.startswith("vmlinuz-") and name.replace("vmlinuz", "initrd.img", 1) in names]
        if not versions:
            raise Failure(f"--disk: the /boot on {self._image} has no kernel with an initrd, expected files vmlinuz-VERSION and initrd.img-VERSION; "
                          "a new disk with --disk-system full has them")
        return max(versions, key=numbers_and_words)

    def copy_kernel(self, folder):
        return self._copy(f"vmlinuz-{self.version}", folder / "disk-vmlinuz")

    def copy_initrd(self, folder):
        return self._copy(f"initrd.img-{self.version}", folder / "disk-initrd.img")

    def _copy(self, name, target):
        self._debugfs(f"dump /boot/{name} {target}")
        if not target.exists() or not target.stat().st_size:
            raise Failure(f"--disk: /boot/{name} cannot be read from {self._image}; is its file system sound?")
        return target

    def _debugfs(self, request):
        """Runs one request of debugfs, which reads only and tells of failures in words alone."""
        done = subprocess.run(["debugfs", "-R", request, f"{self._image}?offset={self._offset}"], capture_output=True, text=True, errors="replace",
                              stdin=subprocess.DEVNULL)
        return done.stdout


def numbers_and_words(version):
    """For comparisons: 6.12 is newer than 6.9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|\D+", version)]
