# SPDX-License-Identifier: MIT
"""What an administrator can get wrong: each case must end with a message that says what is wrong, never in silence."""
from framework import boot, description, guest, guest_kernel, system_test, verdict


def expect_message(pattern, modules=None, status_known=True, remedy=None, **options):
    """Boots and waits for a line of Mullion's that matches; then the machine must end by itself, with a status that is not 0."""
    with boot(modules or {}, **options) as console:
        console.expect(r"(?:mullion|error): [^\r\n]*(?:" + pattern + ")", 120)
        if remedy:
            console.expect(r"mullion: what to do: [^\r\n]*" + remedy, 30)
        end = console.until_end(120)
        assert end.orderly, f"the machine did not switch itself off: {end.reason}"
        if status_known:
            status = verdict.mullion_status(bytes(console.seen))
            assert status not in (None, 0), f"status {status}"


def usual_modules(memory=256, **replaced):
    """A description and its files, in which nothing is wrong; the kernel is a small one, which GRUB has loaded soon."""
    modules = {"vms.toml": description.default(memory, 1, "").encode(), "vmlinuz": guest_kernel("ticker"), "initrd.img": b"initrd"}
    modules.update({name.replace("_", "."): content for name, content in replaced.items()})
    return modules


@system_test()
def no_modules():
    expect_message("vms.toml|VM description")


@system_test()
def kernel_is_garbage():
    expect_message("vmlinuz", usual_modules(vmlinuz=b"\xa5" * 100_000))


@system_test()
def kernel_is_truncated():
    expect_message("vmlinuz", usual_modules(vmlinuz=guest.debian_kernel().read_bytes()[:300_000]))


@system_test()
def kernel_is_empty():
    expect_message("vmlinuz", usual_modules(vmlinuz=b""))


@system_test()
def initrd_is_larger_than_the_memory():
    expect_message("initrd.img|memory", usual_modules(memory=16, initrd_img=bytes(17 << 20)))


@system_test()
def guest_is_larger_than_the_machine():
    expect_message("memory", usual_modules(memory=4096), memory=256)


@system_test()
def description_is_no_toml():
    expect_message(r"vms.toml.*1|line 1", usual_modules(vms_toml=b"[vm.linux\nmemory = 256M\n"))


@system_test()
def description_has_an_unknown_key():
    text = description.default(256, 1, "x").replace("memory", "memroy")
    expect_message("memroy", usual_modules(vms_toml=text.encode()))


@system_test()
def description_names_a_missing_file():
    modules = usual_modules()
    del modules["initrd.img"]
    expect_message("initrd.img", modules)


@system_test()
def machine_has_32_mebibytes():
    # GRUB itself may refuse to load the guest's files; so none are there.
    expect_message("memory", {"vms.toml": description.default(256, 1, "x", initrd=None).encode(), "vmlinuz": b"x" * 4096}, memory=32)


@system_test(backend="bochs", why="a CPU without any virtualization; the one in QEMU is amd_cpu_without_virtualization")
def cpu_has_no_virtualization():
    expect_message("VT-x|virtualization", usual_modules(), cpu_model="p4_prescott_celeron_336", status_known=False)


@system_test(backend="qemu", why="an AMD CPU")
def amd_cpu_without_virtualization():
    expect_message("this AMD CPU has no AMD-V", usual_modules(), remedy="use a CPU with AMD-V", kind="qemu", cpu_model="EPYC,-svm")


@system_test(backend="qemu", why="an AMD CPU")
def amd_cpu_without_nested_paging():
    expect_message("no nested paging", usual_modules(), remedy="use a CPU with it", kind="qemu", cpu_model="EPYC,+svm,-npt")


@system_test(backend="qemu", why="Bochs has no such CPU")
def cpu_of_an_unknown_vendor():
    expect_message("MullionTests", usual_modules(), remedy="Intel VT-x or AMD-V", kind="qemu", cpu_model="EPYC,+svm,vendor=MullionTests")


@system_test(backend="qemu", why="Bochs has no UEFI")
def uefi_machine_without_virtualization():
    expect_message("VT-x|virtualization", usual_modules(), kind="qemu", uefi=True, cpu_model="qemu64,-svm", status_known=False)


@system_test(backend="qemu", why="on such a CPU in Bochs GRUB shows nothing on the serial line")
def cpu_has_no_64_bit_mode():
    """Nothing is set up yet that could switch the machine off: the message is the end."""
    with boot(usual_modules(), kind="qemu", cpu_model="pentium3") as console:
        console.expect(r"mullion: cannot start: this CPU has no 64-bit mode", 60)
