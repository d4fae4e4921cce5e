"""A small S3 server on loopback with the latency and bandwidth of a network, run as a script: GET with ranges, HEAD and listing of one bucket.

`s3_server.py FOLDER LATENCY_SECONDS BYTES_PER_SECOND(0: no limit)` prints its port. It ends with its standard input.
"""

import os
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlparse

FOLDER, LATENCY, BANDWIDTH = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
CHUNK = 1 << 18
line = threading.Lock()
free_at = [0.0]  # when the line has sent what it was given


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(head=True)

    def do_GET(self) -> None:
        self.answer(head=False)

    def answer(self, *, head: bool) -> None:
        time.sleep(LATENCY)
        url = urlparse(self.path)
        _, _, key = url.path.lstrip("/").partition("/")
        if not key:
            self.listing(parse_qs(url.query))
            return
        path = FOLDER / key
        if not path.is_file():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        size = path.stat().st_size
        start, stop = 0, size
        if (wanted := self.headers.get("Range")) is not None:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = (
                (int(first), min(size, int(last) + 1) if last else size) if first else (max(0, size - int(last)), size)
            )
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("ETag", f'"{size:x}"')
        self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        self.end_headers()
        if not head:
            self.send(path, start, stop)

    def send(self, path: Path, start: int, stop: int) -> None:
        self.wfile.flush()
        with path.open("rb") as file:
            while start < stop:
                count = min(CHUNK, stop - start)
                if BANDWIDTH:
                    with line:
                        free_at[0] = max(free_at[0], time.monotonic()) + count / BANDWIDTH
                        wait = free_at[0] - time.monotonic()
                    time.sleep(max(0.0, wait))
                start += os.sendfile(self.connection.fileno(), file.fileno(), start, count)

    def listing(self, query: dict[str, list[str]]) -> None:
        prefix = query.get("prefix", [""])[0]
        every = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file())
        files = [name for name in every if name.startswith(prefix)]
        entries = "".join(
            f"<Contents><Key>{name}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>x</ETag><Size>{(FOLDER / name).stat().st_size}</Size></Contents>"
            for name in files
        )
        body = f'<?xml version="1.0"?><ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated><KeyCount>{len(files)}</KeyCount>{entries}</ListBucketResult>'.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """A client that has gone is no error here."""


if __name__ == "__main__":
    with Server(("127.0.0.1", 0), Handler) as server:
        print(server.server_address[1], flush=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdin.read()
