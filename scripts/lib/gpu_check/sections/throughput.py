"""Throughput and latency against Python's torch in one process, on the same device.

Bulkhead and Python take turns, so that a noisy moment hits both; medians over the rounds. Python
does the same work for a batch, one after the other: from pinned memory to the device, the model,
back to pinned memory; and, for comparison, the model alone on a batch that is there already. The
echo model, which is on the host, shows what the way to a worker and back can carry.
"""

from bench.figures import middle
from bench.server import Failure
from gpu_check import load
from gpu_check.plan import BATCHES, MODELS
from gpu_check.report import Aim, unmeasured
from gpu_check.sections.correctness import row, slots
from gpu_check.server import serving

NAME = "throughput"
AIM = 0.95
WARM = 1.0
# Of the time that is left, what is kept back for the end of the server.
RESERVE = 5
ECHO = "echo, no device"

TITLE = (
    "Images a second: Bulkhead over all its connections, Python one batch after the other from pinned memory "
    "and back; latency of one batch at a time, in ms"
)
COLUMNS = [
    "Bulkhead", "Python", "ratio", "Python without copies",
    "Bulkhead p50", "p99", "Python p50", "p99", "Bulkhead, all connections: p50", "p99",
]  # fmt: skip


def rows(_plan):
    cells = [row(model, batch) for model in MODELS for batch in BATCHES]
    return cells + [f"{ECHO}, batch {batch}" for batch in BATCHES]


def run(context, table):
    cells = [(model, batch) for model in MODELS for batch in BATCHES]
    seen = {cell: [] for cell in cells}
    try:
        with serving(context, [*MODELS, "echo"], "8GiB", slots(context)) as server:
            for batch in BATCHES:
                echo(context, server.address, table, batch)
            for cell in cells:
                warm(context, server.address, *cell)
            rounds(context, server.address, seen)
    finally:
        # What there is, should the rest be broken off.
        for cell, of_cell in seen.items():
            if of_cell:
                add(table, cell, of_cell)


def rounds(context, address, seen):
    for _ in range(context.plan.rounds):
        before = context.clock.left()
        for cell, of_cell in seen.items():
            of_cell.append(one_round(context, address, *cell))
        took = before - context.clock.left()
        if context.clock.left() < took + RESERVE:
            return


def warm(context, address, model, batch):
    load.run(context, address, model, batch, context.plan.connections, min(WARM, context.plan.seconds))


def one_round(context, address, model, batch):
    plan = context.plan
    many = good(load.run(context, address, model, batch, plan.connections, plan.seconds))
    one = good(load.run(context, address, model, batch, 1, plan.seconds / 2))
    file, shape = context.model_file(model), context.shape(batch)
    python = context.torch().ask("baseline", file=file, shape=shape, seconds=plan.seconds)
    return many, one, python


def good(report):
    if report["errors"] or not report["count"]:
        raise Failure(f"some answers were not 200: {report['statuses']}")
    return report


def echo(context, address, table, batch):
    plan = context.plan
    warm(context, address, "echo", batch)
    many = good(load.run(context, address, "echo", batch, plan.connections, plan.seconds))
    one = good(load.run(context, address, "echo", batch, 1, plan.seconds / 2))
    cells = [f"{images(many, batch):.0f}", "", "", "", *times(one), "", "", *times(many)]
    table.add(f"{ECHO}, batch {batch}", cells, images=images(many, batch))


def images(report, batch):
    return batch * report["count"] / report["seconds"]


def times(report):
    return [f"{report[key] / 1000:.2f}" for key in ["p50_us", "p99_us"]]


def add(table, cell, seen):
    _, batch = cell
    ours = middle([images(many, batch) for many, _, _ in seen])
    python = batch * middle([side["whole"]["per_second"] for _, _, side in seen])
    bare = batch * middle([side["bare"]["per_second"] for _, _, side in seen])
    # Each round's own, since the machine may have been another in the next.
    ratio = middle([images(many, batch) / (batch * side["whole"]["per_second"]) for many, _, side in seen])

    def middles(reports):
        return times({key: middle([report[key] for report in reports]) for key in ["p50_us", "p99_us"]})

    many, one, sides = ([part[at] for part in seen] for at in range(3))
    cells = [f"{ours:.0f}", f"{python:.0f}", f"{ratio:.2f}", f"{bare:.0f}"]
    cells += middles(one) + middles([side["whole"] for side in sides]) + middles(many)
    figures = {"images": ours, "python": python, "bare": bare, "ratio": ratio, "rounds": len(seen)}
    table.add(row(*cell), cells, **figures)


def aims(plan, table):
    for model in MODELS:
        name = row(model, BATCHES[-1])
        figures, aim = table.figures(name), f"throughput of {name}: {AIM} of Python's or more"
        if figures is None or not plan.on_gpu:
            yield unmeasured(plan, aim, table, name)
        else:
            yield Aim.judged(aim, figures["ratio"] >= AIM, f"{figures['ratio']:.2f}")
