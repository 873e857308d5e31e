"""Whether a process that is a copy of one with libtorch_cuda loaded can use the device.

Asked of Python's torch (fork_probe.py): Bulkhead itself starts workers for a GPU as programs of
their own as long as this is not known.
"""

import json
import subprocess

from gpu_check.report import NO_GPU

NAME = "zygote"
TITLE = "A copy (fork) of a Python that has loaded libtorch_cuda and asked no device anything"
COLUMNS = ["runs on the device", "copies at a time", "ms until its first result"]
ROW = "fork after libtorch_cuda"
LIMIT = 35


def rows(_plan):
    return [ROW]


def run(context, table):
    words = [context.python, "-B", "-m", "gpu_check.fork_probe", context.plan.device]
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:]
        table.add(ROW, [], why=f"the probe ended with code {done.returncode}: {' '.join(last)}")
        return
    probe = json.loads(done.stdout)
    said = "works" if probe["works"] else f"does not work: {probe['why']}"
    cells = [said, probe["copies"], f"{probe['ms']:.0f}"]
    if not context.plan.on_gpu:
        cells = [f"a copy on the CPU: {said}"]
    table.add(ROW, cells, why=None if context.plan.on_gpu else NO_GPU, works=probe["works"])


def aims(_plan, _table):
    return []
