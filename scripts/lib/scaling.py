# SPDX-License-Identifier: MIT
"""How what an operation costs changes with the number of VMs and of CPUs: the benchmark guest beside idle neighbours."""
import re

from . import description, emulator
from .project import ROOT, Failure, Progress

VMS = (1, 4, 16)
CPUS = {"bochs": (1, 2, 4, 8), "qemu": (1, 4, 16)}
# One from each path through Mullion: the shortest exit, a device, a device by its memory, a sleep and its end by the timer; with a second
# vCPU, a switch between two on one CPU and both sides of an IPI to another; and what the log says of the VM's creation.
OPERATIONS = ("cpuid_0", "in_pit_40", "mmio_ioapic_rd32", "timer_hlt_latency", "switch_by_slice", "ipi_send", "ipi_receive")
CREATION, MEMORY = "creation of the VM, thousand instructions", "memory that Mullion keeps for it, KiB"
LINE = re.compile(rb"^bench: (\S+) (\d+) (\d+) (\d+)\r?$", re.M)
CREATED = re.compile(rb"vm bench: started, .* \((\d+) us beside \d+ us of zeroing; (\d+) KiB of Mullion's\)")
PER_MICROSECOND = {"bochs": 100, "qemu": 1000}
NEIGHBOUR_MEMORY = 16  # MiB
GUEST_MEMORY = 256
REST = 256  # of the machine's memory: Mullion and the boot modules
LIMIT = 900


def descriptions(vms, command_line, vcpus, keys):
    """The benchmark guest and its neighbours, which tick once in a minute; without a console, so that no line is torn."""
    texts = [description.default(GUEST_MEMORY, vcpus, command_line, kernel="bench.elf", initrd=None, name="bench") + keys]
    for i in range(1, vms):
        text = description.default(NEIGHBOUR_MEMORY, 1, "does=idle interval=60000", kernel="ticker.elf", initrd=None, name=f"idle{i}")
        texts.append(text + 'console = "none"\n')
    return "\n".join(texts)


def run(kind, vms, cpus, *guest):
    """One boot; returns row -> number."""
    import framework
    guests = ROOT / "build/release/tests/guest"
    modules = {"vms.toml": descriptions(vms, *guest).encode(), "bench.elf": guests / "bench.elf", "ticker.elf": guests / "ticker.elf"}
    memory = GUEST_MEMORY + NEIGHBOUR_MEMORY * vms + REST
    with framework.boot(modules, kind=kind, cpus=cpus, memory=memory, deterministic=kind == "qemu", ticks_per_second=framework.FAST,
                        cpu_model=emulator.BOCHS_MODEL_WITH_MOST_FEATURES if kind == "bochs" else "") as console:
        console.expect(r"guest: done \d", LIMIT)
        serial = bytes(console.seen)
    found = {name.decode(): int(median) for name, median, _, _ in LINE.findall(serial)}
    created = CREATED.search(serial)
    return found | {CREATION: int(created.group(1)) * PER_MICROSECOND[kind] // 1000, MEMORY: int(created.group(2))}


def measure(kind, vms, cpus):
    runs = [("cpus=2 shared=1", 2, "cpus = [0]\n"), ("", 1, "")]
    # IPIs between cores only where CPUs advance together, which icount's turns of many instructions are not.
    if kind == "bochs" and cpus > 1:
        runs.append(("cpus=2", 2, ""))
    found = {}
    with Progress(f"{vms} VMs on {cpus} CPUs in {kind}"):
        for guest in runs:
            found = run(kind, vms, cpus, *guest) | {name: found[name] for name in OPERATIONS if name in found}
    missing = {name for name in OPERATIONS if not name.startswith("ipi_")} - set(found)
    if missing:
        raise Failure(f"the benchmark guest did not report {', '.join(sorted(missing))} in {kind} with {vms} VMs on {cpus} CPUs")
    return found


def chart(title, what, points, columns):
    """A plot that Markdown viewers draw, of what is there at all points; the table above it has the numbers."""
    names = [name for name in OPERATIONS if all(name in column for column in columns)]
    lines = ["```mermaid", "xychart-beta", f'    title "{title}"', f'    x-axis "{what}" [{", ".join(str(point) for point in points)}]',
             f'    y-axis "instructions" 0 --> {max(column[name] for column in columns for name in names) * 12 // 10}']
    lines += [f"    line [{', '.join(str(column[name]) for column in columns)}]" for name in names]
    return "\n".join([*lines, "```"])


def table(title, what, points, columns):
    names = [name for name in (*OPERATIONS, CREATION, MEMORY) if any(name in column for column in columns)]
    rows = [f"| | {' | '.join(f'{point} {what}' for point in points)} |", "|---|" + "---:|" * len(points)]
    rows += [f"| {name} | " + " | ".join(f"{column[name]:,}" if name in column else "-" for column in columns) + " |" for name in names]
    return f"### {title}\n\n" + "\n".join(rows) + f"\n\n{chart(title, what, points, columns)}\n"


def section():
    parts = ["## Cost against the number of VMs and CPUs\n\nMedians of one benchmark guest; the other VMs and CPUs are idle. The plots have the rows "
             "in instructions.\n"]
    for kind, name in (("bochs", "VT-x in Bochs"), ("qemu", "AMD-V in QEMU")):
        parts.append(table(f"{name}, 1 CPU", "VMs", VMS, [measure(kind, vms, 1) for vms in VMS]))
        parts.append(table(f"{name}, 1 VM", "CPUs", CPUS[kind], [measure(kind, 1, cpus) for cpus in CPUS[kind]]))
    return "\n".join(parts)
