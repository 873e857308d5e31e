"""Five workers on one device under steady load; four faults, each in one of them.

The neighbours of a fault are the four others, each with a client of its own that asks all the time.
`during` is from the fault until its worker is back, and a little after.
"""

import contextlib
import os
import signal
import struct
import time

from bench.figures import percentile
from bench.server import Failure
from gpu_check import calls, load
from gpu_check.report import NO_GPU, Aim, unmeasured
from gpu_check.server import serving

NAME = "faults"
TITLE = "Five workers on one device, a fault in one of them"
COLUMNS = [
    "its caller got", "worker after it", "s until it is back", "neighbours' answers", "neighbours' errors",
    "their p99 before, ms", "during", "ratio",
]  # fmt: skip
FAULTS = ["crash", "oom", "hang", "assert"]
ROWS = {
    "crash": "one is crashed (SIGSEGV)",
    "oom": "one is driven into OOM",
    "hang": "one is hung",
    "assert": "one is poisoned by a device assert",
}
MODELS = [*FAULTS, "bystander"]
MEMORY = "2GiB"
# The last word of the request, `what` in scripts/models/gpu_check.py.
HANG, TAKE, INDEX = 1, 2, 3
FOR_EVER, OUT_OF_RANGE = 1 << 40, 1 << 20
# On a GPU in pieces, to twice its memory; on the CPU at once, and more than there can be.
PIECE_MIB, TOO_MUCH_MIB = 256, 1 << 40
MS = 1e6
CRASH_LIMIT = 1
# For one more fault to be begun.
LEAST_LEFT = 15


def rows(_plan):
    return list(ROWS.values())


def run(context, table):
    hang = f'\n[models.hang]\ninfer_timeout = "{context.plan.infer_timeout:g}s"\n'
    with serving(context, MODELS, MEMORY, hang) as server:
        for model in MODELS:
            warm(context, server.address, model)
        for fault in FAULTS:
            if context.clock.left() < LEAST_LEFT:
                table.add(ROWS[fault], [], why="out of time: the faults before it took all of it")
                continue
            try:
                table.add(ROWS[fault], **measured(context, server, fault))
            except (Failure, OSError) as failure:
                table.add(ROWS[fault], [], why=str(failure))


def warm(context, address, model):
    for _ in range(3):
        answer = plain(context, address, model)
        if not answer.good:
            raise Failure(f"{model}: {answer.status}: {answer.error}")


def measured(context, server, fault):
    calm = context.plan.calm
    # One that an earlier fault has taken for good is nobody's neighbour.
    standing = [model for model in MODELS if model == fault or plain(context, server.address, model).good]
    with contextlib.ExitStack() as stack:
        watched = {m: stack.enter_context(load.Watch(context, server.address, m)) for m in standing}
        time.sleep(calm)
        pid = server.worker(fault)
        began = time.monotonic_ns()
        outcome = make(context, server, fault, pid)
        back = until_back(context, server.address, fault)
        returned = (time.monotonic_ns() - began) / 1e9
        time.sleep(calm / 4)
        worker = after(server, fault, pid)
    if lost := len(MODELS) - len(standing):
        outcome += f" ({lost} of the neighbours are not back from their own fault)"
    answers = [answer for model, watch in watched.items() if model != fault for answer in watch.answers]
    return described(context, fault, (outcome, worker, returned if back else None), (answers, began))


def after(server, fault, pid):
    """What has become of the worker."""
    try:
        return "the same" if server.worker(fault) == pid else "another"
    except Failure:
        return "none"


def described(context, fault, victim, neighbours):
    (outcome, worker, seconds), (answers, began) = victim, neighbours
    if fault == "crash" and worker == "the same":
        raise Failure("its worker goes on: there was no fault")
    errors = sum(status != 200 for *_, status in answers)
    before = [(b - a) / MS for a, b, status in answers if status == 200 and b < began]
    during = [(b - a) / MS for a, b, status in answers if status == 200 and b >= began]
    if not before or not during:
        raise Failure(f"no good answers of the neighbours: {len(before)} before, {len(during)} during; {outcome}")
    p99 = [percentile(before, 0.99), percentile(during, 0.99)]
    back = f"{seconds:.2f}" if seconds is not None else f"not in {context.plan.back_limit:g} s"
    cells = [outcome, worker, back, len(answers), errors]
    cells += [f"{p99[0]:.2f}", f"{p99[1]:.2f}", f"{p99[1] / p99[0]:.2f}"]
    figures = {"errors": errors, "before_ms": p99[0], "during_ms": p99[1]}
    figures |= {"outcome": outcome, "worker": worker, "back_s": seconds}
    why = None
    if fault == "assert" and not context.plan.on_gpu:
        why, cells = NO_GPU, [f"on the CPU it is an error of the request: {outcome}; neighbours' errors: {errors}"]
    return {"cells": cells, "why": why, **figures}


def make(context, server, fault, pid):
    """Does it. Returns what its caller saw, or fails if it was no fault."""
    if fault == "crash":
        crash(pid)
        return "(a signal from outside)"
    memory = context.torch().about.get("memory", 0)
    pieces = max(2 * memory // (PIECE_MIB << 20), 1)
    what = {
        "oom": [TAKE, pieces, PIECE_MIB if context.plan.on_gpu else TOO_MUCH_MIB],
        "hang": [HANG, FOR_EVER, 0],
        "assert": [INDEX, OUT_OF_RANGE, 0],
    }[fault]
    answer = told(context, server.address, fault, what)
    if answer.good:
        raise Failure("its caller got an answer: there was no fault")
    return f"{answer.status}: {answer.error.splitlines()[0][:80]}"


def crash(pid):
    # The first may only take down a handler that waits for stack overflows.
    end = time.monotonic() + CRASH_LIMIT
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < end:
            os.kill(pid, signal.SIGSEGV)
            time.sleep(0.002)


def until_back(context, address, fault):
    end = time.monotonic() + min(context.plan.back_limit, context.clock.left() - 5)
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if plain(context, address, fault).good:
                return True
        time.sleep(0.02)
    return False


def plain(context, address, model):
    return calls.infer(address, model, [image(context)], timeout=30)


def told(context, address, model, what):
    tensors = [image(context), ("what", "INT64", [3], struct.pack("<3q", *what))]
    return calls.infer(address, model, tensors, timeout=30)


def image(context):
    return "x", "FP32", context.shape(1), bytes(context.plan.image_bytes(1))


def aims(plan, table):
    for name in ROWS.values():
        figures, aim = table.figures(name), f"neighbours' errors 0, {name}"
        if figures is None:
            yield unmeasured(plan, aim, table, name)
        else:
            yield Aim.judged(aim, figures["errors"] == 0, f"{figures['errors']}")
