# SPDX-License-Identifier: MIT
"""What guests find outside of the machine: an HTTP server of a test, at this computer."""
import contextlib
import http.server
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
