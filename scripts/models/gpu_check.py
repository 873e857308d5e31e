"""The models of scripts/gpu-check, as a model repository.

    w2        a 1x1 convolution that gives back what it is sent; input and output are images
    echo      gives back what it is sent, without a framework: what the way to a worker can carry
    resnet50  ResNet-50 with random weights
    five copies of a model that does as it is told: crash, oom, hang, assert, bystander

Usage: gpu_check.py FOLDER SIDE KIND [GPU]

Images are 3 x SIDE x SIDE. KIND is KIND_GPU, with the number of the GPU, or KIND_CPU.
"""

import pathlib
import shutil
import sys
from typing import List, Optional

import torch
from torch import Tensor, nn

import common
from resnet50 import ResNet50

FAULTY = ["crash", "oom", "hang", "assert", "bystander"]

BATCHED = """\
name: "{name}"
backend: "{backend}"
max_batch_size: 32
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ 3, {side}, {side} ] }} ]
output [ {{ name: "y" data_type: TYPE_FP32 dims: {dims} }} ]
instance_group [ {{ count: 1 {place} }} ]
"""
TOLD = """\
name: "{name}"
backend: "pytorch"
max_batch_size: 0
input [
  {{ name: "x" data_type: TYPE_FP32 dims: [ 1, 3, {side}, {side} ] }},
  {{ name: "what" data_type: TYPE_INT64 dims: [ 3 ] optional: true }}
]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 1, 3, {side}, {side} ] }} ]
instance_group [ {{ count: 1 {place} }} ]
"""


class W2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Conv2d(3, 3, 1, bias=False)
        with torch.no_grad():
            self.same.weight.copy_(torch.eye(3).reshape(3, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.same(x)


class Faulty(nn.Module):
    """As W2; `what` may be [1, TURNS, 0], [2, PIECES, MIB] or [3, INDEX, 0]."""

    def __init__(self) -> None:
        super().__init__()
        self.same = W2()
        self.table = nn.Embedding(8, 1)

    def forward(self, x: Tensor, what: Optional[Tensor] = None) -> Tensor:
        y = self.same(x)
        if what is None:
            return y
        fault, amount, size = int(what[0].item()), int(what[1].item()), int(what[2].item())
        turns = 0
        # A queue of work on the device that does not end.
        while fault == 1 and turns < amount:
            y = y * 0.5 + 1.0
            turns += 1
        taken: List[Tensor] = []
        while fault == 2 and len(taken) < amount:
            taken.append(torch.empty([size << 20], dtype=torch.uint8, device=x.device))
        if fault == 3:
            # On a GPU an index that is out of range is an assertion of the kernel, and the context is lost.
            y = y + self.table(what[1:2]).sum()
        return y


def main(folder: pathlib.Path, side: int, kind: str, gpu: str = "0") -> None:
    common.fix_randomness()
    place = f"kind: {kind}" + (f" gpus: [ {gpu} ]" if kind == "KIND_GPU" else "")
    image, classes = f"[ 3, {side}, {side} ]", "[ 1000 ]"

    def config(name: str, backend: str, dims: str) -> str:
        return BATCHED.format(name=name, backend=backend, side=side, dims=dims, place=place)

    common.write_model(folder / "w2", W2(), config("w2", "pytorch", image))
    common.write_model(folder / "resnet50", ResNet50(), config("resnet50", "pytorch", classes))
    (folder / "echo/1").mkdir(parents=True)
    on_host = config("echo", "echo", image).replace(place, "kind: KIND_CPU")
    (folder / "echo/config.pbtxt").write_text(on_host)
    for name in FAULTY:
        write_faulty(folder, name, TOLD.format(name=name, side=side, place=place))


def write_faulty(folder: pathlib.Path, name: str, config: str) -> None:
    first = folder / FAULTY[0] / "1/model.pt"
    if name == FAULTY[0]:
        common.write_model(folder / name, Faulty(), config)
        return
    (folder / name / "1").mkdir(parents=True)
    shutil.copyfile(first, folder / name / "1/model.pt")
    (folder / name / "config.pbtxt").write_text(config)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
