"""A proxy in front of an HTTP server that answers some requests badly: errors, delays, torn bodies, closed connections."""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Seen:
    """A request that came through. span: (start, stop) of its Range header, if it has one."""

    number: int
    method: str
    path: str
    span: tuple[int, int] | None


class FaultyProxy:
    """fault(request) -> None, "error" (503), "drop" (no answer), "tear" (half the body), or seconds to wait. Used as a context."""

    def __init__(self, target: str, fault: Callable[[Seen], Any] = lambda seen: None) -> None:
        self.fault = fault
        self.seen: list[Seen] = []
        self._lock = threading.Lock()
        proxy, host = self, urlsplit(target).netloc

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                proxy._answer(self, host)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _any

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FaultyProxy:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler, host: str) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        found = re.match(r"bytes=(\d+)-(\d+)", handler.headers.get("Range") or "")
        with self._lock:
            seen = Seen(
                len(self.seen), handler.command, handler.path, (int(found[1]), int(found[2]) + 1) if found else None
            )
            self.seen.append(seen)
        fault = self.fault(seen)
        if fault == "drop":
            handler.close_connection = True
            handler.connection.close()
            return
        if isinstance(fault, int | float):
            time.sleep(fault)
        if fault == "error":
            self._send(
                handler,
                503,
                [("Content-Type", "application/xml")],
                b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>",
            )
            return
        connection = http.client.HTTPConnection(host, timeout=30)
        connection.request(handler.command, handler.path, body, dict(handler.headers))  # the Host too: it is signed
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        headers = [
            (name, value)
            for name, value in answer.getheaders()
            if name.lower() not in ("transfer-encoding", "connection", "content-length")
        ]
        if handler.command == "HEAD":
            headers.append(("Content-Length", answer.getheader("Content-Length") or "0"))
        try:
            self._send(handler, answer.status, headers, content, torn=fault == "tear")
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client gave up

    @staticmethod
    def _send(
        handler: BaseHTTPRequestHandler,
        status: int,
        headers: list[tuple[str, str]],
        content: bytes,
        *,
        torn: bool = False,
    ) -> None:
        handler.send_response(status)
        for name, value in headers:
            handler.send_header(name, value)
        if handler.command != "HEAD":
            handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(content[: len(content) // 2] if torn else content)
        if torn:
            handler.wfile.flush()
            handler.close_connection = True
            handler.connection.close()
