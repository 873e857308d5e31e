"""Loads libtorch_cuda, asks no device anything, and forks: can the copies compute on the device?

Usage: fork_probe.py DEVICE, with cuda or cpu. Prints {"works", "why", "copies", "ms"}.
"""

import ctypes
import json
import os
import pathlib
import select
import sys
import time

import torch

COPIES = 3
LIMIT = 25


def main(device):
    # `import torch` has it loaded already; this says so, or fails.
    ctypes.CDLL(str(pathlib.Path(torch.__path__[0]) / "lib/libtorch_cuda.so"), mode=ctypes.RTLD_GLOBAL)
    if torch.cuda.is_initialized():
        sys.exit("CUDA is initialised: this would prove nothing")
    began = time.monotonic()
    said = [heard(pipe, pid, began + LIMIT) for pipe, pid in [copy(device) for _ in range(COPIES)]]
    whys = [why for why in said if why]
    took = 1000 * (time.monotonic() - began)
    print(json.dumps({"works": not whys, "why": whys[0] if whys else "", "copies": COPIES, "ms": took}))


def copy(device):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return reading, pid
    try:
        os.write(writing, (trial(device) or "works").encode()[:1000])
    finally:
        os._exit(0)


def trial(device):
    """A text if it fails."""
    try:
        with torch.inference_mode():
            ones = torch.ones((256, 256), device=device)
            image = torch.ones((1, 3, 32, 32), device=device)
            product = (ones @ ones).sum().item()
            convolved = torch.nn.functional.conv2d(image, torch.ones((1, 3, 1, 1), device=device)).sum().item()
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    right = product == 256**3 and convolved == 3 * 32 * 32
    return "" if right else f"wrong results: {product}, {convolved}"


def heard(pipe, pid, end):
    try:
        if not select.select([pipe], [], [], max(end - time.monotonic(), 0))[0]:
            os.kill(pid, 9)
            return "no answer in time: it hangs"
        text = os.read(pipe, 1000).decode()
        return "" if text == "works" else text or "it ended by itself"
    finally:
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main(sys.argv[1])
