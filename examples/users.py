#!/usr/bin/env python3
"""Users who are sent by name: each request asks the name server first. A hundred requests a second, for ten minutes at most.

usage: users.py SERVER:PORT NAME A|SRV PORT    PORT is where an address of type A is called; SRV names the port itself
"""
import http.client
import random
import socket
import struct
import sys
import threading
import time

SERVER, NAME, TYPE, PORT = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
TYPES = {"A": 1, "SRV": 33}
USERS = 5
UNTIL = time.monotonic() + 600


def question(name, kind, number):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split("."))
    return struct.pack(">6H", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", TYPES[kind], 1)


def read_name(message, at):
    """A name, and where it ends; a pointer leads back to where its rest has stood before."""
    labels, end = [], None
    for _ in range(128):
        length = message[at]
        if length >= 0xC0:
            end = end or at + 2
            at = (length & 0x3F) << 8 | message[at + 1]
        elif length == 0:
            return ".".join(labels), end or at + 1
        else:
            labels.append(message[at + 1 : at + 1 + length].decode())
            at += 1 + length
    raise ValueError("a name without an end")


def ask(server, name, kind):
    """The data of all records of this type."""
    number = random.randrange(65536)
    server.send(question(name, kind, number))
    message = server.recv(4096)
    found, flags, _, answers = struct.unpack(">4H", message[:8])
    if found != number or flags & 15:
        raise ValueError("no answer")
    at = read_name(message, 12)[1] + 4
    data = []
    for _ in range(answers):
        at = read_name(message, at)[1]
        (is_kind, _, _, length) = struct.unpack(">2HIH", message[at : at + 10])
        at += 10
        if is_kind == TYPES["A"] == TYPES[kind]:
            data.append(socket.inet_ntoa(message[at : at + 4]))
        elif is_kind == TYPES["SRV"] == TYPES[kind]:
            weight, port = struct.unpack(">2H", message[at + 2 : at + 6])
            data.append((weight, port, read_name(message, at + 6)[0]))
        at += length
    return data


def where(server):
    """Address and port of one request."""
    data = ask(server, NAME, TYPE)
    if TYPE == "A":
        return data[0], PORT
    # By weight, as RFC 2782 says: those with weight 0 first, and a number from 0 to the sum, both included.
    data.sort(key=lambda one: one[0] > 0)
    left = random.randint(0, sum(weight for weight, _, _ in data))
    for weight, port, target in data:
        if left <= weight:
            return ask(server, target, "A")[0], port
        left -= weight


def user():
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.settimeout(2)
    host, port = SERVER.split(":")
    server.connect((host, int(port)))
    due = time.monotonic()
    while due < UNTIL:
        try:
            pool = http.client.HTTPConnection(*where(server), timeout=2)
            pool.request("GET", "/")
            pool.getresponse().read()
            pool.close()
        except (OSError, ValueError, IndexError, http.client.HTTPException):
            # Nobody there, now: the next request asks again.
            time.sleep(0.1)
        due = max(due + USERS / 100, time.monotonic() - 1)
        time.sleep(max(0, due - time.monotonic()))


users = [threading.Thread(target=user, daemon=True) for _ in range(USERS)]
for one in users:
    one.start()
for one in users:
    one.join()
