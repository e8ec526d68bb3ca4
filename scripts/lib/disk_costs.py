# SPDX-License-Identifier: MIT
"""What a guest's disk costs: the benchmark guest's own virtio-blk driver against a disk in memory, beside the peers' figures."""
import csv
import re
import time

from . import emulator
from .project import ROOT, Failure, Progress

TARGETS = ROOT / "tests/bench/disk_peers.tsv"
LINE = re.compile(rb"^bench: (\S+) (\d+) (\d+) (\d+)\r?$", re.M)
EXITS = re.compile(rb"^guest: (\S+): \d+ instructions of the guest in a round of \d+, (\d+\.\d+) doorbells and HLTs", re.M)
DISK = '[[vm.bench.disk]]\nsource = "ram:64M"\n'
NAMES = {"bochs": "VT-x in Bochs", "qemu": "AMD-V in QEMU"}
TICKS_PER_MILLISECOND = {"bochs": 100_000, "qemu": 1_000_000}
RESTARTS = 5
LIMIT = 600
RESTART_LIMIT = 60  # seconds of this computer, after the last kill
COLUMNS = ("target", "kvm_vmx", "kvm_svm", "kvmtool", "qemu_q35")


def peers():
    with open(TARGETS, encoding="utf-8") as file:
        rows = csv.DictReader((line for line in file if not line.startswith("#")), delimiter="\t")
        return {row["operation"]: row for row in rows}


def boot(kind, command_line):
    import framework
    return framework.boot_guest("bench", command_line, kind=kind, deterministic=kind == "qemu", ticks_per_second=framework.FAST,
                                memory=512, guest_memory=128, keys=DISK)


def requests(kind):
    """One boot; returns row -> number."""
    with Progress(f"Disk requests in {kind}"), boot(kind, "disk=requests") as console:
        if console.expect(r"guest: done (\d)", LIMIT).group(1) != b"0":
            raise Failure(f"the benchmark guest has found a fault of its disk in {kind}")
        serial = bytes(console.seen)
    found = {name.decode(): int(median) for name, median, _, _ in LINE.findall(serial)}
    return found | {f"{name.decode()}_exits": float(count) for name, count in EXITS.findall(serial)}


def restarts(kind):
    """Kills the service under a guest that reads, at each time after the guest has gone on; returns row -> number."""
    from test_monitor import SWITCH
    from test_vms import open_monitor
    with Progress(f"Restarts of the storage service in {kind}"), boot(kind, "disk=restarts") as console:
        console.expect(r"guest: reads", LIMIT)
        open_monitor(console)
        for number in range(2, RESTARTS + 2):
            console.send("service kill storage\r")
            console.expect(rf"service storage: instance {number} starts", LIMIT)
            console.expect("service storage: disk 0: ", LIMIT)
            time.sleep(1)  # its request ends a few thousand instructions later
        console.send(SWITCH)
        console.expect(r"guest: done \d", RESTART_LIMIT)
        return {name.decode(): int(median) for name, median, _, _ in LINE.findall(bytes(console.seen))}


def measure(kind):
    found = requests(kind) | restarts(kind)
    if "disk_service_restart" in found:
        found["disk_service_restart_ms"] = found["disk_service_restart"] / TICKS_PER_MILLISECOND[kind]
    return found


def text(value):
    return "-" if value is None else f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"


def table(columns, reference):
    kinds = tuple(columns)
    rows = [f"| operation | {' | '.join(NAMES[kind] for kind in kinds)} | {' | '.join(COLUMNS)} | |",
            "|---|" + "---:|" * (len(kinds) + len(COLUMNS)) + "---|"]
    for name, row in reference.items():
        values = [columns[kind].get(name) for kind in kinds]
        target = row["target"]
        verdict = ""
        if target != "-":
            verdict = "met" if all(value <= float(target) for value in values if value is not None) else "**missed**"
        peer_cells = [text(float(row[column]) if "." in row[column] else int(row[column])) if row[column] != "-" else "-" for column in COLUMNS]
        rows.append(f"| {name} | {' | '.join(text(value) for value in values)} | {' | '.join(peer_cells)} | {verdict} |")
    return "\n".join(rows)


def section(kinds):
    reference = peers()
    columns = {kind: measure(kind) for kind in kinds}
    missing = {name for name, row in reference.items() for column in columns.values() if name not in column}
    if missing:
        raise Failure(f"the benchmark guest did not report {', '.join(sorted(missing))}")
    return ("## Disks: instructions per request outside of the guest (median)\n\n"
            "One CPU, a disk of 64 MiB in memory, one queue; `./scripts/bench --disks`. What the rows are: Method, above.\n\n"
            f"{table(columns, reference)}\n")
