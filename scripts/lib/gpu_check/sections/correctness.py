"""Whether Bulkhead answers as Python's torch does, from the same file on the same device."""

from bench.server import Failure
from gpu_check import calls
from gpu_check.plan import BATCHES, MODELS, TITLES
from gpu_check.report import Aim
from gpu_check.server import serving

NAME = "correctness"
TITLE = "Correctness: answers against Python's torch"
COLUMNS = ["largest difference, as a part of the largest value"]
# The GPU may choose another algorithm with TF32, which has 10 bits, in each of 50 layers.
LIMITS = {"cuda": 1e-2, "cpu": 1e-4}
SEEDS = [1, 2]


def rows(_plan):
    return [row(model, batch) for model in MODELS for batch in BATCHES]


def row(model, batch):
    return f"{TITLES[model]}, batch {batch}"


def run(context, table):
    with serving(context, MODELS, "8GiB", slots(context)) as server:
        for model in MODELS:
            for batch in BATCHES:
                seen = [compare(context, server.address, model, batch, seed) for seed in SEEDS]
                equal, difference = all(one["equal"] for one in seen), max(one["difference"] for one in seen)
                cell = "none: equal bit for bit" if equal else f"{difference:.1e}"
                table.add(row(model, batch), [cell], equal=equal, difference=difference)


def slots(context):
    """Requests of the largest batch go through slots, and not through memory of their own."""
    size = max(context.plan.image_bytes(batch) for batch in BATCHES) + 4096
    keys = f'slots = 8\nslot_size = "{size}"\ninfer_timeout = "1m"\n'
    return "".join(f"\n[models.{model}]\n{keys}" for model in [*MODELS, "echo"])


def compare(context, address, model, batch, seed):
    file, shape, folder = context.model_file(model), context.shape(batch), str(context.folder)
    context.torch().ask("reference", file=file, shape=shape, seed=seed, folder=folder)
    given = (context.folder / "input").read_bytes()
    answer = calls.infer(address, model, [("x", "FP32", shape, given)])
    if not answer.good:
        raise Failure(f"{model}, batch {batch}: {answer.status}: {answer.error}")
    (context.folder / "answer").write_bytes(answer.data)
    return context.torch().ask("compare", folder=folder)


def aims(plan, table):
    limit = LIMITS[plan.device]
    for name in rows(plan):
        figures, aim = table.figures(name), f"answers as Python's, {name}"
        if figures is None:
            # Needs no GPU.
            yield Aim.judged(aim, False, table.rows[name]["why"])
        else:
            difference = figures["difference"]
            yield Aim.judged(aim, difference <= limit, f"{difference:.1e}, at most {limit:.0e}")
