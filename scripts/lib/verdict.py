# SPDX-License-Identifier: MIT
"""What the serial line says about the end: of a command in the guest, of the VMs, of the machine."""
import re

POWER_OFF = re.compile(rb"mullion: power off, status (\d+)")
# The last line of a panic: nothing follows, the machine stands still.
STOPPED = b"mullion: stopped. Reset the machine."
VM_ENDED = re.compile(rb"mullion: vm (\S+) ended: ([^\r\n]*), ran (\d+)\.(\d{3}) s")


def mullion_status(serial):
    """The status that Mullion gave when it switched the machine off, or None: it did not get that far."""
    found = POWER_OFF.findall(serial)
    return int(found[-1]) if found else None


def ended_vms(serial):
    """[(name, how, seconds)] in the order of their ends."""
    return [(name.decode(), how.decode(errors="replace"), int(whole) + int(milli) / 1000)
            for name, how, whole, milli in VM_ENDED.findall(serial)]


class CommandOutput:
    """Cuts a command's output out of the serial stream, between the marks that the guest's /init writes around it."""

    def __init__(self, token):
        self._begin = f"<mullion-command {token}>\n".encode()
        self._end = re.compile(f"<mullion-status {token} (\\d+)>\\r?\\n".encode())
        self._end_start = f"<mullion-status {token} ".encode()
        self._buffer = bytearray()
        self.started = False
        self.status = None

    def feed(self, data):
        """Returns the bytes of the command's output that are certain so far."""
        return self.split(data)[0]

    def split(self, data):
        """Returns what is certain so far, apart: the command's output, and what the machine said before and after it."""
        if self.status is not None:
            return b"", data
        self._buffer += data
        if not self.started:
            position = self._buffer.find(self._begin)
            if position < 0:
                return b"", self._take(self._certain(self._begin))
            before = self._take(position)
            self._take(len(self._begin))
            self.started = True
        else:
            before = b""
        found = self._end.search(self._buffer)
        if found:
            self.status = int(found.group(1))
            return bytes(self._buffer[:found.start()]), before + bytes(self._buffer[found.end():])
        return self._take(self._certain(self._end_start)), before

    def _certain(self, mark):
        """How many bytes cannot belong to the mark."""
        position = self._buffer.find(mark)
        if position >= 0:
            return position
        for length in range(min(len(mark), len(self._buffer)), 0, -1):
            if self._buffer.endswith(mark[:length]):
                return len(self._buffer) - length
        return len(self._buffer)

    def _take(self, count):
        out = bytes(self._buffer[:count])
        del self._buffer[:count]
        return out
