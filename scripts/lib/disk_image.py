# SPDX-License-Identifier: MIT
"""Images of disks for the emulated machine: what is wrong with one, making one with a Debian on it, and one run at a time for each."""
import fcntl
import os
import pathlib
import uuid

from . import gpt, guest_root, project
from .project import Failure, Progress, run_quietly

MIB = 1 << 20
ROOT_LABEL = "root"  # of the partition that is the guest's root
SIZE, MOST_SIZE = 2048, 16 << 20  # MiB
BEFORE, AFTER = 1, 1  # MiB before and after the partition, for the two copies of the table
# Device nodes need root's rights to be made, and the guest's kernel makes its own.
UNPACK_AND_FORMAT = 'mkdir "$1/root" && tar -C "$1/root" -xpf "$2" --numeric-owner --exclude="./dev/*" && ' \
                    'mke2fs -q -F -t ext4 -L root -d "$1/root" -E "offset=$3" "$4" "$5k"'
# Runs a command, then removes a folder. When the script is stopped or killed, this shell waits for the command first: that would go on
# writing into a folder that another process removes.
AND_REMOVE = 'trap "exit 1" HUP INT TERM; trap \'rm -rf -- "$0"\' EXIT; "$@"; exit $?'


def resolve(path):
    """Where the image is or will be: a new one does not take the place of a link to it."""
    return pathlib.Path(path).resolve()


def check(path, needs_root, system=guest_root.SMALL):
    """Raises if this is no image that a machine could have as its disk now. needs_root: a partition must be the guest's root."""
    if not path.exists():
        project.raise_if_not_writable(path)
        guest_root.raise_if_it_cannot_be_made(system)
        return
    with lock(path) as file:
        if needs_root and (complaint := root_complaint(file)):
            raise Failure(f"--disk: {path} {complaint}; to have a disk made, name a file that is not there yet")


def open_to_write(path):
    if path.is_dir():
        raise Failure(f"--disk: {path} is a folder, expected the image of a disk")
    if not path.is_file():
        raise Failure(f"--disk: {path} is no ordinary file, expected the image of a disk")
    try:
        file = open(path, "r+b")
    except OSError as error:
        raise Failure(f"--disk: {path} cannot be written to: {error.strerror}") from None
    size = os.fstat(file.fileno()).st_size
    if size < MIB or size % gpt.SECTOR:
        file.close()
        raise Failure(f"--disk: {path} has {size} bytes: " +
                      ("a disk has at least 1 MiB" if size < MIB else f"a disk has a multiple of {gpt.SECTOR}"))
    return file


def root_complaint(file):
    """Why an image has no root for the guest, or None."""
    partitions = gpt.read(file)
    if partitions is None:
        return "has no GPT, and the guest's root is a partition in one"
    count = [partition.label for partition in partitions].count(ROOT_LABEL)
    if count != 1:
        found = ", ".join(repr(partition.label) for partition in partitions) or "none"
        return f"has {count or 'no'} partition{'s' if count > 1 else ''} with the label {ROOT_LABEL!r}, expected one (labels found: {found})"
    return None


def lock(path):
    """Returns the open image; until it is closed, no other run gets it."""
    file = open_to_write(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise Failure(f"--disk: {path} is in use by another run") from None
    return file


def create(path, size=SIZE, system=guest_root.SMALL):
    """Makes an image of this size (MiB): a GPT with one partition, which has a Debian. Nothing is at `path` until all of it is."""
    archive = guest_root.make(system)
    with project.scratch_folder("disk") as folder, project.scratch_folder("disk", path.parent) as beside:
        image = beside / "disk"
        root = gpt.Partition(gpt.LINUX_ROOT, BEFORE * MIB // gpt.SECTOR, (size - AFTER) * MIB // gpt.SECTOR - 1, ROOT_LABEL, str(uuid.uuid4()))
        with open(image, "wb") as file:
            file.truncate(size * MIB)
            gpt.write(file, size * MIB, [root], str(uuid.uuid4()))
        # fakeroot keeps owners and modes in mind that only root could set.
        as_if_root = [] if os.geteuid() == 0 else ["fakeroot"]
        command = ["sh", "-c", UNPACK_AND_FORMAT, "sh", folder, archive, root.offset, image, root.size // 1024]
        run_quietly(f"Writing {path.name}: a disk of {size} MiB with Debian", ["sh", "-c", AND_REMOVE, folder, *as_if_root, *command])
        with Progress("Writing it to the medium"), open(image, "rb") as file:
            os.fsync(file.fileno())
        image.chmod(0o666 & ~project.current_umask())
        move_to_free_place(image, path)


def move_to_free_place(image, path):
    try:
        os.link(image, path)
    except FileExistsError:
        raise Failure(f"--disk: {path} exists now: another run has made it; run this again") from None
    except OSError:  # a file system without links
        os.rename(image, path)
