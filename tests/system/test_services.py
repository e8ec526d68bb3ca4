# SPDX-License-Identifier: MIT
"""Services in ring 3: a hostile one dies in every way that there is, while a guest goes on."""
import re

from framework import ROOT, Skip, boot, description, guest_kernel, system_test
from test_monitor import MONITOR, SWITCH, ask, row

PF, GP, UD = r"page fault \(#PF\)", r"general protection \(#GP\)", r"invalid opcode \(#UD\)"
NM = r"device not available \(#NM\)"
AT = " at 0x[0-9a-f]+"
# How each instance of tests/services/hostile must end, in its order.
ENDS = [
    ("read kernel", PF + AT + ", reading 0xffffffff80200000, error {read}"),
    ("write direct map", PF + AT + ", writing 0xffff800000001000, error {write}"),
    ("jump to kernel", PF + " at 0xffffffff80200000, executing 0xffffffff80200000"),
    ("write code", PF + AT + ", writing 0x100[0-9a-f]+"),
    ("execute data", PF + AT + ", executing 0x100[0-9a-f]+"),
    ("write manifest", PF + AT + ", writing 0x20000000"),
    ("read nothing", PF + AT + ", reading 0x0"),
    ("read no address", GP + AT),
    ("overflow stack", PF + AT + ", writing 0x2fff7ff8"),
    ("halt", GP + AT),
    ("disable interrupts", GP + AT),
    ("use port", GP + AT),
    ("load page table", GP + AT),
    ("write msr", GP + AT),
    ("read gs base", UD + AT),
    ("interrupt by software", GP + AT),
    ("pretend an exception", GP + AT),
    ("break point", GP + AT),
    ("use sse", NM + AT),
    ("use x87", NM + AT),
    ("use mmx", NM + AT),
    ("use avx", UD + AT),
    ("read mxcsr", NM + AT),
    ("save vectors", NM + AT),
    ("save all state", UD + AT),
    ("use xgetbv", UD + AT),
    ("call by syscall", UD + AT),
    ("call by sysenter", f"({GP}|{UD})" + AT),
    ("call hypervisor", f"({GP}|{UD})" + AT),
    ("divide", r"divide error \(#DE\)" + AT),
    ("step", r"debug exception \(#DB\)" + AT),
    ("load kernel segment", GP + AT),
    ("load task segment", GP + AT),
    ("load segment behind table", GP + AT + ", error 0x38"),
    ("load local segment", GP + AT),
    # QEMU before 9.1 reads IRET's frame as ring 0 would, which SMAP refuses.
    ("return to kernel", f"({GP}{AT}|{PF}{AT}, reading 0x2ffff[0-9a-f]+)"),
    ("never wait", r"did not come back to wait\(\) in 250 ms of CPU time"),
    ("never wait but call", r"did not come back to wait\(\) in 250 ms of CPU time"),
    ("stop for no reason", "stopped: for a reason that it does not have"),
    ("end", "stopped: its program has ended"),
]
DEATHS_IN_A_ROW = 3


def hostile():
    elf = ROOT / "build/release/services/hostile.elf"
    if not elf.is_file():
        raise Skip(f"there is no {elf.relative_to(ROOT)}")
    return elf


def reaches_nobody(option, **errors):
    text = description.default(64, 1, "", kernel="ticker.elf", initrd=None, name="ticker", restart="never")
    with boot({"vms.toml": text.encode(), "ticker.elf": guest_kernel("ticker"), "services/hostile": hostile()}, option) as console:
        for number, (name, end) in enumerate(ENDS):
            console.expect(rf"service hostile: \?\[2J\?attack {number + 1} of {len(ENDS)}: {name}\r?\n", 60)
            for kind, error in errors.items():
                end = end.replace(f"{{{kind}}}", error)
            console.expect(rf"service hostile: {end}(, error 0x[0-9a-f]+)?\r?\n", 30)
            if (number + 1) % DEATHS_IN_A_ROW == 0:
                console.expect("died 3 times in 60 s and stays down")
                console.expect(r"ticker: \d+ ms")
                console.send(SWITCH)
                console.expect(MONITOR)
                assert row(ask(console, "service list"), "hostile")[1:4] == ["down", str(number + 1), str(number + 1)]
                assert "is down" in ask(console, "service kill hostile")
                console.send("service restart hostile\r")
                console.expect(f"service hostile: instance {number + 2} starts")
                console.send(SWITCH)
        console.expect("service hostile: no attack is left")
        console.expect(r"ticker: \d+ ms")
        console.send(SWITCH)
        console.expect(MONITOR)
        last = len(ENDS) + 1
        assert row(ask(console, "service list"), "hostile")[1:4] == ["runs", str(last), str(len(ENDS))]
        # The operator's kills do not count: it comes back each time.
        for more in range(1, 6):
            console.send("service kill hostile\r")
            console.expect("service hostile: killed")
            console.expect(f"service hostile: instance {last + more} starts")
        console.expect("service hostile: no attack is left")
        for _ in range(19):  # all the lines that it may write at once: they would tear the echo apart
            console.expect(r"service hostile: \?\r?\n")
        assert row(ask(console, "service list"), "hostile")[1:4] == ["runs", str(last + 5), str(len(ENDS))]
        console.send(SWITCH)
        console.expect(r"ticker: \d+ ms")
        assert re.search(rb"PANIC", console.seen) is None


# The errors of page faults say whether there is a page that is closed to ring 3, or none. [intel/vol3] figure 4-12
@system_test(limit=600)
def hostile_service_reaches_nobody():
    reaches_nobody("service-page-tables=off", read="0x5", write="0x7")


@system_test(limit=600)
def hostile_service_has_nothing_of_mullion_mapped():
    reaches_nobody("service-page-tables=on", read="0x4", write="0x6")
