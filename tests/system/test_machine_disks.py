# SPDX-License-Identifier: MIT
"""Disks of the machine: partitions of NVMe and IDE disks, driven by the storage service in ring 3, as disks of guests."""
import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
import random
import re
import tempfile

from framework import (PROMPT, boot, boot_linux, check_power_off, description, guest, guest_kernel, kind_of_emulator,
                       linux_command_line, linux_files, system_test, usual_options)
from lib import gpt
from test_disks import SECONDS, disk, output_of, writes_and_compares_while_the_service_dies
from test_monitor import ask
from test_vms import expect_anywhere, open_monitor

SIZE = 32 << 20
SECTORS_OF_PART = 8 << 11
FIRST = 2048
GUIDS = [f"0fc63daf-8483-4772-8e79-3d69d8477d{number:02x}" for number in range(8)]


@dataclasses.dataclass
class Image:
    path: pathlib.Path
    parts: list

    def bytes_of(self, label):
        part = next(part for part in self.parts if part.label == label)
        with open(self.path, "rb") as file:
            file.seek(part.offset)
            return file.read(part.size)


@contextlib.contextmanager
def disk_image(*labels):
    """A disk with partitions of 8 MiB that hold random bytes, which differ from partition to partition."""
    with tempfile.TemporaryDirectory(prefix="mullion-disk-") as folder:
        path = pathlib.Path(folder) / "disk.img"
        parts = [gpt.Partition(gpt.LINUX_ROOT, FIRST + i * SECTORS_OF_PART, FIRST + (i + 1) * SECTORS_OF_PART - 1, label, GUIDS[i + 1])
                 for i, label in enumerate(labels)]
        with open(path, "wb+") as file:
            file.truncate(SIZE)
            gpt.write(file, SIZE, parts, GUIDS[0])
            for i, part in enumerate(parts):
                file.seek(part.offset)
                file.write(random.Random(i).randbytes(part.size))
        yield Image(path, parts)


def each_controller(test):
    """Runs a test on every kind of controller that this platform's emulator has."""
    @functools.wraps(test)
    def run():
        for controller in ("nvme", "ahci", "virtio", "ide") if kind_of_emulator() == "qemu" else ("ide",):
            test(controller)
    return run


def machine_disk(image, **options):
    """Options for boot(): one CPU more than VMs use, because QEMU loses guests on the first now and then (docs/CAVEATS.md)."""
    return {"disk": image.path, "cpus": 3, **options}


@system_test(also=("amd-v/debug", "amd-v/debian-13"))
@each_controller
def a_partition_of_the_machine_is_a_disk(controller):
    """What the guest writes is on the medium, where the partition lies and nowhere else; what was there is read."""
    with disk_image("first", "web root", "last") as image:
        before = {label: image.bytes_of(label) for label in ("first", "web root", "last")}
        command = r"""set -e
cat /sys/block/vda/size /sys/block/vda/serial; echo
md5sum </dev/vda
dd if=/dev/urandom of=/tmp/data bs=64k count=8 2>/dev/null
for size in 512 4k 64k 512k; do
    dd if=/tmp/data of=/dev/vda bs=$size oflag=direct 2>/dev/null
    echo 3 >/proc/sys/vm/drop_caches
    dd if=/dev/vda bs=$size iflag=direct 2>/dev/null | head -c 524288 | cmp - /tmp/data && echo "same $size"
done
mke2fs -q /dev/vda >/dev/null
mkdir /tmp/mnt; mount -t ext4 /dev/vda /tmp/mnt
for i in 1 2 3 4; do cp /tmp/data /tmp/mnt/$i & done; wait; sync
umount /tmp/mnt; echo 3 >/proc/sys/vm/drop_caches; mount -t ext4 /dev/vda /tmp/mnt
for i in 1 2 3 4; do cmp /tmp/mnt/$i /tmp/data && echo "same file"; done
umount /tmp/mnt
head -c 4096 /dev/zero | tr '\0' X | dd of=/dev/vda bs=4k seek=2047 oflag=direct 2>/dev/null
dd if=/dev/zero of=/dev/vda bs=4k seek=2048 count=1 oflag=direct 2>/dev/null && echo "beyond the end"
sync
dmesg | grep -v 'module verification failed' | grep -c -i -e 'i/o error' -e 'virtio.*\(fail\|needs reset\)' || true"""
        keys = 'cpus = "1-2"\n' + disk("gpt:web root", serial='"web"')
        with boot_linux(command=command, vcpus=2, keys=keys, **machine_disk(image, disk_controller=controller)) as console:
            found = output_of(console)
            assert found == ["16384", "web", f"{hashlib.md5(before['web root']).hexdigest()}  -",
                             *[f"same {size}" for size in ("512", "4k", "64k", "512k")], *["same file"] * 4, "0"], found
            check_power_off(console)
        after = image.bytes_of("web root")
        assert after[-4096:] == b"X" * 4096 and after[1080:1082] == b"\x53\xef", "what was written is not on the medium"
        assert image.bytes_of("first") == before["first"] and image.bytes_of("last") == before["last"]


@system_test(also=("amd-v/debug",), limit=600)
def a_guest_does_not_notice_the_death_of_the_driver():
    with disk_image("root") as image:
        writes_and_compares_while_the_service_dies(30, 'cpus = "1"\n' + disk("gpt:root"), **machine_disk(image, cpus=2))


