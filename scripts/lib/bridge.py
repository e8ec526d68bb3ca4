# SPDX-License-Identifier: MIT
"""Between the user's terminal and the machine's serial line."""
import fcntl
import os
import select
import struct
import sys
import termios
import time
import tty

PREFIX = 0x01  # Ctrl-A
QUIT = "quit"
TAIL_BYTES = 64 * 1024
INPUT_LIMIT = 64 * 1024
LOOK = 1  # seconds between two questions whether the machine goes on

HELP = (b"\r\n"
        b"  Ctrl-A h       this help\r\n"
        b"  Ctrl-A x       leave: the machine is switched off hard\r\n"
        b"  Ctrl-A Ctrl-A  send Ctrl-A to the guest\r\n"
        b"  Ctrl-A c       Mullion's monitor (and every other key after Ctrl-A goes to Mullion too)\r\n"
        b"  In the guest, `poweroff` ends the VM; when the last VM has ended, the machine switches itself off.\r\n")


class RawTerminal:
    """Puts the terminal of a file descriptor into raw mode and gives it back as it was."""

    def __init__(self, descriptor):
        self._descriptor = descriptor
        self._saved = None

    def __enter__(self):
        if os.isatty(self._descriptor):
            self._saved = termios.tcgetattr(self._descriptor)
            tty.setraw(self._descriptor)
        return self

    def __exit__(self, kind, value, trace):
        if self._saved:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._saved)


class Keys:
    """Finds Ctrl-A commands in what the user types."""

    def __init__(self):
        self._after_prefix = False

    def feed(self, typed):
        """Returns (bytes for the machine, list of local commands: "h" or "x")."""
        out, commands = bytearray(), []
        for key in typed:
            if self._after_prefix:
                self._after_prefix = False
                if key in b"hx":
                    commands.append(chr(key))
                else:
                    out += bytes((PREFIX, key))
            elif key == PREFIX:
                self._after_prefix = True
            else:
                out.append(key)
        return bytes(out), commands


class Bridge:
    """Carries bytes both ways until the serial line closes, the user leaves or the time is over."""

    def __init__(self, serial, output, stdin=None, hold_until=None, stall=None):
        """output(bytes) takes what the machine sends. Input that is not typed waits until hold_until was seen;
        stall(tail) is asked once a second why the machine goes no further."""
        self._serial = serial
        self._output = output
        self._stdin = stdin
        self._typed = stdin is not None and os.isatty(stdin)
        self._hold_until = None if self._typed else hold_until
        self._stall = stall
        self.stopped_by = None
        self._keys = Keys()
        self._pending = bytearray()
        self.tail = bytearray()

    def run(self, timeout=None):
        """Returns "closed", "stopped" (stopped_by says why), "quit" or "timeout"."""
        deadline = None if timeout is None else time.monotonic() + timeout
        look = time.monotonic() + LOOK
        self._serial.setblocking(False)
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return "timeout"
            want_input = self._stdin is not None and not self._hold_until and len(self._pending) < INPUT_LIMIT
            readers = [self._serial] + ([self._stdin] if want_input else [])
            wait = LOOK if left is None else min(left, LOOK)
            ready, writable, _ = select.select(readers, [self._serial] if self._pending else [], [], wait)
            if self._serial in ready and not self._receive():
                return "closed"
            if self._stall and time.monotonic() >= look:
                look = time.monotonic() + LOOK
                self.stopped_by = self._stall(bytes(self.tail))
                if self.stopped_by:
                    return "stopped"
            if self._stdin in ready and self._read_input() == QUIT:
                return "quit"
            if writable:
                self._send()

    def _receive(self):
        try:
            data = self._serial.recv(65536)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        if not data:
            return False
        self.tail += data
        del self.tail[:-TAIL_BYTES]
        if self._hold_until and self._hold_until in self.tail:
            self._hold_until = None
        self._output(data)
        return True

    def _read_input(self):
        data = os.read(self._stdin, 4096)
        if not data:
            self._stdin = None
            return None
        if not self._typed:
            self._pending += data
            return None
        passed, commands = self._keys.feed(data)
        self._pending += passed
        if "h" in commands:
            write_all(sys.stderr.fileno(), HELP)
        return QUIT if "x" in commands else None

    def type(self, data):
        self._pending += data

    def _send(self):
        try:
            sent = self._serial.send(self._pending)
            del self._pending[:sent]
        except BlockingIOError:
            pass
        except ConnectionError:
            self._pending.clear()

    def last_lines(self, count=40):
        text = self.tail.decode(errors="replace").replace("\r", "")
        return "\n".join(text.splitlines()[-count:])


def write_all(descriptor, data):
    """Writes everything, also to a terminal or pipe that somebody else has made non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view):]
        except BlockingIOError:
            select.select([], [descriptor], [])


def terminal_size(descriptor):
    """(columns, rows), or None when it is no terminal or does not know."""
    try:
        rows, columns = struct.unpack("4H", fcntl.ioctl(descriptor, termios.TIOCGWINSZ, bytes(8)))[:2]
    except OSError:
        return None
    return (columns, rows) if columns and rows else None
