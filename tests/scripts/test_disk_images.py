# SPDX-License-Identifier: MIT
"""Unit tests of what the scripts know of disks: partition tables, images, and how an emulator gets one."""
import io
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import tomllib
import unittest
import unittest.mock
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from lib import description, disk_image, disk_kernel, emulator, gpt, guest_root, project  # noqa: E402

MIB = 1 << 20
IDENTITY = "6d756c6c-696f-6e00-8000-000000000020"


def partition(label, first=2048, last=4095, number=1):
    return gpt.Partition(gpt.LINUX_ROOT, first, last, label, f"6d756c6c-696f-6e00-8000-{number:012}")


def disk(*partitions, size=4 * MIB):
    file = io.BytesIO(bytes(size))
    gpt.write(file, size, partitions, IDENTITY)
    return file


class GptTest(unittest.TestCase):
    def test_what_is_written_is_read(self):
        partitions = [partition("root"), partition("data ä", 4096, 6000, 2)]
        self.assertEqual(gpt.read(disk(*partitions)), partitions)

    def test_the_second_copy_counts_when_the_first_is_damaged(self):
        for damaged in (gpt.SECTOR, gpt.SECTOR + 20, 2 * gpt.SECTOR):  # signature, checksum, entries
            file = disk(partition("root"))
            file.getbuffer()[damaged] ^= 1
            self.assertEqual(gpt.read(file), [partition("root")], damaged)

    def test_without_a_whole_copy_there_is_no_table(self):
        file = disk(partition("root"))
        for place in (1, file.getbuffer().nbytes // gpt.SECTOR - 1):
            file.getbuffer()[place * gpt.SECTOR] ^= 1
        self.assertIsNone(gpt.read(file))
        self.assertIsNone(gpt.read(io.BytesIO()))
        self.assertIsNone(gpt.read(io.BytesIO(bytes(MIB))))

    def test_a_partition_past_the_end_of_the_disk_does_not_count(self):
        self.assertEqual(gpt.read(disk(partition("root"), partition("far", 4096, 1 << 40, 2))), [partition("root")])

    def test_a_hostile_header_is_no_table_and_raises_nothing(self):
        chance = random.Random(1)
        good = disk(partition("root")).getvalue()[:64 * 1024]
        for _ in range(2000):
            image = bytearray(good)
            for _ in range(chance.randint(1, 4)):
                image[gpt.SECTOR + chance.randrange(gpt.HEADER_SIZE)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
            image[gpt.SECTOR + 16:gpt.SECTOR + 20] = bytes(4)
            size = min(struct.unpack_from("<I", image, gpt.SECTOR + 12)[0], gpt.SECTOR)
            struct.pack_into("<I", image, gpt.SECTOR + 16, zlib.crc32(image[gpt.SECTOR:gpt.SECTOR + size]))
            gpt.read(io.BytesIO(image))

    @unittest.skipUnless(shutil.which("sfdisk"), "no sfdisk to compare with")
    def test_sfdisk_finds_no_mistake(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "disk")
            path.write_bytes(disk(partition("root")).getvalue())
            done = subprocess.run(["sfdisk", "--verify", path], capture_output=True, text=True)
            self.assertIn("No errors detected", done.stdout + done.stderr)


class DiskImageTest(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)

    def image(self, *partitions):
        path = self.folder / "disk.img"
        path.write_bytes(disk(*partitions).getvalue())
        return path

    def refused(self, path, message, needs_root=True):
        with self.assertRaisesRegex(project.Failure, message) as caught:
            disk_image.check(path, needs_root)
        self.assertNotIn("\n", str(caught.exception))

    def test_a_disk_needs_one_root_unless_a_description_says_what_is_used(self):
        disk_image.check(self.image(partition("root")), needs_root=True)
        self.refused(self.image(partition("data")), "has no partition with the label 'root', .*'data'")
        self.refused(self.image(), "has no partition .*labels found: none")
        self.refused(self.image(partition("root"), partition("root", 4096, 5000, 2)), "has 2 partitions")
        disk_image.check(self.image(partition("data")), needs_root=False)
        path = self.image()
        path.write_bytes(bytes(2 * MIB))
        self.refused(path, "has no GPT")
        disk_image.check(path, needs_root=False)

    def test_what_is_no_disk_is_refused(self):
        small, odd = self.folder / "small", self.folder / "odd"
        small.write_bytes(b"x")
        odd.write_bytes(bytes(MIB + 1))
        for needs_root in (True, False):
            self.refused(self.folder, "is a folder", needs_root)
            self.refused(pathlib.Path("/dev/null"), "no ordinary file", needs_root)
            self.refused(small, "has 1 bytes: a disk has at least 1 MiB", needs_root)
            self.refused(odd, "a multiple of 512", needs_root)
            self.refused(self.folder / "none/disk.img", "no folder", needs_root)
        with unittest.mock.patch("builtins.open", side_effect=PermissionError(13, "Permission denied")):
            self.refused(self.image(partition("root")), "cannot be written to: Permission denied")

    def test_one_run_at_a_time_has_it(self):
        path = self.image(partition("root"))
        with disk_image.lock(path):
            with self.assertRaisesRegex(project.Failure, "in use by another run"):
                disk_image.lock(path)
        disk_image.lock(path).close()

    def test_a_link_stays_and_its_target_is_made(self):
        link = self.folder / "link"
        link.symlink_to(self.folder / "target")
        self.assertEqual(disk_image.resolve(link), self.folder.resolve() / "target")

    def test_what_another_run_has_made_meanwhile_stays(self):
        made, other = self.folder / "made", self.image(partition("root"))
        made.write_bytes(b"new")
        with self.assertRaisesRegex(project.Failure, "another run has made it"):
            disk_image.move_to_free_place(made, other)
        self.assertEqual(disk_image.root_complaint(io.BytesIO(other.read_bytes())), None)

    @unittest.skipUnless(shutil.which("mke2fs") and os.geteuid() == 0, "needs root's rights and mke2fs")
    def test_a_new_image_has_what_was_in_the_archive_and_a_failed_one_leaves_nothing(self):
        (self.folder / "etc").mkdir()
        (self.folder / "etc/hostname").write_text("guest\n")
        archive, path, least = self.folder / "root.tar", self.folder / "new.img", guest_root.SMALL.least_size
        subprocess.run(["tar", "-C", self.folder, "-cf", archive, "./etc"], check=True)
        with unittest.mock.patch.object(guest_root, "make", lambda _: archive), unittest.mock.patch.object(project, "say"):
            disk_image.create(path, least)
            self.assertEqual(path.stat().st_size, least * MIB)
            self.assertLess(path.stat().st_blocks * 512, 100 * MIB)
            disk_image.check(path, needs_root=True)
            with open(path, "rb") as file:
                root, = gpt.read(file)
            shown = subprocess.run(["debugfs", "-R", "cat /etc/hostname", f"{path}?offset={root.offset}"], capture_output=True, text=True)
            self.assertEqual(shown.stdout, "guest\n", shown)
            before = sorted(os.listdir(self.folder))
            archive.write_bytes(b"no archive")
            with self.assertRaises(project.Failure):
                disk_image.create(self.folder / "second.img", least)
            self.assertEqual(sorted(os.listdir(self.folder)), before)


@unittest.skipUnless(shutil.which("mke2fs") and shutil.which("debugfs"), "needs mke2fs and debugfs")
class DiskKernelTest(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)

    def image(self, *names):
        """A disk whose root has these files in /boot; each holds its own name."""
        boot = self.folder / "tree/boot"
        boot.mkdir(parents=True)
        for name in names:
            (boot / name).write_text(name)
        root, path = partition("root", 2048, 2048 + 8191), self.folder / "disk.img"
        path.write_bytes(disk(root, size=8 * MIB).getvalue())
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-U", IDENTITY, "-d", self.folder / "tree", "-E", f"offset={root.offset}", path, "4096k"],
                       check=True, capture_output=True)
        return path

    def test_the_newest_kernel_that_has_an_initrd_is_taken(self):
        found = disk_kernel.Source(self.image("vmlinuz-6.9.0-1-amd64", "initrd.img-6.9.0-1-amd64", "vmlinuz-6.12.4-amd64", "initrd.img-6.12.4-amd64",
                                              "vmlinuz-7.0.0-amd64", "initrd.img-8.0.0-amd64"), "root")
        self.assertEqual((found.version, found.uuid), ("6.12.4-amd64", IDENTITY))
        self.assertEqual(found.copy_kernel(self.folder).read_text(), "vmlinuz-6.12.4-amd64")
        self.assertEqual(found.copy_initrd(self.folder).read_text(), "initrd.img-6.12.4-amd64")

    def test_a_disk_without_one_is_refused(self):
        with self.assertRaisesRegex(project.Failure, "no kernel with an initrd, expected .* --disk-system full"):
            disk_kernel.Source(self.image("vmlinuz-6.1.0", "config-6.1.0"), "root")

    def test_a_partition_without_a_file_system_is_refused(self):
        path = self.folder / "disk.img"
        path.write_bytes(disk(partition("root")).getvalue())
        with self.assertRaisesRegex(project.Failure, "'root' of .* has no ext2"):
            disk_kernel.Source(path, "root")


class GuestRootTest(unittest.TestCase):
    def test_a_user_without_ids_of_its_own_is_told_how_to_get_some(self):
        with unittest.mock.patch.object(os, "geteuid", lambda: 4_000_000), \
                unittest.mock.patch.object(guest_root.pwd, "getpwuid", lambda _: unittest.mock.Mock(pw_name="nobody-else", pw_uid=4_000_000)), \
                unittest.mock.patch.object(guest_root, "path", lambda _: pathlib.Path("/none")):
            with self.assertRaisesRegex(project.Failure, "usermod --add-subuids .* nobody-else"):
                guest_root.raise_if_it_cannot_be_made()


class DiskDescriptionTest(unittest.TestCase):
    def test_the_guest_has_the_disk(self):
        vm = tomllib.loads(description.default(256, 1, "", disk="gpt:root"))["vm"]["linux"]
        self.assertEqual(vm["disk"], [{"source": "gpt:root"}])
        self.assertEqual(description.files_named({"vm": {"linux": vm}}), ["initrd.img", "vmlinuz"])


class ControllerTest(unittest.TestCase):
    def test_qemu_gets_the_disk_on_the_controller(self):
        for name, device in {"": "nvme", "nvme": "nvme", "ahci": "ich9-ahci", "virtio": "virtio-blk-pci", "ide": "piix3-ide"}.items():
            options = emulator.Options(kind="qemu", disk=pathlib.Path("/a,b"), disk_controller=name)
            command = emulator.qemu_command("boot.iso", options, 3, pathlib.Path("/"))
            self.assertTrue(any(word.startswith(device) for word in command), command)
            self.assertIn("if=none,id=disk0,file=/a,,b,format=raw,cache=writeback", command)

    def test_bochs_has_the_disk_first_and_starts_from_the_cd(self):
        text = emulator.bochs_configuration("boot.iso", emulator.Options(disk=pathlib.Path("/d")), 1)
        self.assertRegex(text, r"ata0-master: type=disk, mode=flat, path=disk\n(.*\n)?ata1-master: type=cdrom, path=boot.iso")
        self.assertIn("boot: cdrom\n", text)
        with self.assertRaisesRegex(project.Failure, "IDE disks only"):
            emulator.bochs_configuration("boot.iso", emulator.Options(disk=pathlib.Path("/d"), disk_controller="nvme"), 1)

    def test_run_refuses_before_it_builds(self):
        with tempfile.TemporaryDirectory() as folder:
            whole, empty = pathlib.Path(folder, "whole.img"), pathlib.Path(folder, "empty.img")
            whole.write_bytes(disk(partition("root")).getvalue())
            empty.write_bytes(bytes(2 * MIB))
            new = pathlib.Path(folder, "new.img")
            wrong = {("--disk", folder): "is a folder", ("--disk", empty): "no GPT", ("--disk", f"{folder}/no/x"): "no folder",
                     ("--disk", whole, "--disk-size", "4096"): "leave out --disk-size", ("--disk", new, "--disk-size", "3"): "expected 512 to",
                     ("--disk", new, "--disk-system", "full", "--disk-size", "600"): "expected 1024 to",
                     ("--disk", new, "--disk-system", "full", "--initrd", whole): "its own kernel and initrd: leave out --initrd",
                     ("--disk", new, "--disk-system", "full", "--", "true"): "leave out the command",
                     ("--disk", empty, "--disk-system", "full", "--config", "x.toml"): "no GPT",
                     ("--disk-system", "full"): "without --disk",
                     ("--disk-size", "600"): "without --disk", ("--disk-controller", "ide"): "without --disk",
                     ("--disk", whole, "--disk-controller", "scsi"): "invalid choice",
                     ("--disk", whole, "--disk-controller", "ahci", "--emulator", "bochs"): "Bochs has IDE disks only, found ahci",
                     ("--disk", whole, "--native", "--disk-controller", "nvme"): "virtio only",
                     ("--disk", whole, "--native", "--emulator", "bochs"): "take QEMU", ("--disk", new, "--image-only", f"{folder}/x.iso"): "leave out --disk"}
            for arguments, message in wrong.items():
                done = subprocess.run([ROOT / "scripts/run", *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
                self.assertRegex(done.stderr, message)
                self.assertNotIn("Traceback", done.stderr)
                self.assertNotIn("Building", done.stderr)
                self.assertIn(done.returncode, (1, 2), done)
            self.assertEqual(sorted(os.listdir(folder)), ["empty.img", "whole.img"])
