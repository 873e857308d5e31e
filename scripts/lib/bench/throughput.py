"""Bulkhead against hyper alone, over HTTP.

Both servers are up; each round measures each cell of each in turn, so that a noisy moment hits
both. Printed are medians and ratios. A cell with any answer that is not 200 is void. CPU is the time
that all processes of a server used for a request: of the figures it depends least on what else runs.

  W1  identity of 16 FP32 values, binary           (64 bytes of tensor)
  W2  identity of 1x3x224x224 FP32 values, binary  (602 112 bytes of tensor)
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from bench.figures import machine, middle
from bench.models import add_echo
from bench.server import ROOT, Failure, Server, binaries, build

SHAPES = {"W1": [16], "W2": [1, 3, 224, 224]}


def add_arguments(parser):
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--connections", type=numbers, default=[1, 4, 16])
    parser.add_argument("--workloads", type=lambda text: text.split(","), default=["W1", "W2"])
    parser.add_argument("--set", action="append", default=[], help="passed on to the server")
    parser.add_argument("--show-memory", action="store_true")


def need_wrk():
    if not shutil.which("wrk"):
        raise Failure("wrk is not here; Debian has it: apt-get install wrk")


def numbers(text):
    return [int(part) for part in text.split(",")]


def run(options):
    need_wrk()
    build(["bulkhead", "bulkhead-worker", "bulkhead-tests"])
    with tempfile.TemporaryDirectory(prefix="bulkhead-bench-") as folder:
        folder = pathlib.Path(folder)
        for name, shape in SHAPES.items():
            add_echo(folder, name, shape)
        bodies = {name: body(folder, name) for name in options.workloads}
        with Hyper() as hyper, Server(folder, options.set) as bulkhead:
            servers = {"hyper": hyper, "bulkhead": bulkhead}
            table(measure(servers, bodies, options), options)
            if options.show_memory:
                memory(bulkhead)


def body(folder, workload):
    """A request with one binary input, as a file; and the length of its JSON."""
    shape = SHAPES[workload]
    count = 1
    for size in shape:
        count *= size
    tensor = {"name": "INPUT0", "datatype": "FP32", "shape": shape}
    tensor["parameters"] = {"binary_data_size": 4 * count}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    path = folder / f"{workload}.bin"
    path.write_bytes(head + b"\0\0\x80\x3f" * count)
    return path, len(head)


class Hyper:
    def __enter__(self):
        self.process = subprocess.Popen(
            [binaries() / "bare_hyper_echo"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.address = self.process.stdout.readline().strip()
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(timeout=10)

    def children(self):
        return []

    def url(self, workload):
        return f"http://{self.address}/v2/models/{workload}/infer"


def memory(server):
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    for line in status.splitlines():
        if line.startswith(("VmHWM", "RssAnon", "RssShmem")):
            print("supervisor", line)


def measure(servers, bodies, options):
    cells = [(w, c) for w in options.workloads for c in options.connections]
    for workload in options.workloads:
        for server in servers.values():
            wrk(server.url(workload), bodies[workload], 4, 1)
    seen = {}
    for round_number in range(options.rounds):
        for workload, connections in cells:
            for name, server in servers.items():
                before = cpu_seconds(server)
                result = wrk(server.url(workload), bodies[workload], connections, options.seconds)
                spent = cpu_seconds(server) - before
                result = result and (*result[:3], 1e6 * spent / result[3])
                seen.setdefault((workload, connections, name), []).append(result)
        print(f"round {round_number + 1} of {options.rounds} done", file=sys.stderr)
    return seen


def cpu_seconds(server):
    """Of the server and its workers, so far."""
    ticks = 0
    for pid in [server.process.pid, *server.children()]:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def prepare(options):
    """For a measurement of Bulkhead alone."""
    need_wrk()
    if not options.no_build:
        build(["bulkhead", "bulkhead-worker"])
    print(machine())


def cell(server, body_file, connections, seconds):
    """W1 for so long: requests a second, p50 and p99 in µs, and processor time of a request in µs."""
    before = cpu_seconds(server)
    result = wrk(server.url("W1"), body_file, connections, seconds)
    if result is None:
        raise Failure("some answers were not 200")
    rate, p50, p99, count = result
    return rate, p50, p99, 1e6 * (cpu_seconds(server) - before) / count


def wrk(url, body_file, connections, seconds):
    path, json_length = body_file
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "10s"]
    command += ["-s", ROOT / "scripts/lib/body.lua", url, "--", path, str(json_length)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        return None
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1])
    count = int(re.search(r"(\d+) requests in", output)[1])
    return rate, latency(output, "50%"), latency(output, "99%"), count


def latency(output, percentile):
    """Microseconds."""
    value, unit = re.search(rf"{percentile}\s+([\d.]+)(us|ms|s)\b", output).groups()
    return float(value) * {"us": 1, "ms": 1000, "s": 1_000_000}[unit]


def table(seen, options):
    print("| workload | c | hyper req/s | Bulkhead req/s | ratio | hyper p50 µs | Bulkhead p50 µs | added p50 µs | Bulkhead p99 µs | hyper CPU µs | Bulkhead CPU µs |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for workload in options.workloads:
        for c in options.connections:
            pairs = zip(seen[workload, c, "hyper"], seen[workload, c, "bulkhead"])
            pairs = [(h, b) for h, b in pairs if h and b]
            if len(pairs) < len(seen[workload, c, "hyper"]):
                print(f"| {workload} | {c} | void: some answers were not 200 |")
                continue
            hyper, ours = middle([h[0] for h, _ in pairs]), middle([b[0] for _, b in pairs])
            ratio = middle([b[0] / h[0] for h, b in pairs])
            h50, b50 = middle([h[1] for h, _ in pairs]), middle([b[1] for _, b in pairs])
            added = middle([b[1] - h[1] for h, b in pairs])
            p99 = middle([b[2] for _, b in pairs])
            cpu_hyper, cpu_ours = middle([h[3] for h, _ in pairs]), middle([b[3] for _, b in pairs])
            print(f"| {workload} | {c} | {hyper:.0f} | {ours:.0f} | {ratio:.2f} | {h50:.0f} | {b50:.0f} | {added:.0f} | {p99:.0f} | {cpu_hyper:.0f} | {cpu_ours:.0f} |")
