"""How quickly many small models are ready, and what memory they take.

The models are copies of the digits model, each with a file of its own, and echo models. Memory is
what the kernel says of each process (smaps_rollup): PSS counts a shared page in parts, private is
what would come free if the process ended.
"""

import pathlib
import tempfile
import time

from bench.figures import machine, middle, verdict
from bench.models import add_digits, add_echo
from bench.server import Failure, Server, build, is_worker

# Kind of model, how many, how they start, how often it is repeated.
CASES = [
    ("digits", 10, "zygote", 5),
    ("digits", 50, "zygote", 1),
    ("echo", 10, "zygote", 5),
    # The last: on a busy machine ten frameworks at once may not be loaded in time.
    ("digits", 10, "exec", 3),
]
# Workers are idle then: what they do after loading is done.
SETTLE = 0.5
AIM_READY, AIM_PSS, AIM_PRIVATE = 2.0, 300, 15


def add_arguments(parser):
    parser.add_argument("--repeat", type=int, help="how often each case is measured")
    parser.add_argument("--set", action="append", default=[], help="passed on to the server")


def run(options):
    build(["bulkhead", "bulkhead-worker", "bulkhead-worker-torch"])
    print(machine() + "\n", flush=True)
    print("Medians; memory in MB (10^6 bytes); private of a worker is the largest of them.\n")
    print("| models | start | times | ready s | PSS of all | supervisor PSS | zygotes PSS | private of a worker |")
    print("|---|---|---|---|---|---|---|---|")
    results = {}
    for case in CASES:
        kind, count, start, times = case
        try:
            seen = [measure(case, options.set) for _ in range(options.repeat or times)]
        except Failure as failure:
            print(f"| {count} {kind} | {start} | void: {str(failure).splitlines()[0]} |", flush=True)
            continue
        row = [middle(values) for values in zip(*seen)]
        results[kind, count, start] = row
        ready, *memory = row
        figures = " | ".join(f"{value:.1f}" for value in memory)
        print(f"| {count} {kind} | {start} | {len(seen)} | {ready:.2f} | {figures} |", flush=True)
    aims(results)


def measure(case, settings):
    kind, count, start, _ = case
    with tempfile.TemporaryDirectory(prefix="bulkhead-bench-") as folder:
        folder = pathlib.Path(folder)
        for number in range(count):
            name = f"{kind}{number}"
            add_digits(folder, name) if kind == "digits" else add_echo(folder, name, [16])
        server = Server(folder, [f"worker.start={start}"] + settings)
        server.launch()
        try:
            ready = server.wait_ready()
            time.sleep(SETTLE)
            return [ready] + memory(server, count)
        finally:
            server.__exit__()


def memory(server, count):
    """In MB: PSS of all, of the supervisor, of the zygotes; most private memory of a worker."""
    supervisor = rollup(server.process.pid)["Pss"]
    workers, others = [], []
    for pid, words in server.children().items():
        (workers if is_worker(words) else others).append(rollup(pid))
    if len(workers) != count:
        raise Failure(f"{len(workers)} workers instead of {count}")
    zygotes = sum(process["Pss"] for process in others)
    everything = supervisor + zygotes + sum(worker["Pss"] for worker in workers)
    private = max(worker["Private_Clean"] + worker["Private_Dirty"] for worker in workers)
    return [everything, supervisor, zygotes, private]


def rollup(pid):
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    words = [line.split() for line in lines]
    return {name.rstrip(":"): int(size) * 1024 / 1e6 for name, size, _ in words}


def aims(results):
    if ("digits", 10, "zygote") not in results or ("digits", 50, "zygote") not in results:
        return
    ready, everything, *_ = results["digits", 10, "zygote"]
    print(f"\nAim for ten: ready in {AIM_READY} s or less: {ready:.2f}, {verdict(ready, AIM_READY)}.")
    print(f"Aim for ten: {AIM_PSS} MB of PSS or less: {everything:.0f}, {verdict(everything, AIM_PSS)}.")
    for count in [10, 50]:
        private = results["digits", count, "zygote"][-1]
        print(f"Aim for each of {count}: {AIM_PRIVATE} MB private or less: {private:.1f}, {verdict(private, AIM_PRIVATE)}.")
