"""Two builds of Bulkhead, in turns: what a change costs, or brings.

Both serve W1 of `scripts/bench http` at the same time and are measured one after the other, in many short rounds.
Printed are medians, and of each figure the ratio within a round with the interval in which its median lies with
95 %. CPU is the time that server and workers used for a request.
"""

import pathlib
import tempfile

from bench import throughput
from bench.figures import middle, ratios
from bench.models import add_echo
from bench.server import Server, binaries


def add_arguments(parser):
    parser.add_argument("--other", type=pathlib.Path, required=True, help="the folder of the other build's programs")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--connections", type=throughput.numbers, default=[1, 4])
    parser.add_argument("--no-build", action="store_true", help="with the release build that is there")


def run(options):
    throughput.prepare(options)
    with tempfile.TemporaryDirectory(prefix="bulkhead-bench-") as folder:
        places = {"other": options.other.resolve(), "this": binaries()}
        folders = {name: pathlib.Path(folder) / name for name in places}
        for place in folders.values():
            place.mkdir()
            add_echo(place, "W1", throughput.SHAPES["W1"])
        with (
            Server(folders["other"], programs=places["other"]) as other,
            Server(folders["this"], programs=places["this"]) as this,
        ):
            servers = {"other": other, "this": this}
            bodies = {name: throughput.body(folders[name], "W1") for name in servers}
            for name, server in servers.items():
                throughput.wrk(server.url("W1"), bodies[name], 4, 1)
            table(measure(servers, bodies, options), options)


def measure(servers, bodies, options):
    seen = {}
    for turn in range(options.rounds):
        for connections in options.connections:
            for name in list(servers)[:: 1 if turn % 2 else -1]:
                cell = throughput.cell(servers[name], bodies[name], connections, options.seconds)
                seen.setdefault((connections, name), []).append(cell)
    return seen


def table(seen, options):
    print("| c | figure | other | this | ratio | 95 % |")
    print("|---|---|---|---|---|---|")
    for c in options.connections:
        for index, name in enumerate(["req/s", "p50 µs", "p99 µs", "CPU µs"]):
            other, this = ([cell[index] for cell in seen[c, build]] for build in ("other", "this"))
            print(f"| {c} | {name} | {middle(other):.4g} | {middle(this):.4g} | {ratios(other, this)} |")
