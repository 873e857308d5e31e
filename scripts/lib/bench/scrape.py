"""What it costs to be scraped: throughput with and without, in turns on the same server.

Each round measures every cell once without a scraper and once with one, and changes which comes first. The
model is W1 of `scripts/bench http`; idle models beside it make the scrape longer. Printed are medians. CPU is
the time that server and workers used for a request. The ratio is that of the two turns of a round, with the
interval in which its median lies with 95 %: many short rounds tell a smaller difference than few long ones.
What a scrape itself takes of the server's processor time is measured apart, without load: of the figures it
depends least on what else runs.
"""

import http.client
import os
import pathlib
import re
import socket
import tempfile
import threading
import time

from bench import throughput
from bench.figures import middle, ratios
from bench.models import add_echo
from bench.server import Failure, Server


def add_arguments(parser):
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--connections", type=throughput.numbers, default=[4, 16])
    parser.add_argument("--rate", type=float, default=10, help="scrapes a second")
    parser.add_argument("--idle", type=int, default=20, help="models that nobody asks")
    parser.add_argument("--no-build", action="store_true", help="with the release build that is there")


def run(options):
    throughput.prepare(options)
    with tempfile.TemporaryDirectory(prefix="bulkhead-bench-") as folder:
        folder = pathlib.Path(folder)
        add_echo(folder, "W1", throughput.SHAPES["W1"])
        for number in range(options.idle):
            add_echo(folder, f"idle{number}", [16])
        with Server(folder) as server:
            body = throughput.body(folder, "W1")
            throughput.wrk(server.url("W1"), body, 4, 1)
            table(measure(server, body, options), options)
            alone(server, options)


def measure(server, body, options):
    seen = {}
    for turn in range(options.rounds):
        for connections in options.connections:
            for scraped in (True, False) if turn % 2 else (False, True):
                seen.setdefault((connections, scraped), []).append(
                    cell(server, body, connections, options, scraped)
                )
    return seen


def cell(server, body, connections, options, scraped):
    scraper = Scraper(server.metrics, options.rate) if scraped else None
    try:
        rate, _p50, p99, cpu = throughput.cell(server, body, connections, options.seconds)
    finally:
        scrapes = scraper.stop() if scraper else []
    if scraped and not scrapes:
        raise Failure("nothing was scraped")
    return rate, p99, cpu, scrapes


class Scraper:
    """Scrapes so often, on a connection that is kept, and takes little of the processors itself."""

    def __init__(self, address, rate):
        self.address, self.pause, self.scrapes = address, 1 / rate, []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.scrape)
        self.thread.start()

    def scrape(self):
        host, port = self.address.rsplit(":", 1)
        request = f"GET /metrics HTTP/1.1\r\nHost: {self.address}\r\n\r\n".encode()
        due = time.monotonic()
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            while not self.ended.wait(max(0, due - time.monotonic())):
                began = time.monotonic()
                connection.sendall(request)
                size = receive(connection)
                self.scrapes.append((time.monotonic() - began, size))
                due += self.pause

    def stop(self):
        self.ended.set()
        self.thread.join()
        return self.scrapes


def receive(connection):
    """The length of the body of an answer."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(1 << 17)
    head, _, body = head.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.I)
    if not head.startswith(b"HTTP/1.1 200") or not length:
        raise Failure(f"a scrape was answered with {head[:200]!r}")
    left = int(length[1]) - len(body)
    while left > 0:
        left -= len(connection.recv(min(left, 1 << 17))) or left + 1
    if left < 0:
        raise Failure("a scrape broke off")
    return int(length[1])


def alone(server, options, scrapes=1000):
    connection = http.client.HTTPConnection(server.metrics, timeout=10)
    before = throughput.cpu_seconds(server)
    for _ in range(scrapes):
        connection.request("GET", "/metrics")
        connection.getresponse().read()
    each = (throughput.cpu_seconds(server) - before) / scrapes
    share = 100 * each * options.rate / os.cpu_count()
    print(
        f"A scrape takes {1e6 * each:.0f} µs of the server's processor time; {options.rate:g} a second are "
        f"{share:.2f} % of this machine's processors."
    )


def table(seen, options):
    print("| c | req/s alone | scraped | ratio | 95 % | p99 µs alone | scraped | CPU µs alone | scraped | ratio | 95 % |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for c in options.connections:
        alone, scraped = seen[c, False], seen[c, True]
        speed, cpu = (ratios([cell[i] for cell in alone], [cell[i] for cell in scraped]) for i in (0, 2))
        columns = [middle([cell[i] for cell in cells]) for i in range(3) for cells in (alone, scraped)]
        print(
            f"| {c} | {columns[0]:.0f} | {columns[1]:.0f} | {speed} | {columns[2]:.0f} | {columns[3]:.0f} "
            f"| {columns[4]:.1f} | {columns[5]:.1f} | {cpu} |"
        )
    scrapes = [scrape for cell in seen.values() for turn in cell for scrape in turn[3]]
    took, size = middle([s[0] for s in scrapes]) * 1000, middle([s[1] for s in scrapes]) / 1000
    print(f"Under load a scrape of {size:.0f} kB took {took:.1f} ms.")
