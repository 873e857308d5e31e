"""Python's torch, taking orders: a line of JSON in, a line of JSON out. See torch_side.py.

Usage: in_torch.py DEVICE, with cuda or cpu
"""

import importlib.util
import json
import os
import pathlib
import statistics
import sys
import time

import torch

# Before anything is timed.
WARM_RUNS = 5
REPEATS = 20


def main(device):
    # What libraries print must not come between two answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    torch.set_num_threads(1)
    side = Side(torch.device(device, 0))
    answers.write(json.dumps(answered(side.about, {})) + "\n")
    for line in sys.stdin:
        order = json.loads(line)
        answers.write(json.dumps(answered(getattr(side, order.pop("what")), order)) + "\n")


def answered(call, order):
    try:
        with torch.inference_mode():
            return call(**order)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}


class Side:
    def __init__(self, device):
        self.device = device
        self.models = {}

    def about(self):
        about = {"torch": torch.__version__, "libraries": libraries(), "device": "the CPU"}
        if self.device.type == "cuda":
            properties = torch.cuda.get_device_properties(self.device)
            about |= {"device": properties.name, "memory": properties.total_memory, "cuda": torch.version.cuda}
            torch.zeros(1, device=self.device)
        return about

    def memory(self):
        """Of the whole device, in use by all processes."""
        free, total = torch.cuda.mem_get_info(self.device)
        return {"used": total - free}

    def model(self, file):
        if file not in self.models:
            self.models[file] = torch.jit.load(file, map_location=self.device).eval()
        return self.models[file]

    def reference(self, file, shape, seed, folder):
        """Writes an input, and what this torch makes of it."""
        folder = pathlib.Path(folder)
        generator = torch.Generator().manual_seed(seed)
        given = torch.rand(shape, generator=generator)
        self.settle(self.model(file), given.to(self.device))
        result = self.model(file)(given.to(self.device)).cpu().contiguous()
        (folder / "input").write_bytes(given.numpy().tobytes())
        (folder / "expected").write_bytes(result.numpy().tobytes())
        return {}

    def compare(self, folder):
        """The largest difference, as a part of the largest value."""
        folder = pathlib.Path(folder)
        expected, answer = ((folder / name).read_bytes() for name in ["expected", "answer"])
        if len(expected) != len(answer):
            return {"error": f"{len(answer)} bytes instead of {len(expected)}"}
        ours, theirs = (torch.frombuffer(bytearray(part), dtype=torch.float32) for part in [answer, expected])
        if not ours.isfinite().all():
            return {"error": "not all values of the answer are finite"}
        difference = (ours - theirs).abs().max() / theirs.abs().max()
        return {"equal": expected == answer, "difference": difference.item()}

    def baseline(self, file, shape, seconds):
        """One batch after the other: to the device, the model, back to the host. Then the model alone."""
        model = self.model(file)
        given = self.pinned(torch.rand(shape))
        result = self.pinned(torch.empty_like(model(given.to(self.device)), device="cpu"))

        def whole():
            result.copy_(model(given.to(self.device, non_blocking=True)), non_blocking=True)
            self.wait()

        there = given.to(self.device)

        def bare():
            model(there)
            self.wait()

        self.settle(model, there)
        return {"whole": timed(whole, seconds), "bare": timed(bare, seconds / 3)}

    def transfer(self, size, pinned):
        """GB/s in both directions, medians."""
        host, device = torch.zeros(size, dtype=torch.uint8), torch.zeros(size, dtype=torch.uint8, device=self.device)
        if pinned:
            host = self.pinned(host)
        rates = {}
        for name, target, source in [("to", device, host), ("from", host, device)]:
            times = []
            for _ in range(REPEATS):
                self.wait()
                began = time.perf_counter()
                target.copy_(source, non_blocking=pinned)
                self.wait()
                times.append(time.perf_counter() - began)
            rates[name] = size / statistics.median(times) / 1e9
        return rates

    def settle(self, model, given):
        # The first runs observe, choose algorithms and take memory.
        for _ in range(WARM_RUNS):
            model(given)
        self.wait()

    def pinned(self, tensor):
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def timed(step, seconds):
    times = []
    began = time.perf_counter()
    while not times or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    spent = time.perf_counter() - began
    times.sort()

    def ranked(percent):
        return times[min(percent * len(times) // 100, len(times) - 1)] * 1e6

    return {"count": len(times), "per_second": len(times) / spent, "p50_us": ranked(50), "p99_us": ranked(99)}


def libraries():
    """Where libtorch is, and what it needs of NVIDIA's."""
    found = [pathlib.Path(torch.__path__[0]) / "lib"]
    nvidia = importlib.util.find_spec("nvidia")
    for place in nvidia.submodule_search_locations if nvidia else []:
        found += sorted(pathlib.Path(place).glob("*/lib"))
    return [str(folder) for folder in found if folder.is_dir()]


if __name__ == "__main__":
    main(sys.argv[1])
