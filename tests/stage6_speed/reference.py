"""A fixed load to compare with: what a server's kind of work costs on this machine at this moment.

A client and a server, two processes joined by socket pairs, exchange lines of the protocol: per operation the server
takes part in one poll, receives, takes the line apart, slices the content, stores it in a dictionary, keeps a copy in a
log that it checksums and packs now and then, and sends a reply. It is never to be changed, since the baselines are
ratios to it: who changes it makes all of them anew.

``python -m tests.stage6_speed.reference 16`` prints the microseconds of processor time of one operation, both sides
together, with 16 requests under way at a time; with 1 it is mostly what it costs to be woken up and to go to sleep.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
import time
import zlib

OPERATIONS = {1: 8_000, 16: 24_000}
"""How many, by how many are under way at a time."""
NAMES = 1000
CONTENT = bytes(range(256))
LOG_BYTES = 64 * 1024


def main(pair_count: int) -> float:
    """Exchange requests over so many pairs; gives the microseconds of processor time that both sides took for one."""
    pairs = [socket.socketpair() for _ in range(pair_count)]
    rounds = OPERATIONS[pair_count] // pair_count
    child = os.fork()
    if child == 0:
        status = 1
        try:
            serve([theirs for _, theirs in pairs], rounds * pair_count)
            status = 0
        finally:
            os._exit(status)
    began_ns = time.process_time_ns()
    for number in range(rounds):
        for place, (ours, _) in enumerate(pairs):
            ours.sendall(b"write name/%d %d\r\n%b\r\n" % ((number * 7 + place) % NAMES, len(CONTENT), CONTENT))
        for ours, _ in pairs:
            assert ours.recv(100).startswith(b"OK ")
    own_ns = time.process_time_ns() - began_ns
    _, status, usage = os.wait4(child, 0)
    assert status == 0, "the serving side has failed"
    return (own_ns / 1000 + (usage.ru_utime + usage.ru_stime) * 1e6) / (rounds * pair_count)


def serve(sockets: list[socket.socket], operations: int) -> None:
    """The other side: answer so many requests."""
    selector = selectors.DefaultSelector()
    for each in sockets:
        selector.register(each, selectors.EVENT_READ)
    store: dict[str, tuple[int, bytes]] = {}
    log: list[bytes] = []
    log_bytes = checksum = version = 0
    while version < operations:
        for key, _ in selector.select():
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            data = connection.recv(1 << 16)
            end = data.index(b"\r\n")
            word, name, size = data[:end].split(b" ")
            assert word == b"write"
            content = data[end + 2 : end + 2 + int(size)]
            version += 1
            store[name.decode()] = (version, content)
            record = len(content).to_bytes(4, "big") + name + content
            log.append(record)
            log_bytes += len(record)
            if log_bytes >= LOG_BYTES:
                checksum = zlib.crc32(b"".join(log), checksum)
                log.clear()
                log_bytes = 0
            connection.sendall(b"OK %d\r\n" % version)


if __name__ == "__main__":
    sys.stdout.write(f"{main(int(sys.argv[1])):.3f}\n")
