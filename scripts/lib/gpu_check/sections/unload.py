"""How long after an unload a worker's memory is back, as the driver says of the whole device.

In a rehearsal without a GPU it is the host memory of the worker's processes.
"""

import threading
import time

from bench.server import Failure, is_worker
from gpu_check import calls
from gpu_check.report import NO_GPU, Aim, unmeasured
from gpu_check.sections.correctness import slots
from gpu_check.server import serving

NAME = "unload"
TITLE = "Memory back after an unload, ResNet-50 after a batch of 32"
COLUMNS = [
    "times", "MB of the worker", "ms from the unload's request, median", "largest", "largest after its answer",
    "ms until its answer, largest",
]  # fmt: skip
ROW = "memory back"
MODEL, BATCH = "resnet50", 32
AIM_MS = 500
# So much of what the worker had may be missing: others use the device as well.
TOLERANCE = 0.05
BACK_LIMIT = 15
PAUSE = 0.001
# For one more load and unload to be begun.
LEAST_LEFT = 25


def rows(_plan):
    return [ROW]


def run(context, table):
    seen = []
    with serving(context, [], "8GiB", slots(context)) as server:
        meter = device_meter(context) if context.plan.on_gpu else host_meter(server)
        before = meter()
        while len(seen) < context.plan.unloads and (not seen or context.clock.left() > LEAST_LEFT):
            seen.append(once(context, server.address, meter, before))
    sizes, whole, after, answered = zip(*seen, strict=True)
    ranked = sorted(whole)
    cells = [len(seen), f"{min(sizes) / 1e6:.0f}", f"{ranked[len(ranked) // 2]:.0f}", f"{ranked[-1]:.0f}"]
    cells += [f"{max(after):.0f}", f"{max(answered):.0f}"]
    why = None if context.plan.on_gpu else NO_GPU
    if why:
        cells = [f"rehearsed with host memory: {ranked[-1]:.0f} ms"]
    table.add(ROW, cells, why=why, largest_ms=ranked[-1], after_answer_ms=max(after), answered_ms=max(answered))


def device_meter(context):
    side = context.torch()
    return lambda: side.ask("memory")["used"]


def host_meter(server):
    def used():
        workers = [pid for pid, words in server.children().items() if is_worker(words, MODEL)]
        return sum(map(resident, workers))

    return used


def resident(pid):
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * 4096
    except OSError:
        return 0


def once(context, address, meter, before):
    """Bytes of the worker, ms until they were back, from the request and from its answer, and from the one
    to the other."""
    expect_good(calls.load(address, MODEL), "load")
    shape = context.shape(BATCH)
    zeros = bytes(context.plan.image_bytes(BATCH))
    expect_good(calls.infer(address, MODEL, [("x", "FP32", shape, zeros)]), "inference")
    size = meter() - before
    if size <= 0:
        raise Failure("the loaded model takes no memory: others on this device give some back")
    asked = time.monotonic()
    unloading = Unloading(address)
    unloading.start()
    while meter() - before > size * TOLERANCE:
        if time.monotonic() > asked + BACK_LIMIT:
            raise Failure(f"not back {BACK_LIMIT} s after the unload: {(meter() - before) / 1e6:.0f} MB")
        time.sleep(PAUSE)
    back = time.monotonic()
    unloading.join(BACK_LIMIT)
    expect_good(unloading.answer, "unload")
    answered = unloading.answered
    return size, 1000 * (back - asked), 1000 * max(back - answered, 0), 1000 * (answered - asked)


class Unloading(threading.Thread):
    answer = None

    def __init__(self, address):
        super().__init__(daemon=True)
        self.address = address

    def run(self):
        self.answer = calls.unload(self.address, MODEL)
        self.answered = time.monotonic()


def expect_good(answer, what):
    if answer is None:
        raise Failure(f"{what}: no answer")
    if not answer.good:
        raise Failure(f"{what}: {answer.status}: {answer.error}")


def aims(plan, table):
    figures, aim = table.figures(ROW), f"memory back within {AIM_MS} ms of an unload"
    if figures is None:
        yield unmeasured(plan, aim, table, ROW)
    else:
        yield Aim.judged(aim, figures["largest_ms"] <= AIM_MS, f"{figures['largest_ms']:.0f} ms at most")
