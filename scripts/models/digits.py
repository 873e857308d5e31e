"""The digits model: a small network that reads handwritten digits, trained here in seconds.

The data are the 1797 images of 8x8 pixels that come with scikit-learn. A fifth is held out: the
network never sees it, and it is written to DATA for tests and examples:

    images.f32      the held-out images, float32 little endian, N x 1 x 8 x 8, each pixel 0 to 1
    labels.u8       which digit each of them is, a byte each
    logits.f32      what the exported model answers to each, as Python's torch runs it, N x 10
    python.json     {"count", "accuracy", "labels": the digits that those answers stand for}
    one.json        a request body for one of the images
    one.label       the digit that this image is

Usage: digits.py FOLDER DATA
"""

import json
import pathlib
import sys

import numpy
import sklearn.datasets
import torch
from torch import Tensor, nn

import common

CONFIG = """\
# Reads handwritten digits of 8x8 pixels, each 0 (white) to 1 (black): the largest of the ten
# logits is at the index that is the digit.
name: "digits"
backend: "pytorch"
max_batch_size: 32
input [ { name: "image" data_type: TYPE_FP32 dims: [ 1, 8, 8 ] } ]
output [ { name: "logits" data_type: TYPE_FP32 dims: [ 10 ] } ]
"""

EPOCHS = 25
BATCH = 32
LOWEST_ACCURACY = 0.95


class Digits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.drop = nn.Dropout(0.25)
        self.head = nn.Linear(32 * 2 * 2, 10)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.drop(self.features(image).flatten(1)))


def main(folder: pathlib.Path, data: pathlib.Path) -> None:
    common.fix_randomness()
    images, labels = load_images()
    order = torch.randperm(len(images))
    held_out, seen = order[: len(order) // 5], order[len(order) // 5 :]

    model = train(images[seen], labels[seen])
    file = common.write_model(folder, model, CONFIG)

    # One image at a time, from the file: just what a server does that batches nothing.
    exported = torch.jit.load(str(file))
    with torch.inference_mode():
        logits = torch.cat([exported(image[None]) for image in images[held_out]])
    accuracy = write_held_out(data, images[held_out], labels[held_out], logits)
    print(f"accuracy on {len(held_out)} held-out images: {accuracy:.4f}")
    if accuracy < LOWEST_ACCURACY:
        sys.exit(f"the accuracy is below {LOWEST_ACCURACY}: the training did not work")


def load_images() -> tuple[Tensor, Tensor]:
    digits = sklearn.datasets.load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    return images, torch.tensor(digits.target)


def train(images: Tensor, labels: Tensor) -> nn.Module:
    model = Digits().train()
    steps = EPOCHS * (len(images) // BATCH + 1)
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(BATCH):
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model


def write_held_out(data: pathlib.Path, images: Tensor, labels: Tensor, logits: Tensor) -> float:
    """Returns the share of images that the logits read rightly."""
    answers = logits.argmax(1)
    right = answers == labels
    accuracy = right.float().mean().item()

    data.mkdir(parents=True, exist_ok=True)
    (data / "images.f32").write_bytes(images.numpy().astype("<f4").tobytes())
    (data / "labels.u8").write_bytes(labels.numpy().astype(numpy.uint8).tobytes())
    (data / "logits.f32").write_bytes(logits.numpy().astype("<f4").tobytes())
    known = {"count": len(labels), "accuracy": accuracy, "labels": answers.tolist()}
    (data / "python.json").write_text(json.dumps(known) + "\n")

    one = int(right.nonzero()[0])
    (data / "one.json").write_text(json.dumps(request_for(images[one : one + 1])) + "\n")
    (data / "one.label").write_text(f"{labels[one].item()}\n")
    return accuracy


def request_for(image: Tensor) -> dict:
    """A request body of the Open Inference Protocol with one tensor."""
    tensor = {"name": "image", "datatype": "FP32", "shape": list(image.shape), "data": image.tolist()}
    return {"inputs": [tensor]}


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:]))
