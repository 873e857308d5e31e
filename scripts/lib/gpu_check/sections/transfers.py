"""What copies between host and device take, in Python's torch: the bound of any server."""

from gpu_check.plan import BATCHES
from gpu_check.report import NO_GPU

NAME = "transfers"
TITLE = "Copies between host and device, Python's torch"
COLUMNS = ["host to device GB/s", "device to host GB/s"]
KINDS = {"pinned": True, "pageable": False}


def sizes(plan):
    images = {f"{batch} image{'s' * (batch > 1)}": plan.image_bytes(batch) for batch in BATCHES}
    return {**images, "64 MiB": 64 << 20}


def rows(plan):
    return [f"{kind}, {size}" for kind in KINDS for size in sizes(plan)]


def run(context, table):
    for kind, pinned in KINDS.items():
        for size, count in sizes(context.plan).items():
            rates = context.torch().ask("transfer", size=count, pinned=pinned)
            cells = [f"{rates['to']:.1f}", f"{rates['from']:.1f}"]
            if context.plan.on_gpu:
                table.add(f"{kind}, {size}", cells, to=rates["to"], back=rates["from"])
            else:
                table.add(f"{kind}, {size}", [], why=NO_GPU)


def aims(_plan, _table):
    return []
