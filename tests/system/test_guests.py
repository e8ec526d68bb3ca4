# SPDX-License-Identifier: MIT
"""The guest kernels of tests/guest: what the CPU and the platform must do, and what a hostile guest must not achieve."""
import re

import framework
from framework import NATIVE, boot, boot_guest, check_power_off, description, emulator, guest_kernel, system_test, verdict
from test_monitor import MONITOR, SWITCH, ask

# The emulators themselves do not pass these tests, but the hostile guest in QEMU; native=1 leaves out what breaks QEMU.
NATIVE_OPTIONS = " native=1" if NATIVE else ""


# What QEMU's TCG carries out, without an exit, where a CPU raises #GP: tables at addresses that are not canonical, and a
# null task register, which it then aborts over. The guest loses its own handlers, with and without a hypervisor.
OBEYED_BY_QEMU = ("lgdt_noncanonical", "lidt_noncanonical", "ltr_null")


def is_obeyed_natively(instruction):
    """Whether the guest, on the emulator's bare machine, does not survive this instruction of "privileged"."""
    with boot_guest("hostile", f"test=privileged verbose=1 only={instruction}", native=True, deterministic=True) as console:
        console.expect(f"guest: privileged {instruction}", 60)
        end = console.until_end(60)
        return b"guest: done" not in console.seen or not end.orderly


def finish_guest(console, seconds=300):
    """Each test must say ok, none may say FAIL."""
    status = int(console.expect(r"guest: done (\d+)", seconds).group(1))
    failures = [line for line in console.tail(10_000).splitlines() if "guest: FAIL" in line]
    assert status == 0 and not failures, "\n".join(failures) or f"status {status}"
    assert b"guest: ok " in console.seen, "it tested nothing"
    check_power_off(console)


def run_guest(name, test, seconds=300, command_line="", **options):
    """Runs tests of a guest kernel."""
    with boot_guest(name, f"test={test} {command_line}{NATIVE_OPTIONS}", deterministic=True, **options) as console:
        finish_guest(console, seconds)


def run_ending(test, expected):
    """The guest ends its own VM; Mullion must survive, say how, and switch the machine off in order."""
    with boot_guest("hostile", f"test={test}") as console:
        console.expect(r"guest: ok " + test)
        end = console.until_end()
        assert end.orderly, end.reason
        ended = verdict.ended_vms(bytes(console.seen))
        assert len(ended) == 1 and ended[0][1].startswith(expected), ended
        assert verdict.mullion_status(bytes(console.seen)) not in (None, 0)


@system_test(also=("vt-x/debug", "amd-v/debug", "amd-v/debian-13", "vt-x/testing"))
def behaviour():
    # A QEMU of 125 MHz: seconds that the test waits for are shorter.
    with boot_guest("behave", f"test=all{NATIVE_OPTIONS}", deterministic=True, tick_shift=3) as console:
        if not NATIVE: # a BIOS of its own writes to the screen
            console.expect(r"guest: a line by interrupt 10h\r\n", 300)
        finish_guest(console)


@system_test(backend="amd-v/bochs", why="it runs there as behaviour")
def behaviour_on_ryzen():
    # Not debug and step: Bochs 2.7's AMD-V exits for #DB before it sets DR6, and a single step of the guest's that ends in
    # an exit hits the host.
    run_guest("behave", "apic,shadow,pic,ioapic,timer,real,task,fpu,msr,paging,keys,cpuid,time,uart,mmio")


@system_test(quick=True)
def modules_reach_multiboot_kernels():
    """In their order, whole, each with its command line, by both versions of Multiboot."""
    files = {"first.bin": bytes(range(256)) * 33, "second.bin": b"two", "initrd.img": b"initial"}
    texts = ["", "first.bin root=/dev/x  quiet", "second.bin"]

    def sum_of(content):
        total = 0
        for byte in content:
            total = (total * 31 + byte) & 0xffffffff
        return total
    keys = 'modules = ["first.bin root=/dev/x  quiet", "second.bin"]\ninitrd = "initrd.img"\n'
    for version in (1, 2):
        vm = description.default(64, 1, "", kernel="modules.elf", initrd=None, name="modules") + f'{keys}boot = "multiboot{version}"\n'
        with boot({"vms.toml": vm.encode(), "modules.elf": guest_kernel("modules"), **files}) as console:
            for number, (name, text) in enumerate(zip(("initrd.img", "first.bin", "second.bin"), texts)):
                line = f'guest: module {number} "{text}" {len(files[name])} bytes sum {sum_of(files[name]):#x}'
                console.expect(re.escape(line) + r"\r?\n", 120)
            console.expect(f"guest: 3 modules by Multiboot{version}", 60)
            console.expect("guest: done 0", 60)
            check_power_off(console)


@system_test(backend="bochs", why="an Intel CPU without PML, TSC scaling and XSAVES")
def behaviour_on_haswell():
    run_guest("behave", "all", cpu_model="corei7_haswell_4770")


@system_test(backend="bochs", why="an Intel CPU with the monitor trap flag and sub-page protection")
def behaviour_on_icelake():
    # Not keys: on this model of Bochs 2.7 a protection key forbids nothing, without Mullion either.
    run_guest("behave", "all", command_line="skip=keys", cpu_model="corei7_icelake_u")


# Optional features of VT-x, by the words of the option vmx-disable=. Posted interrupts need Bochs 3: see posted_interrupts.
VMX_FEATURES = {"vpid": "VPID", "tpr-shadow": "TPR-shadow", "apic-registers": "APIC-registers", "virtual-interrupts": "virtual-interrupts",
                "x2apic": "x2APIC-mode", "preemption-timer": "preemption-timer", "large-pages": "2M-pages", "xsaves": "XSAVES",
                "invpcid": "INVPCID", "tsc-scaling": "TSC-scaling", "pause-loop": "PAUSE-loops"}