@system_test()
def two_vms_have_a_partition_each():
    """Neither reaches a byte of the other's; a VM that names a partition which is in use is refused."""
    with disk_image("one", "two", "three") as image:
        third = image.bytes_of("three")
        modules, text = linux_files(), ""
        for name, label in (("a", "one"), ("b", "two"), ("c", "one")):
            command = rf"""tr '\0' {name} </dev/zero | dd of=/dev/vda bs=64k iflag=fullblock 2>/dev/null; sync
echo 3 >/proc/sys/vm/drop_caches; echo left $(tr -d {name} </dev/vda | wc -c)"""
            modules[f"{name}.img"] = modules["initrd.img"] + guest.command_archive(command, "test")
            text += description.default(160, 1, linux_command_line(), initrd=f"{name}.img", name=name, restart="never")
            text += 'cpus = "1"\n' + disk(f"gpt:{label}", name)
        modules["vms.toml"] = text.encode()
        with boot(modules, usual_options(), memory=768, disk=image.path, cpus=2) as console:
            expect_anywhere(console, r"vm c: vms.toml:\d+: disk: another disk of a VM is on the same part of the machine's disk")
            end = console.until_end(SECONDS)
            assert end.orderly, end.reason
        assert image.bytes_of("one") == b"a" * (8 << 20) and image.bytes_of("two") == b"b" * (8 << 20)
        assert image.bytes_of("three") == third


@system_test()
def a_vm_names_a_disk_that_is_not_there():
    ticker = description.default(32, 1, "", kernel="ticker.elf", initrd=None, name="good", restart="never")
    bad = "".join(description.default(32, 1, "", kernel="ticker.elf", initrd=None, name=name, restart="never") + disk(source, name)
                  for name, source in (("label", "gpt:nowhere"), ("serial", "disk:0815")))
    with disk_image("efi", "web root") as image, \
            boot({"vms.toml": (bad + ticker).encode(), "ticker.elf": guest_kernel("ticker")}, disk=image.path) as console:
        expect_anywhere(console, r'vm label: vms.toml:\d+: no partition of the machine has the label or GUID "nowhere"; partitions: efi, web root')
        expect_anywhere(console, r'vm serial: vms.toml:\d+: no disk of the machine has the serial number "0815"; disks: ')
        expect_anywhere(console, r"ticker: \d+ ms")
        open_monitor(console)
        listed = ask(console, "disk list")
        assert re.search(r"32 MiB .*512-byte sectors", listed) and re.search(GUIDS[2] + "  web root", listed), listed


@system_test(backend="qemu", why="Bochs cannot inject errors")
def a_bad_sector_is_an_error_of_the_guest_and_nothing_else():
    """Reads of one sector and writes of another fail on the machine's disk; all else of the disk goes on, and nothing dies."""
    read_at, write_at = 4096, 8192  # sectors of the partition
    with disk_image("root") as image:
        first = image.parts[0].first
        faults = [{"event": "none", "iotype": kind, "errno": 5, "sector": first + sector} for kind, sector in (("read", read_at), ("write", write_at))]
        faulty = json.dumps({"driver": "blkdebug", "node-name": "faulty", "inject-error": faults,
                             "image": {"driver": "file", "filename": str(image.path)}})
        command = rf"""for at in {read_at // 8 - 1} {read_at // 8} {read_at // 8 + 1}; do
    dd if=/dev/vda of=/dev/null bs=4k skip=$at count=1 iflag=direct 2>/dev/null; echo "read $?"
done
for at in {write_at // 8 - 1} {write_at // 8} {write_at // 8 + 1}; do
    dd if=/dev/zero of=/dev/vda bs=4k seek=$at count=1 oflag=direct conv=fsync 2>/dev/null; echo "write $?"
done
dd if=/dev/vda of=/dev/null bs=64k count=16 iflag=direct 2>/dev/null; echo "read $?"
dmesg | grep -q 'I/O error, dev vda' && echo told"""
        with boot_linux(command=command, keys='cpus = "1"\n' + disk("gpt:root"), cpus=2,
                        extra=("-blockdev", faulty, "-device", "nvme,drive=faulty,serial=faulty")) as console:
            lines = [line for line in output_of(console) if not line.startswith("[")]
            assert lines == ["read 0", "read 1", "read 0", "write 0", "write 1", "write 0", "read 0", "told"], lines
            check_power_off(console)
            assert re.search(rb"service storage: instance 2 starts", console.seen) is None


@system_test()
def what_a_flush_has_acknowledged_outlives_a_power_cut():
    """The machine is switched off at five moments under a guest that writes and flushes; all that it was told is kept is in the image."""
    writer = ("i=0; while true; do i=$((i+1)); printf 'record %08d' $i | dd of=/dev/vda bs=512 seek=$i conv=sync,fsync 2>/dev/null"
              " && echo kept $i || echo lost $i; done")
    moments = random.Random(7)
    for _ in range(5 if kind_of_emulator() == "qemu" else 2):
        with disk_image("root") as image:
            least = moments.randrange(1, 40)
            with boot_linux(keys='cpus = "1"\n' + disk("gpt:root"), **machine_disk(image, cpus=2)) as console:
                console.expect(PROMPT, SECONDS)
                console.send(f"{writer}\n")
                console.expect(rf"kept {least}\r?\n", SECONDS)
            kept = max(int(number) for number in re.findall(rb"kept (\d+)\r?\n", console.seen))
            assert kept >= least and b"\nlost " not in console.seen
            medium = image.bytes_of("root")
            for number in range(1, kept + 1):
                assert medium[number * 512:number * 512 + 15] == b"record %08d" % number, number
