#!/usr/bin/env python3
"""One pool of the examples' service: answers with its name, fails as often as a file says, and tells /metrics.

usage: app.py POOL PORT FILE [ADDRESS]    FILE holds the share of requests to fail, from 0 to 1; it is read for each request
"""
import random
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

POOL, PORT, FILE = sys.argv[1], int(sys.argv[2]), sys.argv[3]
ADDRESS = sys.argv[4] if len(sys.argv) > 4 else "127.0.0.1"
EDGES = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0]
lock = threading.Lock()
counts = {"200": 0, "500": 0}
buckets = [0] * len(EDGES)
total_seconds = 0.0


def metrics():
    labels = f'service="web",pool="{POOL}"'
    lines = ["# TYPE http_requests_total counter"]
    lines += [f'http_requests_total{{{labels},code="{code}"}} {count}' for code, count in counts.items()]
    lines += ["# TYPE http_request_duration_seconds histogram"]
    everything = sum(counts.values())
    for edge, count in [*zip(EDGES, buckets), ("+Inf", everything)]:
        lines += [f'http_request_duration_seconds_bucket{{{labels},le="{edge}"}} {count}']
    lines += [f"http_request_duration_seconds_sum{{{labels}}} {total_seconds}"]
    lines += [f"http_request_duration_seconds_count{{{labels}}} {everything}"]
    return "\n".join(lines) + "\n"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        global total_seconds
        begin = time.monotonic()
        if self.path == "/metrics":
            with lock:
                return self.answer(200, metrics(), "text/plain; version=0.0.4")
        if self.path == "/health":
            return self.answer(200, "well\n", "text/plain")
        with open(FILE, encoding="utf-8") as file:
            fails = random.random() < float(file.read().strip() or 0)
        self.answer(500 if fails else 200, POOL + "\n", "text/plain")
        seconds = time.monotonic() - begin
        with lock:
            counts["500" if fails else "200"] += 1
            total_seconds += seconds
            for place, edge in enumerate(EDGES):
                buckets[place] += seconds <= edge

    def answer(self, status, text, kind):
        body = text.encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.send_header("x-backend", POOL)
        # Head and body in one write: a health check may close after the head.
        self._headers_buffer.append(b"\r\n" + body)
        self.flush_headers()

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        """Who asked is gone."""


Server((ADDRESS, PORT), Handler).serve_forever()
