# SPDX-License-Identifier: MIT
"""Disks of guests: a virtio-blk device whose queues the storage service serves in ring 3."""
import hashlib
import random
import re

from framework import PROMPT, boot, boot_linux, check_power_off, description, guest_kernel, linux_files, system_test, usual_options
from test_monitor import MONITOR, SWITCH, ask, row
from test_vms import expect_anywhere, open_monitor

SECONDS = 300


def disk(source, name="linux", **keys):
    values = {"source": f'"{source}"', **keys}
    return f"[[vm.{name}.disk]]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())


def output_of(console, seconds=SECONDS):
    found = console.expect(r"<mullion-command test>\n((?:.|\n)*)<mullion-status test (\d+)>", seconds)
    assert found.group(2) == b"0", found.group(0).decode(errors="replace")
    return found.group(1).decode().split("\n")[:-1]


@system_test(also=("amd-v/debug", "amd-v/debian-13"))
def a_disk_keeps_what_is_written():
    """Raw and with a file system; sizes from a sector to a megabyte, past the guest's cache; both vCPUs have a queue."""
    command = r"""set -e
cat /sys/block/vda/size /sys/block/vda/serial /sys/block/vda/ro; echo
ls -d /sys/block/vda/mq/* | wc -l
dd if=/dev/urandom of=/tmp/data bs=64k count=8 2>/dev/null
for size in 512 4k 64k 1M; do
    dd if=/tmp/data of=/dev/vda bs=$size seek=1 oflag=direct 2>/dev/null
    echo 3 >/proc/sys/vm/drop_caches
    dd if=/dev/vda bs=$size skip=1 iflag=direct 2>/dev/null | head -c 524288 | cmp - /tmp/data && echo "same $size"
done
mke2fs -q /dev/vda >/dev/null
mkdir /tmp/mnt; mount -t ext4 /dev/vda /tmp/mnt
for i in 1 2; do cp /tmp/data /tmp/mnt/$i & done; wait; sync
umount /tmp/mnt; echo 3 >/proc/sys/vm/drop_caches; mount -t ext4 /dev/vda /tmp/mnt
for i in 1 2; do cmp /tmp/mnt/$i /tmp/data && echo "same file"; done
umount /tmp/mnt
blkdiscard /dev/vda
dd if=/dev/vda bs=1M iflag=direct 2>/dev/null | tr -d '\0' | wc -c
dd if=/dev/vda bs=512 skip=8192 count=1 iflag=direct 2>/dev/null | wc -c
dmesg | grep -v 'module verification failed' | grep -c -i -e 'i/o error' -e 'virtio.*\(fail\|needs reset\)' || true"""
    # Not on the first CPU, whose guests QEMU loses now and then (docs/CAVEATS.md).
    keys = 'cpus = "1-2"\n' + disk("ram:4M", serial='"scratch-1"')
    with boot_linux(command=command, vcpus=2, cpus=3, keys=keys) as console:
        assert output_of(console) == ["8192", "scratch-10", "", "2", *[f"same {size}" for size in ("512", "4k", "64k", "1M")],
                                      *["same file"] * 2, "0", "0", "0"]
        check_power_off(console)


@system_test()
def a_boot_module_is_a_disk():
    """Two VMs have a copy each; what the one writes, the other does not see. A read-only disk takes no writes."""
    content = random.Random(1).randbytes(3 << 20)
    command = r"""md5sum </dev/vda; md5sum </dev/vdb
dd if=/dev/zero of=/dev/vda bs=64k count=1 conv=fsync 2>/dev/null; echo "wrote $?"
dd if=/dev/zero of=/dev/vdb bs=64k count=1 conv=fsync 2>/dev/null; echo "wrote $?"
md5sum </dev/vdb; cat /sys/block/vdb/ro"""
    keys = disk("module:data.img") + disk("module:data.img", readonly="true")
    with boot_linux(command=command, keys=keys, files={"data.img": content}) as console:
        digest = hashlib.md5(content).hexdigest() + "  -"
        assert output_of(console) == [digest, digest, "wrote 0", "wrote 1", digest, "1"]
        check_power_off(console)


