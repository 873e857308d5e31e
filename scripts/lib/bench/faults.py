"""How long a killed worker is away, and what its neighbour notices.

Two copies of the digits model serve under steady load, each from a client process of its own: one
is killed again and again, the other is its neighbour. A start is timed from just before SIGKILL is
sent to the first good answer to a request that was sent after it. Workers that are copied from
the zygote and those that are started as programs take turns, each with a server of its own.
"""

import os
import pathlib
import signal
import tempfile
import time

from bench.figures import machine, percentile, verdict
from bench.load import Load
from bench.models import add_digits
from bench.server import Server, build

STARTS = ["zygote", "exec"]
KILLS = 10
VICTIM_PACE, NEIGHBOUR_PACE = 1_000_000, 2_000_000
# Each kill is to be the first after a healthy run: those restart at once.
RESET = 1.0
SETTINGS = [f"restart.reset_after={RESET:g}s", "restart.max_restarts=1000"]
# Kills come after the neighbour's calm time, which is longer than that.
CALM = RESET + 0.3
# What belongs to the fault: until the answer, and so long after it.
AFTERMATH = 100_000_000
AIM_START, AIM_RATIO = 50, 1.5
MS = 1_000_000


def add_arguments(parser):
    parser.add_argument("--rounds", type=int, default=3, help=f"of {KILLS} kills in each way of starting")
    parser.add_argument("--start", choices=STARTS, action="append", help="only this way of starting workers")
    parser.add_argument("--set", action="append", default=[], help="passed on to the server")
    parser.add_argument("--log", type=pathlib.Path, help="where the servers' logs are added to")


def run(options):
    build(["bulkhead", "bulkhead-worker", "bulkhead-worker-torch", "bulkhead-tests"])
    print(machine())
    results = {start: Result() for start in options.start or STARTS}
    for number in range(options.rounds):
        for start in results:
            with tempfile.TemporaryDirectory(prefix="bulkhead-bench-") as folder:
                one_round(pathlib.Path(folder), start, options, results[start])
        print(f"round {number + 1} of {options.rounds} done", flush=True)
    report(results)


class Result:
    def __init__(self):
        self.starts, self.errors, self.neighbour_errors = [], 0, 0
        self.neighbour = {"before": [], "during": [], "after": [], "throughout": []}


def one_round(folder, start, options, result):
    for name in ["victim", "neighbour"]:
        add_digits(folder, name)
    settings = SETTINGS + [f"worker.start={start}"] + options.set
    with Server(folder, settings, options.log) as server:
        victim = Load(server.address, "victim", VICTIM_PACE)
        neighbour = Load(server.address, "neighbour", NEIGHBOUR_PACE)
        try:
            faults = [kill(server, victim) for _ in range(KILLS)]
            time.sleep(CALM)
        finally:
            of_victim, of_neighbour = victim.stop(), neighbour.stop()
    result.starts += [(answered - killed) / MS for killed, answered in faults]
    result.errors += sum(not good for _, _, good in of_victim)
    result.neighbour_errors += sum(not good for _, _, good in of_neighbour)
    sort_by_phase(of_neighbour, faults, result.neighbour)


def kill(server, victim):
    # Looking for the process takes time of both cores: between what counts as after and as before.
    time.sleep(CALM / 2)
    pid = server.worker("victim")
    time.sleep(CALM / 2)
    killed = time.monotonic_ns()
    os.kill(pid, signal.SIGKILL)
    return killed, victim.good_answer_after(killed)


def sort_by_phase(answers, faults, phases):
    """Latencies in ms. Half of the calm time between two faults counts as after, half as before; all of it
    from the first kill on is throughout."""
    calm = int(CALM * 1e9 / 2)
    phases["throughout"] += [(b - a) / MS for a, b, _ in answers if b >= faults[0][0]]
    for killed, answered in faults:
        end = answered + AFTERMATH
        spans = {"before": (killed - calm, killed), "during": (killed, end), "after": (end, end + calm - AFTERMATH)}
        for phase, (first, last) in spans.items():
            phases[phase] += [(b - a) / MS for a, b, _ in answers if b >= first and a < last]


def report(results):
    print(f"Set: {', '.join(SETTINGS)}; a kill each {CALM:g} s after the answer before it.")
    print(f"Loads: victim {1e9 / VICTIM_PACE:.0f}/s, neighbour {1e9 / NEIGHBOUR_PACE:.0f}/s.\n")
    print("| start | kills | p50 ms | p90 ms | max ms | errors of the victim's clients |")
    print("|---|---|---|---|---|---|")
    for start, result in results.items():
        times = result.starts
        p50, p90 = percentile(times, 0.5), percentile(times, 0.9)
        print(f"| {start} | {len(times)} | {p50:.1f} | {p90:.1f} | {max(times):.1f} | {result.errors} |")
    print("\n| start | neighbour | answers | p50 ms | p99 ms | p99 against before |")
    print("|---|---|---|---|---|---|")
    for start, result in results.items():
        before = percentile(result.neighbour["before"], 0.99)
        for phase, values in result.neighbour.items():
            p50, p99 = percentile(values, 0.5), percentile(values, 0.99)
            print(f"| {start} | {phase} | {len(values)} | {p50:.2f} | {p99:.2f} | {p99 / before:.2f} |")
    print(f"\nErrors of the neighbour's clients: {sum(r.neighbour_errors for r in results.values())}")
    if "zygote" in results:
        aims(results["zygote"])


def aims(result):
    p50 = percentile(result.starts, 0.5)
    print(f"Aim with the zygote: p50 of {AIM_START} ms or less: {p50:.1f} ms, {verdict(p50, AIM_START)}.")
    before, during = (percentile(result.neighbour[phase], 0.99) for phase in ["before", "during"])
    ratio = during / before
    print(f"Aim for the neighbour: p99 during {AIM_RATIO} times that before or less: {ratio:.2f}, {verdict(ratio, AIM_RATIO)}.")
