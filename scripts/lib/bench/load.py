"""A steady load of the digits model: a request each so often, whatever became of those before.

Runs as a process of its own (`start`), so that neither the other loads nor whoever measures takes
its time. Each answer is kept: when it was asked for, when it came, and whether it was good. Requests
go over connections that are kept; one that is still waiting is passed over.
"""

import json
import multiprocessing
import selectors
import socket
import struct
import time

PIXELS = 64
# As many requests may wait at a time, fewer than the server's queue takes.
CONNECTIONS = 200


class Load:
    """Start it, mark moments by `time.monotonic_ns`, stop it to get its answers."""

    def __init__(self, address, model, pace):
        ours, theirs = multiprocessing.Pipe()
        self.pipe = ours
        self.process = multiprocessing.Process(target=run, args=(address, model, pace, theirs))
        self.process.start()
        theirs.close()
        # All connections stand.
        ours.recv()

    def good_answer_after(self, moment, limit=30):
        """When the first good answer came to what was asked for after `moment`."""
        self.pipe.send(moment)
        if not self.pipe.poll(limit):
            raise TimeoutError("no good answer came")
        return self.pipe.recv()

    def stop(self):
        """All answers: (asked, answered, good), in nanoseconds."""
        self.pipe.send(None)
        answers = self.pipe.recv()
        self.process.join()
        return answers


def run(address, model, pace, pipe):
    pacer = Pacer(address, model, pace, pipe)
    pipe.send(None)
    pacer.serve()


class Connection:
    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.asked = 0

    def whole(self):
        """The status of the answer, once all of it is here."""
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return None
        length = 0
        for line in head.split(b"\r\n"):
            if line[:15].lower() == b"content-length:":
                length = int(line[15:])
        return int(head.split(b" ", 2)[1]) if len(body) >= length else None


class Pacer:
    def __init__(self, address, model, pace, pipe):
        self.address, self.pace, self.pipe = address, pace, pipe
        self.prefix, self.head = request(address, model)
        self.selector = selectors.DefaultSelector()
        self.selector.register(pipe, selectors.EVENT_READ)
        # The one that was used last is used next, so that few of them are warm and not all lukewarm.
        self.idle = [Connection(address) for _ in range(CONNECTIONS)]
        for connection in self.idle:
            self.selector.register(connection.socket, selectors.EVENT_READ, connection)
        self.answers, self.count, self.awaited, self.stopping = [], 0, None, False

    def serve(self):
        due = time.monotonic_ns()
        while not self.stopping:
            now = time.monotonic_ns()
            if now >= due:
                self.ask()
                # What was missed is not made up for: that would be a burst.
                due = max(due + self.pace, now)
            # Rounded up by the selector to milliseconds, so the last one is spun.
            wait = max(due - time.monotonic_ns(), 0) / 1e9
            for key, _ in self.selector.select(wait if wait > 0.001 else 0):
                self.order() if key.data is None else self.hear(key.data)
        self.pipe.send(self.answers)

    def order(self):
        self.awaited = self.pipe.recv()
        self.stopping = self.awaited is None

    def ask(self):
        if not self.idle:
            return
        connection = self.idle.pop()
        self.count += 1
        # No two requests are alike: one that is in flight alone at two kills would be refused.
        pixels = struct.pack("<f", self.count) + self.head
        connection.received, connection.asked = b"", time.monotonic_ns()
        connection.socket.sendall(self.prefix + pixels)

    def hear(self, connection):
        piece = connection.socket.recv(65536)
        connection.received += piece
        status = connection.whole()
        if status is None and piece:
            return
        now, good = time.monotonic_ns(), status == 200
        self.answers.append((connection.asked, now, good))
        if good and self.awaited is not None and connection.asked > self.awaited:
            self.pipe.send(now)
            self.awaited = None
        if piece:
            self.idle.append(connection)
        else:
            self.selector.unregister(connection.socket)


def request(address, model):
    """The constant parts of a request: up to its first pixel, and after it."""
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8]}
    tensor["parameters"] = {"binary_data_size": 4 * PIXELS}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    lines = [
        f"POST /v2/models/{model}/infer HTTP/1.1",
        f"Host: {address}",
        "Content-Type: application/octet-stream",
        f"Inference-Header-Content-Length: {len(head)}",
        f"Content-Length: {len(head) + 4 * PIXELS}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + head, b"\0" * 4 * (PIXELS - 1)
