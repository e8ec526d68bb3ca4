# SPDX-License-Identifier: MIT
"""Why a machine goes no further, from its serial line and the CPU time that its emulator uses."""
import re
import time

from . import iso, verdict

GRUB_PROMPT = re.compile(rb"(?:^|[\r\n])grub(?: rescue)?> *(?:\x1b\[[0-9;]*[A-Za-z])*$")
GUEST_PANIC = b"---[ end Kernel panic"
MULLION_LINE = b"Mullion starts"
# A prompt, or a kernel's last words, with nothing after them for so long, seconds.
QUIET_AFTER_WORDS = 10
# An emulator that uses less than IDLE_SHARE of a CPU for IDLE_SECONDS, before there is a guest to wait for anything, has stopped.
IDLE_SECONDS, IDLE_SHARE = 30, 0.02
# CPU seconds without a word from the machine that is on its way up. Bochs takes a minute to a kernel's first line.
MOST_SILENT_CPU = {"bochs": 400, "qemu": 120, "qemu-kvm": 120}


class Watch:
    """Asked about once a second. `is_up`: says whether the user's command or shell runs already, after which silence is normal, also when
    what it went by has left the end of the serial line."""

    def __init__(self, kind, cpu_seconds, is_up, native=False, clock=time.monotonic):
        self._most_cpu = MOST_SILENT_CPU[kind]
        self._cpu_seconds, self._is_up, self._native, self._clock = cpu_seconds, is_up, native, clock
        self._seen = None  # the end of the serial line when it last grew
        self._mullion_speaks = self._was_up = False
        self._grew = self._grew_cpu = self._looked = self._looked_cpu = 0.0

    def __call__(self, tail):
        """Returns a reason to give up, or None."""
        now, cpu = self._clock(), self._cpu_seconds()
        if tail != self._seen:
            self._seen = tail
            self._grew, self._grew_cpu = now, cpu
            self._looked, self._looked_cpu = now, cpu
        self._mullion_speaks = self._mullion_speaks or MULLION_LINE in tail
        self._was_up = self._was_up or self._is_up()
        if verdict.STOPPED in tail:
            return "Mullion stopped with the message above"
        if not self._mullion_speaks and iso.NOT_LOADED.encode() in tail:
            return "GRUB could not load what it was to boot; the lines above say why"
        if now - self._grew < QUIET_AFTER_WORDS:
            return None
        if not self._mullion_speaks and GRUB_PROMPT.search(tail):
            return "the machine stands at GRUB's prompt: it could not read or boot the image, or has too little memory (--memory)"
        if GUEST_PANIC in tail and tail.rstrip().endswith(b"]---"):
            return "the guest's kernel panicked and did not restart"
        return None if self._was_up else self._silence(now, cpu)

    def _silence(self, now, cpu):
        where = self._where()
        if cpu - self._grew_cpu > self._most_cpu:
            return f"nothing came from the machine for {cpu - self._grew_cpu:.0f} s of its CPU time; it stopped in {where}"
        if now - self._looked >= IDLE_SECONDS:
            if cpu - self._looked_cpu < IDLE_SHARE * (now - self._looked):
                return f"the machine has done nothing for {now - self._grew:.0f} s; it stopped in {where}"
            self._looked, self._looked_cpu = now, cpu
        return None

    def _where(self):
        if self._mullion_speaks:
            return "Mullion or its guest"
        return "the firmware, GRUB or the kernel" if self._native else "the firmware or GRUB, before Mullion's first line"
