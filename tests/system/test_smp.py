"""Several CPUs: of the machine, and of its guests."""
from framework import boot_guest, boot_linux, check_power_off, system_test

LOAD_AND_HOTPLUG = r"""
work() { i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; set -- $(cat /proc/self/stat); eval "echo ran on \${39}"; }
nproc
for cpu in 0 1 2 3; do (taskset -p $((1 << cpu)) $(exec sh -c 'echo $PPID') >/dev/null; work) & done
wait
cd /sys/devices/system/cpu
echo 0 > cpu1/online; echo 0 > cpu3/online
echo online $(cat online), nproc $(nproc)
for round in 1 2 3 4 5; do echo 0 > cpu2/online; echo 1 > cpu2/online; done
echo 1 > cpu3/online; echo 1 > cpu1/online
echo online $(cat online), nproc $(nproc)
for cpu in 1 2 3; do (taskset -p $((1 << cpu)) $(exec sh -c 'echo $PPID') >/dev/null; work) & done
wait
"""


def run_smp(vcpus, cpus, **options):
    """The guest of tests/guest/smp: start by INIT and SIPI, IPIs of every kind, NMI, HLT, timers, TSCs."""
    with boot_guest("smp", f"cpus={vcpus}", vcpus=vcpus, cpus=cpus, **options) as console:
        console.expect(rf"cpus: {cpus} of {cpus} in use")
        status = int(console.expect(r"guest: done (\d+)", 300).group(1))
        failures = [line for line in console.tail(10_000).splitlines() if "guest: FAIL" in line]
        assert status == 0 and not failures, "\n".join(failures) or f"status {status}"
        assert console.seen.count(b"guest: ok ") == 8, console.tail()
        check_power_off(console)


@system_test()
def guest_of_four_cpus():
    run_smp(4, 4)


@system_test()
def two_vcpus_on_eight_cpus():
    run_smp(2, 8)


@system_test(backend="qemu")
def guest_of_four_cpus_on_amd():
    run_smp(4, 4, kind="qemu", deterministic=True)


@system_test(backend="qemu")
def guest_of_four_cpus_in_parallel():
    run_smp(4, 4, kind="qemu")


@system_test(backend="qemu")
def linux_uses_and_unplugs_its_cpus():
    with boot_linux(command=LOAD_AND_HOTPLUG, vcpus=4, cpus=4, kind="qemu", deterministic=True, memory=256) as console:
        console.expect(r"<mullion-command test>\n4\n")
        first = sorted(console.expect(r"ran on (\d)\r?\n").group(1) for _ in range(4))
        assert first == [b"0", b"1", b"2", b"3"], first
        console.expect(r"online 0,2, nproc 2\n")
        console.expect(r"online 0-3, nproc 4\n")
        again = sorted(console.expect(r"ran on (\d)\r?\n").group(1) for _ in range(3))
        assert again == [b"1", b"2", b"3"], again
        console.expect(r"<mullion-status test 0>")
        check_power_off(console)


@system_test(backend="qemu")
def linux_on_sixteen_cpus():
    with boot_linux(command="nproc", vcpus=16, cpus=16, kind="qemu", deterministic=True) as console:
        console.expect(r"cpus: 16 of 16 in use, 16 cores")
        console.expect(r"<mullion-command test>\n16\n<mullion-status test 0>")
        check_power_off(console)
