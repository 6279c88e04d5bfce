"""Stands for what an emulator of AWS has not: something that sends requests by the weights that the API holds.

It asks for them five times a second and sends each request to one of two ports by them. It is no part of Tidegate, and no
more than enough for an example.
"""
import http.client
import random
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        """Who asked is gone."""


def serve(port, pools, ask):
    """Serves `port` for ever. `pools`: two ports; `ask`: gives their weights, in this order."""
    weights = [1, 0]

    def watch():
        while True:
            try:
                weights[:] = ask()
            except Exception as error:
                # Without an answer it goes on as it was.
                print(f"emulate: {error}", file=sys.stderr, flush=True)
            time.sleep(0.2)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            pool = random.choices(pools, weights)[0]
            try:
                connection = http.client.HTTPConnection("127.0.0.1", pool, timeout=5)
                connection.request("GET", self.path)
                answer = connection.getresponse()
                status, body = answer.status, answer.read()
                connection.close()
            except OSError:
                status, body = 502, b""
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    threading.Thread(target=watch, daemon=True).start()
    Server(("127.0.0.1", port), Handler).serve_forever()
