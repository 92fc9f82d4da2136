"""A web server of its own process that serves a folder, badly if asked to; and what lies in a cache of it."""

from __future__ import annotations

import fcntl
import http.server
import json
import multiprocessing
import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET with the whole file or the range asked for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.count += 1
        if server.faults.get("busy") and server.count % server.faults["busy"] == 0:
            self.send_error(503)
            return
        status = server.faults.get("status")
        if server.faults.get("secret", "") not in self.headers.get("Authorization", ""):
            status = 401
        path = server.folder / self.path.lstrip("/")
        if status or not path.is_file():
            self.send_error(status or 404)
            return
        self._answer(path)

    def _answer(self, path):
        size, start, stop = path.stat().st_size, 0, path.stat().st_size
        if (span := self.headers.get("Range")) and self.server.faults.get("ranges", True):
            first, last = span.removeprefix("bytes=").split("-")
            start, stop = int(first), min(int(last) + 1, size)
            if start >= size:
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        with path.open("rb") as file:
            file.seek(start)
            self._send(file.read(stop - start), start)

    def _send(self, data, start):
        """All of it, or no more than the fault lets through before the connection drops."""
        faults, sent = self.server.faults, 0
        drops = faults.get("drop") and self.server.count % faults["drop"] == 0
        limit = len(data) // 2 if drops else min(len(data), faults.get("most", len(data)))
        with suppress(ConnectionError):
            while sent < limit:
                part = data[sent : min(limit, sent + 65536)]
                self.wfile.write(part)
                sent += len(part)
                time.sleep(faults.get("delay", 0.0))
        with self.server.log.open("a") as log:
            log.write(json.dumps([self.path, start, sent]) + "\n")
        if sent < len(data):
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_):
        pass


def serve(folder, log, port, faults, ready):
    """Serve for ever."""
    os.setpgrp()
    http.server.ThreadingHTTPServer.request_queue_size = 64
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.folder, server.log, server.faults, server.count = folder, log, faults, 0
    ready.put(server.server_port)
    server.serve_forever()


class WebServer:
    """The folder at `address`.

    Faults: every n-th request gets a 503 (busy=n) or half of its bytes and no more (drop=n), no answer has more than so
    many bytes (most=n), seconds of rest after each 64 KiB (delay=s), all answers have a status, ranges=False; who does
    not tell the secret gets a 401.
    """

    def __init__(self, folder: Path, log: Path, **faults):
        self.folder, self.log, self.faults, self.port = folder, log, faults, 0
        self._start()

    def _start(self):
        context = multiprocessing.get_context("spawn")
        ready = context.Queue()
        arguments = (self.folder, self.log, self.port, self.faults, ready)
        self._process = context.Process(target=serve, args=arguments, daemon=True)
        self._process.start()
        self.port = ready.get(timeout=30)
        self.address = f"http://127.0.0.1:{self.port}"

    def given(self) -> list[tuple[str, int, int]]:
        """Path, first byte and bytes sent of each answer."""
        return [tuple(json.loads(line)) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def bytes_of(self, name: str) -> int:
        """Bytes given of a file, over all answers."""
        return sum(sent for path, _, sent in self.given() if path == f"/{name}")

    def kill(self):
        """Stop for good."""
        self._process.kill()
        self._process.join()

    def hang(self):
        """Take connections and say nothing."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def wake(self):
        """Go on after `hang`."""
        os.kill(self._process.pid, signal.SIGCONT)

    def restart(self, **faults):
        """At the same address, with other faults."""
        self.kill()
        self.faults = faults
        self._start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


def taken(cache: Path) -> int:
    """Bytes of all files in a cache's folder, while nobody may make room or take it."""
    with suppress(FileNotFoundError), (cache / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return sum(path.stat().st_size for path in cache.iterdir() if path.name != "lock")
    return 0
