"""How what an operation costs changes with the number of VMs and of CPUs: the benchmark guest beside idle neighbours."""
import re

from . import description
from .project import ROOT, Failure, Progress

VMS = (1, 4, 16)
CPUS = {"bochs": (1, 2, 4, 8), "qemu": (1, 4, 16)}
# One from each path through Mullion: the shortest exit, a device, a device by its memory, a sleep and its end by the timer.
OPERATIONS = ("cpuid_0", "in_pit_40", "mmio_ioapic_rd32", "timer_hlt_latency")
LINE = re.compile(rb"^bench: (\S+) (\d+) (\d+) (\d+)\r?$", re.M)
NEIGHBOUR_MEMORY = 16  # MiB
GUEST_MEMORY = 256
REST = 256  # of the machine's memory: Mullion and the boot modules
LIMIT = 900


def descriptions(vms):
    """The benchmark guest and its neighbours, which tick once in a minute; without a console, so that no line is torn."""
    texts = [description.default(GUEST_MEMORY, 1, "", kernel="bench.elf", initrd=None, name="bench")]
    for i in range(1, vms):
        text = description.default(NEIGHBOUR_MEMORY, 1, "does=idle interval=60000", kernel="ticker.elf", initrd=None, name=f"idle{i}")
        texts.append(text + 'console = "none"\n')
    return "\n".join(texts)


def measure(kind, vms, cpus):
    """Returns operation -> median instructions."""
    import framework
    guests = ROOT / "build/release/tests/guest"
    modules = {"vms.toml": descriptions(vms).encode(), "bench.elf": guests / "bench.elf", "ticker.elf": guests / "ticker.elf"}
    memory = GUEST_MEMORY + NEIGHBOUR_MEMORY * vms + REST
    with Progress(f"{vms} VMs on {cpus} CPUs in {kind}"):
        with framework.boot(modules, kind=kind, cpus=cpus, memory=memory, deterministic=kind == "qemu") as console:
            console.expect(r"guest: done \d", LIMIT)
            found = {name.decode(): int(median) for name, median, _, _ in LINE.findall(bytes(console.seen))}
    missing = set(OPERATIONS) - set(found)
    if missing:
        raise Failure(f"the benchmark guest did not report {', '.join(sorted(missing))} in {kind} with {vms} VMs on {cpus} CPUs")
    return found


def chart(title, what, points, columns):
    """A plot that Markdown viewers draw; the table above it has the numbers."""
    lines = ["```mermaid", "xychart-beta", f'    title "{title}"', f'    x-axis "{what}" [{", ".join(str(point) for point in points)}]',
             '    y-axis "instructions" 0 --> ' + str(max(column[name] for column in columns for name in OPERATIONS) * 12 // 10)]
    lines += [f"    line [{', '.join(str(column[name]) for column in columns)}]" for name in OPERATIONS]
    return "\n".join([*lines, "```"])


def table(title, what, points, columns):
    rows = [f"| operation | {' | '.join(f'{point} {what}' for point in points)} |", "|---|" + "---:|" * len(points)]
    rows += [f"| {name} | " + " | ".join(f"{column[name]:,}" for column in columns) + " |" for name in OPERATIONS]
    return f"### {title}\n\n" + "\n".join(rows) + f"\n\n{chart(title, what, points, columns)}\n"


def section():
    parts = ["## Cost against the number of VMs and CPUs\n\nMedians of one benchmark guest; the other VMs and CPUs are idle. Lines in the plots: "
             + ", ".join(OPERATIONS) + ".\n"]
    for kind, name in (("bochs", "VT-x in Bochs"), ("qemu", "AMD-V in QEMU")):
        parts.append(table(f"{name}, 1 CPU", "VMs", VMS, [measure(kind, vms, 1) for vms in VMS]))
        parts.append(table(f"{name}, 1 VM", "CPUs", CPUS[kind], [measure(kind, 1, cpus) for cpus in CPUS[kind]]))
    return "\n".join(parts)