def writes_and_compares_while_the_service_dies(deaths, keys, **options):
    """A guest fills 8 MiB of its disk in pieces of 256 KiB, again and again, and compares them; during that, the service is killed so often."""
    work = (r"i=0; while [ ! -e /tmp/end ]; do i=$((i+1)); dd if=/dev/urandom of=/tmp/d bs=4k count=64 2>/dev/null; "
            r"dd if=/tmp/d of=/dev/vda bs=4k seek=$((i%32*64)) oflag=direct 2>/dev/null || echo bad write; "
            r"dd if=/dev/vda bs=16k skip=$((i%32*16)) count=16 iflag=direct 2>/dev/null | cmp - /tmp/d || echo bad read; done; echo rounds $i")
    with boot_linux(keys=keys, **options) as console:
        console.expect(PROMPT, SECONDS)
        console.send(f"({work}) >/tmp/out 2>&1 &\n")
        console.expect(PROMPT, SECONDS)
        open_monitor(console)
        for number in range(2, deaths + 2):
            console.send("service kill storage\r")
            console.expect(f"service storage: instance {number} starts", 60)
        console.expect("service storage: disk 0: ", 60)  # its line would tear the echo apart
        assert row(ask(console, "service list"), "storage")[1:4] == ["runs", str(deaths + 1), "0"]
        console.send(SWITCH)
        console.send("touch /tmp/end; wait; cat /tmp/out; dmesg | grep -c -i 'i/o error'\n")
        rounds = int(console.expect(r"rounds (\d+)\r?\n0\r?\n", SECONDS).group(1))
        assert rounds > 0 and b"\nbad " not in console.seen
        console.expect(PROMPT, SECONDS)
        console.send("poweroff\n")
        check_power_off(console)


@system_test(also=("amd-v/debug",), limit=600)
def a_guest_does_not_notice_the_death_of_the_service():
    writes_and_compares_while_the_service_dies(50, disk("ram:16M"))


@system_test()
def a_guest_does_not_notice_it_where_services_have_page_tables_without_mullion():
    writes_and_compares_while_the_service_dies(10, disk("ram:16M"), append="service-page-tables=on")


@system_test()
def a_vm_with_a_bad_disk_is_refused_and_others_start():
    ticker = description.default(32, 1, "", kernel="ticker.elf", initrd=None, name="good", restart="never")
    bad = "".join(description.default(32, 1, "", kernel="ticker.elf", initrd=None, name=name, restart="never") + disk(source, name)
                  for name, source in (("missing", "module:no.img"), ("huge", "ram:2G")))
    with boot({"vms.toml": (bad + ticker).encode(), "ticker.elf": guest_kernel("ticker")}) as console:
        expect_anywhere(console, r'vm missing: vms.toml:\d+: source = "module:no.img": expected the name of a boot module, found only: .*ticker.elf')
        expect_anywhere(console, r"vm huge: vms.toml:\d+: source: .* found 2097152 KiB")
        expect_anywhere(console, r"ticker: \d+ ms")


@system_test()
def a_disk_keeps_to_its_limit_and_another_does_not_wait():
    """100 reads one after the other at 50 a second need two seconds, less a burst of five; the monitor shows them."""
    with boot_linux(keys='cpus = "1"\n' + disk("ram:8M", iops=50) + disk("ram:8M"), cpus=2) as console:
        console.expect(PROMPT, SECONDS)
        read = "dd if=/dev/{} of=/dev/null bs=4k count=100 iflag=direct 2>/dev/null"
        console.send("t() { cut -d' ' -f1 /proc/uptime; }; a=$(t); " + read.format("vda") + "; b=$(t); " + read.format("vdb") + "; echo at $a $b $(t)\n")
        start, limited, quick = (float(time) for time in console.expect(r"at ([\d.]+) ([\d.]+) ([\d.]+)\r?\n", SECONDS).groups())
        assert 1.5 < limited - start < 6 and quick - limited < (limited - start) / 2, (start, limited, quick)
        console.expect(PROMPT, SECONDS)
        open_monitor(console)
        held, other = (ask(console, f"disk show linux {number}") for number in range(2))
        assert held.startswith("linux disk 0: memory, 8192 KiB\n  at most 50 requests a second\n"), held
        assert "no limit of rate" in other and ask(console, "disk show LINUX").count("KiB\n") >= 4
        for text in (held, other):
            reads = row(text, "reads")
            assert int(reads[1]) >= 100 and int(reads[2]) >= 400 and row(text, "writes")[1:] == ["0", "0"], text
            assert "errors 0, under way 0, at most" in text and re.search(r"^  latency .*\n(  (below|from) \d+ us .*\n?)+", text, re.M), text
        assert ask(console, "disk show linux 2").endswith("found 2")
        console.send(SWITCH)
        console.send("poweroff\n")
        check_power_off(console)


@system_test()
def a_reboot_finds_the_disk_anew():
    """The service lets go of a VM's memory when the VM ends, and serves the next one."""
    with boot_linux(keys=disk("ram:8M"), restart="on-reboot") as console:
        for _ in range(2):
            console.expect(PROMPT, SECONDS)
            console.send("echo begin; head -c 8 /dev/vda | tr '\\0' .; echo; echo written >/dev/vda; sync; head -c 8 /dev/vda\n")
            console.expect(r"begin\r?\n\.{8}\r?\nwritten\r?\n", SECONDS)
            console.send("reboot\n")
            console.expect("vm linux: started", SECONDS)
        console.expect(PROMPT, SECONDS)
        console.send("poweroff\n")
        check_power_off(console)
        assert re.search(rb"service storage: instance 2 starts", console.seen) is None
