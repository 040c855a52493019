"""A tunnel, and a proxy with a folder of its own, between a browser and the viewer."""

import contextlib
import http.client
import http.server
import socket
import socketserver
import threading
from collections.abc import Iterator, Mapping
from typing import Any

# Headers that belong to one connection alone.
_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade"}


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Passes every byte on until one side closes."""
    with contextlib.suppress(OSError):
        while data := source.recv(2**16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def _running(server: socketserver.TCPServer) -> Iterator[int]:
    """Yields the port of the server while it runs."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def tunnel(port: int) -> Iterator[int]:
    """Yields a port that is tunnelled to `port`, as with ssh -L."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", port)) as far:
                back = threading.Thread(target=_pump, args=(far, self.request))
                back.start()
                _pump(self.request, far)
                back.join()

    with _running(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)) as near:
        yield near


@contextlib.contextmanager
def proxy(
    port: int,
    folder: str,
    *,
    keeps_folder: bool = False,
    host: str | None = None,
    own_port: int = 0,
) -> Iterator[int]:
    """Yields the port of a proxy whose folder is the viewer at `port`.

    keeps_folder: leaves the folder in the path, as Jupyter's /proxy/absolute does.
    host: replaces the browser's Host header; None: keeps it.
    own_port: the proxy's port; 0: any free one.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = self.rfile.read(length) if length else None
            if not self.path.startswith(f"{folder}/"):
                return self.answer(404, {}, b"the hub's own page")
            path = self.path if keeps_folder else self.path.removeprefix(folder)
            headers = {k.lower(): v for k, v in self.headers.items() if k.lower() not in _HOP}
            headers |= {} if host is None else {"host": host}
            headers |= {} if keeps_folder else {"x-forwarded-prefix": folder}
            upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            try:
                with contextlib.closing(upstream):
                    upstream.request(self.command, path, body, headers)
                    got = upstream.getresponse()
                    self.answer(got.status, dict(got.getheaders()), got.read())
            except OSError as error:  # as Jupyter's: 500 and the reason
                self.answer(500, {}, str(error).encode())
            return None

        def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in _HOP | {"content-length", "date"}:
                    self.send_header(name, value)
            if status != 204:
                self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = forward

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", own_port), Handler)
    server.daemon_threads = True
    with _running(server) as running:
        yield running
