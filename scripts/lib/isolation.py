# SPDX-License-Identifier: MIT
"""What a VM on its own CPU loses to what another does on its own, in QEMU with a thread for each CPU.

Work is counted by the seconds that the emulator's thread of that CPU ran: what else the computer does meanwhile takes time from the
thread, not work from its seconds. That is still not exact: threads share caches and execution units.
"""
import os
import pathlib
import re
import statistics

from .project import Progress

ROUNDS = 5  # boots with each neighbour, in turn
LINES = 8  # intervals of a second
LIMIT = 120
TARGET = 2  # percent
RATE = re.compile(rb"ticker: \d+ ms, (\d+) rounds in \d+ ms")


def seconds_of_thread(pid, name):
    """The processor time that this thread of the process has had."""
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().strip() == name:
            fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    raise LookupError(f"QEMU has no thread {name}")


def rate_beside(habit):
    """Rounds for each second of CPU 1's thread, while a VM on CPU 2 does `habit`."""
    from test_vms import boot_small, small
    text = small("neighbour", f"does={habit} interval=60000", cpus='"2"', exclusive="true", console='"none"') + \
        small("worker", f"does=work interval=1000 quit={LINES + 2}", cpus='"1"', exclusive="true")
    with boot_small(text, cpus=3, kind="qemu", extra=("-name", "mullion,debug-threads=on")) as console:
        console.expect(RATE, LIMIT)  # its code has been translated by now
        start = seconds_of_thread(console.machine.process.pid, "CPU 1/TCG")
        rounds = sum(int(console.expect(RATE, LIMIT).group(1)) for _ in range(LINES))
        return rounds / (seconds_of_thread(console.machine.process.pid, "CPU 1/TCG") - start)


def section():
    rates = {"idle": [], "work": [], "flood": []}
    with Progress(f"A VM beside a flood in qemu, {len(rates) * ROUNDS} boots"):
        for _ in range(ROUNDS):
            for habit, found in rates.items():
                found.append(rate_beside(habit))
    alone, busy, flooded = (statistics.median(found) for found in rates.values())
    spread = 100 * (max(rates["idle"]) - min(rates["idle"])) / alone
    loss = 100 * (alone - flooded) / alone
    return ("## A VM on its own CPU beside another on its own, in QEMU with parallel CPUs\n\n"
            f"Rounds in a second of its thread, median of {ROUNDS} boots; those beside an idle neighbour differ by {spread:.1f} %. A neighbour that only "
            "computes never enters Mullion: what is lost to it, the computer under the emulator takes.\n\n"
            "| neighbour | rounds | loss | target | |\n|---|---:|---:|---:|---|\n"
            f"| idle | {alone:,.0f} | | | |\n| computes | {busy:,.0f} | {100 * (alone - busy) / alone:+.1f} % | | |\n"
            f"| floods | {flooded:,.0f} | {loss:+.1f} % | {TARGET} % | {'met' if loss < TARGET else '**missed**'} |\n")