def optional_features(console):
    """The words that Mullion's log has for the optional features in use."""
    return console.expect(rb"optional:([^;\r\n]*)[;\r]").group(1).decode().split()


def behaviour_without(word):
    def test():
        with boot_guest("behave", "test=all", append=f"vmx-disable={word}") as console:
            used = optional_features(console)
            wanted = set(VMX_FEATURES.values()) if word == "all" else {VMX_FEATURES[word]}
            assert not wanted & set(used), used
            finish_guest(console)
    return test


for chosen in (*VMX_FEATURES, "all"):
    globals()["behaviour_without_" + chosen.replace("-", "_")] = system_test(backend="bochs", why="it is about VT-x")(behaviour_without(chosen))


@system_test(backend="bochs", why="it is about VT-x")
def every_optional_feature_is_used():
    """Else the tests without one of them show nothing."""
    with boot_guest("behave", "test=time") as console:
        used = optional_features(console)
        missing = set(VMX_FEATURES.values()) - set(used)
        assert not missing, missing
        finish_guest(console)


@system_test(backend=("vt-x/debian-13", "vt-x/testing"), why="Bochs 2.7 and AMD-V have none")
def posted_interrupts():
    """Interrupts from other vCPUs arrive while the guest runs, with and without the CPU's help."""
    for option in ("", "vmx-disable=posted-interrupts"):
        with boot_guest("smp", "cpus=4", vcpus=4, cpus=4, append=option) as console:
            assert ("posted-interrupts" in optional_features(console)) == (not option), option
            finish_guest(console)


@system_test(backend="bochs", why="it is about VT-x")
def a_tsc_rate_of_its_own():
    """The guest's TSC has another rate than the emulated CPU's: PIT, RTC, PM timer and APIC timer must agree with it."""
    for mhz, test in ((37, "time"), (2894, "time"), (2894, "timer")):
        with boot_guest("behave", f"test={test}", keys=f"tsc_mhz = {mhz}\n") as console:
            if test == "time":
                told = int(console.expect(r"guest: tsc (\d+) Hz by the PM timer").group(1))
                assert abs(told / 1e6 / mhz - 1) < 0.01, told
            finish_guest(console)


@system_test(backend="bochs", why="it is about VT-x")
def a_tsc_rate_without_scaling():
    """The message names the rate that a description can have, also where it was measured as a little less."""
    own = emulator.BOCHS_TICKS_PER_SECOND // 1_000_000
    with boot_guest("behave", "test=msr", keys="tsc_mhz = 200\n", append="vmx-disable=tsc-scaling") as console:
        console.expect(rf"vms.toml:7: tsc_mhz: expected this machine's own rate, because its CPUs cannot scale the TSC, {own} MHz, found 200")
        check_power_off(console, status=1)
    with boot_guest("behave", "test=msr", keys=f"tsc_mhz = {own}\n", append="vmx-disable=tsc-scaling") as console:
        finish_guest(console)


@system_test(backend=("amd-v/bochs", "amd-v/qemu"), why="it is about AMD-V")
def behaviour_without_optional_features_of_amd_v():
    with boot_guest("behave", "test=apic,shadow,pic,real,msr,paging", append="svm-disable=all", deterministic=True) as console:
        used = optional_features(console)
        assert used == ["RDTSCP"], used
        finish_guest(console)


@system_test(limit=700, guest_only=("amd-v/qemu",), also=("amd-v/debug",))
def hostility():
    command_line = ""
    if framework.kind_of_emulator() == "qemu":
        # Left out is what this QEMU itself does not refuse, as a run without Mullion shows.
        skip = [] if NATIVE else [name for name in OBEYED_BY_QEMU if is_obeyed_natively(name)]
        command_line = f"skip={','.join(skip)}"
    run_guest("hostile", "all", seconds=600, command_line=command_line)


@system_test(backend="amd-v/bochs", why="it runs there as hostility")
def hostility_on_ryzen():
    # Not storm and random: while a guest has interrupts off, Bochs 2.7's AMD-V holds back the machine's own, the serial
    # line's among them.
    run_guest("hostile", "msrs,ports,privileged,mmio")


@system_test(also=("amd-v/debug",))
def triple_fault():
    run_ending("triple", "crash")


@system_test()
def a_crash_report_begins_with_the_vcpu_that_crashed():
    """And has the other one too, in the log and in the monitor."""
    with boot_guest("hostile", "test=elsewhere", vcpus=2, restart="on-failure") as console:
        console.expect(r"vm hostile: vCPU 1 at the crash:\r\nvcpu 1: rip [0-9a-f]{16}")
        console.expect(r"real cr0|code at rip:")
        console.expect(r"vm hostile: vCPU 0 at the crash:\r\nvcpu 0: rip [0-9a-f]{16}")
        console.expect("ended: crash: triple fault on vCPU 1")
        console.send(SWITCH)  # the machine stays on: the VM is to be started again
        console.expect(MONITOR)
        console.send("vm kill hostile\r")
        console.expect("when you leave the monitor")
        shown = ask(console, "vm show hostile")
        assert re.findall(r"^vcpu (\d): rip", shown, re.M) == ["1", "0"], shown
        assert len(re.findall(r"^controls:|^code at rip:", shown, re.M)) >= 2, shown
        console.send(SWITCH)
        check_power_off(console, status=1)


@system_test()
def page_tables_behind_memory():
    run_ending("badcr3", "crash")


@system_test()
def reset_by_port():
    run_ending("reset", "reset")
