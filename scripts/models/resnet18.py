"""ResNet-18 with random weights: a model of ordinary size, to put load on a server. It knows nothing.

Usage: resnet18.py FOLDER
"""

import pathlib
import sys

import torch
from torch import Tensor, nn

import common

CONFIG = """\
# ResNet-18 with random weights, for load: its answers mean nothing.
name: "resnet18"
backend: "pytorch"
max_batch_size: 8
input [ { name: "image" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] } ]
output [ { name: "logits" data_type: TYPE_FP32 dims: [ 1000 ] } ]
"""


class Block(nn.Module):
    """Two 3x3 convolutions, and a shortcut around them."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            # The shortcut has to arrive with the shape that it is added to.
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        return torch.relu(y + self.shortcut(x))


class ResNet18(nn.Module):
    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.stages = nn.Sequential(
            Block(64, 64, 1), Block(64, 64, 1),
            Block(64, 128, 2), Block(128, 128, 1),
            Block(128, 256, 2), Block(256, 256, 1),
            Block(256, 512, 2), Block(512, 512, 1),
        )  # fmt: skip
        self.head = nn.Linear(512, classes)

    def forward(self, image: Tensor) -> Tensor:
        features = self.stages(self.stem(image))
        return self.head(features.mean(dim=(2, 3)))


def main(folder: pathlib.Path) -> None:
    common.fix_randomness()
    common.write_model(folder, ResNet18(), CONFIG)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
