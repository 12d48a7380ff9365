"""A local HTTP server with one file, and the faults that a server can have."""

import contextlib
import http.server
import threading

CONTENT = bytes(range(256)) * 20


class FileServer(http.server.ThreadingHTTPServer):
  """Serves CONTENT under every name but /absent.

  Attributes:
    faults: of the requests to come, one each: "cut" ends after half of what was asked for, "drop"
      answers nothing, "wait" holds the second half back until `go` is set, a number is that HTTP
      status; None or none left: as it should be.
    ranges: whether Range requests are understood.
    requests: the Range header of each request so far, None where there was none.
    sent: bytes of the file sent so far.
  """

  def __init__(self):
    super().__init__(("127.0.0.1", 0), _Handler)
    self.faults, self.ranges, self.requests, self.sent = [], True, [], 0
    self.go = threading.Event()

  def handle_error(self, *_):
    """Says nothing of clients that have hung up."""

  def url(self, name="file.bin"):
    return f"http://127.0.0.1:{self.server_port}/{name}"


class _Handler(http.server.BaseHTTPRequestHandler):
  def do_GET(self):
    asked = self.headers["Range"]
    self.server.requests.append(asked)
    fault = self.server.faults.pop(0) if self.server.faults else None
    if self.path == "/absent":
      fault = 404
    if fault == "drop":
      return
    if isinstance(fault, int):
      self.send_error(fault)
      return
    start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
    if not self.server.ranges:
      start = 0
    elif asked and start >= len(CONTENT):
      self.send_error(416)
      return
    self._send(CONTENT[start:], 206 if asked and self.server.ranges else 200, fault)

  def _send(self, body, status, fault):
    self.send_response(status)
    self.send_header("Content-Length", str(len(body)))
    self.end_headers()
    half = len(body) // 2
    for part in (body[:half],) if fault == "cut" else (body[:half], body[half:]):
      # Counted first: a client that has all of it must find all of it counted.
      self.server.sent += len(part)
      self.wfile.write(part)
      if fault == "wait":
        self.server.go.wait(10)

  def log_message(self, *_):
    pass


@contextlib.contextmanager
def serve():
  """A running FileServer."""
  with FileServer() as server:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
      yield server
    finally:
      server.go.set()
      server.shutdown()
      thread.join()
