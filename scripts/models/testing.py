"""Small TorchScript models for the tests of the torch engine, and what Python's torch answers.

Writes FOLDER/NAME.pt for each model below, and FOLDER/testing.json:

    {"models": [{"name", "file", "arguments": [name of each argument of forward],
                 "returns": "tensor" | "tuple" | "list" | "dict",
                 "cases": [{"inputs": [TENSOR], "outputs": [TENSOR]} or {"inputs", "error"}]}]}

A TENSOR is {"name", "datatype", "shape", "data": flat list}; a scalar has the shape []. The outputs
of a dict have its keys for names, in its order; others are OUTPUT__0, OUTPUT__1 and so on. An error
is a piece of the message that the exception carries.

Writes FOLDER/faulty.pt as well, which does as it is told and has no cases: 0 nothing, 1 compute for
ever, 2 take memory without end, 3 raise.

Usage: testing.py FOLDER
"""

import copy
import json
import pathlib
import sys
from typing import Dict, List, Tuple

import torch
from torch import Tensor, nn

import common

DATATYPES = {
    torch.bool: "BOOL",
    torch.uint8: "UINT8",
    torch.int8: "INT8",
    torch.int16: "INT16",
    torch.int32: "INT32",
    torch.int64: "INT64",
    torch.float16: "FP16",
    torch.bfloat16: "BF16",
    torch.float32: "FP32",
    torch.float64: "FP64",
}
ERROR = "the sum is negative"


class Identity(nn.Module):
    """Its output is its input: the same memory."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class InPlace(nn.Module):
    """Writes into its input and gives that back."""

    def forward(self, x: Tensor) -> Tensor:
        return x.add_(1)


class Clone(nn.Module):
    """Takes every data type."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


class TupleOutput(nn.Module):
    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        return x + 1, x.sum(dim=1)


class ListOutput(nn.Module):
    def forward(self, x: Tensor) -> List[Tensor]:
        return [x, x * 2, x[:, :1]]


class DictOutput(nn.Module):
    def forward(self, x: Tensor) -> Dict[str, Tensor]:
        return {"twice": x * 2, "rows": x.sum(dim=1)}


class TwoInputs(nn.Module):
    """Not symmetric, so that arguments in the wrong order show."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a - 2 * b


class Raising(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if bool(x.sum() < 0):
            raise ValueError("the sum is negative")  # ERROR; a script cannot name a constant here
        return x * 2


class Strided(nn.Module):
    """Its output is not contiguous."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(0, 1)


class Scalar(nn.Module):
    """Its output has no dimensions."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum()


class Growing(nn.Module):
    """Its output is as large as the caller asks for."""

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        return x.repeat(int(n.item()))


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Faulty(nn.Module):
    """Does not answer, if so told."""

    def forward(self, x: Tensor, what: Tensor) -> Tensor:
        fault = int(what.item())
        turns = 0
        while fault == 1:
            turns += 1
        taken: List[Tensor] = []
        while fault == 2:
            taken.append(torch.ones(1 << 20))
        if fault == 3:
            raise ValueError("told to raise")
        return x * 2 + turns + len(taken)


def main(folder: pathlib.Path) -> None:
    common.fix_randomness()
    table = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, -6.5]])
    models = {
        "identity": (Identity(), [[table]]),
        "inplace": (InPlace(), [[table]]),
        "clone": (Clone(), [[sample(dtype)] for dtype in DATATYPES] + [[torch.zeros(0, 3)]]),
        "tuple": (TupleOutput(), [[table]]),
        "list": (ListOutput(), [[table]]),
        "dict": (DictOutput(), [[table]]),
        "two_inputs": (TwoInputs(), [[table, table.flip(0)]]),
        "raising": (Raising(), [[table], [-table]]),
        "strided": (Strided(), [[table]]),
        "scalar": (Scalar(), [[table]]),
        "growing": (Growing(), [[table[0], torch.tensor([n])] for n in (0, 1, 4)]),
        "mlp": (Mlp(), [[torch.rand(rows, 64)] for rows in (1, 3)]),
    }
    described = [write(folder, name, *model) for name, model in models.items()]
    common.script(Faulty()).save(str(folder / "faulty.pt"))
    (folder / "testing.json").write_text(json.dumps({"models": described}, indent=1) + "\n")


def sample(dtype: torch.dtype) -> Tensor:
    """Values that tell the type: its ends, and numbers that it holds exactly."""
    if dtype == torch.bool:
        return torch.tensor([True, False, True])
    if dtype.is_floating_point:
        return torch.tensor([0.0, -1.5, 0.25, 1024.0], dtype=dtype)
    ends = torch.iinfo(dtype)
    return torch.tensor([ends.min, 0, 1, ends.max], dtype=dtype)


def write(folder: pathlib.Path, name: str, module: nn.Module, samples: list[list[Tensor]]) -> dict:
    file = f"{name}.pt"
    scripted = common.script(module)
    scripted.save(str(folder / file))
    schema = scripted.forward.schema
    arguments = [argument.name for argument in schema.arguments[1:]]
    return {
        "name": name,
        "file": file,
        "arguments": arguments,
        "returns": schema.returns[0].type.kind().removesuffix("Type").lower(),
        "cases": [case(scripted, arguments, inputs) for inputs in samples],
    }


def case(module: nn.Module, arguments: list[str], inputs: list[Tensor]) -> dict:
    described = [describe(name, tensor) for name, tensor in zip(arguments, inputs, strict=True)]
    try:
        with torch.inference_mode():
            # A copy: some of the models write into their inputs.
            outputs = module(*copy.deepcopy(inputs))
    except torch.jit.Error as error:
        assert ERROR in str(error), error
        return {"inputs": described, "error": ERROR}
    if isinstance(outputs, Tensor):
        outputs = [outputs]
    if not isinstance(outputs, dict):
        outputs = {f"OUTPUT__{index}": tensor for index, tensor in enumerate(outputs)}
    return {"inputs": described, "outputs": [describe(*output) for output in outputs.items()]}


def describe(name: str, tensor: Tensor) -> dict:
    return {
        "name": name,
        "datatype": DATATYPES[tensor.dtype],
        "shape": list(tensor.shape),
        "data": tensor.flatten().tolist(),
    }


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
