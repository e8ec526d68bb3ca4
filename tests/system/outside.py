# SPDX-License-Identifier: MIT
"""What guests find outside of the machine: an HTTP server of a test at this computer, and a name server in the emulator's network."""
import contextlib
import http.server
import socket
import struct
import threading


class Handler(http.server.BaseHTTPRequestHandler):
    """A test says in do_GET() and do_PUT() what it answers."""

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(handler):
    """Yields the server's port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def inet_sum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total ^ 0xffff


class NameServer:
    """A station of its own on QEMU's network, one Ethernet frame in each datagram of a socket: it answers ARP, and questions of DNS about
    the addresses of some names."""
    MAC = bytes.fromhex("525400000053")

    def __init__(self, address, names):
        self.address, self.names = socket.inet_aton(address), names
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # the emulator's end
            probe.bind(("127.0.0.1", 0))
            self.peer = probe.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.socket.sendto(b"", ("127.0.0.1", self.port))  # the end
        self.thread.join()
        self.socket.close()

    def _serve(self):
        while frame := self.socket.recv(65536):
            answer = self._answer(frame)
            if answer:
                self.socket.sendto(answer, ("127.0.0.1", self.peer))

    def _answer(self, frame):
        kind, body = frame[12:14], frame[14:]
        to = frame[6:12] + self.MAC + kind
        if kind == b"\x08\x06" and body[6:8] == b"\0\1" and body[24:28] == self.address:
            return to + body[:6] + b"\0\2" + self.MAC + self.address + body[8:18]
        if kind != b"\x08\0" or body[9] != 17 or body[16:20] != self.address or body[22:24] != b"\0\x35":
            return None
        data = self._resolve(body[28:])
        udp = b"\0\x35" + body[20:22] + struct.pack(">HH", 8 + len(data), 0) + data
        header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + self.address + body[12:16]
        return to + header[:10] + struct.pack(">H", inet_sum(header)) + header[12:] + udp

    def _resolve(self, question):
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1:at + 1 + question[at]].decode())
            at += 1 + question[at]
        asked = question[12:at + 5]
        address = self.names.get(".".join(labels))
        is_known = address and question[at + 1:at + 3] == b"\0\1"
        head = question[:2] + (b"\x81\x80" if address else b"\x81\x83") + struct.pack(">HHHH", 1, is_known and 1 or 0, 0, 0)
        record = b"\xc0\x0c\0\1\0\1" + struct.pack(">IH", 60, 4) + socket.inet_aton(address) if is_known else b""
        return head + asked + record
